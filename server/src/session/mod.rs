//! What the server knows of one connection.

pub mod mailbox;
pub mod memory;
pub mod registry;
pub mod subscriptions;

use std::{
    num::NonZero,
    sync::{Arc, atomic::Ordering},
};

use protocol::resp::reply::Version;

use self::{registry::Client, subscriptions::Subscriptions};
use crate::{
    acl::User,
    dispatch::{blocking::Waiter, table::Registered, transaction::Transaction},
    metrics::WorkerMetrics,
    migration::Migration,
    replication::primary::Wanted,
    scripting::Libraries,
    server::{self, Server},
};

/// A connection's state, owned by the one worker it lives on.
pub struct Session {
    pub server: Arc<Server>,
    /// What others may know of it.
    pub client: Arc<Client>,
    pub database: usize,
    pub version: Version,
    pub flags: Flags,
    pub user: Arc<User>,
    /// What the thread counts that the connection lives on.
    pub metrics: Arc<WorkerMetrics>,
    /// Commands run so far, those of transactions and scripts included, modulo 2^32.
    pub commands: u32,
    pub transaction: Option<Box<Transaction>>,
    /// The functions that a transaction calls, as they were when it locked its keys.
    pub libraries: Option<Libraries>,
    pub subscriptions: Option<Box<Subscriptions>>,
    /// What a replica said of itself, and the stream that it asked for with this connection.
    pub wanted: Option<Box<Wanted>>,
    /// What TIME says until the end of the transaction or script that runs, in microseconds.
    pub frozen_time: Option<NonZero<u64>>,
    /// The command runs again at this time (milliseconds since the epoch).
    pub retry_at: Option<NonZero<i64>>,
    /// What a WAIT or WAITAOF that runs again waits for.
    pub patience: Option<Box<Patience>>,
    /// Keys that a MIGRATE that runs again has sent on their way.
    pub migration: Option<Arc<Migration>>,
    /// The command that waits, and with it the connection.
    pub waiter: Option<Arc<Waiter>>,
}

/// What somebody waits for who waits for replicas, the disk or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub until_ms: i64,
    /// The stream's end when it began.
    pub offset: u64,
    /// And that of the append-only file.
    pub logged: u64,
    /// How many requests to end the server had failed by then.
    pub failures: u64,
}

/// States that commands and replies depend on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// May use the server: gave the password, or none is set.
    pub authenticated: bool,
    /// Said goodbye: close once the replies are written.
    pub closing: bool,
    /// CLIENT REPLY OFF.
    pub replies_off: bool,
    /// CLIENT REPLY SKIP was just said: skip the next reply.
    pub skip_next: bool,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Loads the append-only file: may work on data that is not complete.
    pub loads: bool,
    /// Applies the primary's stream: may write to a replica.
    pub from_primary: bool,
    /// The connection is a replica's now, and another's to serve.
    pub handed_over: bool,
    /// Commands are queued for EXEC.
    pub in_transaction: bool,
    /// EXEC runs: what is written is part of its reply.
    pub in_exec: bool,
    /// A script runs: what a command writes is for the script.
    pub in_script: bool,
    /// It is shown all commands, and runs none on data itself.
    pub monitors: bool,
    /// The keys it reads are noted, see `tracking`.
    pub tracks_reads: bool,
    /// CLIENT CACHING was said for the next command, or the transaction.
    pub caching: bool,
    /// There are subscriptions, so RESP2 has room for little else.
    pub subscribed: bool,
    /// A script keeps what it does from the replicas.
    pub hides_from_replicas: bool,
    /// CLIENT PAUSE holds its command back.
    pub paused: bool,
}

impl Flags {
    /// Whether it is a connection like most: nothing about it changes how a command on data runs.
    #[inline]
    pub fn are_plain(&self) -> bool {
        const PLAIN: Flags = Flags {
            authenticated: true,
            closing: false,
            replies_off: false,
            skip_next: false,
            no_touch: false,
            loads: false,
            from_primary: false,
            handed_over: false,
            in_transaction: false,
            in_exec: false,
            in_script: false,
            monitors: false,
            tracks_reads: false,
            caching: false,
            subscribed: false,
            hides_from_replicas: false,
            paused: false,
        };
        *self == PLAIN
    }
}

impl Session {
    pub fn new(server: Arc<Server>, client: Arc<Client>, metrics: Arc<WorkerMetrics>) -> Session {
        let authenticated = server.acl.is_open();
        let user = server.acl.default_user().clone();
        Session {
            server,
            client,
            database: 0,
            version: Version::Resp2,
            flags: Flags {
                authenticated,
                ..Flags::default()
            },
            user,
            metrics,
            commands: 0,
            transaction: None,
            libraries: None,
            subscriptions: None,
            wanted: None,
            frozen_time: None,
            retry_at: None,
            patience: None,
            migration: None,
            waiter: None,
        }
    }

    /// A session of the server itself, which may do everything: loading the append-only file is one. It counts as this
    /// worker.
    pub fn internal(server: Arc<Server>, worker: usize) -> Session {
        let client = Client::internal(server::now().millis());
        let metrics = server.metrics.workers[worker].clone();
        let mut session = Session::new(server, Arc::new(client), metrics);
        session.flags.authenticated = true;
        session.user = User::of_the_server();
        session
    }

    /// Counts a command that has run.
    #[inline]
    pub fn count_command(&mut self, registered: &Registered, nanoseconds: u64) {
        self.metrics.commands[registered.id].record(nanoseconds);
        self.commands = self.commands.wrapping_add(1);
    }

    /// Whether its commands have been run elsewhere before, so that they run here too, come what may.
    #[inline]
    pub fn repeats(&self) -> bool {
        self.flags.from_primary || self.flags.loads
    }

    /// Back to how a connection begins, as RESET does.
    pub fn reset(&mut self) {
        self.leave_transaction();
        self.unsubscribe_all();
        self.stop_tracking();
        self.stop_monitoring();
        self.database = 0;
        self.client.set_database(0);
        self.version = Version::Resp2;
        let authenticated = self.server.acl.is_open();
        self.user = self.server.acl.default_user().clone();
        self.flags = Flags {
            authenticated,
            // The reply to RESET is the one that is skipped.
            skip_next: self.flags.skip_next,
            ..Flags::default()
        };
        self.client.reset();
    }
}

impl Session {
    /// Waits for replicas or the disk from now on.
    pub fn begin_patience(&mut self, patience: Patience) {
        self.patience = Some(Box::new(patience));
        self.client.begin_patience();
        self.server.patient.lock().push(self.client.clone());
        self.server.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// Its command is held back by CLIENT PAUSE, be it that it waits for something else already.
    pub fn begin_pause(&mut self) {
        if self.patience.is_none() && !std::mem::replace(&mut self.flags.paused, true) {
            self.client.set_paused(true);
            self.server.held_back.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Its command is not held back any more.
    #[inline]
    pub fn end_pause(&mut self) {
        if std::mem::take(&mut self.flags.paused) {
            self.client.set_paused(false);
            self.server.held_back.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits for replicas or the disk no longer.
    pub fn end_patience(&mut self) {
        if self.patience.take().is_some() {
            self.client.end_patience();
            let id = self.client.id;
            self.server.patient.lock().retain(|client| client.id != id);
            self.server.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Is shown commands no longer.
    fn stop_monitoring(&mut self) {
        if std::mem::take(&mut self.flags.monitors) {
            self.server.monitors.remove(&self.client);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.leave_waiting();
        self.end_patience();
        self.end_pause();
        self.leave_transaction();
        self.unsubscribe_all();
        self.stop_tracking();
        self.stop_monitoring();
        if !self.flags.handed_over {
            self.server.clients.remove(self.client.id);
        }
    }
}
