//! Bitmaps: strings seen as bits.

use std::sync::atomic::Ordering;

use storage::{changes::EventClass, db::Db, entry::Meta, keyspace::Key, value::number};

use crate::dispatch::{
    args::Args,
    command::{Access, Arity::*, Command, Flag, Group, Keys, Reply, Result, Run},
    error::Error,
};

pub const COMMANDS: &[&Command] = &[
    &BITCOUNT,
    &BITFIELD,
    &BITFIELD_RO,
    &BITOP,
    &BITPOS,
    &GETBIT,
    &SETBIT,
];

const SETBIT: Command = Command {
    name: "SETBIT",
    syntax: "key offset value",
    summary: "Sets or clears a bit of a string, extending it with zeros as needed.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::Bitmap,
    arity: Exactly(4),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(setbit),
    subcommands: &[],
};

fn setbit(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    const BAD_BIT: Error = Error::from_static("ERR bit is not an integer or out of range");
    let key = args.key(1);
    let offset = bit_offset(db, args.word(2))?;
    let bit = match number::parse_i64(args.word(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(BAD_BIT),
    };
    let byte = (offset / 8) as usize;
    let mask = 0x80 >> (offset % 8);
    let grows = len_to_change(db, key)? <= byte;
    let old = db.edit_text(key, byte + 1, |bytes| {
        let old = bytes[byte] & mask != 0;
        if bit {
            bytes[byte] |= mask;
        } else {
            bytes[byte] &= !mask;
        }
        old
    })?;
    if grows || old != bit {
        db.changed(key, EventClass::String, "setbit");
    }
    reply.integer(i64::from(old));
    Ok(())
}

/// How many bytes a string has that a command is about to change.
fn len_to_change(db: &Db<'_>, key: Key<'_>) -> Result<usize> {
    Ok(db.text_to_change(key)?.map_or(0, |text| text.len()))
}

/// A bit's number as an argument: within the longest string there may be.
fn bit_offset(db: &Db<'_>, word: &[u8]) -> Result<u64> {
    let limit = db.settings().proto_max_bulk_len.load(Ordering::Relaxed);
    let offset = number::parse_i64(word).and_then(|offset| u64::try_from(offset).ok());
    offset.filter(|offset| offset / 8 < limit).ok_or(BAD_OFFSET)
}

const BAD_OFFSET: Error = Error::from_static("ERR bit offset is not an integer or out of range");

const GETBIT: Command = Command {
    name: "GETBIT",
    syntax: "key offset",
    summary: "Returns a bit of a string.",
    since: "2.2.0",
    complexity: "O(1)",
    group: Group::Bitmap,
    arity: Exactly(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(getbit),
    subcommands: &[],
};

fn getbit(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let offset = bit_offset(db, args.word(2))?;
    let bit = with_bytes(db, args.key(1), |bytes| {
        bytes
            .get((offset / 8) as usize)
            .is_some_and(|byte| byte & (0x80 >> (offset % 8)) != 0)
    })?;
    reply.integer(i64::from(bit));
    Ok(())
}

/// Looks at a key's bytes, none if it does not exist.
fn with_bytes<R>(db: &Db<'_>, key: Key<'_>, look: impl FnOnce(&[u8]) -> R) -> Result<R> {
    let text = db.text(key)?;
    let mut digits = itoa::Buffer::new();
    Ok(look(
        text.as_ref()
            .map_or(&[][..], |text| text.as_bytes(&mut digits)),
    ))
}

const BITCOUNT: Command = Command {
    name: "BITCOUNT",
    syntax: "key [start [end [BYTE | BIT]]]",
    summary: "Counts the bits of a string that are set.",
    since: "2.6.0",
    complexity: "O(N)",
    group: Group::Bitmap,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(bitcount),
    subcommands: &[],
};

fn bitcount(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    if args.len() > 5 {
        return Err(Error::SYNTAX);
    }
    let range = Range::read(args, 2)?;
    // Backwards from the end is empty here; BITPOS brings both ends into the string first.
    let backwards = range.start < 0 && range.end < 0 && range.start > range.end;
    let count = with_bytes(db, args.key(1), |bytes| match range.bits(bytes.len()) {
        Some((first, last)) if !backwards => count_bits(bytes, first, last),
        _ => 0,
    })?;
    reply.integer(count as i64);
    Ok(())
}

/// Counts the set bits from `first` to `last`, both included and within the bytes.
fn count_bits(bytes: &[u8], first: u64, last: u64) -> u64 {
    let (from, to) = ((first / 8) as usize, (last / 8) as usize);
    let head = 0xffu8 >> (first % 8);
    let tail = 0xffu8 << (7 - last % 8);
    if from == to {
        return u64::from((bytes[from] & head & tail).count_ones());
    }
    let middle = &bytes[from + 1..to];
    let words = middle.chunks_exact(8);
    let rest: u32 = words.remainder().iter().map(|byte| byte.count_ones()).sum();
    let whole: u64 = words
        .map(|word| {
            u64::from(u64::from_le_bytes(word.try_into().expect("chunks of eight")).count_ones())
        })
        .sum();
    whole + u64::from(rest + (bytes[from] & head).count_ones() + (bytes[to] & tail).count_ones())
}

const BITPOS: Command = Command {
    name: "BITPOS",
    syntax: "key bit [start [end [BYTE | BIT]]]",
    summary: "Finds the first bit of a string that is set, or clear.",
    since: "2.8.7",
    complexity: "O(N)",
    group: Group::Bitmap,
    arity: AtLeast(3),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly],
    categories: &[],
    run: Run::Read(bitpos),
    subcommands: &[],
};

fn bitpos(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let bit = match number::parse_i64(args.word(2)) {
        Some(0) => false,
        Some(1) => true,
        Some(_) => return Err(Error::from_static("ERR The bit argument must be 1 or 0.")),
        None => return Err(Error::NOT_AN_INTEGER),
    };
    if args.len() > 6 {
        return Err(Error::SYNTAX);
    }
    let range = Range::read(args, 3)?;
    let missing = db.peek(args.key(1)).is_none();
    let position = with_bytes(db, args.key(1), |bytes| {
        if missing {
            return if bit { -1 } else { 0 };
        }
        let Some((first, last)) = range.bits(bytes.len()) else {
            return -1;
        };
        match find_bit(bytes, bit, first, last) {
            Some(position) => position as i64,
            // Without an end the string is taken to go on with zeros.
            None if !bit && !range.has_end => bytes.len() as i64 * 8,
            None => -1,
        }
    })?;
    reply.integer(position);
    Ok(())
}

/// The first bit of this value from `first` to `last`, both included and within the bytes.
fn find_bit(bytes: &[u8], bit: bool, first: u64, last: u64) -> Option<u64> {
    let skipped = if bit { 0x00 } else { 0xff };
    let mut at = first;
    while at <= last {
        let byte = bytes[(at / 8) as usize];
        if byte == skipped {
            at = (at / 8 + 1) * 8;
            continue;
        }
        if (byte & (0x80 >> (at % 8)) != 0) == bit {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// A range of BITCOUNT and BITPOS: bytes or bits, both ends included, negative ones counted from the end.
struct Range {
    start: i64,
    end: i64,
    has_end: bool,
    in_bits: bool,
}

impl Range {
    fn read(args: &Args<'_>, first: usize) -> Result<Range> {
        let mut range = Range {
            start: 0,
            end: -1,
            has_end: false,
            in_bits: false,
        };
        if args.len() > first {
            range.start = args.integer(first)?;
        }
        if args.len() > first + 2 {
            range.in_bits = args.is(first + 2, "BIT");
            if !range.in_bits && !args.is(first + 2, "BYTE") {
                return Err(Error::SYNTAX);
            }
        }
        if args.len() > first + 1 {
            range.end = args.integer(first + 1)?;
            range.has_end = true;
        }
        Ok(range)
    }

    /// First and last bit in a string of `len` bytes; `None` if there are none.
    fn bits(&self, len: usize) -> Option<(u64, u64)> {
        let units = if self.in_bits {
            len as i64 * 8
        } else {
            len as i64
        };
        let from_end = |index: i64| {
            if index < 0 {
                (units + index).max(0)
            } else {
                index
            }
        };
        let (start, end) = (from_end(self.start), from_end(self.end).min(units - 1));
        if start > end {
            return None;
        }
        let (start, end) = (start as u64, end as u64);
        Some(if self.in_bits {
            (start, end)
        } else {
            (start * 8, end * 8 + 7)
        })
    }
}

const BITOP: Command = Command {
    name: "BITOP",
    syntax: "operation destkey key [key ...]",
    summary: "Combines strings bit by bit into another.",
    since: "2.6.0",
    complexity: "O(N)",
    group: Group::Bitmap,
    arity: AtLeast(4),
    keys: &[Keys::at(2, Access::Overwrite), Keys::all(3, Access::Read)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(bitop),
    subcommands: &[],
};

fn bitop(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let operation = match args.word(1).to_ascii_uppercase().as_slice() {
        b"AND" => Operation::And,
        b"OR" => Operation::Or,
        b"XOR" => Operation::Xor,
        b"NOT" => Operation::Not,
        _ => return Err(Error::SYNTAX),
    };
    if operation == Operation::Not && args.len() != 4 {
        return Err(Error::general(
            "BITOP NOT must be called with a single source key.",
        ));
    }
    let mut sources = Vec::with_capacity(args.len() - 3);
    for index in 3..args.len() {
        sources.push(with_bytes(db, args.key(index), <[u8]>::to_vec)?);
    }
    let combined = combine(operation, sources);
    let target = args.key(2);
    reply.integer(combined.len() as i64);
    if combined.is_empty() {
        if db.delete(target) {
            db.changed(target, EventClass::Generic, "del");
        }
    } else {
        db.put_bytes(target, &combined, Meta::default());
        db.mark_raw(target);
        db.changed(target, EventClass::String, "set");
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

/// Combines all sources, shorter ones extended with zeros.
fn combine(operation: Operation, mut sources: Vec<Vec<u8>>) -> Vec<u8> {
    let len = sources.iter().map(Vec::len).max().unwrap_or(0);
    let mut sources = sources.drain(..);
    let mut combined = sources.next().unwrap_or_default();
    combined.resize(len, 0);
    if operation == Operation::Not {
        combined.iter_mut().for_each(|byte| *byte = !*byte);
    }
    for mut source in sources {
        source.resize(len, 0);
        for (byte, other) in combined.iter_mut().zip(source) {
            match operation {
                Operation::And => *byte &= other,
                Operation::Or => *byte |= other,
                Operation::Xor => *byte ^= other,
                Operation::Not => {}
            }
        }
    }
    combined
}

const BITFIELD: Command = Command {
    name: "BITFIELD",
    syntax: "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | INCRBY encoding offset increment> ...]",
    summary: "Reads and changes integers of any width within a string.",
    since: "3.2.0",
    complexity: "O(1) for each operation",
    group: Group::Bitmap,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Update)],
    flags: &[Flag::Write, Flag::DenyOom],
    categories: &[],
    run: Run::Write(bitfield),
    subcommands: &[],
};

fn bitfield(db: &mut Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let operations = read_fields(db, args)?;
    let key = args.key(1);
    let reach = operations
        .iter()
        .filter(|operation| operation.action != Action::Get)
        .map(Field::end_byte)
        .max();
    let Some(reach) = reach else {
        return read_all(db, args, &operations, reply);
    };
    let grows = len_to_change(db, key)? < reach;
    let mut results = Vec::with_capacity(operations.len());
    let changes = db.edit_text(key, reach, |bytes| {
        let mut changes = 0;
        for operation in &operations {
            let old = operation.read(bytes);
            let result = operation.apply(bytes);
            let writes = operation.action != Action::Get && result.is_some();
            changes += u64::from(writes && (grows || operation.read(bytes) != old));
            results.push(result);
        }
        changes
    })?;
    if changes > 0 {
        db.changed(key, EventClass::String, "setbit");
        db.changes.dirty += changes - 1;
    } else if grows {
        // Nobody is told, but replicas have to let it grow as well.
        db.changes.dirty += 1;
    }
    reply.array(results.len());
    for result in results {
        match result {
            Some(value) => reply.integer(value),
            None => reply.null(),
        }
    }
    Ok(())
}

fn read_all(db: &Db<'_>, args: &Args<'_>, fields: &[Field], reply: &mut Reply) -> Result {
    let values: Vec<i64> = with_bytes(db, args.key(1), |bytes| {
        fields
            .iter()
            .map(|field| field.to_signed(field.read(bytes)))
            .collect()
    })?;
    reply.array(values.len());
    values.into_iter().for_each(|value| reply.integer(value));
    Ok(())
}

const BITFIELD_RO: Command = Command {
    name: "BITFIELD_RO",
    syntax: "key [GET encoding offset [GET encoding offset ...]]",
    summary: "Reads integers of any width within a string.",
    since: "6.0.0",
    complexity: "O(1) for each operation",
    group: Group::Bitmap,
    arity: AtLeast(2),
    keys: &[Keys::at(1, Access::Read)],
    flags: &[Flag::ReadOnly, Flag::Fast],
    categories: &[],
    run: Run::Read(bitfield_ro),
    subcommands: &[],
};

fn bitfield_ro(db: &Db<'_>, args: &Args<'_>, reply: &mut Reply) -> Result {
    let fields = read_fields(db, args)?;
    if fields.iter().any(|field| field.action != Action::Get) {
        return Err(Error::general(
            "BITFIELD_RO only supports the GET subcommand",
        ));
    }
    read_all(db, args, &fields, reply)
}

/// What happens when a number leaves its width.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Get,
    Set(i64),
    Add(i64),
}

/// One operation of BITFIELD on an integer of `width` bits at a bit offset.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    width: u32,
    offset: u64,
    action: Action,
    overflow: Overflow,
}

fn read_fields(db: &Db<'_>, args: &Args<'_>) -> Result<Vec<Field>> {
    let mut fields = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut index = 2;
    while index < args.len() {
        let left = args.len() - index - 1;
        if args.is(index, "OVERFLOW") && left >= 1 {
            overflow = match args.word(index + 1).to_ascii_uppercase().as_slice() {
                b"WRAP" => Overflow::Wrap,
                b"SAT" => Overflow::Saturate,
                b"FAIL" => Overflow::Fail,
                _ => return Err(Error::general("Invalid OVERFLOW type specified")),
            };
            index += 2;
            continue;
        }
        let is_get = args.is(index, "GET") && left >= 2;
        let is_set = args.is(index, "SET") && left >= 3;
        let is_add = args.is(index, "INCRBY") && left >= 3;
        if !(is_get || is_set || is_add) {
            return Err(Error::SYNTAX);
        }
        let (signed, width) = field_type(args.word(index + 1))?;
        let offset = field_offset(db, args.word(index + 2), width)?;
        let action = match is_get {
            true => Action::Get,
            false if is_set => Action::Set(args.integer(index + 3)?),
            false => Action::Add(args.integer(index + 3)?),
        };
        index += if is_get { 3 } else { 4 };
        fields.push(Field {
            signed,
            width,
            offset,
            action,
            overflow,
        });
    }
    Ok(fields)
}

fn field_type(word: &[u8]) -> Result<(bool, u32)> {
    const BAD_TYPE: Error = Error::from_static(
        "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
    );
    let (signed, widest) = match word.first() {
        Some(b'i') => (true, 64),
        Some(b'u') => (false, 63),
        _ => return Err(BAD_TYPE),
    };
    let width = number::parse_i64(&word[1..]).filter(|width| (1..=widest).contains(width));
    Ok((signed, width.ok_or(BAD_TYPE)? as u32))
}

/// A bit offset, or with a `#` in front the number of a field of this width.
fn field_offset(db: &Db<'_>, word: &[u8], width: u32) -> Result<u64> {
    let limit = db.settings().proto_max_bulk_len.load(Ordering::Relaxed);
    let (digits, unit) = word
        .strip_prefix(b"#")
        .map_or((word, 1), |digits| (digits, i64::from(width)));
    // The product is taken modulo 2^64, as the original does.
    let offset =
        number::parse_i64(digits).and_then(|number| u64::try_from(number.wrapping_mul(unit)).ok());
    offset.filter(|offset| offset / 8 < limit).ok_or(BAD_OFFSET)
}

impl Field {
    /// Bytes that a string needs to hold the field.
    fn end_byte(&self) -> usize {
        ((self.offset + u64::from(self.width) - 1) / 8 + 1) as usize
    }

    /// The field's bits; those beyond the string are zero.
    fn read(&self, bytes: &[u8]) -> u64 {
        (self.offset..self.offset + u64::from(self.width)).fold(0, |value, at| {
            let bit = bytes
                .get((at / 8) as usize)
                .is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
            value << 1 | u64::from(bit)
        })
    }

    fn write(&self, bytes: &mut [u8], value: u64) {
        for (place, at) in (self.offset..self.offset + u64::from(self.width))
            .rev()
            .enumerate()
        {
            let mask = 0x80 >> (at % 8);
            let byte = &mut bytes[(at / 8) as usize];
            if value >> place & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
    }

    /// The bits as the number they stand for.
    fn to_signed(self, bits: u64) -> i64 {
        let unused = 64 - self.width;
        if self.signed {
            (bits << unused) as i64 >> unused
        } else {
            bits as i64
        }
    }

    /// Does the operation; `None` if it would overflow and is to fail then.
    fn apply(&self, bytes: &mut [u8]) -> Option<i64> {
        let old = self.to_signed(self.read(bytes));
        match self.action {
            Action::Get => Some(old),
            Action::Set(value) => {
                let wide = if self.signed {
                    i128::from(value)
                } else {
                    i128::from(value as u64)
                };
                let value = if self.saturates_upwards(value) {
                    self.range().1 as i64
                } else {
                    self.fit(wide)?
                };
                self.write(bytes, value as u64);
                Some(old)
            }
            Action::Add(by) => {
                let value = self.fit(i128::from(old) + i128::from(by))?;
                self.write(bytes, value as u64);
                Some(value)
            }
        }
    }

    /// The least and the greatest number that the field holds.
    fn range(&self) -> (i128, i128) {
        match self.signed {
            true => (
                -(1i128 << (self.width - 1)),
                (1i128 << (self.width - 1)) - 1,
            ),
            false => (0, (1i128 << self.width) - 1),
        }
    }

    /// The original takes a number so far below the range that their distance leaves 64 bits for one above it.
    fn saturates_upwards(&self, value: i64) -> bool {
        self.signed
            && self.width < 64
            && self.overflow == Overflow::Saturate
            && self.range().1 - i128::from(value) > i128::from(i64::MAX)
    }

    /// A number brought into the field's range as its overflow says.
    fn fit(&self, value: i128) -> Option<i64> {
        let (least, most) = self.range();
        if (least..=most).contains(&value) {
            return Some(value as i64);
        }
        match self.overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(least, most) as i64),
            Overflow::Wrap => Some(self.to_signed(value as u64 & (u64::MAX >> (64 - self.width)))),
        }
    }
}
