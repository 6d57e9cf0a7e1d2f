//! Invents commands: one grammar per group, all over one small set of keys and biased towards what goes wrong.
//!
//! A grammar's commands give the same replies on two servers that behave alike: nothing random, no deadline that passes
//! during the run; where order or a clock shows, the step says how to compare. On top, [`Generator::step`] damages some
//! commands (words dropped, doubled, swapped, replaced) and sometimes gives a key another type.

mod bitmap;
mod dump;
mod generic;
mod geo;
mod hash;
mod hyperloglog;
mod list;
mod memcached;
mod script;
mod set;
mod sort;
mod sorted_set;
mod stream;
mod string;

use crate::random::Random;

/// A group of commands.
pub struct Grammar {
    pub name: &'static str,
    pub protocol: Protocol,
    /// Commands per pipeline.
    pub batch: usize,
    /// How to compare the encodings of keys.
    pub encodings: Compare,
    /// Settings for an epoch.
    pub prelude: fn(&mut Generator) -> Vec<Step>,
    /// The next command.
    pub next: fn(&mut Generator) -> Step,
}

pub const GRAMMARS: &[Grammar] = &[
    resp("string", nothing, string::next),
    resp("bitmap", nothing, bitmap::next),
    resp("generic", generic::prelude, generic::next),
    resp("hash", nothing, hash::next),
    resp("hyperloglog", nothing, hyperloglog::next),
    resp("dump", nothing, dump::next),
    resp("list", list::prelude, list::next),
    resp("set", set::prelude, set::next),
    resp("geo", nothing, geo::next),
    resp("sorted_set", sorted_set::prelude, sorted_set::next),
    resp("stream", stream::prelude, stream::next),
    resp("sort", list::prelude, sort::next),
    Grammar {
        // Numbers that scripts of Valkey store are texts to it.
        encodings: Compare::Shape,
        ..resp("script", nothing, script::next)
    },
    memcached("memcached", 150, memcached::next),
    memcached("memcached-arithmetic", 1, memcached::next_arithmetic),
];

const fn resp(
    name: &'static str,
    prelude: fn(&mut Generator) -> Vec<Step>,
    next: fn(&mut Generator) -> Step,
) -> Grammar {
    Grammar {
        name,
        protocol: Protocol::Resp,
        batch: 150,
        encodings: Compare::Exact,
        prelude,
        next,
    }
}

const fn memcached(name: &'static str, batch: usize, next: fn(&mut Generator) -> Step) -> Grammar {
    Grammar {
        name,
        protocol: Protocol::Memcached,
        batch,
        encodings: Compare::Exact,
        prelude: nothing,
        next,
    }
}

/// The grammar of that name.
pub fn named(name: &str) -> &'static Grammar {
    GRAMMARS
        .iter()
        .find(|grammar| grammar.name == name)
        .unwrap_or_else(|| panic!("no grammar is called {name}"))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    Resp,
    Memcached,
}

/// How much of two replies must agree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compare {
    Exact,
    /// The same elements in any order.
    Unordered,
    /// The same pairs of elements in any order.
    UnorderedPairs,
    /// A cursor and elements in any order, in groups of so many.
    Scan(usize),
    /// Integers may differ by so much.
    Near(i64),
    /// Numbers with a fraction may differ in the last digits.
    Scores,
    /// The same type and number of elements.
    Shape,
}

/// One command and how to compare its replies.
#[derive(Clone, Debug)]
pub struct Step {
    /// The words of a command; for memcached one whole request.
    pub args: Vec<Vec<u8>>,
    pub compare: Compare,
    /// Whether it may be damaged: not where the damaged form could be random or slow.
    pub mutable: bool,
}

impl Step {
    pub fn new(name: &str) -> Self {
        Self {
            args: vec![name.as_bytes().to_vec()],
            compare: Compare::Exact,
            mutable: true,
        }
    }

    pub fn arg(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.args.push(arg.as_ref().to_vec());
        self
    }

    pub fn int(self, number: i64) -> Self {
        self.arg(number.to_string())
    }

    pub fn args(mut self, args: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.args.extend(args);
        self
    }

    pub fn compare(mut self, compare: Compare) -> Self {
        self.compare = compare;
        self
    }

    /// Never damaged.
    pub fn plain(mut self) -> Self {
        self.mutable = false;
        self
    }

    /// The command's name in capitals, with the second word of containers.
    pub fn name(&self) -> String {
        let word = |index: usize| {
            let bytes = self.args.get(index).map_or(&[][..], |arg| arg);
            let end = bytes
                .iter()
                .position(|&byte| byte == b' ')
                .unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).to_uppercase()
        };
        match word(0).as_str() {
            container @ ("OBJECT" | "XGROUP" | "XINFO") => format!("{container} {}", word(1)),
            name => name.to_owned(),
        }
    }
}

fn nothing(_: &mut Generator) -> Vec<Step> {
    Vec::new()
}

/// Words that replace others in damaged commands. No small positive numbers: as a time to live they would make the
/// outcome depend on the clock, as an offset into a bitmap on how much memory there is.
const DAMAGE: &[&str] = &[
    "",
    "abc",
    "-1",
    "0",
    "-0",
    "1.5",
    " 1",
    "01",
    "+1",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "NX",
    "XX",
    "GET",
    "KEEPTTL",
    "PERSIST",
    "COUNT",
    "LIMIT",
    "WITHSCORES",
    "FIELDS",
    "(1",
    "[a",
    "-",
    "+",
    "$",
    "*",
    "STORE",
    "REPLACE",
];

/// The state behind the commands: dice, keys, and words to choose from.
pub struct Generator {
    pub random: Random,
    keys: Vec<Vec<u8>>,
}

impl Generator {
    pub fn new(random: Random) -> Self {
        let mut keys: Vec<Vec<u8>> = (0..20)
            .map(|number| format!("k{number}").into_bytes())
            .collect();
        keys.extend(
            (0..5).map(|number| format!("a:rather:long:name:for:a:key:{number:020}").into_bytes()),
        );
        keys.push(format!("{}{}", "very:long:", "x".repeat(150)).into_bytes());
        Self { random, keys }
    }

    pub fn keys(&self) -> &[Vec<u8>] {
        &self.keys
    }

    /// The next command of a grammar, sometimes damaged, sometimes one that changes a key's type.
    pub fn step(&mut self, grammar: &Grammar) -> Step {
        if grammar.protocol == Protocol::Memcached {
            return (grammar.next)(self);
        }
        if self.random.chance(3) {
            return self.change_type();
        }
        let step = (grammar.next)(self);
        if step.mutable && self.random.chance(4) {
            self.damage(step)
        } else {
            step
        }
    }

    fn change_type(&mut self) -> Step {
        let key = self.key();
        let value = self.value();
        match self.random.below(14) {
            0 => Step::new("RPUSH").arg(key).arg(value),
            1 => Step::new("SADD").arg(key).arg(value),
            2 => Step::new("HSET").arg(key).arg(value).arg("1"),
            3 => Step::new("ZADD").arg(key).arg("1.5").arg(value),
            4 => Step::new("XADD")
                .arg(key)
                .arg("1000000-*")
                .arg("field")
                .arg(value)
                .compare(Compare::Shape),
            5..8 => Step::new("SET").arg(key).arg(value),
            _ => Step::new("DEL").arg(key),
        }
        .plain()
    }

    fn damage(&mut self, mut step: Step) -> Step {
        let index = self.random.below(step.args.len().max(2) - 1) + 1;
        match self.random.below(5) {
            0 if step.args.len() > 1 => {
                step.args.pop();
            }
            1 if index < step.args.len() => {
                step.args.remove(index);
            }
            2 if index < step.args.len() => {
                let doubled = step.args[index].clone();
                step.args.insert(index, doubled);
            }
            3 if index < step.args.len() => {
                step.args[index] = self.random.pick(DAMAGE).as_bytes().to_vec()
            }
            _ => step.args.push(self.random.pick(DAMAGE).as_bytes().to_vec()),
        }
        step
    }

    pub fn chance(&mut self, percent: usize) -> bool {
        self.random.chance(percent)
    }

    pub fn key(&mut self) -> Vec<u8> {
        // A few keys get most of the commands, so that something happens to them.
        let bound = if self.random.chance(60) {
            8
        } else {
            self.keys.len()
        };
        let index = self.random.below(bound);
        self.keys[index].clone()
    }

    /// One to `most` keys; the same one may come twice.
    pub fn some_keys(&mut self, most: usize) -> Vec<Vec<u8>> {
        let count = self.random.below(most) + 1;
        (0..count).map(|_| self.key()).collect()
    }

    /// An option's keyword in any case.
    pub fn word(&mut self, word: &str) -> Vec<u8> {
        match self.random.below(4) {
            0 => word.to_lowercase().into_bytes(),
            1 => word
                .bytes()
                .map(|byte| {
                    if self.random.chance(50) {
                        byte.to_ascii_lowercase()
                    } else {
                        byte
                    }
                })
                .collect(),
            _ => word.as_bytes().to_vec(),
        }
    }

    /// One of several keywords.
    pub fn one_of(&mut self, words: &[&str]) -> Vec<u8> {
        let word = self.random.pick(words);
        self.word(word)
    }

    /// Any value; most of them small, so that values meet again, and nasty ones among them.
    pub fn value(&mut self) -> Vec<u8> {
        match self.random.below(1000) {
            0..250 => self.random.between(-3, 100).to_string().into_bytes(),
            250..350 => self.limit_integer(),
            350..450 => self.odd_number(),
            450..550 => self.float(),
            550..800 => self
                .random
                .pick(&[
                    "a",
                    "b",
                    "c",
                    "foo",
                    "bar",
                    "foobar",
                    "hello world",
                    "Value",
                ])
                .as_bytes()
                .to_vec(),
            800..850 => Vec::new(),
            850..910 => {
                let len = self.random.pick(&[
                    &20_usize, &43, &44, &45, &63, &64, &65, &100, &127, &128, &129,
                ]);
                vec![b'v'; *len]
            }
            910..960 => {
                let len = self.random.below(30);
                self.random.bytes(len)
            }
            960..980 => b"a\0b\r\nc\r\n".to_vec(),
            980..997 => vec![b'z'; self.random.between(200, 2000) as usize],
            997..999 => {
                let len = self.random.between(2000, 9000) as usize;
                self.random.bytes(len)
            }
            _ => vec![b'y'; 70_000],
        }
    }

    /// Values that a small set of members or fields consists of.
    pub fn member(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..8 => self.random.between(-5, 30).to_string().into_bytes(),
            8..17 => format!("m{}", self.random.below(40)).into_bytes(),
            17 => vec![b'm'; self.random.pick(&[&63_usize, &64, &65, &200]).to_owned()],
            _ => self.value(),
        }
    }

    pub fn limit_integer(&mut self) -> Vec<u8> {
        let limits = [
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775806",
            "-9223372036854775807",
            "4294967295",
            "4294967296",
            "2147483647",
            "2147483648",
            "-2147483648",
            "-2147483649",
            "65535",
            "65536",
            "32767",
            "32768",
            "-32768",
            "-32769",
            "127",
            "128",
            "-128",
            "-129",
            "255",
            "256",
            "9007199254740992",
            "9007199254740993",
            "10000",
            "9999",
        ];
        self.random.pick(&limits).as_bytes().to_vec()
    }

    /// Numbers in forms that only some parsers take.
    pub fn odd_number(&mut self) -> Vec<u8> {
        let odd = [
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551615",
            "18446744073709551616",
            " 1",
            "1 ",
            "+1",
            "01",
            "-0",
            "00",
            "0x10",
            "1e3",
            "1E-3",
            ".5",
            "5.",
            "1_000",
            "nan",
            "-nan",
            "NaN",
            "inf",
            "+inf",
            "-inf",
            "Infinity",
            "1e400",
            "-1e400",
            "1e-400",
            "--1",
            "-",
            "+",
            ".",
            "1.0",
            "3.0e0",
            "0.1e1",
            "1\n",
            "",
        ];
        self.random.pick(&odd).as_bytes().to_vec()
    }

    pub fn float(&mut self) -> Vec<u8> {
        match self.random.below(4) {
            0 => format!("{}.{}", self.random.between(-9, 9), self.random.below(100)).into_bytes(),
            1 => format!("{}", self.random.between(-1000, 1000)).into_bytes(),
            2 => self
                .random
                .pick(&[
                    "0.1",
                    "0.2",
                    "0.3",
                    "-0.1",
                    "3.14159265358979",
                    "1e10",
                    "1e17",
                    "1.5e-7",
                    "123456789.987654321",
                    "-0.0",
                ])
                .as_bytes()
                .to_vec(),
            _ => format!(
                "{}e{}",
                self.random.between(-99, 99),
                self.random.between(-12, 12)
            )
            .into_bytes(),
        }
    }

    /// What a client may give where an integer belongs: mostly one.
    pub fn integer(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..14 => self.random.between(-10, 100).to_string().into_bytes(),
            14..17 => self.limit_integer(),
            17 => self.odd_number(),
            _ => self
                .random
                .between(-1_000_000_000_000, 1_000_000_000_000)
                .to_string()
                .into_bytes(),
        }
    }

    /// A position in something small, counted from either end, sometimes far outside.
    pub fn index(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..16 => self.random.between(-12, 12).to_string().into_bytes(),
            16 | 17 => self.random.between(-300, 300).to_string().into_bytes(),
            18 => self.limit_integer(),
            _ => self.odd_number(),
        }
    }

    /// How many: small, zero, and what is refused. Nothing that would make a reply huge.
    pub fn count(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..16 => self.random.between(1, 12).to_string().into_bytes(),
            16 => b"0".to_vec(),
            17 => self.random.between(-5, -1).to_string().into_bytes(),
            18 => self
                .random
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "4294967296",
                    "2147483648",
                ])
                .as_bytes()
                .to_vec(),
            _ => self.odd_number(),
        }
    }

    /// A time from now, in seconds: far away, or refused.
    pub fn seconds(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..16 => self
                .random
                .between(100_000, 100_000_000)
                .to_string()
                .into_bytes(),
            16 => self.random.between(-100_000, 0).to_string().into_bytes(),
            17 => self
                .random
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775",
                    "9223372036854776",
                    "9223370000000000",
                ])
                .as_bytes()
                .to_vec(),
            18 => b"0".to_vec(),
            _ => self
                .random
                .pick(&["", "abc", "1.5", "18446744073709551616", "1e9", " 100000"])
                .as_bytes()
                .to_vec(),
        }
    }

    pub fn milliseconds(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..16 => self
                .random
                .between(100_000_000, 100_000_000_000)
                .to_string()
                .into_bytes(),
            16 => self.random.between(-100_000, 0).to_string().into_bytes(),
            17 => self
                .random
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223370000000000000",
                ])
                .as_bytes()
                .to_vec(),
            18 => b"0".to_vec(),
            _ => self
                .random
                .pick(&["", "abc", "1.5", "18446744073709551616"])
                .as_bytes()
                .to_vec(),
        }
    }

    /// A point in time, in Unix seconds: far away, long past, or refused.
    pub fn unix_seconds(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..14 => self
                .random
                .between(3_000_000_000, 4_000_000_000)
                .to_string()
                .into_bytes(),
            14..17 => self
                .random
                .between(1, 1_500_000_000)
                .to_string()
                .into_bytes(),
            17 => self
                .random
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775",
                    "9223372036854776",
                    "0",
                    "-1",
                ])
                .as_bytes()
                .to_vec(),
            18 => b"0".to_vec(),
            _ => self
                .random
                .pick(&["", "abc", "1.5", "18446744073709551616"])
                .as_bytes()
                .to_vec(),
        }
    }

    pub fn unix_milliseconds(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0..14 => self
                .random
                .between(3_000_000_000_000, 4_000_000_000_000)
                .to_string()
                .into_bytes(),
            14..17 => self
                .random
                .between(1, 1_500_000_000_000)
                .to_string()
                .into_bytes(),
            17 => self
                .random
                .pick(&["9223372036854775807", "-9223372036854775808", "0", "-1"])
                .as_bytes()
                .to_vec(),
            18 => b"0".to_vec(),
            _ => self
                .random
                .pick(&["", "abc", "1.5", "18446744073709551616"])
                .as_bytes()
                .to_vec(),
        }
    }

    /// EX, PX, EXAT or PXAT with its time.
    pub fn expiry(&mut self) -> Vec<Vec<u8>> {
        match self.random.below(4) {
            0 => vec![self.word("EX"), self.seconds()],
            1 => vec![self.word("PX"), self.milliseconds()],
            2 => vec![self.word("EXAT"), self.unix_seconds()],
            _ => vec![self.word("PXAT"), self.unix_milliseconds()],
        }
    }

    /// A glob pattern for keys or members.
    pub fn pattern(&mut self) -> Vec<u8> {
        let patterns = [
            "*", "k*", "k?", "k1?", "k[1-3]", "k[^1-3]", "k[3-1]", "?", "", "m*", "*1", "a:*:0*1",
            "\\k1", "k\\", "[k", "k[", "*?*", "**k**", "k[1", "[^k]*", "[]", "[^]", "k[\\1]",
            "*[0-9]", "nothing",
        ];
        self.random.pick(&patterns).as_bytes().to_vec()
    }

    /// Shuffles groups of words and appends them: options may come in any order.
    pub fn options(&mut self, mut step: Step, mut groups: Vec<Vec<Vec<u8>>>) -> Step {
        while !groups.is_empty() {
            let index = self.random.below(groups.len());
            step.args.extend(groups.swap_remove(index));
        }
        step
    }
}
