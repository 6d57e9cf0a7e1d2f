//! Positions in sorted sets: each member's score names a cell of the map, see [`storage::value::geo`].

mod nearest;
mod search;

use protocol::resp::reply::{ReplyWriter, Version};
use smallvec::SmallVec;
use storage::{
    db::Db,
    value::{
        geo::{self, Position, Unit},
        number,
        sorted_set::SortedSet,
    },
};

use super::sorted_set::add::{Rule, add};
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &GEOADD,
    &GEODIST,
    &GEOHASH,
    &GEOPOS,
    &search::GEORADIUS,
    &search::GEORADIUSBYMEMBER,
    &search::GEORADIUSBYMEMBER_RO,
    &search::GEORADIUS_RO,
    &search::GEOSEARCH,
    &search::GEOSEARCHSTORE,
];

pub(super) const GEOADD: Command = Command {
    name: "GEOADD",
    syntax: "key [NX | XX] [CH] longitude latitude member [longitude latitude member ...]",
    summary: "Adds members with their positions.",
    since: "3.2.0",
    complexity: "O(log(N)) for each member added",
    group: Group::Geo,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Alter)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(geoadd),
    subcommands: &[],
};

fn geoadd(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let mut rule = Rule::default();
    let mut first = 2;
    while first < args.len() {
        if args.is(first, "NX") {
            rule.new_only = true;
        } else if args.is(first, "XX") {
            rule.existing_only = true;
        } else if args.is(first, "CH") {
            rule.counts_changes = true;
        } else {
            break;
        }
        first += 1;
    }
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(3) || rule.new_only && rule.existing_only {
        return Err(Error::SYNTAX);
    }
    let scores = (first..args.len())
        .step_by(3)
        .map(|index| Ok(read_position(args, index)?.score()))
        .collect::<Result<SmallVec<[f64; 4]>>>()?;
    let members = args.from(first + 2).step_by(3);
    let added = add(db, args.key(1), &rule, members.zip(scores.iter().copied()))?;
    let count = match rule.counts_changes {
        true => added.added + added.updated,
        false => added.added,
    };
    reply.integer(count as i64);
    Ok(())
}

/// A longitude and the latitude behind it.
fn read_position(args: &Args<'_>, index: usize) -> Result<Position> {
    let read = |index| number::parse_f64(args.word(index)).ok_or(Error::NOT_A_FLOAT);
    let (longitude, latitude) = (read(index)?, read(index + 1)?);
    Position::new(longitude, latitude).ok_or_else(|| {
        Error::general(format!(
            "invalid longitude,latitude pair {longitude:.6},{latitude:.6}"
        ))
    })
}

fn read_unit(word: &[u8]) -> Result<Unit> {
    Unit::parse(word).ok_or(Error::from_static(
        "ERR unsupported unit provided. please use M, KM, FT, MI",
    ))
}

pub(super) const GEODIST: Command = Command {
    name: "GEODIST",
    syntax: "key member1 member2 [m | km | ft | mi]",
    summary: "Returns the distance between two members.",
    since: "3.2.0",
    complexity: "O(1)",
    group: Group::Geo,
    arity: AtLeast(4),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(geodist),
    subcommands: &[],
};

fn geodist(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let unit = match args.len() {
        4 => Unit::Metres,
        5 => read_unit(args.word(4))?,
        _ => return Err(Error::SYNTAX),
    };
    let set = db.read::<SortedSet>(args.key(1))?;
    let position = |member| {
        set.and_then(|set| set.score(member))
            .map(Position::from_score)
    };
    match (position(args.word(2)), position(args.word(3))) {
        (Some(one), Some(other)) => write_distance(one.distance(other) / unit.metres(), reply),
        _ => reply.null(),
    }
    Ok(())
}

pub(super) const GEOHASH: Command = Command {
    name: "GEOHASH",
    syntax: "key [member [member ...]]",
    summary: "Returns members' positions as standard geohashes.",
    since: "3.2.0",
    complexity: "O(1) for each member asked for",
    group: Group::Geo,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(geohash),
    subcommands: &[],
};

fn geohash(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    let members = args.from(2);
    reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply.bulk(&Position::from_score(score).geohash()),
            None => reply.null(),
        }
    }
    Ok(())
}

pub(super) const GEOPOS: Command = Command {
    name: "GEOPOS",
    syntax: "key [member [member ...]]",
    summary: "Returns members' longitudes and latitudes.",
    since: "3.2.0",
    complexity: "O(1) for each member asked for",
    group: Group::Geo,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(geopos),
    subcommands: &[],
};

fn geopos(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let set = db.read::<SortedSet>(args.key(1))?;
    let members = args.from(2);
    reply.array(members.len());
    for member in members {
        match set.and_then(|set| set.score(member)) {
            Some(score) => write_position(Position::from_score(score), reply),
            None => reply.null_array(),
        }
    }
    Ok(())
}

/// Text for all clients.
fn write_distance(distance: f64, reply: &mut ReplyWriter) {
    let mut text = Vec::with_capacity(32);
    geo::write_distance(distance, &mut text);
    reply.bulk(&text);
}

/// Two numbers, with more digits than doubles are written with elsewhere.
fn write_position(position: Position, reply: &mut ReplyWriter) {
    reply.array(2);
    for degrees in [position.longitude(), position.latitude()] {
        let mut text = Vec::with_capacity(32);
        match reply.version() {
            Version::Resp2 => {
                geo::write_coordinate(degrees, &mut text);
                reply.bulk(&text);
            }
            Version::Resp3 => {
                text.push(b',');
                geo::write_coordinate(degrees, &mut text);
                text.extend_from_slice(b"\r\n");
                reply.raw(&text);
            }
        }
    }
}
