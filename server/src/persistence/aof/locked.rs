//! Running a log's commands one after the other while all shards are locked, so that nobody sees or changes anything
//! before the last of them: for DEBUG LOADAOF.

use std::sync::Arc;

use protocol::resp::{
    reply::{ReplyWriter, Version},
    request::Span,
};
use storage::db::Db;

use crate::{
    dispatch::{self, Found, args::Args, command::Reply, table::Registered, transaction::Queued},
    lanes::Executor,
    server::Server,
    session::Session,
};

pub(super) struct Locked<'v, 'k> {
    db: &'v mut Db<'k>,
    session: Session,
    reply: Reply,
    /// The transaction that is being read.
    transaction: Option<Vec<Queued>>,
}

impl<'v, 'k> Locked<'v, 'k> {
    /// `db` has all shards locked; its database is the log's from now on.
    pub(super) fn new(server: &Arc<Server>, db: &'v mut Db<'k>) -> Locked<'v, 'k> {
        let mut session = Session::internal(server.clone(), 0);
        session.flags.loads = true;
        db.select(session.database);
        Locked {
            db,
            session,
            reply: Reply::new(ReplyWriter::new(Version::Resp2)),
            transaction: None,
        }
    }

    fn run(&mut self, registered: &'static Registered, args: &Args<'_>) {
        self.db.begin_unheard();
        let (session, db, reply) = (&mut self.session, &mut *self.db, &mut self.reply);
        // What failed when it was logged fails again.
        let _ = dispatch::call::call_any(session, db, registered.command, args, reply);
        reply.later = None;
        reply.writer.clear();
    }
}

impl Executor for Locked<'_, '_> {
    fn in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    fn take(&mut self, bytes: &[u8], spans: &[Span], found: Found<'static>) {
        let args = Args::new(bytes, spans);
        // What has the wrong number of words was refused when it was sent.
        let Ok(registered) = dispatch::resolve(found.registered, &args) else {
            return;
        };
        match (registered.command.name, &mut self.transaction) {
            ("MULTI", None) => self.transaction = Some(Vec::new()),
            ("EXEC", Some(queued)) => {
                for queued in std::mem::take(queued) {
                    self.run(queued.registered, &queued.args());
                }
                self.transaction = None;
            }
            ("DISCARD", Some(_)) => self.transaction = None,
            (_, Some(queue)) => queue.push(Queued::new(registered, &args)),
            (_, None) => self.run(registered, &args),
        }
    }
}
