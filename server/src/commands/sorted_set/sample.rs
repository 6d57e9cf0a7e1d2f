//! Random members, and walking over a sorted set in steps.

use hashbrown::HashSet;
use protocol::resp::reply::ReplyWriter;
use storage::{
    db::Db,
    value::number,
    value::sorted_set::{Encoding, SortedSet},
};

use super::{Order, SLICE, Shown, WRITTEN_AT_ONCE, write_entries};
use crate::{
    commands::scan::{ScanOptions, read_cursor},
    dispatch::{
        args::Args,
        command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
        error::Error,
    },
    server::random_word,
};

pub(super) const ZRANDMEMBER: Command = Command {
    name: "ZRANDMEMBER",
    syntax: "key [count [WITHSCORES]]",
    summary: "Returns random members.",
    since: "6.2.0",
    complexity: "O(M*log(N)) for M members returned",
    group: Group::SortedSet,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zrandmember),
    subcommands: &[],
};

fn zrandmember(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() == 2 {
        let set = db.read::<SortedSet>(args.key(1))?;
        match set.and_then(|set| set.get(random_below(set.len()))) {
            Some((member, _)) => reply.bulk(member),
            None => reply.null(),
        }
        return Ok(());
    }
    let count = args.integer(2)?;
    if count == i64::MIN {
        return Err(Error::OUTSIDE_SYMMETRIC);
    }
    let with_scores = args.len() == 4 && args.is(3, "WITHSCORES");
    if args.len() > 4 || args.len() == 4 && !with_scores {
        return Err(Error::SYNTAX);
    }
    let shown = match with_scores {
        true => Shown::with_scores(reply),
        false => Shown::Members,
    };
    if with_scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Error::general("value is out of range"));
    }
    let Some(set) = db.read::<SortedSet>(args.key(1))? else {
        reply.array(0);
        return Ok(());
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    shown.begin(
        if count < 0 {
            wanted
        } else {
            wanted.min(set.len())
        },
        reply,
    );
    if count < 0 {
        write_draws(reply, set, wanted, shown);
    } else if wanted >= set.len() {
        write_entries(reply, set, 0..set.len(), Order::Ascending, shown);
    } else {
        write_sample(reply, set, wanted, shown);
    }
    Ok(())
}

/// Writes so many random entries, of which some may be the same.
fn write_draws(reply: &mut Reply, set: &SortedSet, count: usize, shown: Shown) {
    fn draw(reply: &mut ReplyWriter, set: &SortedSet, count: usize, shown: Shown) {
        for _ in 0..count {
            if let Some((member, score)) = set.get(random_below(set.len())) {
                shown.write(member, score, reply);
            }
        }
    }
    if count <= WRITTEN_AT_ONCE {
        return draw(reply, set, count, shown);
    }
    let (set, mut left) = (set.clone(), count);
    reply.later(move |reply| {
        let count = left.min(SLICE);
        draw(reply, &set, count, shown);
        left -= count;
        left == 0
    });
}

/// Writes so many distinct random entries of a set that has more.
fn write_sample(reply: &mut Reply, set: &SortedSet, count: usize, shown: Shown) {
    let ranks = distinct_below(set.len(), count);
    if count <= WRITTEN_AT_ONCE {
        let entries = ranks.into_iter().filter_map(|rank| set.get(rank));
        entries.for_each(|(member, score)| shown.write(member, score, reply));
        return;
    }
    let (set, mut ranks) = (set.clone(), ranks.into_iter());
    reply.later(move |reply| {
        let slice = ranks.by_ref().take(SLICE).filter_map(|rank| set.get(rank));
        slice.for_each(|(member, score)| shown.write(member, score, reply));
        ranks.len() == 0
    });
}

/// `count` distinct numbers below `bound`, of which there are more, by Floyd's method: one draw each.
fn distinct_below(bound: usize, count: usize) -> Vec<usize> {
    let mut drawn = HashSet::with_capacity(count);
    let mut numbers = Vec::with_capacity(count);
    for top in bound - count..bound {
        let number = random_below(top + 1);
        let number = if drawn.insert(number) { number } else { top };
        drawn.insert(number);
        numbers.push(number);
    }
    numbers
}

/// A random number below `bound`, which is not 0.
fn random_below(bound: usize) -> usize {
    ((u128::from(random_word()) * bound as u128) >> 64) as usize
}

pub(super) const ZSCAN: Command = Command {
    name: "ZSCAN",
    syntax: "key cursor [MATCH pattern] [COUNT count] [NOSCORES]",
    summary: "Walks over the members of a sorted set in steps.",
    since: "2.8.0",
    complexity: "O(1) for each call, O(N) for all",
    group: Group::SortedSet,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(zscan),
    subcommands: &[],
};

fn zscan(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let cursor = read_cursor(args.word(2))?;
    let Some(set) = db.read::<SortedSet>(args.key(1))? else {
        reply.array(2);
        reply.bulk(b"0");
        reply.array(0);
        return Ok(());
    };
    let options = ScanOptions::read(args, 3)?;
    let encoding = set.encoding();
    let mut found: Vec<(Box<[u8]>, f64)> = Vec::new();
    let next = set.scan(cursor, options.count, |member, score| {
        if options.matches(member) {
            found.push((member.into(), score));
        }
    });
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(found.len() * if options.keys_only { 1 } else { 2 });
    let mut text = Vec::with_capacity(32);
    for (member, score) in found {
        reply.bulk(&member);
        if !options.keys_only {
            // Text for all clients, unlike in other replies.
            text.clear();
            match encoding {
                Encoding::ListPack => number::write_f64(score, &mut text),
                Encoding::SkipList => write_seventeen_digits(score, &mut text),
            }
            reply.bulk(&text);
        }
    }
    Ok(())
}

/// A score as ZSCAN shows it where sets are large: up to 17 digits, more than it takes to tell it from others.
fn write_seventeen_digits(score: f64, out: &mut Vec<u8>) {
    /// From this power of ten on a number is written with an exponent, as well as below the least.
    const MOST: i32 = 17;
    const LEAST: i32 = -4;
    if !score.is_finite() || score == 0.0 {
        return number::write_f64(score, out);
    }
    let scientific = format!("{score:.16e}");
    let (digits, exponent) = scientific
        .split_once('e')
        .expect("this form always has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    let text = if (LEAST..MOST).contains(&exponent) {
        let decimals = usize::try_from(MOST - 1 - exponent).unwrap_or(0);
        without_zeros(&format!("{score:.decimals$}")).to_owned()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", without_zeros(digits), exponent.abs())
    };
    out.extend_from_slice(text.as_bytes());
}

/// A number without the zeros at the end of its fraction.
fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}
