//! What is within a circle, a box or a polygon: GEOSEARCH and the older GEORADIUS.

use std::{cmp::Ordering, ops::Bound};

use protocol::resp::reply::ReplyWriter;
use storage::{
    db::Db,
    keyspace::Key,
    value::{
        geo::{Area, Position, Unit},
        number,
        sorted_set::SortedSet,
    },
};

use super::{nearest::sort_front, read_position, read_unit, write_distance, write_position};
use crate::{
    commands::sorted_set::{SLICE, WRITTEN_AT_ONCE, build, limits, store},
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
        error::Error,
    },
};

pub(super) const GEOSEARCH: Command = Command {
    name: "GEOSEARCH",
    syntax: "key <FROMMEMBER member | FROMLONLAT longitude latitude | BYPOLYGON num-vertices longitude latitude [longitude latitude ...]> <BYRADIUS radius <m | km | ft | mi> | BYBOX width height <m | km | ft | mi>> [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]",
    summary: "Returns the members within an area.",
    since: "6.2.0",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(7),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(geosearch),
    subcommands: &[],
};

fn geosearch(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::Search { stores: false };
    let outcome = search(db, args, form)?;
    write(outcome, reply);
    Ok(())
}

pub(super) const GEORADIUS_RO: Command = Command {
    name: "GEORADIUS_RO",
    syntax: "key longitude latitude radius <m | km | ft | mi> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
    summary: "Returns the members within a distance of a position.",
    since: "3.2.10",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(6),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(georadius_ro),
    subcommands: &[],
};

fn georadius_ro(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::AroundPosition { stores: false };
    let outcome = search(db, args, form)?;
    write(outcome, reply);
    Ok(())
}

pub(super) const GEORADIUSBYMEMBER_RO: Command = Command {
    name: "GEORADIUSBYMEMBER_RO",
    syntax: "key member radius <m | km | ft | mi> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC]",
    summary: "Returns the members within a distance of another.",
    since: "3.2.10",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(5),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(georadiusbymember_ro),
    subcommands: &[],
};

fn georadiusbymember_ro(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::AroundMember { stores: false };
    let outcome = search(db, args, form)?;
    write(outcome, reply);
    Ok(())
}

pub(super) const GEOSEARCHSTORE: Command = Command {
    name: "GEOSEARCHSTORE",
    syntax: "destination source <FROMMEMBER member | FROMLONLAT longitude latitude | BYPOLYGON num-vertices longitude latitude [longitude latitude ...]> <BYRADIUS radius <m | km | ft | mi> | BYBOX width height <m | km | ft | mi>> [ASC | DESC] [COUNT count [ANY]] [STOREDIST]",
    summary: "Stores the members within an area.",
    since: "6.2.0",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(8),
    keys: &[Keys::at(1, Access::Overwrite), Keys::at(2, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(geosearchstore),
    subcommands: &[],
};

fn geosearchstore(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::Search { stores: true };
    search_and_store(db, args, form, "geosearchstore", reply)
}

pub(super) const GEORADIUS: Command = Command {
    name: "GEORADIUS",
    syntax: "key longitude latitude radius <m | km | ft | mi> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]",
    summary: "Returns or stores the members within a distance of a position.",
    since: "3.2.0",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(6),
    keys: &[
        Keys::at(1, Access::Read),
        Keys {
            place: Place::After {
                keyword: "STORE",
                from: 6,
            },
            access: Access::Overwrite,
        },
        Keys {
            place: Place::After {
                keyword: "STOREDIST",
                from: 6,
            },
            access: Access::Overwrite,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(georadius),
    subcommands: &[],
};

fn georadius(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::AroundPosition { stores: true };
    search_and_store(db, args, form, "georadiusstore", reply)
}

pub(super) const GEORADIUSBYMEMBER: Command = Command {
    name: "GEORADIUSBYMEMBER",
    syntax: "key member radius <m | km | ft | mi> [WITHCOORD] [WITHDIST] [WITHHASH] [COUNT count [ANY]] [ASC | DESC] [STORE key | STOREDIST key]",
    summary: "Returns or stores the members within a distance of another.",
    since: "3.2.0",
    complexity: "O(N+log(M)) for N members in the boxes around the area and M members in all",
    group: Group::Geo,
    arity: AtLeast(5),
    keys: &[
        Keys::at(1, Access::Read),
        Keys {
            place: Place::After {
                keyword: "STORE",
                from: 5,
            },
            access: Access::Overwrite,
        },
        Keys {
            place: Place::After {
                keyword: "STOREDIST",
                from: 5,
            },
            access: Access::Overwrite,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(georadiusbymember),
    subcommands: &[],
};

fn georadiusbymember(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let form = Form::AroundMember { stores: true };
    search_and_store(db, args, form, "georadiusstore", reply)
}

/// What a command's name already says: how its words begin, and whether it can store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Search { stores: bool },
    AroundPosition { stores: bool },
    AroundMember { stores: bool },
}

/// The shape of an area, before it is known where.
enum Shape {
    Circle { radius: f64 },
    Rectangle { width: f64, height: f64 },
    Polygon(Vec<Position>),
}

/// Where the middle of the area is, as it was told.
#[derive(Clone, Copy)]
enum Center {
    Position(Position),
    /// None if the key does not exist: then nothing will be found.
    Member(Option<Position>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearest {
    First,
    Last,
}

/// What a reply shows besides members.
#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    distance: bool,
    hash: bool,
    position: bool,
}

/// What the scores of a stored result are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredScore {
    Cell,
    Distance,
}

/// A search as it is asked for.
struct Request<'a> {
    center: Option<Center>,
    shape: Option<Shape>,
    unit: Unit,
    order: Option<Nearest>,
    count: Option<usize>,
    /// Whether any results will do: the search ends with the last one wanted.
    any: bool,
    shown: Shown,
    store: Option<(Key<'a>, StoredScore)>,
}

impl<'a> Request<'a> {
    /// Reads all words. A member is looked up when it is met, so that its absence is told before what is wrong behind
    /// it, as clients may expect.
    fn read(args: &Args<'a>, form: Form, set: Option<&SortedSet>) -> Result<Request<'a>> {
        let mut request = Request {
            center: None,
            shape: None,
            unit: Unit::Metres,
            order: None,
            count: None,
            any: false,
            shown: Shown::default(),
            store: None,
        };
        let first = match form {
            Form::AroundPosition { .. } => {
                request.center = Some(Center::Position(read_position(args, 2)?));
                request.read_circle(args, 4)?;
                6
            }
            Form::AroundMember { .. } => {
                request.center = Some(member(set, args.word(2))?);
                if set.is_some() {
                    request.read_circle(args, 3)?;
                }
                5
            }
            Form::Search { stores: false } => 2,
            Form::Search { stores: true } => {
                request.store = Some((args.key(1), StoredScore::Cell));
                3
            }
        };
        request.read_options(args, first, form, set)?;
        request.check(args, form)?;
        Ok(request)
    }

    fn read_options(
        &mut self,
        args: &Args<'a>,
        first: usize,
        form: Form,
        set: Option<&SortedSet>,
    ) -> Result {
        let mut index = first;
        while index < args.len() {
            let behind = args.len() - index - 1;
            index += 1 + match args.word(index).to_ascii_uppercase().as_slice() {
                b"WITHDIST" => {
                    self.shown.distance = true;
                    0
                }
                b"WITHHASH" => {
                    self.shown.hash = true;
                    0
                }
                b"WITHCOORD" => {
                    self.shown.position = true;
                    0
                }
                b"ANY" => {
                    self.any = true;
                    0
                }
                b"ASC" => {
                    self.order = Some(Nearest::First);
                    0
                }
                b"DESC" => {
                    self.order = Some(Nearest::Last);
                    0
                }
                b"COUNT" if behind >= 1 => {
                    self.count = Some(read_count(args.word(index + 1))?);
                    1
                }
                word => match form {
                    Form::Search { stores } => self.read_area(args, index, word, stores, set)?,
                    Form::AroundPosition { stores } | Form::AroundMember { stores } => {
                        let score = match word {
                            b"STORE" => StoredScore::Cell,
                            b"STOREDIST" => StoredScore::Distance,
                            _ => return Err(Error::SYNTAX),
                        };
                        if !stores || behind < 1 {
                            return Err(Error::SYNTAX);
                        }
                        self.store = Some((args.key(index + 1), score));
                        1
                    }
                },
            };
        }
        Ok(())
    }

    /// Reads an option that only GEOSEARCH and GEOSEARCHSTORE have; returns how many words it has after the first.
    fn read_area(
        &mut self,
        args: &Args<'a>,
        index: usize,
        word: &[u8],
        stores: bool,
        set: Option<&SortedSet>,
    ) -> Result<usize> {
        let behind = args.len() - index - 1;
        let is_polygon = matches!(self.shape, Some(Shape::Polygon(_)));
        let may_be_circle = matches!(self.shape, None | Some(Shape::Circle { .. }));
        let may_be_box = matches!(self.shape, None | Some(Shape::Rectangle { .. }));
        let may_be_polygon = self.center.is_none() && (self.shape.is_none() || is_polygon);
        let may_be_member = !matches!(self.center, Some(Center::Position(_)));
        let may_be_position = !matches!(self.center, Some(Center::Member(_)));
        match word {
            b"STOREDIST" if stores => {
                if let Some((_, score)) = &mut self.store {
                    *score = StoredScore::Distance;
                }
                Ok(0)
            }
            b"FROMMEMBER" if behind >= 1 && may_be_member && !is_polygon => {
                self.center = Some(member(set, args.word(index + 1))?);
                Ok(1)
            }
            b"FROMLONLAT" if behind >= 2 && may_be_position && !is_polygon => {
                self.center = Some(Center::Position(read_position(args, index + 1)?));
                Ok(2)
            }
            b"BYRADIUS" if behind >= 2 && may_be_circle => {
                self.read_circle(args, index + 1)?;
                Ok(2)
            }
            b"BYBOX" if behind >= 3 && may_be_box => {
                self.read_box(args, index + 1)?;
                Ok(3)
            }
            b"BYPOLYGON" if behind >= 1 && may_be_polygon => self.read_polygon(args, index + 1),
            _ => Err(Error::SYNTAX),
        }
    }

    fn read_circle(&mut self, args: &Args<'_>, index: usize) -> Result {
        const NOT_A_RADIUS: Error = Error::from_static("ERR need numeric radius");
        const NEGATIVE: Error = Error::from_static("ERR radius cannot be negative");
        let radius = number::parse_f64(args.word(index)).ok_or(NOT_A_RADIUS)?;
        if radius < 0.0 {
            return Err(NEGATIVE);
        }
        self.unit = read_unit(args.word(index + 1))?;
        self.shape = Some(Shape::Circle { radius });
        Ok(())
    }

    fn read_box(&mut self, args: &Args<'_>, index: usize) -> Result {
        const NOT_A_WIDTH: Error = Error::from_static("ERR need numeric width");
        const NOT_A_HEIGHT: Error = Error::from_static("ERR need numeric height");
        const NEGATIVE: Error = Error::from_static("ERR height or width cannot be negative");
        let width = number::parse_f64(args.word(index)).ok_or(NOT_A_WIDTH)?;
        let height = number::parse_f64(args.word(index + 1)).ok_or(NOT_A_HEIGHT)?;
        if width < 0.0 || height < 0.0 {
            return Err(NEGATIVE);
        }
        self.unit = read_unit(args.word(index + 2))?;
        self.shape = Some(Shape::Rectangle { width, height });
        Ok(())
    }

    /// Reads the number of vertices and the vertices; returns how many words they are.
    fn read_polygon(&mut self, args: &Args<'_>, index: usize) -> Result<usize> {
        const FEWEST: i32 = 3;
        const NOT_A_COUNT: Error = Error::from_static("ERR invalid number of vertices");
        let count = number::parse_i64(args.word(index)).and_then(|count| i32::try_from(count).ok());
        let count = count.ok_or(NOT_A_COUNT)?;
        let words = 2 * usize::try_from(count).unwrap_or(0);
        if count < FEWEST || words > args.len() - index - 1 {
            return Err(Error::from_static(
                "ERR GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ));
        }
        let vertices = (index + 1..index + 1 + words).step_by(2);
        let vertices = vertices.map(|index| read_position(args, index));
        self.shape = Some(Shape::Polygon(vertices.collect::<Result<_>>()?));
        Ok(1 + words)
    }

    /// # Errors
    /// Options that are missing or do not go together.
    fn check(&self, args: &Args<'_>, form: Form) -> Result {
        let is_search = matches!(form, Form::Search { .. });
        let Shown {
            distance,
            hash,
            position,
        } = self.shown;
        if self.store.is_some() && (distance || hash || position) {
            let what = match is_search {
                true => "GEOSEARCHSTORE",
                false => "STORE option in GEORADIUS",
            };
            return Err(Error::general(format!(
                "{what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        let is_polygon = matches!(self.shape, Some(Shape::Polygon(_)));
        let missing = match (&self.center, &self.shape) {
            (None, _) if !is_polygon => "FROMMEMBER or FROMLONLAT",
            (_, None) => "BYRADIUS, BYBOX and BYPOLYGON",
            _ => "",
        };
        if is_search && !missing.is_empty() {
            let mut text = format!("exactly one of {missing} can be specified for ").into_bytes();
            text.extend_from_slice(args.word(0));
            return Err(Error::general(text));
        }
        if self.any && self.count.is_none() {
            return Err(Error::from_static(
                "ERR the ANY argument requires COUNT argument",
            ));
        }
        Ok(())
    }

    /// The area, if there can be anything in it.
    fn area(&mut self) -> Option<Area> {
        let center = match self.center {
            Some(Center::Position(position) | Center::Member(Some(position))) => Some(position),
            _ => None,
        };
        Some(match self.shape.take()? {
            Shape::Circle { radius } => Area::circle(center?, radius, self.unit),
            Shape::Rectangle { width, height } => {
                Area::rectangle(center?, width, height, self.unit)
            }
            Shape::Polygon(vertices) => Area::polygon(vertices),
        })
    }
}

fn read_count(word: &[u8]) -> Result<usize> {
    let count = number::parse_i64(word).ok_or(Error::NOT_AN_INTEGER)?;
    match usize::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::from_static("ERR COUNT must be > 0")),
    }
}

/// A member's position as the centre.
///
/// # Errors
/// The key exists, the member does not.
fn member(set: Option<&SortedSet>, member: &[u8]) -> Result<Center> {
    let Some(set) = set else {
        return Ok(Center::Member(None));
    };
    match set.score(member) {
        Some(score) => Ok(Center::Member(Some(Position::from_score(score)))),
        None => {
            // A zero byte ends what the message shows.
            let shown = member.split(|&byte| byte == 0).next().unwrap_or_default();
            Err(Error::general(
                [b"member ", shown, b" does not exist"].concat(),
            ))
        }
    }
}

/// A member within the area.
struct Found<M> {
    member: M,
    score: f64,
    position: Position,
    /// In the unit asked for, from the centre.
    distance: f64,
}

/// What a search came to.
struct Outcome<'d, 'a> {
    found: Vec<Found<&'d [u8]>>,
    shown: Shown,
    store: Option<(Key<'a>, StoredScore)>,
}

fn search<'d, 'a>(db: &'d Db<'_>, args: &Args<'a>, form: Form) -> Result<Outcome<'d, 'a>> {
    let source = match form {
        Form::Search { stores: true } => 2,
        _ => 1,
    };
    let set = db.read::<SortedSet>(args.key(source))?;
    let mut request = Request::read(args, form, set)?;
    let mut found = Vec::new();
    if let Some(set) = set
        && let Some(area) = request.area()
    {
        found = scan(set, &area, request.count.filter(|_| request.any));
    }
    // The first of so many are the nearest, unless any will do.
    let order = request.order.or_else(|| {
        request
            .count
            .filter(|_| !request.any)
            .map(|_| Nearest::First)
    });
    let wanted = request.count.unwrap_or(usize::MAX);
    let by_distance = |one: &Found<_>, other: &Found<_>| one.distance.total_cmp(&other.distance);
    match order {
        Some(Nearest::First) => sort(&mut found, wanted, by_distance),
        Some(Nearest::Last) => sort(&mut found, wanted, |one, other| by_distance(other, one)),
        None => {}
    }
    found.truncate(wanted);
    for found in &mut found {
        found.distance /= request.unit.metres();
    }
    Ok(Outcome {
        found,
        shown: request.shown,
        store: request.store,
    })
}

/// Sorts as far as wanted.
fn sort<T>(found: &mut [T], wanted: usize, compare: impl Fn(&T, &T) -> Ordering) {
    if wanted < found.len() {
        sort_front(found, wanted, &compare);
    } else {
        found.sort_by(compare);
    }
}

/// The members in an area, with distances in metres; no more than `most` if given.
fn scan<'d>(set: &'d SortedSet, area: &Area, most: Option<usize>) -> Vec<Found<&'d [u8]>> {
    let entries = area.score_ranges().flat_map(|(min, max)| {
        set.range(set.score_range(Bound::Included(min), Bound::Excluded(max)))
    });
    entries
        .filter_map(|(member, score)| {
            let position = Position::from_score(score);
            Some(Found {
                member,
                score,
                position,
                distance: area.distance_inside(position)?,
            })
        })
        .take(most.unwrap_or(usize::MAX))
        .collect()
}

fn write(outcome: Outcome<'_, '_>, reply: &mut Reply) {
    let Outcome { found, shown, .. } = outcome;
    reply.array(found.len());
    if found.len() <= WRITTEN_AT_ONCE {
        found.iter().for_each(|found| found.write(shown, reply));
        return;
    }
    let owned = found.into_iter().map(|found| Found {
        member: Box::<[u8]>::from(found.member),
        score: found.score,
        position: found.position,
        distance: found.distance,
    });
    let mut left = owned.collect::<Vec<_>>().into_iter();
    reply.later(move |reply| {
        let slice = left.by_ref().take(SLICE);
        slice.for_each(|found| found.write(shown, reply));
        left.len() == 0
    });
}

impl<M: AsRef<[u8]>> Found<M> {
    fn write(&self, shown: Shown, reply: &mut ReplyWriter) {
        let extras = [shown.distance, shown.hash, shown.position];
        let extras = extras.into_iter().filter(|&is_shown| is_shown).count();
        if extras > 0 {
            reply.array(1 + extras);
        }
        reply.bulk(self.member.as_ref());
        if shown.distance {
            write_distance(self.distance, reply);
        }
        if shown.hash {
            reply.integer(self.score as i64);
        }
        if shown.position {
            write_position(self.position, reply);
        }
    }
}

/// Stores what is found, or replies with it if no option says where to.
fn search_and_store(
    db: &mut Db<'_>,
    args: &Args<'_>,
    form: Form,
    event: &'static str,
    reply: &mut Reply,
) -> Result {
    let outcome = search(db, args, form);
    let result = outcome.map(|outcome| {
        let Some((key, score)) = outcome.store else {
            write(outcome, reply);
            return None;
        };
        let entries = outcome.found.iter().map(|found| match score {
            StoredScore::Cell => (found.member, found.score),
            StoredScore::Distance => (found.member, found.distance),
        });
        Some((key, build(&entries.collect::<Vec<_>>(), &limits(db))))
    });
    if let Some((key, set)) = result? {
        let count = store(db, key, set, event);
        db.changes.dirty += count.saturating_sub(1) as u64;
        reply.integer(count as i64);
    }
    Ok(())
}
