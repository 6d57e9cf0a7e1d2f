//! HyperLogLog: how many different elements were seen, within 0.81 %, in at most 12 KiB.
//!
//! The structure lives in an ordinary string, in the format that Redis and Valkey share, byte for byte, so that strings move between
//! servers:
//!
//! ```text
//! "HYLL" | encoding: 0 dense, 1 sparse | 3 reserved | cached count, u64 little-endian; top bit: out of date | registers
//!
//! dense:  16,384 registers of 6 bits, the first in the lowest bits of the first byte
//! sparse: runs    00llllll           l+1 registers of 0                ("ZERO")
//!                 01llllll llllllll  l+1 registers of 0                ("XZERO")
//!                 1vvvvvll           l+1 registers of v+1              ("VAL")
//! ```
//!
//! An element's 64-bit hash chooses the register with its low 14 bits; the register keeps the greatest position of the lowest set bit
//! among the others. The count comes from the histogram of the registers (Otmar Ertl, "New cardinality estimation algorithms for
//! HyperLogLog sketches", 2017).
//!
//! Clients can write any bytes into such a string, so nothing here trusts them: every access checks what it reads. Cost: an element is
//! O(1) when dense and O(runs) when sparse; counts and unions are O(registers).

use std::fmt::Write;

const REGISTER_BITS: usize = 6;
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of the hash that registers look at.
const PATTERN_BITS: u32 = 64 - INDEX_BITS;

const MAGIC: &[u8; 4] = b"HYLL";
const HEADER_LEN: usize = 16;
const ENCODING_AT: usize = 4;
const COUNT_AT: usize = 8;
const STALE_AT: usize = 15;
const STALE: u8 = 0x80;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const DENSE_LEN: usize = HEADER_LEN + REGISTERS * REGISTER_BITS / 8;

/// The longest runs that the sparse codes express.
const MAX_ZERO_RUN: usize = 64;
const MAX_VALUE_RUN: usize = 4;
/// The greatest register that the sparse codes express.
const MAX_SPARSE_VALUE: u8 = 32;

const HASH_SEED: u64 = 0xadc8_3b19;

/// Why a string cannot be used as a HyperLogLog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The header is not that of a HyperLogLog.
    NotHyperLogLog,
    /// The header is right, but the registers are not.
    Corrupted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Sparse,
    Dense,
}

/// An empty HyperLogLog.
pub fn create() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + 2);
    bytes.extend_from_slice(MAGIC);
    bytes.push(SPARSE);
    bytes.resize(HEADER_LEN, 0);
    bytes[STALE_AT] = STALE;
    Run::zeros(REGISTERS).write(&mut bytes);
    bytes
}

/// The encoding, if the header and the length are those of a HyperLogLog.
///
/// # Errors
/// [`Error::NotHyperLogLog`].
pub fn encoding(bytes: &[u8]) -> Result<Encoding, Error> {
    if bytes.len() < HEADER_LEN || !bytes.starts_with(MAGIC) {
        return Err(Error::NotHyperLogLog);
    }
    match bytes[ENCODING_AT] {
        DENSE if bytes.len() == DENSE_LEN => Ok(Encoding::Dense),
        SPARSE => Ok(Encoding::Sparse),
        _ => Err(Error::NotHyperLogLog),
    }
}

/// Adds elements and returns whether any register changed.
///
/// A sparse string becomes dense when it would grow beyond `sparse_max_bytes`, or a register passes 32.
///
/// # Errors
/// [`Error`], if the bytes are not sound; elements before the faulty run may have been added.
pub fn add<'a>(
    bytes: &mut Vec<u8>,
    elements: impl IntoIterator<Item = &'a [u8]>,
    sparse_max_bytes: usize,
) -> Result<bool, Error> {
    encoding(bytes)?;
    let mut changed = false;
    for element in elements {
        let (index, value) = register_of(element);
        changed |= raise(bytes, index, value, sparse_max_bytes)?;
    }
    if changed {
        bytes[STALE_AT] |= STALE;
    }
    Ok(changed)
}

/// The count that was stored with the registers, unless they changed since.
///
/// # Errors
/// [`Error::NotHyperLogLog`].
pub fn cached_count(bytes: &[u8]) -> Result<Option<u64>, Error> {
    encoding(bytes)?;
    let mut count = [0; 8];
    count.copy_from_slice(&bytes[COUNT_AT..HEADER_LEN]);
    Ok((bytes[STALE_AT] & STALE == 0).then(|| u64::from_le_bytes(count)))
}

/// Computes the count and stores it with the registers.
///
/// # Errors
/// [`Error`], if the bytes are not sound.
pub fn refresh_count(bytes: &mut [u8]) -> Result<u64, Error> {
    let count = Histogram::of(bytes)?.count();
    bytes[COUNT_AT..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
    Ok(count)
}

/// Makes the string dense and returns whether it was sparse.
///
/// # Errors
/// [`Error`], if the bytes are not sound; they stay as they were.
pub fn to_dense(bytes: &mut Vec<u8>) -> Result<bool, Error> {
    if encoding(bytes)? == Encoding::Dense {
        return Ok(false);
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER_LEN].copy_from_slice(&bytes[..HEADER_LEN]);
    dense[ENCODING_AT] = DENSE;
    let mut index = 0;
    for run in sparse_runs(bytes) {
        let run = run?;
        let end = run.end(index)?;
        if run.value > 0 {
            (index..end).for_each(|index| set_dense(&mut dense[HEADER_LEN..], index, run.value));
        }
        index = end;
    }
    complete(index)?;
    *bytes = dense;
    Ok(true)
}

/// The values of all registers.
///
/// # Errors
/// [`Error`], if the bytes are not sound.
pub fn registers(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut union = Union::new();
    union.add(bytes)?;
    Ok(union.registers)
}

/// The runs of a sparse string as text (`z:3 v:2,1 Z:16380`), or `None` if it is dense.
///
/// # Errors
/// [`Error`], if the header or a run is cut off. That the runs make up all registers is not asked.
pub fn describe_sparse(bytes: &[u8]) -> Result<Option<String>, Error> {
    if encoding(bytes)? == Encoding::Dense {
        return Ok(None);
    }
    let mut text = String::new();
    for run in sparse_runs(bytes) {
        let run = run?;
        let space = if text.is_empty() { "" } else { " " };
        let written = match run.kind {
            RunKind::Zero => write!(text, "{space}z:{}", run.len),
            RunKind::LongZero => write!(text, "{space}Z:{}", run.len),
            RunKind::Value => write!(text, "{space}v:{},{}", run.value, run.len),
        };
        written.expect("writing to a string succeeds");
    }
    Ok(Some(text))
}

/// Several HyperLogLogs as one: the maximum of each register.
pub struct Union {
    registers: Vec<u8>,
    /// Whether any of them was dense.
    dense: bool,
}

impl Default for Union {
    fn default() -> Self {
        Self::new()
    }
}

impl Union {
    pub fn new() -> Self {
        Self {
            registers: vec![0; REGISTERS],
            dense: false,
        }
    }

    /// # Errors
    /// [`Error`], if the bytes are not sound.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match encoding(bytes)? {
            Encoding::Dense => {
                self.dense = true;
                for (registers, packed) in self
                    .registers
                    .chunks_exact_mut(4)
                    .zip(bytes[HEADER_LEN..].chunks_exact(3))
                {
                    for (register, value) in registers.iter_mut().zip(unpack(packed)) {
                        *register = (*register).max(value);
                    }
                }
            }
            Encoding::Sparse => {
                let mut index = 0;
                for run in sparse_runs(bytes) {
                    let run = run?;
                    let end = run.end(index)?;
                    if run.value > 0 {
                        self.registers[index..end]
                            .iter_mut()
                            .for_each(|register| *register = run.value.max(*register));
                    }
                    index = end;
                }
                complete(index)?;
            }
        }
        Ok(())
    }

    pub fn count(&self) -> u64 {
        let mut histogram = Histogram([0; 64]);
        self.registers
            .iter()
            .for_each(|&register| histogram.0[usize::from(register & 63)] += 1);
        histogram.count()
    }

    /// Raises the registers of `bytes` to these. `bytes` itself should be part of the union.
    ///
    /// # Errors
    /// [`Error`], if the bytes are not sound.
    pub fn store(&self, bytes: &mut Vec<u8>, sparse_max_bytes: usize) -> Result<(), Error> {
        encoding(bytes)?;
        if self.dense {
            to_dense(bytes)?;
        }
        for (index, &value) in self.registers.iter().enumerate() {
            if value > 0 {
                raise(bytes, index, value, sparse_max_bytes)?;
            }
        }
        bytes[STALE_AT] |= STALE;
        Ok(())
    }
}

/// Checks that registers, encodings and estimates do what they should; about 20 ms.
///
/// # Errors
/// What went wrong, as text.
pub fn self_test() -> Result<(), String> {
    let mut dense = vec![0; DENSE_LEN - HEADER_LEN];
    for round in 0..64u64 {
        let value_at = |index: usize| (murmur_hash(&index.to_le_bytes(), round) % 64) as u8;
        (0..REGISTERS).for_each(|index| set_dense(&mut dense, index, value_at(index)));
        if let Some(index) =
            (0..REGISTERS).find(|&index| dense_register(&dense, index) != value_at(index))
        {
            return Err(format!(
                "TESTFAILED Register {index} should be {}",
                value_at(index)
            ));
        }
    }

    let mut sparse = create();
    let mut dense = create();
    to_dense(&mut dense)
        .map_err(|_| "TESTFAILED an empty HyperLogLog does not convert".to_owned())?;
    let mut checkpoint = 1u64;
    for element in 1..=100_000u64 {
        let bytes = element.to_le_bytes();
        let results = [&mut sparse, &mut dense].map(|target| add(target, [&bytes[..]], 3000));
        if results[0] != results[1] {
            return Err(format!("TESTFAILED dense/sparse disagree at {element}"));
        }
        if element == checkpoint {
            checkpoint *= 10;
            let counts = [&mut sparse, &mut dense].map(|target| refresh_count(target));
            // Six standard errors of 1.04 / sqrt(registers); small counts are nearly exact.
            let tolerance = (element as f64 * 0.0488).max(1.0);
            let good = |count: &Result<u64, Error>| {
                count.is_ok_and(|count| (count as f64 - element as f64).abs() <= tolerance)
            };
            if counts[0] != counts[1] || !counts.iter().all(good) {
                return Err(format!(
                    "TESTFAILED Too big error. card:{element} {counts:?}"
                ));
            }
        }
    }
    Ok(())
}

/// The register that an element falls into, and the value it stands for: 1 to 51.
fn register_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur_hash(element, HASH_SEED);
    let index = hash as usize & (REGISTERS - 1);
    let pattern = hash >> INDEX_BITS | 1 << PATTERN_BITS;
    (index, pattern.trailing_zeros() as u8 + 1)
}

/// MurmurHash64A (Austin Appleby, public domain), with lengths and words little-endian.
fn murmur_hash(data: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (data.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = data.as_chunks::<8>();
    for &word in words {
        let mut word = u64::from_le_bytes(word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

/// Sets a register if that raises it; the header has been checked.
fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max_bytes: usize,
) -> Result<bool, Error> {
    if bytes[ENCODING_AT] == SPARSE {
        match raise_sparse(bytes, index, value, sparse_max_bytes)? {
            Raised::Done(changed) => return Ok(changed),
            Raised::MustBeDense => to_dense(bytes)?,
        };
    }
    let dense = &mut bytes[HEADER_LEN..];
    let changed = dense_register(dense, index) < value;
    if changed {
        set_dense(dense, index, value);
    }
    Ok(changed)
}

fn dense_register(dense: &[u8], index: usize) -> u8 {
    let bit = index * REGISTER_BITS;
    let next = dense.get(bit / 8 + 1).copied().unwrap_or(0);
    ((u16::from_le_bytes([dense[bit / 8], next]) >> (bit % 8)) & 63) as u8
}

fn set_dense(dense: &mut [u8], index: usize, value: u8) {
    let bit = index * REGISTER_BITS;
    let [low_mask, high_mask] = (63u16 << (bit % 8)).to_le_bytes();
    let [low, high] = (u16::from(value) << (bit % 8)).to_le_bytes();
    dense[bit / 8] = dense[bit / 8] & !low_mask | low;
    if high_mask != 0 {
        dense[bit / 8 + 1] = dense[bit / 8 + 1] & !high_mask | high;
    }
}

/// The four registers in three bytes.
fn unpack(packed: &[u8]) -> [u8; 4] {
    let word = u32::from_le_bytes([packed[0], packed[1], packed[2], 0]);
    [word, word >> 6, word >> 12, word >> 18].map(|register| (register & 63) as u8)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunKind {
    Zero,
    LongZero,
    Value,
}

/// A sparse code: so many registers in a row with the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    kind: RunKind,
    value: u8,
    len: usize,
}

impl Run {
    fn zeros(len: usize) -> Self {
        let kind = if len > MAX_ZERO_RUN {
            RunKind::LongZero
        } else {
            RunKind::Zero
        };
        Self {
            kind,
            value: 0,
            len,
        }
    }

    fn of(value: u8, len: usize) -> Self {
        if value == 0 {
            Self::zeros(len)
        } else {
            Self {
                kind: RunKind::Value,
                value,
                len,
            }
        }
    }

    /// Reads the code at the front; `None` if its second byte is missing.
    fn read(codes: &[u8]) -> Option<Self> {
        let &first = codes.first()?;
        let low = usize::from(first & 63);
        Some(match first >> 6 {
            0 => Self {
                kind: RunKind::Zero,
                value: 0,
                len: low + 1,
            },
            1 => Self {
                kind: RunKind::LongZero,
                value: 0,
                len: (low << 8 | usize::from(*codes.get(1)?)) + 1,
            },
            _ => Self {
                kind: RunKind::Value,
                value: (first >> 2 & 31) + 1,
                len: usize::from(first & 3) + 1,
            },
        })
    }

    fn code_len(self) -> usize {
        if self.kind == RunKind::LongZero { 2 } else { 1 }
    }

    fn write(self, codes: &mut impl Extend<u8>) {
        let len = self.len - 1;
        match self.kind {
            RunKind::Zero => codes.extend([len as u8]),
            RunKind::LongZero => codes.extend([0x40 | (len >> 8) as u8, len as u8]),
            RunKind::Value => codes.extend([0x80 | (self.value - 1) << 2 | len as u8]),
        }
    }

    /// The register after the run, if it starts at `index`.
    fn end(self, index: usize) -> Result<usize, Error> {
        let end = index + self.len;
        if end > REGISTERS {
            Err(Error::Corrupted)
        } else {
            Ok(end)
        }
    }
}

/// The runs of a sparse string, an error for one that is cut off.
fn sparse_runs(bytes: &[u8]) -> impl Iterator<Item = Result<Run, Error>> {
    let mut codes = &bytes[HEADER_LEN..];
    std::iter::from_fn(move || {
        if codes.is_empty() {
            return None;
        }
        let Some(run) = Run::read(codes) else {
            codes = &[];
            return Some(Err(Error::Corrupted));
        };
        codes = &codes[run.code_len()..];
        Some(Ok(run))
    })
}

/// Checks that runs ended at the last register.
fn complete(index: usize) -> Result<(), Error> {
    if index == REGISTERS {
        Ok(())
    } else {
        Err(Error::Corrupted)
    }
}

enum Raised {
    Done(bool),
    MustBeDense,
}

/// Raises a register of a sparse string: splits the run that it lies in, then joins equal neighbours.
fn raise_sparse(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    sparse_max_bytes: usize,
) -> Result<Raised, Error> {
    if value > MAX_SPARSE_VALUE {
        return Ok(Raised::MustBeDense);
    }
    let found = find_run(bytes, index)?;
    let run = found.run;
    if run.value >= value {
        return Ok(Raised::Done(false));
    }

    let mut codes = smallvec::SmallVec::<[u8; 8]>::new();
    let before = index - found.first;
    let after = found.first + run.len - 1 - index;
    if before > 0 {
        Run::of(run.value, before).write(&mut codes);
    }
    Run::of(value, 1).write(&mut codes);
    if after > 0 {
        Run::of(run.value, after).write(&mut codes);
    }
    let old_len = run.code_len();
    if codes.len() > old_len && bytes.len() + codes.len() - old_len > sparse_max_bytes {
        return Ok(Raised::MustBeDense);
    }
    bytes.splice(found.at..found.at + old_len, codes);
    join_runs(bytes, found.previous);
    bytes[STALE_AT] |= STALE;
    Ok(Raised::Done(true))
}

struct FoundRun {
    run: Run,
    /// Where its code is, and that of the run before it (its own, if it is the first).
    at: usize,
    previous: usize,
    /// Its first register.
    first: usize,
}

/// The run that holds a register.
fn find_run(bytes: &[u8], index: usize) -> Result<FoundRun, Error> {
    let mut found = FoundRun {
        run: Run::zeros(1),
        at: HEADER_LEN,
        previous: HEADER_LEN,
        first: 0,
    };
    loop {
        found.run = bytes
            .get(found.at..)
            .and_then(Run::read)
            .ok_or(Error::Corrupted)?;
        if index < found.first + found.run.len {
            return Ok(found);
        }
        found.first += found.run.len;
        found.previous = found.at;
        found.at += found.run.code_len();
    }
}

/// Joins neighbouring runs of one value where they fit one code; looks at the few codes that a change can have touched.
fn join_runs(bytes: &mut Vec<u8>, start: usize) {
    /// The one before, up to three new ones, and the one after.
    const STEPS: usize = 5;
    let mut at = start;
    for _ in 0..STEPS {
        let Some(run) = Run::read(&bytes[at..]) else {
            return;
        };
        if run.kind == RunKind::Value
            && let Some(next) = Run::read(&bytes[at + 1..])
            && next.value == run.value
            && run.len + next.len <= MAX_VALUE_RUN
        {
            let joined = Run::of(run.value, run.len + next.len);
            let mut code = smallvec::SmallVec::<[u8; 2]>::new();
            joined.write(&mut code);
            bytes.splice(at..at + 2, code);
            continue;
        }
        at += run.code_len();
    }
}

/// How many registers have each value.
struct Histogram([u32; 64]);

impl Histogram {
    fn of(bytes: &[u8]) -> Result<Self, Error> {
        match encoding(bytes)? {
            Encoding::Dense => Ok(Self::of_dense(&bytes[HEADER_LEN..])),
            Encoding::Sparse => {
                let mut histogram = Self([0; 64]);
                let mut index = 0;
                for run in sparse_runs(bytes) {
                    let run = run?;
                    index = run.end(index)?;
                    histogram.0[usize::from(run.value)] += run.len as u32;
                }
                complete(index)?;
                Ok(histogram)
            }
        }
    }

    fn of_dense(dense: &[u8]) -> Self {
        // One histogram per lane: neighbouring registers are often equal, and increments of one counter wait for each other.
        let mut lanes = [[0u32; 64]; 4];
        for packed in dense.chunks_exact(3) {
            for (lane, register) in lanes.iter_mut().zip(unpack(packed)) {
                lane[usize::from(register)] += 1;
            }
        }
        Self(std::array::from_fn(|value| {
            lanes.iter().map(|lane| lane[value]).sum()
        }))
    }

    /// The estimate of Ertl's "improved raw estimator".
    fn count(&self) -> u64 {
        /// 1 / (2 ln 2): the bias constant for infinitely many registers.
        const ALPHA: f64 = 0.721_347_520_444_481_7;
        let total = REGISTERS as f64;
        let saturated = f64::from(self.0[PATTERN_BITS as usize + 1]);
        let mut sum = total * tau((total - saturated) / total);
        for value in (1..=PATTERN_BITS as usize).rev() {
            sum += f64::from(self.0[value]);
            sum *= 0.5;
        }
        sum += total * sigma(f64::from(self.0[0]) / total);
        (ALPHA * total * total / sum).round() as u64
    }
}

/// The correction for registers at their maximum.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut weight = 1.0;
    let mut sum = 1.0 - x;
    loop {
        x = x.sqrt();
        let previous = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum == previous {
            return sum / 3.0;
        }
    }
}

/// The correction for registers at zero.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut weight = 1.0;
    let mut sum = x;
    loop {
        x *= x;
        let previous = sum;
        sum += x * weight;
        weight += weight;
        if sum == previous {
            return sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 3000;

    fn added(elements: &[&str]) -> Vec<u8> {
        let mut bytes = create();
        add(
            &mut bytes,
            elements.iter().map(|element| element.as_bytes()),
            LIMIT,
        )
        .unwrap();
        bytes
    }

    fn with_header(encoding: u8, count: [u8; 8], registers: &[u8]) -> Vec<u8> {
        [&MAGIC[..], &[encoding, 0, 0, 0], &count, registers].concat()
    }

    #[test]
    fn bytes_are_those_of_the_reference_server() {
        assert_eq!(create(), b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x7f\xff");
        assert_eq!(
            added(&["a"]),
            b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80q\xa6\x84NW"
        );
        let mut three = added(&["a"]);
        assert_eq!(refresh_count(&mut three), Ok(1));
        assert_eq!(three, b"HYLL\x01\0\0\0\x01\0\0\0\0\0\0\0q\xa6\x84NW");
        assert_eq!(cached_count(&three), Ok(Some(1)));
        add(&mut three, [&b"b"[..], b"c"], LIMIT).unwrap();
        assert_eq!(
            three,
            b"HYLL\x01\0\0\0\x01\0\0\0\0\0\0\x80`\xf3\x80P\xb1\x84K\xfb\x80BZ"
        );
        assert_eq!(cached_count(&three), Ok(None));
        assert_eq!(
            describe_sparse(&three).unwrap().unwrap(),
            "Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603"
        );
    }

    #[test]
    fn adding_the_same_again_changes_nothing() {
        let mut bytes = added(&["a", "b"]);
        assert_eq!(add(&mut bytes, [&b"a"[..], b"b"], LIMIT), Ok(false));
        to_dense(&mut bytes).unwrap();
        assert_eq!(add(&mut bytes, [&b"a"[..], b"b"], LIMIT), Ok(false));
        assert_eq!(to_dense(&mut bytes), Ok(false));
        assert_eq!(describe_sparse(&bytes), Ok(None));
    }

    #[test]
    fn strings_with_a_wrong_header_are_refused() {
        for bytes in [
            b"abc".to_vec(),
            create()[..15].to_vec(),
            with_header(2, [0; 8], b"\x7f\xff"),
            with_header(DENSE, [0; 8], &[]),
            with_header(DENSE, [0; 8], &[0; DENSE_LEN - HEADER_LEN + 1]),
        ] {
            assert_eq!(encoding(&bytes), Err(Error::NotHyperLogLog));
            assert_eq!(
                add(&mut bytes.clone(), [&b"a"[..]], LIMIT),
                Err(Error::NotHyperLogLog)
            );
            assert_eq!(Union::new().add(&bytes), Err(Error::NotHyperLogLog));
        }
    }

    #[test]
    fn runs_that_do_not_make_up_all_registers_are_corrupted() {
        for registers in [&b""[..], b"\x00", b"\x7f", b"\x7f\xff\x00", &[0xff; 4097]] {
            let mut bytes = with_header(SPARSE, [0, 0, 0, 0, 0, 0, 0, STALE], registers);
            assert_eq!(refresh_count(&mut bytes), Err(Error::Corrupted));
            assert_eq!(Union::new().add(&bytes), Err(Error::Corrupted));
            assert_eq!(to_dense(&mut bytes), Err(Error::Corrupted));
        }
        let mut bytes = with_header(SPARSE, [0; 8], b"\x00");
        assert_eq!(add(&mut bytes, [&b"a"[..]], LIMIT), Err(Error::Corrupted));
    }

    #[test]
    fn many_elements_make_it_dense_and_stay_countable() {
        let mut bytes = create();
        let mut longest_sparse = 0;
        for element in 0..20_000u32 {
            add(&mut bytes, [element.to_string().as_bytes()], LIMIT).unwrap();
            if encoding(&bytes) == Ok(Encoding::Sparse) {
                longest_sparse = bytes.len();
            }
        }
        assert!(
            (LIMIT - 4..=LIMIT).contains(&longest_sparse),
            "{longest_sparse}"
        );
        assert_eq!(bytes.len(), DENSE_LEN);
        let count = refresh_count(&mut bytes).unwrap();
        assert!(count.abs_diff(20_000) < 400, "{count}");
    }

    #[test]
    fn the_self_test_passes() {
        self_test().unwrap();
    }

    proptest! {
        #[test]
        fn sparse_and_dense_hold_the_same_registers(elements in proptest::collection::vec(0u32..5000, 0..600)) {
            let (mut sparse, mut dense) = (create(), create());
            to_dense(&mut dense).unwrap();
            for element in elements {
                let element = element.to_le_bytes();
                prop_assert_eq!(add(&mut sparse, [&element[..]], 12_000), add(&mut dense, [&element[..]], 12_000));
            }
            prop_assert_eq!(registers(&sparse), registers(&dense));
            prop_assert_eq!(refresh_count(&mut sparse), refresh_count(&mut dense));
            to_dense(&mut sparse).unwrap();
            prop_assert_eq!(sparse, dense);
        }

        #[test]
        fn a_union_counts_as_if_all_had_been_added_to_one(left in proptest::collection::vec(any::<u32>(), 0..300), right in proptest::collection::vec(any::<u32>(), 0..300), dense: bool) {
            let build = |elements: &[u32]| {
                let mut bytes = create();
                elements.iter().for_each(|element| { add(&mut bytes, [&element.to_le_bytes()[..]], LIMIT).unwrap(); });
                bytes
            };
            let (mut one, mut other) = (build(&left), build(&right));
            if dense {
                to_dense(&mut other).unwrap();
            }
            let mut union = Union::new();
            union.add(&one).unwrap();
            union.add(&other).unwrap();
            let mut both = build(&[left, right].concat());
            prop_assert_eq!(union.count(), refresh_count(&mut both).unwrap());
            union.store(&mut one, LIMIT).unwrap();
            prop_assert_eq!(registers(&one), registers(&both));
            prop_assert_eq!(encoding(&one).unwrap() == Encoding::Dense, dense);
        }

        #[test]
        fn no_bytes_make_it_panic(mut registers: Vec<u8>, encoding in 0u8..3, elements: Vec<Vec<u8>>, complete: bool) {
            if complete {
                // Fill up with zeros so that deeper code is reached.
                let len: usize = registers.len();
                registers.resize(len + 2, 0x7f);
            }
            let mut bytes = with_header(encoding, [0; 8], &registers);
            let _ = add(&mut bytes, elements.iter().map(Vec::as_slice), LIMIT);
            let _ = refresh_count(&mut bytes);
            let _ = describe_sparse(&bytes);
            let mut union = Union::new();
            let _ = union.add(&bytes);
            let _ = union.store(&mut bytes, LIMIT);
            let _ = to_dense(&mut bytes);
        }
    }
}
