//! Finds the keys among a command's words, by its declaration.

use std::ops::Range;

use super::{
    args::Args,
    command::{Access, Command, Place},
};

/// Calls `visit` with the word number of every key of a request, in order of declaration.
///
/// False if the words do not say where the keys are (a count that is no number or too large): the handler will answer
/// with its own error before it touches any.
pub fn each_key(command: &Command, args: &Args<'_>, mut visit: impl FnMut(usize, Access)) -> bool {
    let words = args.len();
    let mut sound = true;
    for keys in command.keys {
        match keys.place {
            Place::At(index) => {
                if index < words {
                    visit(index, keys.access);
                }
            }
            Place::Pair { first } => {
                (first..words.min(first + 2)).for_each(|index| visit(index, keys.access));
            }
            Place::Range { first, last, step } => {
                (first..words.saturating_sub(last))
                    .step_by(step)
                    .for_each(|index| visit(index, keys.access));
            }
            Place::Count { at } | Place::CountPairs { at } => {
                let step = if matches!(keys.place, Place::Count { .. }) {
                    1
                } else {
                    2
                };
                let room = (words.saturating_sub(at + 1) / step) as u64;
                match args.get(at).and_then(storage::value::number::parse_i64) {
                    Some(count) if count > 0 && count as u64 <= room => {
                        let indexes = (at + 1..).step_by(step).take(count as usize);
                        indexes.for_each(|index| visit(index, keys.access));
                    }
                    _ => sound = false,
                }
            }
            Place::Streams { from } => {
                if let Some(keyword) = (from..words).find(|&index| args.is(index, "STREAMS")) {
                    let count = (words - keyword - 1) / 2;
                    (keyword + 1..=keyword + count).for_each(|index| visit(index, keys.access));
                } else {
                    sound = false;
                }
            }
            Place::After { keyword, from } => {
                // The last one counts, whichever of the command's keywords it is: handlers let a later option override
                // an earlier one.
                if let Some(at) = last_keyword(args, keyword, from)
                    && !is_overridden(command, args, at)
                {
                    visit(at + 1, keys.access);
                }
            }
            Place::SortStore => {
                // As above, the last one counts.
                if let Some(at) = sort_arguments(args, "STORE").last() {
                    visit(at, keys.access);
                }
            }
            Place::Migrated { listed } => {
                let list = migrated_list(args);
                if listed == list.is_some() {
                    migrated(args).for_each(|index| visit(index, keys.access));
                }
                sound &= list.is_none() || args.get(3).is_some_and(<[u8]>::is_empty);
            }
            Place::SortPatterns | Place::AllShards => {}
        }
    }
    sound
}

/// The words that are MIGRATE's keys.
pub fn migrated(args: &Args<'_>) -> Range<usize> {
    match migrated_list(args) {
        Some(first) => first..args.len(),
        None => 3..args.len().min(4),
    }
}

/// Where the keys after MIGRATE's option KEYS begin. Passwords may look like options, so they are stepped over.
fn migrated_list(args: &Args<'_>) -> Option<usize> {
    let next_option = |&index: &usize| {
        let argument_count = match () {
            () if args.is(index, "AUTH") => 1,
            () if args.is(index, "AUTH2") => 2,
            () => 0,
        };
        Some(index + 1 + argument_count)
    };
    std::iter::successors(Some(6), next_option)
        .take_while(|&index| index < args.len())
        .find(|&index| args.is(index, "KEYS"))
        .map(|index| index + 1)
}

/// Where a keyword with an argument is said for the last time.
fn last_keyword(args: &Args<'_>, keyword: &str, from: usize) -> Option<usize> {
    (from..args.len().saturating_sub(1))
        .rev()
        .find(|&index| args.is(index, keyword))
}

/// Whether another keyword of the command comes later.
fn is_overridden(command: &Command, args: &Args<'_>, at: usize) -> bool {
    command.keys.iter().any(|keys| match keys.place {
        Place::After { keyword, from } => {
            last_keyword(args, keyword, from).is_some_and(|other| other > at)
        }
        _ => false,
    })
}

/// Whether a request works on every shard.
pub fn wants_all_shards(command: &Command, args: &Args<'_>) -> bool {
    command.keys.iter().any(|keys| match keys.place {
        Place::AllShards => true,
        Place::SortPatterns => ["BY", "GET"]
            .iter()
            .flat_map(|keyword| sort_arguments(args, keyword))
            .any(|at| args.word(at).contains(&b'*')),
        _ => false,
    })
}

/// The words that are arguments of one of SORT's options. An argument may look like an option, so options are stepped
/// over one after the other.
fn sort_arguments(args: &Args<'_>, keyword: &str) -> impl Iterator<Item = usize> {
    let next_option = |&index: &usize| {
        let argument_count = if args.is(index, "LIMIT") {
            2
        } else if ["BY", "GET", "STORE"]
            .iter()
            .any(|name| args.is(index, name))
        {
            1
        } else {
            0
        };
        Some(index + 1 + argument_count)
    };
    std::iter::successors(Some(2), next_option)
        .take_while(|index| index + 1 < args.len())
        .filter(|&index| args.is(index, keyword))
        .map(|index| index + 1)
}
