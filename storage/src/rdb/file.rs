//! Snapshot files: a head, records, an end.
//!
//! ```text
//! head:    "REDIS" + 4 digits, or "VALKEY" + 3 digits: the version
//! record:  fa key value            a note; unknown ones are passed over
//!          fe number               the database from here on
//!          fb keys deadlines       how many there will be
//!          f4 slot keys deadlines  the same for a cluster's slot
//!          f5 source               a library of functions
//!          [fc i64 | fd u32] [f8 idle seconds] [f9 frequency] type key value
//! end:     ff, then the checksum of all before, or 0
//! ```
//!
//! What memcached clients attach to an item goes into a note before the key, which other servers ignore.

use std::io::{self, Read, Write};

use super::{
    Dialect, Error, Limits, VersionCheck, crc64, decode::read_value, encode, kind,
    pass::pass_value, reader::Reader, writer::Writer,
};
use crate::{
    entry::Item,
    time::Timestamp,
    value::{Value, ValueRef, number},
};

const SLOT_INFO: u8 = 0xf4;
const FUNCTION: u8 = 0xf5;
const MODULE_NOTE: u8 = 0xf7;
const IDLE: u8 = 0xf8;
const FREQUENCY: u8 = 0xf9;
const NOTE: u8 = 0xfa;
const SIZES: u8 = 0xfb;
const DEADLINE_MS: u8 = 0xfc;
const DEADLINE_SECONDS: u8 = 0xfd;
const DATABASE: u8 = 0xfe;
const END: u8 = 0xff;

/// The first version whose files end in a checksum.
const FIRST_WITH_CHECKSUM: u32 = 5;

/// The note before an item that memcached clients wrote: its flags and its CAS.
const ITEM_NOTE: &[u8] = b"memcached-item";

/// What a file tells, one after the other.
#[derive(Clone)]
pub enum Record {
    /// Something about the file or its writer.
    Note {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// The database that the entries from here on belong to.
    Database(u64),
    /// How many entries the database has, and how many of them with a deadline. Only a hint.
    Sizes {
        entries: u64,
        deadlines: u64,
    },
    /// The source of a library of functions.
    Function(Vec<u8>),
    Entry(FileEntry),
    /// A key whose collection is empty, which no server should have written.
    EmptyEntry {
        key: Vec<u8>,
    },
    /// The end; the checksum was right.
    End,
}

/// A key with all that belongs to it.
#[derive(Clone)]
pub struct FileEntry {
    pub key: Vec<u8>,
    pub value: Value,
    pub deadline: Option<Timestamp>,
    /// Seconds since the last access, if the writer's eviction policy tells.
    pub idle_seconds: Option<u64>,
    /// The logarithmic access counter, if the writer's eviction policy tells.
    pub frequency: Option<u8>,
    pub item: Option<Item>,
}

/// Reads a file record by record.
pub struct FileReader<R> {
    reader: Reader<R>,
    version: u32,
    limits: Limits,
    now: Timestamp,
    checksum: ChecksumCheck,
}

/// A part of a file, for reading by several threads.
pub enum Part {
    Record(Record),
    Batch(Batch),
}

/// Entries that follow one another in a file, not read yet.
pub struct Batch {
    bytes: Vec<u8>,
    position: u64,
    version: u32,
}

/// Bytes of a batch, about.
const BATCH_LEN: usize = 128 * 1024;
/// Bytes of an entry beyond which it is not worth having twice in memory: it is read on the spot.
const MAX_PASSED_LEN: usize = 8 << 20;

/// Whether a file's checksum is compared: `rdbchecksum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumCheck {
    On,
    Off,
}

impl<R: Read> FileReader<R> {
    /// Reads the head. Fields of hashes that have expired at `now` are left out later; keys are not.
    ///
    /// # Errors
    /// If the head is none, or of an unknown version.
    pub fn new(
        input: R,
        limits: Limits,
        now: Timestamp,
        versions: VersionCheck,
        checksum: ChecksumCheck,
    ) -> Result<Self, Error> {
        let mut reader = Reader::new(input);
        let version = parse_head(reader.array()?).ok_or(Error::Corrupt("file's head"))?;
        versions.check(version)?;
        if checksum == ChecksumCheck::Off {
            reader.stop_summing();
        }
        Ok(Self {
            reader,
            version,
            limits,
            now,
            checksum,
        })
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.reader.position()
    }

    /// The input, and what was read from it beyond the file's end.
    pub fn into_parts(self) -> (R, Vec<u8>) {
        self.reader.into_parts()
    }

    /// The next record. Do not go on after [`Record::End`].
    ///
    /// # Errors
    /// [`Error`]; the file cannot be read further then.
    pub fn next_record(&mut self) -> Result<Record, Error> {
        let mut marks = Marks::default();
        loop {
            match self.reader.byte()? {
                NOTE => {
                    let (key, value) = (self.reader.owned_string()?, self.reader.owned_string()?);
                    if key != ITEM_NOTE {
                        return Ok(Record::Note { key, value });
                    }
                    marks.item = Some(parse_item(&value).ok_or(Error::Corrupt("item"))?);
                }
                MODULE_NOTE => self.skip_module()?,
                DATABASE => return Ok(Record::Database(self.reader.length()?)),
                SIZES => {
                    let (entries, deadlines) = (self.reader.length()?, self.reader.length()?);
                    return Ok(Record::Sizes { entries, deadlines });
                }
                SLOT_INFO => {
                    // The slot follows from the key, and the sizes are hints.
                    for _ in 0..3 {
                        self.reader.length()?;
                    }
                }
                FUNCTION => return Ok(Record::Function(self.reader.owned_string()?)),
                IDLE => marks.idle_seconds = Some(self.reader.length()?),
                FREQUENCY => marks.frequency = Some(self.reader.byte()?),
                DEADLINE_MS => marks.deadline = Some(Timestamp(self.reader.i64_le()?)),
                DEADLINE_SECONDS => {
                    let seconds = i32::from_le_bytes(self.reader.array()?);
                    marks.deadline = Some(Timestamp(i64::from(seconds) * 1000));
                }
                END => return self.read_end(),
                kind => return self.read_entry(kind, marks),
            }
        }
    }

    /// The next record, or several entries as they are in the file: those are read from the [`Batch`], by any thread.
    ///
    /// # Errors
    /// As for [`FileReader::next_record`].
    pub fn next_part(&mut self) -> Result<Part, Error> {
        let position = self.position();
        self.reader.begin_tape(MAX_PASSED_LEN);
        let mut len = 0;
        while len < BATCH_LEN {
            match self.pass_entry() {
                Ok(true) => len = self.reader.tape_len(),
                // What is wrong is found again, by whoever reads it.
                Ok(false) | Err(_) => break,
            }
        }
        let bytes = self.reader.end_tape(len);
        if bytes.is_empty() {
            return self.next_record().map(Part::Record);
        }
        Ok(Part::Batch(Batch {
            bytes,
            position,
            version: self.version,
        }))
    }

    /// Passes over an entry with what stands before it. False if something else comes.
    fn pass_entry(&mut self) -> Result<bool, Error> {
        let mut name = Vec::new();
        loop {
            match self.reader.byte()? {
                NOTE => {
                    self.reader.string(&mut name)?;
                    if name != ITEM_NOTE {
                        return Ok(false);
                    }
                    self.reader.skip_string()?;
                }
                IDLE => drop(self.reader.length()?),
                FREQUENCY => self.reader.skip(1)?,
                DEADLINE_MS => self.reader.skip(8)?,
                DEADLINE_SECONDS => self.reader.skip(4)?,
                kind @ ..=kind::HASH_LISTPACK_DEADLINES => {
                    self.reader.skip_string()?;
                    pass_value(&mut self.reader, kind, self.version)?;
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }

    fn read_entry(&mut self, kind: u8, marks: Marks) -> Result<Record, Error> {
        // Before a key is read for it.
        if kind > kind::HASH_LISTPACK_DEADLINES {
            return Err(Error::UnknownType(kind));
        }
        let key = self.reader.owned_string()?;
        let value = match read_value(&mut self.reader, kind, self.version, &self.limits, self.now) {
            Ok(value) => value,
            Err(Error::Empty) => return Ok(Record::EmptyEntry { key }),
            Err(error) => return Err(error),
        };
        let Marks {
            deadline,
            idle_seconds,
            frequency,
            item,
        } = marks;
        Ok(Record::Entry(FileEntry {
            key,
            value,
            deadline,
            idle_seconds,
            frequency,
            item,
        }))
    }

    fn read_end(&mut self) -> Result<Record, Error> {
        if self.version < FIRST_WITH_CHECKSUM {
            return Ok(Record::End);
        }
        let computed = self.reader.checksum();
        let stored = self.reader.u64_le()?;
        let is_right = stored == 0 || stored == computed || self.checksum == ChecksumCheck::Off;
        if is_right {
            Ok(Record::End)
        } else {
            Err(Error::Checksum)
        }
    }

    /// Passes over what a module noted: a sequence of marked numbers and strings.
    fn skip_module(&mut self) -> Result<(), Error> {
        self.reader.length()?;
        let mut text = Vec::new();
        loop {
            match self.reader.length()? {
                0 => return Ok(()),
                1 | 2 => {
                    self.reader.length()?;
                }
                3 => self.reader.skip(4)?,
                4 => self.reader.skip(8)?,
                5 => self.reader.string(&mut text)?,
                _ => return Err(Error::Corrupt("module's note")),
            }
        }
    }
}

impl Batch {
    /// Where it begins in the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Shows `visit` every entry, each an [`Record::Entry`] or [`Record::EmptyEntry`].
    ///
    /// # Errors
    /// What is wrong and where in the file, or what `visit` says.
    pub fn read<E>(
        &self,
        limits: Limits,
        now: Timestamp,
        mut visit: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), BatchError<E>> {
        let mut file = FileReader {
            reader: Reader::unsummed(&self.bytes),
            version: self.version,
            limits,
            now,
            checksum: ChecksumCheck::Off,
        };
        while (file.position() as usize) < self.bytes.len() {
            let record = file.next_record().map_err(|error| BatchError::Unsound {
                error,
                position: self.position + file.position(),
            })?;
            visit(record).map_err(BatchError::Refused)?;
        }
        Ok(())
    }
}

/// Why a batch could not be read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BatchError<E> {
    Unsound {
        error: Error,
        /// In the file.
        position: u64,
    },
    /// The visitor's.
    Refused(E),
}

/// What stands before a key.
#[derive(Default)]
struct Marks {
    deadline: Option<Timestamp>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    item: Option<Item>,
}

fn parse_head(head: [u8; 9]) -> Option<u32> {
    let digits = head
        .strip_prefix(b"REDIS")
        .or_else(|| head.strip_prefix(b"VALKEY"))?;
    digits.iter().try_fold(0, |version, byte| {
        byte.is_ascii_digit()
            .then(|| version * 10 + u32::from(byte - b'0'))
    })
}

fn parse_item(text: &[u8]) -> Option<Item> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    Some(Item {
        flags: u32::try_from(number::parse_u64(&text[..space])?).ok()?,
        cas: number::parse_u64(&text[space + 1..])?,
    })
}

/// An entry to be written.
#[derive(Clone, Copy)]
pub struct EntryToWrite<'a> {
    pub key: &'a [u8],
    pub value: ValueRef<'a>,
    pub deadline: Option<Timestamp>,
    pub idle_seconds: Option<u64>,
    pub frequency: Option<u8>,
    pub item: Option<Item>,
}

/// Writes a file record by record.
pub struct FileWriter<W> {
    writer: Writer<W>,
    dialect: FileDialect,
    head: &'static [u8; HEAD_LEN],
}

/// Which servers a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileDialect {
    /// Redis 7.2 and later and every Valkey. No field of a hash may have a deadline: those that have, lose it.
    Common,
    /// Valkey 9 and later.
    Valkey,
    /// Redis 7.4 and later.
    Redis,
    /// As [`Common`](Self::Common) until a field with a deadline comes, from then on as [`Valkey`](Self::Valkey): the
    /// head is then to be replaced by [`FileWriter::head`], which the checksum is of. For files, not for streams.
    Oldest,
}

/// Bytes of a file's head.
pub const HEAD_LEN: usize = 9;

impl FileDialect {
    fn head(self) -> &'static [u8; HEAD_LEN] {
        match self {
            FileDialect::Common | FileDialect::Oldest => b"REDIS0011",
            FileDialect::Valkey => b"VALKEY080",
            FileDialect::Redis => b"REDIS0012",
        }
    }

    fn kind_of(self, value: ValueRef<'_>) -> u8 {
        match (self, value) {
            (FileDialect::Redis, _) => encode::kind_of(value, Dialect::Redis),
            (FileDialect::Common, ValueRef::Hash(hash)) if hash.expiring() > 0 => kind::HASH,
            _ => encode::kind_of(value, Dialect::Valkey),
        }
    }
}

impl<W: Write> FileWriter<W> {
    /// Writes the head. `compress` is the setting `rdbcompression`.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(sink: W, dialect: FileDialect, compress: bool) -> io::Result<Self> {
        let mut writer = Writer::new(sink, compress);
        writer.bytes(dialect.head())?;
        Ok(Self {
            writer,
            dialect,
            head: dialect.head(),
        })
    }

    /// For entries that another writer appends to its file, of the same dialect: no head, no checksum.
    pub fn portion(sink: W, dialect: FileDialect, compress: bool) -> Self {
        let mut writer = Writer::new(sink, compress);
        writer.stop_summing();
        Self {
            writer,
            dialect,
            head: dialect.head(),
        }
    }

    /// Adds entries that another writer wrote.
    ///
    /// # Errors
    /// The sink's.
    pub fn append(&mut self, entries: &[u8]) -> io::Result<()> {
        self.writer.append(entries)
    }

    /// Takes over the head that entries of another writer need.
    pub fn raise_head(&mut self, head: &'static [u8; HEAD_LEN]) {
        if head != self.dialect.head() {
            self.head = head;
        }
    }

    /// Passes on what was collected.
    ///
    /// # Errors
    /// The sink's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Bytes written so far.
    pub fn position(&self) -> u64 {
        self.writer.position()
    }

    /// # Errors
    /// The sink's.
    pub fn note(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.writer.bytes(&[NOTE])?;
        self.writer.string(key)?;
        self.writer.string(value)
    }

    /// # Errors
    /// The sink's.
    pub fn function(&mut self, source: &[u8]) -> io::Result<()> {
        self.writer.bytes(&[FUNCTION])?;
        self.writer.string(source)
    }

    /// The database of the entries from here on, with how many they will be, about.
    ///
    /// # Errors
    /// The sink's.
    pub fn database(&mut self, number: u64, entries: u64, deadlines: u64) -> io::Result<()> {
        self.writer.bytes(&[DATABASE])?;
        self.writer.length(number)?;
        self.writer.bytes(&[SIZES])?;
        self.writer.length(entries)?;
        self.writer.length(deadlines)
    }

    /// The database of the entries from here on.
    ///
    /// # Errors
    /// The sink's.
    pub fn select(&mut self, number: u64) -> io::Result<()> {
        self.writer.bytes(&[DATABASE])?;
        self.writer.length(number)
    }

    /// The head that the file must have, which for [`FileDialect::Oldest`] may be another than was written.
    pub fn head(&self) -> &'static [u8; HEAD_LEN] {
        self.head
    }

    /// # Errors
    /// The sink's.
    pub fn entry(&mut self, entry: EntryToWrite<'_>) -> io::Result<()> {
        if let Some(Item { flags, cas }) = entry.item {
            self.note(ITEM_NOTE, format!("{flags} {cas}").as_bytes())?;
        }
        let writer = &mut self.writer;
        if let Some(deadline) = entry.deadline {
            writer.bytes(&[DEADLINE_MS])?;
            writer.bytes(&deadline.millis().to_le_bytes())?;
        }
        if let Some(seconds) = entry.idle_seconds {
            writer.bytes(&[IDLE])?;
            writer.length(seconds)?;
        }
        if let Some(frequency) = entry.frequency {
            writer.bytes(&[FREQUENCY, frequency])?;
        }
        let kind = self.dialect.kind_of(entry.value);
        if self.dialect == FileDialect::Oldest && kind == kind::HASH_DEADLINES {
            self.head = FileDialect::Valkey.head();
        }
        writer.bytes(&[kind])?;
        writer.string(entry.key)?;
        encode::write_value(entry.value, kind, writer)
    }

    /// Where the output goes, without what is still collected.
    pub fn sink(&mut self) -> &mut W {
        self.writer.sink()
    }

    /// Writes the end, with a checksum if it is wanted, and gives back the sink.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self, checksum: ChecksumCheck) -> io::Result<W> {
        self.writer.bytes(&[END])?;
        let sum = match checksum {
            ChecksumCheck::On => self.checksum(),
            ChecksumCheck::Off => 0,
        };
        self.writer.bytes(&sum.to_le_bytes())?;
        self.writer.into_sink()
    }

    /// The checksum of what was written, under the final head.
    fn checksum(&self) -> u64 {
        let written = self.dialect.head();
        let bits: Vec<u8> = written
            .iter()
            .zip(self.head)
            .map(|(one, other)| one ^ other)
            .collect();
        let len = self.writer.position() - HEAD_LEN as u64;
        crc64::patched(self.writer.checksum(), &bits, len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(bytes: &[u8]) -> Result<FileReader<&[u8]>, Error> {
        let limits = Limits::from(&crate::value::Settings::default());
        FileReader::new(
            bytes,
            limits,
            Timestamp::MIN,
            VersionCheck::Strict,
            ChecksumCheck::On,
        )
    }

    fn sample() -> Vec<u8> {
        let mut file = FileWriter::new(Vec::new(), FileDialect::Common, true).unwrap();
        file.note(b"redis-ver", b"7.2.4").unwrap();
        file.function(b"#!lua name=f").unwrap();
        file.database(3, 2, 1).unwrap();
        let plain = EntryToWrite {
            key: b"a",
            value: ValueRef::Bytes(b"text"),
            deadline: None,
            idle_seconds: None,
            frequency: None,
            item: None,
        };
        file.entry(plain).unwrap();
        file.entry(EntryToWrite {
            key: b"b",
            value: ValueRef::Int(5),
            deadline: Some(Timestamp(123_456)),
            idle_seconds: Some(100),
            frequency: Some(7),
            item: Some(Item {
                flags: u32::MAX,
                cas: u64::MAX,
            }),
        })
        .unwrap();
        file.finish(ChecksumCheck::On).unwrap()
    }

    #[test]
    fn records_come_back_as_they_were_written() {
        let bytes = sample();
        let mut file = open(&bytes).unwrap();
        assert_eq!(file.version(), 11);
        assert!(
            matches!(file.next_record(), Ok(Record::Note { key, value }) if key == b"redis-ver" && value == b"7.2.4")
        );
        assert!(
            matches!(file.next_record(), Ok(Record::Function(source)) if source == b"#!lua name=f")
        );
        assert!(matches!(file.next_record(), Ok(Record::Database(3))));
        assert!(matches!(
            file.next_record(),
            Ok(Record::Sizes {
                entries: 2,
                deadlines: 1
            })
        ));
        let Ok(Record::Entry(entry)) = file.next_record() else {
            panic!("an entry")
        };
        assert!(entry.key == b"a" && matches!(entry.value, Value::String(text) if text == b"text"));
        assert!(entry.deadline.is_none() && entry.item.is_none());
        let Ok(Record::Entry(entry)) = file.next_record() else {
            panic!("an entry")
        };
        assert!(matches!(entry.value, Value::Int(5)));
        assert_eq!(
            (entry.deadline, entry.idle_seconds, entry.frequency),
            (Some(Timestamp(123_456)), Some(100), Some(7))
        );
        let item = entry.item.unwrap();
        assert_eq!((item.flags, item.cas), (u32::MAX, u64::MAX));
        assert!(matches!(file.next_record(), Ok(Record::End)));
        assert_eq!(file.position(), bytes.len() as u64);
    }

    /// What a file holds, as records one by one or in batches, and how it ends.
    fn told(bytes: &[u8], in_batches: bool) -> (Vec<String>, Result<(), Error>) {
        let mut told = Vec::new();
        let mut tell = |record: Record| match record {
            Record::Note { key, value } => told.push(format!("{key:?} {value:?}")),
            Record::Entry(entry) => told.push(format!("{:?} {:?}", entry.key, entry.deadline)),
            Record::EmptyEntry { key } => told.push(format!("empty {key:?}")),
            Record::Database(number) => told.push(format!("database {number}")),
            Record::Sizes { .. } | Record::Function(_) | Record::End => {}
        };
        let mut read = || {
            let mut file = open(bytes)?;
            loop {
                let part = if in_batches {
                    file.next_part()?
                } else {
                    Part::Record(file.next_record()?)
                };
                match part {
                    Part::Record(Record::End) => return Ok(()),
                    Part::Record(record) => tell(record),
                    Part::Batch(batch) => {
                        let visit = |record| {
                            tell(record);
                            Ok::<_, ()>(())
                        };
                        batch.read(file.limits, file.now, visit).map_err(|error| {
                            let BatchError::Unsound { error, .. } = error else {
                                panic!("it is not refused")
                            };
                            error
                        })?;
                    }
                }
            }
        };
        let end = read();
        (told, end)
    }

    #[test]
    fn batches_hold_what_records_do() {
        let mut file = FileWriter::new(Vec::new(), FileDialect::Common, true).unwrap();
        for database in 0..3 {
            file.database(database, 0, 0).unwrap();
            for number in 0..5000 {
                let (key, value) = (format!("key:{number}"), "value ".repeat(number % 40));
                file.entry(EntryToWrite {
                    key: key.as_bytes(),
                    value: ValueRef::Bytes(value.as_bytes()),
                    deadline: (number % 3 == 0).then_some(Timestamp(number as i64)),
                    idle_seconds: None,
                    frequency: Some(3),
                    item: (number % 7 == 0).then_some(Item { flags: 1, cas: 2 }),
                })
                .unwrap();
            }
            file.note(b"between", b"databases").unwrap();
        }
        let bytes = file.finish(ChecksumCheck::On).unwrap();
        let (records, end) = told(&bytes, false);
        assert_eq!(end, Ok(()));
        assert!(records.len() > 15_000);
        assert!(told(&bytes, true) == (records, Ok(())));
    }

    #[test]
    fn an_entry_too_long_for_a_batch_is_a_record() {
        let mut file = FileWriter::new(Vec::new(), FileDialect::Common, false).unwrap();
        let long = vec![b'x'; 2 * MAX_PASSED_LEN];
        for value in [&b"before"[..], &long, b"behind"] {
            file.entry(EntryToWrite {
                key: b"key",
                value: ValueRef::Bytes(value),
                deadline: None,
                idle_seconds: None,
                frequency: None,
                item: None,
            })
            .unwrap();
        }
        let bytes = file.finish(ChecksumCheck::On).unwrap();
        let mut file = open(&bytes).unwrap();
        assert!(matches!(file.next_part(), Ok(Part::Batch(_))));
        let Ok(Part::Record(Record::Entry(entry))) = file.next_part() else {
            panic!("a record");
        };
        assert!(matches!(entry.value, Value::String(text) if text == long));
        assert!(matches!(file.next_part(), Ok(Part::Batch(_))));
        assert!(matches!(file.next_part(), Ok(Part::Record(Record::End))));
    }

    #[test]
    fn batches_refuse_what_records_do() {
        let bytes = sample();
        for at in 0..bytes.len() {
            assert!(told(&bytes[..at], true) == told(&bytes[..at], false));
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let (one, other) = (told(&changed, false).1, told(&changed, true).1);
                assert_eq!(one, other, "byte {at} bit {bit}");
                // Of an old version, without a checksum, it may well be.
                assert!(one.is_err() || at < HEAD_LEN, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_torn_or_changed_file_is_refused() {
        let bytes = sample();
        let all = |bytes: &[u8]| {
            let mut file = open(bytes)?;
            while !matches!(file.next_record()?, Record::End) {}
            Ok(())
        };
        assert_eq!(all(&bytes), Ok(()));
        for len in 0..bytes.len() {
            assert_eq!(all(&bytes[..len]), Err(Error::Truncated), "{len}");
        }
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert_eq!(all(&changed), Err(Error::Checksum));
        for head in [
            &b"REDIS0013\xff"[..],
            b"REDIS0000\xff",
            b"VALKEY079\xff",
            b"VALKEY081\xff",
        ] {
            assert!(matches!(all(head), Err(Error::Version(_))));
        }
        assert_eq!(all(b"VALKEE080\xff"), Err(Error::Corrupt("file's head")));
        assert_eq!(all(b"REDIS00x1\xff"), Err(Error::Corrupt("file's head")));
        assert_eq!(all(b"REDIS0011\x63\x01a"), Err(Error::UnknownType(0x63)));
    }

    #[test]
    fn records_of_other_servers_are_passed_over_and_empty_keys_named() {
        let bytes = b"REDIS0011\xf4\x01\x02\x03\xf7\x05\x01\x02\x02\x03\x03abcd\x04abcdefgh\x05\x02hi\x00\xfd\x01\0\0\0\x00\x01k\x01v\x02\x01s\x00\xff\0\0\0\0\0\0\0\0";
        let mut file = open(bytes).unwrap();
        let Ok(Record::Entry(entry)) = file.next_record() else {
            panic!("an entry")
        };
        assert_eq!(entry.deadline, Some(Timestamp(1000)));
        assert!(matches!(file.next_record(), Ok(Record::EmptyEntry { key }) if key == b"s"));
        assert!(matches!(file.next_record(), Ok(Record::End)));
    }
}
