//! BLPOP and its relatives: pops and moves that wait until there is something.
//!
//! A client that waits is served by running the command again; the log gets what it came to, without the wait.

use storage::{db::Db, value::list::End};

use super::{
    end,
    pop::{self, MultiPop},
    transfer::Transfer,
};
use crate::{
    commands::deadline,
    dispatch::{
        args::Args,
        command::{
            Access, Arity::*, Command, Flag, Group, Keys, Nothing, Place, Progress, Reply, Result,
            Run,
        },
    },
};

/// All words but the last, which is the timeout.
const KEYS_BEFORE_TIMEOUT: Keys = Keys {
    place: Place::Range {
        first: 1,
        last: 1,
        step: 1,
    },
    access: Access::Take,
};

pub(super) const BLPOP: Command = Command {
    name: "BLPOP",
    syntax: "key [key ...] timeout",
    summary: "Removes and returns the first element of the first list that exists, or waits for one.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of keys",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[KEYS_BEFORE_TIMEOUT],
    flags: &[Flag::Write, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(blpop),
    subcommands: &[],
};

fn blpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    pop_first(db, args, End::Front, reply)
}

pub(super) const BRPOP: Command = Command {
    name: "BRPOP",
    syntax: "key [key ...] timeout",
    summary: "Removes and returns the last element of the first list that exists, or waits for one.",
    since: "2.0.0",
    complexity: "O(N) where N is the number of keys",
    group: Group::List,
    arity: AtLeast(3),
    keys: &[KEYS_BEFORE_TIMEOUT],
    flags: &[Flag::Write, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(brpop),
    subcommands: &[],
};

fn brpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    pop_first(db, args, End::Back, reply)
}

fn pop_first(db: &mut Db<'_>, args: &Args<'_>, end: End, reply: &mut Reply) -> Result<Progress> {
    let last = args.len() - 1;
    let timeout_ms = deadline::read_timeout(args.word(last), db.now())?;
    let mark = reply.mark();
    for key in (1..last).map(|index| args.key(index)) {
        if !db.holds(key.hash) {
            continue;
        }
        reply.array(2);
        reply.bulk(key.bytes);
        if pop::pop_one(db, key, end, reply)? {
            pop::log_pop(db, key, end, None);
            return Ok(Progress::Done);
        }
        reply.truncate(mark);
    }
    Ok(Progress::Wait {
        timeout_ms,
        nothing: Nothing::NullArray,
    })
}

pub(super) const BLMPOP: Command = Command {
    name: "BLMPOP",
    syntax: "timeout numkeys key [key ...] LEFT | RIGHT [COUNT count]",
    summary: "Removes and returns elements of the first list that exists, or waits for some.",
    since: "7.0.0",
    complexity: "O(N+M) where N is the number of keys and M the number of elements returned",
    group: Group::List,
    arity: AtLeast(5),
    keys: &[Keys {
        place: Place::Count { at: 2 },
        access: Access::Take,
    }],
    flags: &[Flag::Write, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(blmpop),
    subcommands: &[],
};

fn blmpop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let request = MultiPop::read(args, 2)?;
    let timeout_ms = deadline::read_timeout(args.word(1), db.now())?;
    if request.run(db, args, reply)? {
        return Ok(Progress::Done);
    }
    Ok(Progress::Wait {
        timeout_ms,
        nothing: Nothing::NullArray,
    })
}

pub(super) const BLMOVE: Command = Command {
    name: "BLMOVE",
    syntax: "source destination LEFT | RIGHT LEFT | RIGHT timeout",
    summary: "Moves an element from one list to another and returns it, or waits for one.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::List,
    arity: Exactly(6),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(blmove),
    subcommands: &[],
};

fn blmove(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let transfer = Transfer {
        from: end(args, 3)?,
        to: end(args, 4)?,
    };
    let timeout_ms = deadline::read_timeout(args.word(5), db.now())?;
    let progress = move_or_wait(db, args, transfer, timeout_ms, reply)?;
    if progress == Progress::Done {
        let words: [&[u8]; 5] = [
            b"LMOVE",
            args.word(1),
            args.word(2),
            args.word(3),
            args.word(4),
        ];
        db.changes.log_instead(&words);
    }
    Ok(progress)
}

pub(super) const BRPOPLPUSH: Command = Command {
    name: "BRPOPLPUSH",
    syntax: "source destination timeout",
    summary: "Moves the last element of a list to the front of another and returns it, or waits for one.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::List,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom, Flag::Blocking],
    categories: &[],
    run: Run::Blocking(brpoplpush),
    subcommands: &[],
};

fn brpoplpush(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result<Progress> {
    let timeout_ms = deadline::read_timeout(args.word(3), db.now())?;
    let progress = move_or_wait(db, args, Transfer::RPOPLPUSH, timeout_ms, reply)?;
    if progress == Progress::Done {
        let words: [&[u8]; 3] = [b"RPOPLPUSH", args.word(1), args.word(2)];
        db.changes.log_instead(&words);
    }
    Ok(progress)
}

fn move_or_wait(
    db: &mut Db<'_>,
    args: &Args<'_>,
    transfer: Transfer,
    timeout_ms: u64,
    reply: &mut Reply,
) -> Result<Progress> {
    let (source, target) = (args.key(1), args.key(2));
    if db.holds(source.hash) && db.holds(target.hash) && transfer.run(db, source, target, reply)? {
        return Ok(Progress::Done);
    }
    Ok(Progress::Wait {
        timeout_ms,
        nothing: Nothing::NullBulk,
    })
}
