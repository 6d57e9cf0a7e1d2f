//! What a user needs to run a memcached command: the permissions of the RESP command that does the same.

use protocol::memcache::Request;

use crate::{
    acl::{check::Denial, selector::KeyAccess},
    dispatch::{
        command::{Access, Flag, Place},
        table::{Registered, table},
    },
    session::Session,
};

/// Whether the session's user may run the request.
///
/// # Errors
/// What is in the way.
pub(super) fn check(session: &Session, request: &Request<'_>) -> Result<(), Denial> {
    let (name, keys) = needs(request);
    let Some(registered) = name.and_then(|name| table().find_full(name.as_bytes())) else {
        return Ok(());
    };
    let outcome = session
        .user
        .may_with_keys(registered, &keys, access(registered));
    outcome.inspect_err(|denial| {
        session.note_denial(
            denial.reason,
            &denial.object,
            &session.user.name,
            "toplevel",
        );
    })
}

/// Whether the request may change data, which a replica refuses.
pub(super) fn changes_data(request: &Request<'_>) -> bool {
    match request {
        Request::MetaGet { flags, .. } => {
            flags.exptime().is_some() || flags.vivify().is_some() || flags.recache().is_some()
        }
        request => {
            let registered = needs(request).0;
            let registered = registered.and_then(|name| table().find_full(name.as_bytes()));
            registered.is_some_and(|registered| registered.command.is_write())
        }
    }
}

/// Whether the request needs all data to be there, and must wait while it is being loaded.
pub(super) fn needs_data(request: &Request<'_>) -> bool {
    let registered = needs(request).0;
    let registered = registered.and_then(|name| table().find_full(name.as_bytes()));
    registered.is_some_and(|registered| !registered.command.has(Flag::Loading))
}

/// What the command does with its first key.
fn access(registered: &Registered) -> KeyAccess {
    let keys = registered.command.keys.iter();
    let first = keys
        .filter(|keys| keys.place != Place::AllShards)
        .map(|keys| keys.access)
        .next();
    KeyAccess::needed(first.unwrap_or(Access::Read))
}

/// The RESP command that does the same, and the keys. No command: everybody may.
fn needs<'a>(request: &'a Request<'_>) -> (Option<&'static str>, Vec<&'a [u8]>) {
    let one = |name, key: &'a [u8]| (Some(name), vec![key]);
    match request {
        Request::Get { keys, .. } => (Some("GET"), keys.collect()),
        Request::GetAndTouch { keys, .. } => (Some("GETEX"), keys.collect()),
        Request::Store { key, .. } => one("SET", key),
        Request::Delete { key, .. } => one("DEL", key),
        Request::Increment { key, .. } | Request::Decrement { key, .. } => one("INCRBY", key),
        Request::Touch { key, .. } => one("EXPIRE", key),
        // It may touch, recache or make the item as well.
        Request::MetaGet { key, .. } => one("GETEX", &key.bytes),
        Request::MetaSet { key, .. } => one("SET", &key.bytes),
        Request::MetaDelete { key, .. } => one("DEL", &key.bytes),
        Request::MetaArithmetic { key, .. } => one("INCRBY", &key.bytes),
        Request::MetaDebug { key, .. } => one("OBJECT|IDLETIME", &key.bytes),
        Request::FlushAll { .. } => (Some("FLUSHALL"), Vec::new()),
        Request::Stats { .. } => (Some("INFO"), Vec::new()),
        Request::Slabs { .. }
        | Request::Lru { .. }
        | Request::CacheMemlimit { .. }
        | Request::Verbosity { .. }
        | Request::Extstore { .. } => (Some("CONFIG|SET"), Vec::new()),
        Request::LruCrawler { .. } => (Some("KEYS"), Vec::new()),
        Request::Watch { .. } => (Some("MONITOR"), Vec::new()),
        Request::Shutdown { .. } => (Some("SHUTDOWN"), Vec::new()),
        Request::ConfigGet { .. } => (Some("CONFIG|GET"), Vec::new()),
        Request::ConfigSet { .. } => (Some("CONFIG|SET"), Vec::new()),
        _ => (None, Vec::new()),
    }
}
