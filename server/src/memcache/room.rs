//! Room in memory for what memcached's requests store: others are evicted, or the request is refused.

use protocol::memcache::{
    Reply, Request, StoreVerb,
    meta::{Flag, SetMode},
    response::ResponseWriter,
};
use storage::{db::Db, keyspace::Key};

use super::{
    item, meta,
    stats::{Counted, Counters},
    watch::Stored,
};
use crate::{config::Settings, dispatch::memory, session::Session};

/// Makes room before a request that may need some. Whether there is none.
#[cold]
pub(super) fn is_refused(
    session: &Session,
    db: &mut Db<'_>,
    settings: &Settings,
    request: &Request<'_>,
) -> bool {
    let creates = match request {
        Request::Store { .. } | Request::MetaSet { .. } => true,
        Request::MetaGet { flags, .. } | Request::MetaArithmetic { flags, .. } => {
            flags.has(Flag::Vivify)
        }
        // A counter changes in its place.
        _ => false,
    };
    creates
        && memory::make_room(&session.server, db, memory::patience(settings)) == memory::Room::None
}

/// Says that there is no memory. A value that could not be replaced goes, lest it be taken for the one that was sent.
#[cold]
pub(super) fn refuse(
    db: &mut Db<'_>,
    counters: &Counters<'_>,
    request: &Request<'_>,
    answer: &mut ResponseWriter<'_>,
) {
    counters.add(Counted::StoreNoMemory);
    let log = &counters.log;
    let wanted = match request {
        Request::Store {
            verb, key, reply, ..
        } => {
            log.stored(key, Stored::NoMemory, verb.name(), 0, 0);
            if *verb == StoreVerb::Set {
                // One that is held meanwhile stays, and the answer says that nothing was stored.
                let _ = item::delete(counters.server, db, Key::new(key));
            }
            *reply == Reply::Wanted
        }
        Request::MetaSet { key, mode, .. } => {
            log.stored(&key.bytes, Stored::NoMemory, meta::verb(*mode, false), 0, 0);
            if *mode == SetMode::Set {
                let _ = item::delete(counters.server, db, Key::new(&key.bytes));
            }
            true
        }
        _ => {
            answer.server_error("out of memory");
            return;
        }
    };
    if wanted {
        answer.server_error("out of memory storing object");
    }
}
