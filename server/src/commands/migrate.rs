//! MIGRATE: moves keys to another server. What goes over the wire is in [`crate::migration`].

use std::{num::NonZero, time::Duration};

use hashbrown::HashSet;
use storage::{db::Db, value::number};

use crate::{
    dispatch::{
        args::Args,
        call::release,
        command::{
            Access, Arity::*, Category, Command, Flag, Group, Keys, Place, Reply, Result, Run,
        },
        error::Error,
        keys::migrated,
    },
    migration::{Migrations, Order, Parcel},
    server::now,
    session::Session,
};

pub const COMMANDS: &[&Command] = &[&MIGRATE];

const MIGRATE: Command = Command {
    name: "MIGRATE",
    syntax: "host port <key | \"\"> destination-db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] [KEYS key [key ...]]",
    summary: "Moves keys to another server.",
    since: "2.6.0",
    complexity: "This command actually executes a DUMP+DEL in the source instance, and a RESTORE in the target instance. See the pages of these commands for time complexity. Also an O(N) data transfer between the two instances is performed.",
    group: Group::Generic,
    arity: AtLeast(6),
    keys: &[
        Keys {
            place: Place::Migrated { listed: false },
            access: Access::Take,
        },
        Keys {
            place: Place::Migrated { listed: true },
            access: Access::Take,
        },
    ],
    flags: &[Flag::Write, Flag::MovableKeys],
    categories: &[Category::Dangerous],
    run: Run::Server(migrate),
    subcommands: &[],
};

/// How long a timeout that is none lasts.
const USUAL_TIMEOUT_MS: i64 = 1000;
/// How often a migration is looked after, in milliseconds, in case that nobody is woken when it is over.
const LOOK_AGAIN_MS: i64 = 1000;
/// How long one waits that finds too many others, before it looks again.
const QUEUE_MS: i64 = 10;

fn migrate(session: &mut Session, db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if let Some(migration) = session.migration.take() {
        match migration.take_outcome() {
            Some(outcome) => {
                outcome?;
                reply.ok();
            }
            None => {
                session.migration = Some(migration);
                session.retry_at = NonZero::new(now().millis() + LOOK_AGAIN_MS);
            }
        }
        return Ok(());
    }
    if db.is_locked() {
        return Err(Error::general(
            "MIGRATE waits for another server, which transactions and scripts may not",
        ));
    }
    let order = read(args, db.index())?;
    if !session.server.migrations.has_room() {
        session.retry_at = NonZero::new(now().millis() + QUEUE_MS);
        return Ok(());
    }
    let parcels = pack(session, db, args)?;
    if parcels.is_empty() {
        reply.simple("NOKEY");
        return Ok(());
    }
    let started = Migrations::start(&session.server, &session.client, order, parcels);
    let migration =
        started.map_err(|error| Error::general(format!("no thread to move keys with: {error}")))?;
    session.migration = Some(migration);
    session.retry_at = NonZero::new(now().millis() + LOOK_AGAIN_MS);
    Ok(())
}

/// Takes the keys that are there, each once, as they are in this moment.
fn pack(session: &Session, db: &mut Db<'_>, args: &Args<'_>) -> Result<Vec<Parcel>> {
    let mut seen = HashSet::new();
    let indexes: Vec<usize> = migrated(args)
        .filter(|&index| seen.insert(args.word(index)))
        .collect();
    db.try_lock_each(indexes.iter().map(|&index| args.key(index).hash))?;
    let parcels = indexes
        .iter()
        .filter_map(|&index| Parcel::pack(db, args.key(index)))
        .collect();
    db.settle_met();
    release(&session.server, db);
    Ok(parcels)
}

fn read(args: &Args<'_>, source: usize) -> Result<Order> {
    let (mut copy, mut replace, mut credentials) = (false, false, Vec::new());
    let mut index = 6;
    while index < args.len() {
        let more = args.len() - 1 - index;
        if args.is(index, "COPY") {
            copy = true;
        } else if args.is(index, "REPLACE") {
            replace = true;
        } else if args.is(index, "AUTH") && more >= 1 {
            credentials = vec![args.word(index + 1).to_vec()];
            index += 1;
        } else if args.is(index, "AUTH2") && more >= 2 {
            credentials = vec![args.word(index + 1).to_vec(), args.word(index + 2).to_vec()];
            index += 2;
        } else if args.is(index, "KEYS") {
            if !args.word(3).is_empty() {
                return Err(Error::general(
                    "When using MIGRATE KEYS option, the key argument must be set to the empty string",
                ));
            }
            break;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    let timeout_ms = args.integer(5)?;
    let database = args.integer(4)?;
    let timeout_ms = match timeout_ms {
        ..=0 => USUAL_TIMEOUT_MS,
        some => some,
    };
    // What is no port is one that nobody can be reached at.
    let port = number::parse_i64(args.word(2)).and_then(|port| u16::try_from(port).ok());
    Ok(Order {
        host: String::from_utf8_lossy(args.word(1)).into_owned(),
        port: port.unwrap_or(0),
        source,
        database,
        timeout: Duration::from_millis(timeout_ms.unsigned_abs()),
        copy,
        replace,
        credentials,
    })
}
