//! What other threads have for a connection: messages, invalidations, the reply that it waits for.
//!
//! Whoever has something pushes it here, already encoded; the connection writes it between whole replies. A message
//! for many is encoded once per protocol version and shared. The worker is told once for all its connections that have
//! mail, not once per piece: see [`Post`]. A connection that does not keep up is closed by `client-output-buffer-limit`.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    output::Output,
    resp::reply::{ReplyWriter, Version},
};
use tokio::sync::Notify;

use super::registry::Client;
use crate::{
    config::{OutputLimit, OutputLimits},
    dispatch::command::Later,
    log, server,
};

/// Something for many connections, encoded for those that need it: once per version.
pub struct Message<F> {
    write: F,
    encoded: [OnceCell<Bytes>; 2],
}

impl<F: Fn(&mut ReplyWriter)> Message<F> {
    pub fn new(write: F) -> Message<F> {
        Message {
            write,
            encoded: [OnceCell::new(), OnceCell::new()],
        }
    }

    pub fn bytes(&self, version: Version) -> Bytes {
        let slot = match version {
            Version::Resp2 => &self.encoded[0],
            Version::Resp3 => &self.encoded[1],
        };
        slot.get_or_init(|| {
            let mut writer = ReplyWriter::new(version);
            (self.write)(&mut writer);
            Bytes::from(writer.into_output().to_vec())
        })
        .clone()
    }
}

enum Piece {
    Shared(Bytes),
    Reply(Output, Option<Box<dyn Later>>),
}

/// What is on its way to one connection.
#[derive(Default)]
pub struct Mailbox {
    /// Whether there is anything, so that looking costs a load.
    filled: AtomicBool,
    bytes: AtomicUsize,
    /// Made when the first piece is left.
    contents: Mutex<Option<Box<Contents>>>,
}

#[derive(Default)]
struct Contents {
    pieces: VecDeque<Piece>,
    /// Since when more than the soft limit is unsent; 0 when it is not.
    over_soft_since_ms: i64,
    /// The limit was passed: nothing more is taken.
    closed: bool,
}

impl Mailbox {
    #[inline]
    pub fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Acquire)
    }

    /// Bytes waiting here.
    pub fn len_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        let contents = self.contents.lock();
        contents
            .as_ref()
            .map_or(0, |contents| contents.pieces.len())
    }

    pub fn is_empty(&self) -> bool {
        !self.is_filled()
    }
}

/// The way to the connections of one worker.
#[derive(Default)]
pub struct Post {
    pending: Mutex<Vec<Arc<Client>>>,
    notify: Notify,
}

impl Post {
    fn tell(&self, client: Arc<Client>) {
        let mut pending = self.pending.lock();
        pending.push(client);
        if pending.len() == 1 {
            self.notify.notify_one();
        }
    }

    /// Wakes this worker's connections that have mail, until the program ends. Runs on the worker.
    pub async fn run(self: Arc<Post>) {
        loop {
            self.notify.notified().await;
            let pending = std::mem::take(&mut *self.pending.lock());
            pending.iter().for_each(|client| client.wake());
        }
    }
}

/// `client-output-buffer-limit`, and how often it was passed.
#[derive(Default)]
pub struct OutputGuard {
    normal: Limit,
    replica: Limit,
    pubsub: Limit,
    pub disconnections: AtomicU64,
}

#[derive(Default)]
struct Limit {
    hard_bytes: AtomicU64,
    soft_bytes: AtomicU64,
    soft_seconds: AtomicU64,
}

impl Limit {
    fn set(&self, limit: &OutputLimit) {
        self.hard_bytes.store(limit.hard_bytes, Ordering::Relaxed);
        self.soft_bytes.store(limit.soft_bytes, Ordering::Relaxed);
        self.soft_seconds
            .store(limit.soft_seconds, Ordering::Relaxed);
    }

    /// Whether so many unsent bytes are too many, given since when they are over the soft limit.
    fn is_passed(&self, unsent: u64, since_ms: &mut i64, now_ms: i64) -> bool {
        let hard = self.hard_bytes.load(Ordering::Relaxed);
        if hard > 0 && unsent > hard {
            return true;
        }
        let soft = self.soft_bytes.load(Ordering::Relaxed);
        if soft == 0 || unsent <= soft {
            *since_ms = 0;
            return false;
        }
        if *since_ms == 0 {
            *since_ms = now_ms;
        }
        let seconds = self.soft_seconds.load(Ordering::Relaxed);
        (now_ms - *since_ms) / 1000 > seconds as i64
    }
}

impl OutputGuard {
    /// Takes over what settings say; a replica may be as far behind as the backlog goes, whatever its limit is.
    pub fn configure(&self, limits: &OutputLimits, backlog_bytes: u64) {
        let mut replica = limits.replica;
        if replica.hard_bytes > 0 {
            replica.hard_bytes = replica.hard_bytes.max(backlog_bytes);
        }
        self.normal.set(&limits.normal);
        self.replica.set(&replica);
        self.pubsub.set(&limits.pubsub);
    }

    /// What may be kept for a replica.
    pub fn replica_bytes(&self) -> u64 {
        match self.replica.hard_bytes.load(Ordering::Relaxed) {
            0 => u64::MAX,
            hard => hard,
        }
    }

    fn limit(&self, client: &Client) -> &Limit {
        if client.is_replica.load(Ordering::Relaxed) {
            &self.replica
        } else if client.subscriptions() > 0 {
            &self.pubsub
        } else {
            &self.normal
        }
    }
}

impl Client {
    /// Leaves a message for the connection.
    pub fn push<F: Fn(&mut ReplyWriter)>(self: &Arc<Client>, message: &Message<F>) {
        let version = if self.resp3.load(Ordering::Relaxed) {
            Version::Resp3
        } else {
            Version::Resp2
        };
        let bytes = message.bytes(version);
        self.leave(bytes.len(), Piece::Shared(bytes));
    }

    /// Leaves the reply that the connection waits for, and what is left to write of it.
    pub fn leave_reply(self: &Arc<Client>, output: Output, later: Option<Box<dyn Later>>) {
        self.leave(output.len(), Piece::Reply(output, later));
    }

    fn leave(self: &Arc<Client>, len: usize, piece: Piece) {
        let mut locked = self.mailbox.contents.lock();
        let contents = locked.get_or_insert_default();
        if contents.closed {
            return;
        }
        let first = contents.pieces.is_empty();
        contents.pieces.push_back(piece);
        self.mailbox.bytes.fetch_add(len, Ordering::Relaxed);
        // Release: who sees it locks the contents and finds the piece.
        self.mailbox.filled.store(true, Ordering::Release);
        self.enforce(contents);
        drop(locked);
        self.account();
        if first {
            self.post.tell(self.clone());
        }
    }

    /// Closes the connection if too much is unsent for its class, or for too long.
    pub fn enforce_output_limit(&self) {
        let mut contents = self.mailbox.contents.lock();
        if contents.is_some() || self.unsent_bytes() > 0 {
            self.enforce(contents.get_or_insert_default());
        }
    }

    fn enforce(&self, contents: &mut Contents) {
        let unsent = self.unsent_bytes();
        let limit = self.limits.output.limit(self);
        let now = server::now().millis();
        if limit.is_passed(unsent as u64, &mut contents.over_soft_since_ms, now) {
            self.close_for(contents, unsent);
        }
    }

    /// Closes the connection, for so many bytes that wait for it were too many.
    pub fn close_for_unsent(&self, unsent: usize) {
        self.close_for(self.mailbox.contents.lock().get_or_insert_default(), unsent);
    }

    fn close_for(&self, contents: &mut Contents, unsent: usize) {
        if contents.closed {
            return;
        }
        contents.closed = true;
        contents.pieces.clear();
        self.mailbox.bytes.store(0, Ordering::Relaxed);
        log::warning(format!(
            "Client id={} addr={} closed for overcoming of output buffer limits: {unsent} bytes wait",
            self.id, self.address
        ));
        self.limits
            .output
            .disconnections
            .fetch_add(1, Ordering::Relaxed);
        self.kill();
    }

    /// Appends what was left for the connection. A reply that goes on later ends it: its rest is returned.
    pub fn collect_mail(&self, writer: &mut ReplyWriter) -> Option<Box<dyn Later>> {
        if !self.mailbox.is_filled() {
            return None;
        }
        let mut contents = self.mailbox.contents.lock();
        let contents = contents.as_mut()?;
        while let Some(piece) = contents.pieces.pop_front() {
            let len = match &piece {
                Piece::Shared(bytes) => bytes.len(),
                Piece::Reply(output, _) => output.len(),
            };
            self.mailbox.bytes.fetch_sub(len, Ordering::Relaxed);
            match piece {
                Piece::Shared(bytes) => writer.raw_shared(bytes),
                Piece::Reply(output, later) => {
                    writer.output_mut().append(&output);
                    if later.is_some() {
                        let empty = contents.pieces.is_empty();
                        self.mailbox.filled.store(!empty, Ordering::Relaxed);
                        return later;
                    }
                }
            }
        }
        // Under the lock that pushers take, so no piece goes unseen.
        self.mailbox.filled.store(false, Ordering::Relaxed);
        None
    }
}
