//! LMOVE and RPOPLPUSH: an element goes from one end of a list to an end of another, or of the same.

use storage::{
    changes::EventClass,
    db::Db,
    keyspace::Key,
    value::{
        Collection,
        list::{End, List},
    },
};

use super::{end, limits, popped, pushed};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub(super) const LMOVE: Command = Command {
    name: "LMOVE",
    syntax: "source destination LEFT | RIGHT LEFT | RIGHT",
    summary: "Moves an element from one list to another and returns it.",
    since: "6.2.0",
    complexity: "O(1)",
    group: Group::List,
    arity: Exactly(5),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(lmove),
    subcommands: &[],
};

fn lmove(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let transfer = Transfer {
        from: end(args, 3)?,
        to: end(args, 4)?,
    };
    if !transfer.run(db, args.key(1), args.key(2), reply)? {
        reply.null();
    }
    Ok(())
}

pub(super) const RPOPLPUSH: Command = Command {
    name: "RPOPLPUSH",
    syntax: "source destination",
    summary: "Moves the last element of a list to the front of another and returns it.",
    since: "1.2.0",
    complexity: "O(1)",
    group: Group::List,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Take), Keys::at(2, Access::Insert)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(rpoplpush),
    subcommands: &[],
};

fn rpoplpush(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if !Transfer::RPOPLPUSH.run(db, args.key(1), args.key(2), reply)? {
        reply.null();
    }
    Ok(())
}

/// From which end an element is taken, and at which it is added.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub(super) from: End,
    pub(super) to: End,
}

impl Transfer {
    pub(super) const RPOPLPUSH: Transfer = Transfer {
        from: End::Back,
        to: End::Front,
    };

    /// Moves an element and writes it. False if there is no source.
    pub(super) fn run(
        self,
        db: &mut Db<'_>,
        source: Key<'_>,
        target: Key<'_>,
        reply: &mut Reply,
    ) -> Result<bool> {
        let limits = limits(db);
        let same = source.bytes == target.bytes;
        let wrong_target = !same
            && db
                .peek(target)
                .is_some_and(|entry| List::of(entry.value()).is_none());
        let Some(mut list) = db.write::<List>(source)? else {
            return Ok(false);
        };
        if wrong_target {
            return Err(Error::WRONG_TYPE);
        }
        if same {
            list.rotate(self.from, self.to, limits, |element| reply.bulk(element));
            drop(list);
        } else {
            let element = list.pop(self.from, limits, |element| element.to_vec());
            drop(list);
            let element = element.expect("an empty list is never stored");
            db.write_or_create(target, List::new)?
                .push(self.to, &element, limits);
            reply.bulk(&element);
        }
        db.touch_key(target);
        db.notify(target, EventClass::List, pushed(self.to));
        db.changed_after_event(source, EventClass::List, popped(self.from));
        Ok(true)
    }
}
