//! When keys expire: EXPIRE and its relatives, TTL and its, PERSIST.

use storage::{changes::EventClass, db::Db, removal::Removal, time::Timestamp};

use super::deadline::{self, Base, Unit};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &EXPIRE,
    &EXPIREAT,
    &EXPIRETIME,
    &PERSIST,
    &PEXPIRE,
    &PEXPIREAT,
    &PEXPIRETIME,
    &PTTL,
    &TTL,
];

const EXPIRE: Command = Command {
    name: "EXPIRE",
    syntax: "key seconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(expire),
    subcommands: &[],
};

fn expire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Seconds, Base::Now, "expire", reply)
}

const PEXPIRE: Command = Command {
    name: "PEXPIRE",
    syntax: "key milliseconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(pexpire),
    subcommands: &[],
};

fn pexpire(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Milliseconds, Base::Now, "pexpire", reply)
}

const EXPIREAT: Command = Command {
    name: "EXPIREAT",
    syntax: "key unix-time-seconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(expireat),
    subcommands: &[],
};

fn expireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(db, args, Unit::Seconds, Base::Epoch, "expireat", reply)
}

const PEXPIREAT: Command = Command {
    name: "PEXPIREAT",
    syntax: "key unix-time-milliseconds [NX | XX | GT | LT]",
    summary: "Sets when a key expires.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(pexpireat),
    subcommands: &[],
};

fn pexpireat(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    set_deadline(
        db,
        args,
        Unit::Milliseconds,
        Base::Epoch,
        "pexpireat",
        reply,
    )
}

fn set_deadline(
    db: &mut Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    base: Base,
    name: &str,
    reply: &mut Reply,
) -> Result {
    let key = args.key(1);
    let conditions = Conditions::read(args.from(3))?;
    let deadline = deadline::resolve(args.integer(2)?, unit, base, db.now(), name)?;
    let allowed = db
        .entry_mut(key)
        .is_some_and(|entry| conditions.allow(entry.look().deadline(), deadline));
    if !allowed {
        reply.integer(0);
        return Ok(());
    }
    if deadline <= db.expired_by() && db.keyspace().deletes_expired() {
        db.delete(key);
        db.changed(key, EventClass::Expired, "expired");
        db.log_removal_instead(key, Removal::Expired);
    } else {
        db.set_deadline(key, Some(deadline));
        db.changed(key, EventClass::Generic, "expire");
        db.changes.log_instead(&[
            b"PEXPIREAT",
            key.bytes,
            itoa::Buffer::new().format(deadline.millis()).as_bytes(),
        ]);
    }
    reply.integer(1);
    Ok(())
}

/// When an EXPIRE takes effect.
#[derive(Clone, Copy, Default)]
pub struct Conditions {
    without: bool,
    with: bool,
    later: bool,
    sooner: bool,
}

impl Conditions {
    pub fn read<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Conditions> {
        let mut conditions = Conditions::default();
        for word in words {
            let flag = match word.to_ascii_uppercase().as_slice() {
                b"NX" => &mut conditions.without,
                b"XX" => &mut conditions.with,
                b"GT" => &mut conditions.later,
                b"LT" => &mut conditions.sooner,
                _ => {
                    let mut text = b"Unsupported option ".to_vec();
                    text.extend_from_slice(word);
                    return Err(Error::general(text));
                }
            };
            *flag = true;
        }
        if conditions.without && (conditions.with || conditions.later || conditions.sooner) {
            return Err(Error::general(
                "NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.later && conditions.sooner {
            return Err(Error::general(
                "GT and LT options at the same time are not compatible",
            ));
        }
        Ok(conditions)
    }

    /// No deadline counts as one that never comes.
    pub fn allow(self, old: Option<Timestamp>, new: Timestamp) -> bool {
        !(self.without && old.is_some()
            || self.with && old.is_none()
            || self.later && old.is_none_or(|old| new <= old)
            || self.sooner && old.is_some_and(|old| new >= old))
    }
}

const TTL: Command = Command {
    name: "TTL",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "1.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(ttl),
    subcommands: &[],
};

fn ttl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Seconds, Base::Now, reply)
}

const PTTL: Command = Command {
    name: "PTTL",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "2.6.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(pttl),
    subcommands: &[],
};

fn pttl(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Milliseconds, Base::Now, reply)
}

const EXPIRETIME: Command = Command {
    name: "EXPIRETIME",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(expiretime),
    subcommands: &[],
};

fn expiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Seconds, Base::Epoch, reply)
}

const PEXPIRETIME: Command = Command {
    name: "PEXPIRETIME",
    syntax: "key",
    summary: "Tells when a key expires: -1 for never, -2 if it does not exist.",
    since: "7.0.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(pexpiretime),
    subcommands: &[],
};

fn pexpiretime(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    tell_deadline(db, args, Unit::Milliseconds, Base::Epoch, reply)
}

fn tell_deadline(
    db: &Db<'_>,
    args: &Args<'_>,
    unit: Unit,
    base: Base,
    reply: &mut Reply,
) -> Result {
    let Some(entry) = db.inspect(args.key(1)) else {
        reply.integer(-2);
        return Ok(());
    };
    let Some(deadline) = entry.deadline() else {
        reply.integer(-1);
        return Ok(());
    };
    reply.integer(deadline::tell(deadline, unit, base, db.now()));
    Ok(())
}

const PERSIST: Command = Command {
    name: "PERSIST",
    syntax: "key",
    summary: "Takes away a key's deadline.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::Generic,
    arity: Exactly(2),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::Fast],
    categories: &[],
    run: Run::Write(persist),
    subcommands: &[],
};

fn persist(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let key = args.key(1);
    let had_deadline = db
        .entry_mut(key)
        .is_some_and(|entry| entry.look().deadline().is_some());
    if had_deadline {
        db.set_deadline(key, None);
        db.changed(key, EventClass::Generic, "persist");
    }
    reply.integer(i64::from(had_deadline));
    Ok(())
}
