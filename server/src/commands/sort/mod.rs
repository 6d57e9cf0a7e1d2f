//! SORT: the elements of a list, set or sorted set in order, or what keys named after them hold.
//!
//! A pattern names a key for each element: its `*` stands for the element, and `->` leads to a field of a hash. Which
//! keys that are is known only once the elements are, so patterns with a `*` lock all shards, and what they name is looked
//! up under those locks. Many elements without such patterns are sorted in slices without the locks.

mod big;
mod options;
mod pattern;

use std::cmp::Ordering;

use storage::{
    changes::EventClass,
    db::Db,
    entry::Meta,
    value::{
        Collection, ValueRef,
        element::{Element, Scratch},
        list::{End, List},
    },
};

use self::{
    big::Sorting,
    options::{Direction, Kind, Options, Storing, Weigh},
    pattern::Pattern,
};
use super::list::limits;
use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Category, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[&SORT, &SORT_RO];

const NOT_NUMBERS: Error =
    Error::from_static("ERR One or more scores can't be converted into double");

/// More elements are sorted in slices.
const SORTED_AT_ONCE: usize = 1000;

/// The keys that BY and GET lead to.
const PATTERNS: Keys = Keys {
    place: Place::SortPatterns,
    access: Access::Read,
};

/// Beside the group's own, which SORT is not in.
const CATEGORIES: &[Category] = &[
    Category::Set,
    Category::SortedSet,
    Category::List,
    Category::Dangerous,
];

const SORT: Command = Command {
    name: "SORT",
    syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]",
    summary: "Returns or stores the elements of a list, set or sorted set in order.",
    since: "1.0.0",
    complexity: "O(N+M*log(M)) where N is the number of elements and M the number of elements returned; without sorting O(N)",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[
        Keys::at(1, Access::Read),
        PATTERNS,
        Keys {
            place: Place::SortStore,
            access: Access::Overwrite,
        },
    ],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: CATEGORIES,
    run: Run::Write(sort),
    subcommands: &[],
};

fn sort(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args, Storing::Allowed, db.is_scripted())?;
    let Some(target) = options.store else {
        return answer(db, args, &options, reply);
    };
    let target = args.key(target);
    let source = db.get(args.key(1)).map(|entry| entry.value());
    let list = match begin_big(source, &options) {
        Some(sorting) => {
            let listing = big::Listing::new(sorting, what_is_got(&options), limits(db));
            match reply.finish(listing) {
                Some(list) => list?,
                None => return Ok(()),
            }
        }
        None => collect(db, &sorted(db, source, &options)?, &options.get),
    };
    let len = list.len();
    if len > 0 {
        db.put(target, list.into_value(), Meta::default());
        db.changed(target, EventClass::List, "sortstore");
        db.changes.dirty += len as u64 - 1;
    } else if db.delete(target) {
        db.changed(target, EventClass::Generic, "del");
    }
    reply.integer(len as i64);
    Ok(())
}

const SORT_RO: Command = Command {
    name: "SORT_RO",
    syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]",
    summary: "Returns the elements of a list, set or sorted set in order.",
    since: "7.0.0",
    complexity: "O(N+M*log(M)) where N is the number of elements and M the number of elements returned; without sorting O(N)",
    group: Group::Generic,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read), PATTERNS],
    flags: &[Flag::ReadOnly],
    categories: CATEGORIES,
    run: Run::Read(sort_ro),
    subcommands: &[],
};

fn sort_ro(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let options = Options::read(args, Storing::Refused, db.is_scripted())?;
    answer(db, args, &options, reply)
}

fn answer(db: &Db<'_>, args: &Args<'_>, options: &Options<'_>, reply: &mut Reply) -> Result {
    let source = db.get(args.key(1)).map(|entry| entry.value());
    if let Some(sorting) = begin_big(source, options) {
        reply.later = Some(Box::new(big::Answer::new(sorting, what_is_got(options))));
        return Ok(());
    }
    let elements = sorted(db, source, options)?;
    if options.get.is_empty() {
        reply.array(elements.len());
        for element in elements {
            pattern::Found::Element(element).write(reply);
        }
        return Ok(());
    }
    reply.array(elements.len().saturating_mul(options.get.len()));
    for element in elements {
        for pattern in &options.get {
            match pattern.find(db, element) {
                Some(found) => found.write(reply),
                None => reply.null(),
            }
        }
    }
    Ok(())
}

/// The list that STORE stores. What GET does not find is an empty element.
fn collect(db: &Db<'_>, elements: &[Element<'_>], get: &[Pattern<'_>]) -> List {
    let limits = limits(db);
    let mut list = List::new();
    let mut scratch = Scratch::new();
    for &element in elements {
        if get.is_empty() {
            list.push(End::Back, element.bytes(&mut scratch), limits);
        }
        for pattern in get {
            let found = pattern.find(db, element);
            let bytes = found.as_ref().map(|found| found.bytes(&mut scratch));
            list.push(End::Back, bytes.unwrap_or_default(), limits);
        }
    }
    list.fit(limits);
    list
}

/// Work in slices, if there is much of it and no pattern names other keys.
fn begin_big(source: Option<ValueRef<'_>>, options: &Options<'_>) -> Option<Sorting> {
    let source = source?;
    let len = match source {
        ValueRef::List(list) => list.len(),
        ValueRef::Set(set) => set.len(),
        ValueRef::SortedSet(set) => set.len(),
        _ => return None,
    };
    let kind = match weigh(source, options) {
        (Weigh::Pattern(_), _) => return None,
        (Weigh::Unsorted, _) => None,
        (Weigh::Element, kind) => Some(kind),
    };
    let window = options.window(len);
    let elements = if kind.is_some() { len } else { window.len() };
    if elements <= SORTED_AT_ONCE || options.get.iter().any(Pattern::names_keys) {
        return None;
    }
    let order = big::Order {
        kind,
        direction: options.direction,
    };
    Some(Sorting::new(source.to_value(), order, window))
}

/// For each GET that names no keys whether it gets the element; without any the element is what is wanted.
fn what_is_got(options: &Options<'_>) -> Vec<bool> {
    if options.get.is_empty() {
        return vec![true];
    }
    let gets = options.get.iter();
    gets.map(|get| matches!(get, Pattern::Element)).collect()
}

/// What is compared, and as what.
fn weigh<'o, 'a>(source: ValueRef<'_>, options: &'o Options<'a>) -> (&'o Weigh<'a>, Kind) {
    match (&options.weigh, source) {
        // The order of a set is chance, and what is stored, or a script does, must not depend on chance.
        (Weigh::Unsorted, ValueRef::Set(_)) if options.store.is_some() || options.scripted => {
            (&Weigh::Element, Kind::Text)
        }
        (weigh, _) => (weigh, options.kind),
    }
}

/// The elements in the order asked for, those within the limit.
fn sorted<'d>(
    db: &'d Db<'_>,
    source: Option<ValueRef<'d>>,
    options: &Options<'_>,
) -> Result<Vec<Element<'d>>> {
    let Some(value) = source else {
        return Ok(Vec::new());
    };
    let (weigh, kind) = weigh(value, options);
    if matches!(weigh, Weigh::Unsorted) {
        return unsorted(value, options);
    }
    let elements = all(value)?;
    let window = options.window(elements.len());
    let pattern = match weigh {
        Weigh::Pattern(pattern) => Some(pattern),
        Weigh::Element | Weigh::Unsorted => None,
    };
    let mut elements = match (kind, pattern) {
        (Kind::Number, _) => by_number(db, elements, pattern, options.direction, window.end)?,
        (Kind::Text, None) => by_text(elements, options.direction, window.end),
        (Kind::Text, Some(pattern)) => {
            by_found_text(db, elements, pattern, options.direction, window.end)
        }
    };
    elements.drain(..window.start);
    Ok(elements)
}

/// The elements within the limit as they come; lists and sorted sets also backwards.
fn unsorted<'d>(value: ValueRef<'d>, options: &Options<'_>) -> Result<Vec<Element<'d>>> {
    let backwards = options.direction == Direction::Descending;
    Ok(match value {
        ValueRef::List(list) => {
            let (window, len) = (options.window(list.len()), list.len());
            if backwards {
                list.range_rev(len - window.end..len - window.start)
                    .collect()
            } else {
                list.range(window).collect()
            }
        }
        ValueRef::SortedSet(set) => {
            let (window, len) = (options.window(set.len()), set.len());
            let element = |(member, _): (&'d [u8], f64)| Element::new(member);
            if backwards {
                let ranks = len - window.end..len - window.start;
                set.range(ranks).rev().map(element).collect()
            } else {
                set.range(window).map(element).collect()
            }
        }
        ValueRef::Set(set) => {
            let window = options.window(set.len());
            set.iter().skip(window.start).take(window.len()).collect()
        }
        _ => return Err(Error::WRONG_TYPE),
    })
}

fn all(value: ValueRef<'_>) -> Result<Vec<Element<'_>>> {
    Ok(match value {
        ValueRef::List(list) => list.iter().collect(),
        ValueRef::Set(set) => set.iter().collect(),
        ValueRef::SortedSet(set) => set.iter().map(|(member, _)| Element::new(member)).collect(),
        _ => return Err(Error::WRONG_TYPE),
    })
}

/// Sorts by what the elements or their keys say as numbers; a missing key counts 0, and texts decide between equals.
///
/// # Errors
/// Something is no number.
fn by_number<'d>(
    db: &'d Db<'_>,
    elements: Vec<Element<'d>>,
    pattern: Option<&Pattern<'_>>,
    direction: Direction,
    first: usize,
) -> Result<Vec<Element<'d>>> {
    let weigh = |element: Element<'d>| {
        let found = match pattern {
            None => Some(pattern::Found::Element(element)),
            Some(pattern) => pattern.find(db, element),
        };
        let number = found.map_or(Some(0.0), |found| found.number());
        number.map(|number| (number, element))
    };
    let weighed: Option<Vec<(f64, Element<'d>)>> = elements.into_iter().map(weigh).collect();
    let mut weighed = weighed.ok_or(NOT_NUMBERS)?;
    put_in_order(&mut weighed, direction, first, |one, other| {
        let numbers = one.0.partial_cmp(&other.0).unwrap_or(Ordering::Equal);
        numbers.then_with(|| compare_texts(one.1, other.1))
    });
    Ok(weighed.into_iter().map(|(_, element)| element).collect())
}

fn by_text(mut elements: Vec<Element<'_>>, direction: Direction, first: usize) -> Vec<Element<'_>> {
    put_in_order(&mut elements, direction, first, |&one, &other| {
        compare_texts(one, other)
    });
    elements
}

/// Sorts by the texts that keys hold; a missing one comes first.
fn by_found_text<'d>(
    db: &'d Db<'_>,
    elements: Vec<Element<'d>>,
    pattern: &Pattern<'_>,
    direction: Direction,
    first: usize,
) -> Vec<Element<'d>> {
    let mut weighed: Vec<_> = elements
        .into_iter()
        .map(|element| (pattern.find(db, element), element))
        .collect();
    put_in_order(&mut weighed, direction, first, |one, other| {
        match (&one.0, &other.0) {
            (Some(one), Some(other)) => {
                let (mut scratch, mut other_scratch) = (Scratch::new(), Scratch::new());
                one.bytes(&mut scratch).cmp(other.bytes(&mut other_scratch))
            }
            (one, other) => one.is_some().cmp(&other.is_some()),
        }
    });
    weighed.into_iter().map(|(_, element)| element).collect()
}

/// Sorts, and keeps the `first` items. Fewer than all cost less.
fn put_in_order<T>(
    items: &mut Vec<T>,
    direction: Direction,
    first: usize,
    compare: impl Fn(&T, &T) -> Ordering,
) {
    let compare = |one: &T, other: &T| match direction {
        Direction::Ascending => compare(one, other),
        Direction::Descending => compare(other, one),
    };
    if first < items.len() {
        items.select_nth_unstable_by(first, compare);
        items.truncate(first);
    }
    items.sort_by(compare);
}

fn compare_texts(one: Element<'_>, other: Element<'_>) -> Ordering {
    let (mut scratch, mut other_scratch) = (Scratch::new(), Scratch::new());
    one.bytes(&mut scratch).cmp(other.bytes(&mut other_scratch))
}
