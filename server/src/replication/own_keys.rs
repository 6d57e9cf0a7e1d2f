//! Keys with deadlines that clients of a writable replica made. A replica leaves it to its primary to delete what has
//! expired, but these the primary does not know.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use storage::{db::Db, keyspace::Key, time::Timestamp};

use crate::{
    dispatch::{
        args::Args,
        call::release,
        command::{Command, Run},
        keys,
    },
    server::{self, Server},
    session::Session,
};

/// More are not looked after: they stay hidden until the replica is promoted.
const MOST: usize = 1 << 20;
/// Keys deleted in one go.
const BUDGET: usize = 1024;

/// A key and its database.
type Place = (usize, Box<[u8]>);

/// By deadline, with what it was when the key was noted.
#[derive(Default)]
pub struct OwnKeys(Mutex<BTreeSet<(i64, Place)>>);

/// Keys that a command of a replica's client may change; none if it may not, or is the primary's.
pub fn touched(session: &Session, command: &Command, args: &Args<'_>) -> Vec<Place> {
    let mut places = Vec::new();
    let replication = &session.server.replication;
    if !replication.is_replica()
        || session.flags.from_primary
        || session.server.config.settings().replica_read_only
    {
        return places;
    }
    let mut add = |command: &Command, args: &Args<'_>| {
        if command.is_write() || matches!(command.run, Run::Script(_)) {
            keys::each_key(command, args, |index, _| {
                places.push((session.database, args.word(index).into()));
            });
        }
    };
    add(command, args);
    if matches!(command.run, Run::Exec) {
        let queue = session.transaction.iter();
        queue
            .flat_map(|transaction| transaction.queued())
            .for_each(|queued| add(queued.registered.command, &queued.args()));
    }
    places
}

impl OwnKeys {
    /// Notes those that have a deadline now. Nothing is locked.
    pub fn note(&self, server: &Server, places: Vec<Place>) {
        let mut db = Db::new(&server.keyspace, 0, server::now());
        db.expire_nothing();
        for place in places {
            db.select(place.0);
            let key = Key::new(&place.1);
            if db.try_lock(key.hash).is_err() {
                continue;
            }
            let deadline = db.peek(key).and_then(|entry| entry.deadline());
            db.unlock();
            let mut noted = self.0.lock();
            if let Some(deadline) = deadline.filter(|_| noted.len() < MOST) {
                noted.insert((deadline.millis(), place));
            }
        }
    }

    /// Deletes those whose deadline has passed.
    pub fn sweep(&self, server: &Server, now: Timestamp) {
        let mut db = Db::new(&server.keyspace, 0, now);
        for _ in 0..BUDGET {
            let mut noted = self.0.lock();
            let Some(first) = noted.first().filter(|(at, _)| *at <= now.millis()).cloned() else {
                return;
            };
            noted.remove(&first);
            drop(noted);
            let (database, key) = first.1;
            db.select(database);
            let key = Key::new(&key);
            if db.try_lock(key.hash).is_ok() {
                db.expire(key);
                release(server, &mut db);
            }
        }
    }

    /// The data is another's now.
    pub fn forget(&self) {
        self.0.lock().clear();
    }
}
