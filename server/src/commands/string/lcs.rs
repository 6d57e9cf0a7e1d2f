//! LCS: what two strings have in common.

use storage::{db::Db, value::lcs};

use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Place, Reply, Result, Run},
    error::Error,
};

pub(super) const LCS: Command = Command {
    name: "LCS",
    syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    summary: "Finds the longest common subsequence of two strings.",
    since: "7.0.0",
    complexity: "O(N*M) for strings of N and M bytes",
    group: Group::String,
    arity: AtLeast(3),
    keys: &[Keys {
        place: Place::Pair { first: 1 },
        access: Access::Read,
    }],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(lcs),
    subcommands: &[],
};

fn lcs(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const NOT_STRINGS: Error =
        Error::from_static("ERR The specified keys must contain string values");
    let (left, right) = (db.text(args.key(1)), db.text(args.key(2)));
    let (left, right) = (
        left.map_err(|_| NOT_STRINGS)?,
        right.map_err(|_| NOT_STRINGS)?,
    );
    let (mut len_only, mut with_index, mut with_len, mut min_len) = (false, false, false, 0);
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "LEN") {
            len_only = true;
        } else if args.is(index, "IDX") {
            with_index = true;
        } else if args.is(index, "WITHMATCHLEN") {
            with_len = true;
        } else if args.is(index, "MINMATCHLEN") && index + 1 < args.len() {
            min_len = args.integer(index + 1)?.max(0);
            index += 1;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    if len_only && with_index {
        return Err(Error::general(
            "If you want both the length and indexes, please just use IDX.",
        ));
    }
    let (mut left_digits, mut right_digits) = (itoa::Buffer::new(), itoa::Buffer::new());
    let left = left
        .as_ref()
        .map_or(&b""[..], |text| text.as_bytes(&mut left_digits));
    let right = right
        .as_ref()
        .map_or(&b""[..], |text| text.as_bytes(&mut right_digits));
    let found = lcs::find(left, right).ok_or(Error::from_static(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    ))?;
    if len_only {
        reply.integer(found.len() as i64);
    } else if with_index {
        let matches: Vec<_> = found
            .matches()
            .filter(|range| range.len as i64 >= min_len)
            .collect();
        reply.map(2);
        reply.bulk(b"matches");
        reply.array(matches.len());
        for range in matches {
            reply.array(if with_len { 3 } else { 2 });
            for start in [range.left, range.right] {
                reply.array(2);
                reply.integer(start as i64);
                reply.integer((start + range.len - 1) as i64);
            }
            if with_len {
                reply.integer(range.len as i64);
            }
        }
        reply.bulk(b"len");
        reply.integer(found.len() as i64);
    } else {
        reply.bulk(&found.text(left));
    }
    Ok(())
}
