//! A fingerprint of data that is the same on every server that holds the same: DEBUG DIGEST and DIGEST-VALUE.
//!
//! What has an order is mixed in, one after the other; what has none is added by exclusive or.

use sha1::{Digest as _, Sha1};
use storage::{
    entry::EntryRef,
    time::Timestamp,
    value::{
        ValueRef,
        element::{Element, Scratch},
        number,
    },
};

const LEN: usize = 20;

/// Twenty bytes that everything goes into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; LEN]);

impl Digest {
    /// The digest of one key's value.
    pub fn of_value(entry: EntryRef<'_>) -> Digest {
        let mut digest = Digest::default();
        digest.mix_value(entry);
        digest
    }

    /// Begins a database that has keys.
    pub fn begin_database(&mut self, number: usize) {
        self.mix(&(number as u32).to_be_bytes());
    }

    /// Adds a key with its value, in any order.
    pub fn add_entry(&mut self, entry: EntryRef<'_>) {
        let mut digest = Digest::default();
        digest.mix(entry.key());
        digest.mix_value(entry);
        self.add(&digest.0);
    }

    /// Forty hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn add(&mut self, bytes: &[u8]) {
        let hash: [u8; LEN] = Sha1::digest(bytes).into();
        for (byte, with) in self.0.iter_mut().zip(hash) {
            *byte ^= with;
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.add(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    fn mix_value(&mut self, entry: EntryRef<'_>) {
        let value = entry.value();
        self.mix(&type_number(value).to_be_bytes());
        let mut scratch = Scratch::new();
        match value {
            ValueRef::Bytes(bytes) => self.mix(bytes),
            ValueRef::Shared(bytes) => self.mix(bytes),
            ValueRef::Int(number) => self.mix(Element::Integer(number).bytes(&mut scratch)),
            ValueRef::List(list) => list
                .iter()
                .for_each(|element| self.mix(element.bytes(&mut scratch))),
            ValueRef::Set(set) => set
                .iter()
                .for_each(|member| self.add(member.bytes(&mut scratch))),
            ValueRef::Hash(hash) => {
                for entry in hash.entries(Timestamp::MIN) {
                    let mut pair = Digest::default();
                    pair.mix(entry.field.bytes(&mut scratch));
                    pair.mix(entry.value.bytes(&mut scratch));
                    self.add(&pair.0);
                }
            }
            ValueRef::SortedSet(set) => {
                let mut text = Vec::new();
                for (member, score) in set.iter() {
                    let mut pair = Digest::default();
                    pair.mix(member);
                    text.clear();
                    number::write_f64_shortest(score, &mut text);
                    pair.mix(&text);
                    self.add(&pair.0);
                }
            }
            ValueRef::Stream(stream) => {
                for entry in stream.range((0, 0), (u64::MAX, u64::MAX)) {
                    let (ms, seq) = entry.id;
                    self.mix(format!("{ms}.{seq}").as_bytes());
                    for (field, value) in entry.pairs() {
                        self.mix(field.bytes(&mut scratch));
                        self.mix(value.bytes(&mut scratch));
                    }
                }
            }
        }
        if entry.deadline().is_some() {
            self.add(b"!!expire!!");
        }
    }
}

fn type_number(value: ValueRef<'_>) -> u32 {
    match value {
        ValueRef::Bytes(_) | ValueRef::Int(_) | ValueRef::Shared(_) => 0,
        ValueRef::List(_) => 1,
        ValueRef::Set(_) => 2,
        ValueRef::SortedSet(_) => 3,
        ValueRef::Hash(_) => 4,
        ValueRef::Stream(_) => 6,
    }
}
