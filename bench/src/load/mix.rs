//! What is sent: operations built once as bytes, of which only the digits of keys and numbers change from one to the next.
//!
//! An operation is written as text, `SET {key} {value}` or, for memcached, `set {key} 0 0 {size}\n{value}\n`:
//!
//! | placeholder | becomes |
//! |---|---|
//! | `{key}` | a key of the configured length, drawn by popularity |
//! | `{member}` `{field}` `{counter}` | the same with a prefix of its own, always 16 bytes |
//! | `{score}` | seven random digits |
//! | `{value}` `{size}` | a value of the configured size, and that size |
//! | `{half}` `{half+9}` | half the number of keys, and nine more |
//! | `{...}*N` | the placeholder N times |
//!
//! In RESP text `;` separates several requests of one operation, for transactions. Every placeholder has a fixed width, so
//! that a request is a copy of its template with a few digits overwritten: no formatting and no allocation per request.

use std::str::FromStr;

use super::popularity::KeyPicker;
use super::reply::Protocol;
use crate::Result;

/// A script as one word: comments are its spaces.
macro_rules! get_script {
    () => {
        "return(redis.call('GET',KEYS[1]))"
    };
}

/// A sliding window: an event is let through if fewer than ten were within the last hundred.
macro_rules! window_script {
    () => {
        concat!(
            "local--[[]]now=tonumber(ARGV[1])--[[]]",
            "redis.call('ZREMRANGEBYSCORE',KEYS[1],0,now-100)--[[]]",
            "if(redis.call('ZCARD',KEYS[1])<10)then--[[]]",
            "redis.call('ZADD',KEYS[1],now,ARGV[2])--[[]]",
            "redis.call('PEXPIRE',KEYS[1],100000)--[[]]",
            "return(1)--[[]]end--[[]]",
            "return(0)"
        )
    };
}

/// Operations by name, as `(name, RESP text, memcached text)`. In `name:N` the number replaces `N` where there is one, and is
/// the size of the value otherwise.
const NAMED: &[(&str, &str, &str)] = &[
    ("get", "GET {key}", "get {key}\n"),
    (
        "set",
        "SET {key} {value}",
        "set {key} 0 0 {size}\n{value}\n",
    ),
    (
        "setex",
        "SET {key} {value} EX 100000",
        "set {key} 0 100000 {size}\n{value}\n",
    ),
    ("mget", "MGET {key}*N", "get {key}*N\n"),
    ("del", "DEL {key}", "delete {key}\n"),
    ("incr", "INCR {counter}", "incr {counter} 1\n"),
    ("expire", "EXPIRE {key} 100000", "touch {key} 100000\n"),
    ("metaget", "", "mg {key} v\n"),
    ("metaset", "", "ms {key} {size}\n{value}\n"),
    ("zadd", "ZADD zset {score} {member}", ""),
    ("zincrby", "ZINCRBY zset 1 {member}", ""),
    ("zrank", "ZRANK zset {member}", ""),
    ("zscore", "ZSCORE zset {member}", ""),
    ("zrevrange", "ZREVRANGE zset 0 9", ""),
    ("zrange-middle", "ZRANGE zset 500000 500009", ""),
    (
        "zrangebyscore",
        "ZRANGEBYSCORE zset {score} +inf LIMIT 0 10",
        "",
    ),
    ("hset", "HSET hash {field} {value}", ""),
    ("hget", "HGET hash {field}", ""),
    (
        "hset-5",
        "HSET {key} f0 {value} f1 {value} f2 {value} f3 {value} f4 {value}",
        "",
    ),
    ("hgetall", "HGETALL {key}", ""),
    ("lpush", "LPUSH list {value}", ""),
    ("rpop", "RPOP list", ""),
    ("lpush-keys", "LPUSH {key} {value}", ""),
    ("rpop-keys", "RPOP {key}", ""),
    ("sadd", "SADD set {member}", ""),
    ("xadd", "XADD stream MAXLEN ~ 10000 * field {value}", ""),
    ("pfadd", "PFADD log {member}", ""),
    ("multi", "MULTI ; SET {key} {value} ;*N EXEC", ""),
    ("eval-get", concat!("EVAL ", get_script!(), " 1 {key}"), ""),
    (
        "evalsha-get",
        "EVALSHA bfef805d9dcd9d3857da9372933ef22c17736f58 1 {key}",
        "",
    ),
    (
        "eval-window",
        concat!("EVAL ", window_script!(), " 1 {counter} {score} {member}"),
        "",
    ),
    (
        "evalsha-window",
        "EVALSHA 466a4345d1502a19b471839b0b8b699c759571df 1 {counter} {score} {member}",
        "",
    ),
    ("ping", "PING", "mn\n"),
];

/// Different sizes a range of value sizes is represented by.
const SIZES_PER_RANGE: usize = 32;

/// Digits of `{score}`.
const SCORE_DIGITS: usize = 7;

/// Weights are kept as a table with one slot per unit.
const MAX_TOTAL_WEIGHT: usize = 10_000;

/// What `N` in a named operation is if not given.
const DEFAULT_REPEATS: usize = 10;

/// Requests of one operation, or arguments of one request.
const MAX_REPEATS: usize = 100_000;

/// A fixed value size, or a range that is used evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ValueSize {
    pub(crate) smallest: usize,
    pub(crate) largest: usize,
}

impl ValueSize {
    pub(crate) const fn fixed(size: usize) -> Self {
        Self {
            smallest: size,
            largest: size,
        }
    }

    fn sizes(self) -> Vec<usize> {
        let span = self.largest - self.smallest;
        let steps = span.min(SIZES_PER_RANGE - 1);
        (0..=steps)
            .map(|step| self.smallest + span * step / steps.max(1))
            .collect()
    }
}

impl FromStr for ValueSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (smallest, largest) = text.split_once('-').unwrap_or((text, text));
        let parse = |text: &str| {
            text.parse::<usize>()
                .map_err(|_| format!("{text} is not a size in bytes"))
        };
        let size = Self {
            smallest: parse(smallest)?,
            largest: parse(largest)?,
        };
        if size.smallest > size.largest || size.largest > 512 << 20 {
            return Err("expected a size or smallest-largest, at most 512 MiB".into());
        }
        Ok(size)
    }
}

/// The lengths that templates are built with.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) protocol: Protocol,
    /// Numbers drawn are below this.
    pub(crate) keys: u64,
    pub(crate) key_size: usize,
    pub(crate) value_size: ValueSize,
}

/// One operation of a mix, written out.
pub(crate) struct Operation {
    pub(crate) weight: usize,
    pub(crate) text: String,
    /// If not the shape's.
    pub(crate) value_size: Option<ValueSize>,
}

impl Operation {
    /// Looks the operation up and fills its number in.
    fn named(name: &str, protocol: Protocol) -> Result<Self> {
        let (base, number) = match name.split_once(':') {
            Some((base, number)) => (base, Some(parse_number(number)?)),
            None => (name, None),
        };
        let (_, resp, memcached) = NAMED
            .iter()
            .find(|(known, ..)| *known == base)
            .ok_or_else(|| format!("there is no operation called {base}"))?;
        let text = match protocol {
            Protocol::Resp => resp,
            Protocol::Memcached => memcached,
        };
        if text.is_empty() {
            return Err(format!("{base} does not exist in this protocol").into());
        }
        let repeats = number.unwrap_or(DEFAULT_REPEATS);
        let (text, value_size) = match text.split_once(";*N") {
            // `request ;*N` repeats a whole request.
            Some((before, after)) => {
                let (before, request) = before.split_once(';').unwrap_or(("", before));
                let requests = vec![request; repeats].join(";");
                (format!("{before};{requests};{after}"), None)
            }
            None if text.contains("*N") => (text.replace("*N", &format!("*{repeats}")), None),
            None => ((*text).to_owned(), number.map(ValueSize::fixed)),
        };
        Ok(Self {
            weight: 1,
            text,
            value_size,
        })
    }
}

fn parse_number(text: &str) -> Result<usize> {
    match text.parse() {
        Ok(number) if (1..=MAX_REPEATS).contains(&number) => Ok(number),
        _ => Err(format!("{text} is not a number from 1 to {MAX_REPEATS}").into()),
    }
}

/// A set of operations with weights.
#[derive(Clone)]
pub(crate) struct Mix {
    templates: Vec<Template>,
    /// One slot per unit of weight, holding the first template of the operation and how many sizes it comes in.
    slots: Vec<(u16, u16)>,
    replies_per_operation: u64,
}

#[derive(Clone)]
struct Template {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
    replies: u64,
}

/// Digits to overwrite.
#[derive(Clone, Copy)]
struct Hole {
    at: usize,
    digits: usize,
    filled_with: Filling,
}

#[derive(Clone, Copy)]
enum Filling {
    KeyNumber,
    Score,
}

impl Mix {
    /// Reads `name=weight,name=weight`; a weight of 1 may be left out.
    pub(crate) fn named(text: &str, shape: Shape) -> Result<Self> {
        let mut operations = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight = weight
                .parse()
                .map_err(|_| format!("{part}: {weight} is not a weight"))?;
            operations.push(Operation {
                weight,
                ..Operation::named(name.trim(), shape.protocol)?
            });
        }
        Self::of(&operations, shape)
    }

    /// Builds the templates of operations written out with their weights.
    pub(crate) fn of(operations: &[Operation], shape: Shape) -> Result<Self> {
        let (mut templates, mut slots) = (Vec::new(), Vec::new());
        for operation in operations {
            if slots.len().saturating_add(operation.weight) > MAX_TOTAL_WEIGHT {
                return Err(format!("weights add up to more than {MAX_TOTAL_WEIGHT}").into());
            }
            let sizes = if operation.text.contains("{value}") {
                operation.value_size.unwrap_or(shape.value_size).sizes()
            } else {
                vec![0]
            };
            let slot = (u16::try_from(templates.len())?, u16::try_from(sizes.len())?);
            slots.extend(std::iter::repeat_n(slot, operation.weight));
            for size in sizes {
                templates.push(Template::build(&operation.text, shape, size)?);
            }
        }
        let replies_per_operation = templates
            .first()
            .map_or(0, |template: &Template| template.replies);
        if slots.is_empty() || replies_per_operation == 0 {
            return Err("nothing to send".into());
        }
        if templates
            .iter()
            .any(|template| template.replies != replies_per_operation)
        {
            return Err("operations of one mix must have the same number of requests each".into());
        }
        Ok(Self {
            templates,
            slots,
            replies_per_operation,
        })
    }

    pub(crate) fn replies_per_operation(&self) -> u64 {
        self.replies_per_operation
    }

    /// The longest operation in bytes.
    pub(crate) fn largest_operation(&self) -> usize {
        self.templates
            .iter()
            .map(|template| template.bytes.len())
            .max()
            .unwrap_or(0)
    }

    /// Appends one operation to `output`.
    pub(crate) fn append(&self, output: &mut Vec<u8>, picker: &mut KeyPicker) {
        let (mut index, sizes) = match self.slots[..] {
            [only] => only,
            _ => self.slots[picker.random().below(self.slots.len() as u64) as usize],
        };
        if sizes > 1 {
            index += picker.random().below(u64::from(sizes)) as u16;
        }
        self.templates[usize::from(index)].append(output, picker);
    }
}

impl Template {
    fn build(text: &str, shape: Shape, size: usize) -> Result<Self> {
        let mut builder = Builder {
            shape,
            size,
            template: Self {
                bytes: Vec::new(),
                holes: Vec::new(),
                replies: 0,
            },
        };
        match shape.protocol {
            Protocol::Resp => builder.resp(text)?,
            Protocol::Memcached => builder.memcached(text)?,
        }
        Ok(builder.template)
    }

    fn append(&self, output: &mut Vec<u8>, picker: &mut KeyPicker) {
        let start = output.len();
        output.extend_from_slice(&self.bytes);
        for hole in &self.holes {
            let number = match hole.filled_with {
                Filling::KeyNumber => picker.next(),
                Filling::Score => picker.random().below(10u64.pow(SCORE_DIGITS as u32)),
            };
            let at = start + hole.at;
            write_digits(&mut output[at..at + hole.digits], number);
        }
    }
}

struct Builder {
    shape: Shape,
    size: usize,
    template: Template,
}

impl Builder {
    fn resp(&mut self, text: &str) -> Result<()> {
        for request in text
            .split(';')
            .map(str::trim)
            .filter(|request| !request.is_empty())
        {
            let mut arguments = Vec::new();
            for word in request.split_ascii_whitespace() {
                let (word, times) = repeated(word)?;
                arguments.extend(std::iter::repeat_n(word, times));
            }
            self.template
                .bytes
                .extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
            for argument in arguments {
                self.resp_argument(argument)?;
            }
            self.template.replies += 1;
        }
        Ok(())
    }

    fn resp_argument(&mut self, argument: &str) -> Result<()> {
        // The length stands before the argument, so build the argument first and move its holes behind the header.
        let (bytes_before, holes_before) = (self.template.bytes.len(), self.template.holes.len());
        self.literal_with_placeholders(argument)?;
        let header = format!("${}\r\n", self.template.bytes.len() - bytes_before);
        self.template
            .bytes
            .splice(bytes_before..bytes_before, header.bytes());
        for hole in &mut self.template.holes[holes_before..] {
            hole.at += header.len();
        }
        self.template.bytes.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn memcached(&mut self, text: &str) -> Result<()> {
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let line = line.trim_end_matches('\n');
            for (position, word) in line.split(' ').enumerate() {
                let (word, times) = repeated(word)?;
                for repeat in 0..times {
                    if position + repeat > 0 {
                        self.template.bytes.push(b' ');
                    }
                    self.literal_with_placeholders(word)?;
                }
            }
            self.template.bytes.extend_from_slice(b"\r\n");
            // A line that starts with a value belongs to the request before it.
            if index == 0 || !line.starts_with("{value}") {
                self.template.replies += 1;
            }
        }
        Ok(())
    }

    fn literal_with_placeholders(&mut self, text: &str) -> Result<()> {
        let mut rest = text;
        while let Some(start) = rest.find('{') {
            let end = rest[start..]
                .find('}')
                .ok_or_else(|| format!("{text}: a bracket is not closed"))?
                + start;
            self.template
                .bytes
                .extend_from_slice(&rest.as_bytes()[..start]);
            self.placeholder(&rest[start + 1..end])?;
            rest = &rest[end + 1..];
        }
        self.template.bytes.extend_from_slice(rest.as_bytes());
        Ok(())
    }

    fn placeholder(&mut self, name: &str) -> Result<()> {
        match name {
            "key" => self.key("key:", self.shape.key_size)?,
            "member" => self.key("member:", 16)?,
            "field" => self.key("field:", 16)?,
            "counter" => self.key("counter:", 16)?,
            "score" => self.digits(SCORE_DIGITS, Filling::Score),
            "size" => self.text(self.size as u64),
            "half" => self.text(self.shape.keys / 2),
            "half+9" => self.text(self.shape.keys / 2 + 9),
            "value" => self
                .template
                .bytes
                .extend((0..self.size).map(|at| b'a' + (at % 26) as u8)),
            _ => return Err(format!("{{{name}}} is not a placeholder").into()),
        }
        Ok(())
    }

    fn text(&mut self, number: u64) {
        self.template
            .bytes
            .extend_from_slice(number.to_string().as_bytes());
    }

    /// The prefix is cut if needed; the number fills the end of `size` bytes.
    fn key(&mut self, prefix: &str, size: usize) -> Result<()> {
        let digits = decimal_digits(self.shape.keys.saturating_sub(1));
        let room = size
            .checked_sub(digits)
            .ok_or_else(|| format!("{} keys do not fit into {size} bytes each", self.shape.keys))?;
        let prefix = &prefix[..prefix.len().min(room)];
        self.template.bytes.extend_from_slice(prefix.as_bytes());
        self.template
            .bytes
            .extend(std::iter::repeat_n(b'0', room - prefix.len()));
        self.digits(digits, Filling::KeyNumber);
        Ok(())
    }

    fn digits(&mut self, digits: usize, filled_with: Filling) {
        self.template.holes.push(Hole {
            at: self.template.bytes.len(),
            digits,
            filled_with,
        });
        self.template
            .bytes
            .extend(std::iter::repeat_n(b'0', digits));
    }
}

/// Whether all operations of a mix exist in this protocol.
pub(crate) fn speaks(mix: &str, protocol: Protocol) -> bool {
    mix.split(',').all(|part| {
        let name = part.split('=').next().unwrap_or(part);
        Operation::named(name.trim(), protocol).is_ok()
    })
}

/// Splits `{key}*10` into the word and its count.
fn repeated(word: &str) -> Result<(&str, usize)> {
    match word.rsplit_once("}*") {
        None => Ok((word, 1)),
        Some((head, times)) => Ok((&word[..head.len() + 1], parse_number(times)?)),
    }
}

fn decimal_digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(protocol: Protocol) -> Shape {
        Shape {
            protocol,
            keys: 1000,
            key_size: 10,
            value_size: ValueSize::fixed(3),
        }
    }

    fn sent(mix: &Mix, times: usize) -> String {
        let mut picker = KeyPicker::sequential(8, 1000, 1);
        let mut output = Vec::new();
        for _ in 0..times {
            mix.append(&mut output, &mut picker);
        }
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn set_is_a_request_with_the_key_number_filled_in() {
        let mix = Mix::named("set", shape(Protocol::Resp)).unwrap();
        assert_eq!(
            sent(&mix, 2),
            "*3\r\n$3\r\nSET\r\n$10\r\nkey:000008\r\n$3\r\nabc\r\n*3\r\n$3\r\nSET\r\n$10\r\nkey:000009\r\n$3\r\nabc\r\n"
        );
    }

    #[test]
    fn memcached_set_names_the_size_before_the_value() {
        let mix = Mix::named("set", shape(Protocol::Memcached)).unwrap();
        assert_eq!(sent(&mix, 1), "set key:000008 0 0 3\r\nabc\r\n");
        assert_eq!(mix.replies_per_operation(), 1);
    }

    #[test]
    fn scripts_are_called_by_their_names() {
        use sha1::{Digest, Sha1};

        let sha = |script: &str| {
            let digest = Sha1::digest(script.as_bytes());
            digest
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        for (name, script) in [
            ("evalsha-get", get_script!()),
            ("evalsha-window", window_script!()),
        ] {
            let (_, text, _) = NAMED.iter().find(|(known, ..)| *known == name).unwrap();
            assert!(text.contains(&sha(script)), "{name}: {}", sha(script));
        }
    }

    #[test]
    fn mget_repeats_its_key() {
        let mix = Mix::named("mget:3", shape(Protocol::Resp)).unwrap();
        assert_eq!(
            sent(&mix, 1),
            "*4\r\n$4\r\nMGET\r\n$10\r\nkey:000008\r\n$10\r\nkey:000009\r\n$10\r\nkey:000010\r\n"
        );
        let mix = Mix::named("mget:2", shape(Protocol::Memcached)).unwrap();
        assert_eq!(sent(&mix, 1), "get key:000008 key:000009\r\n");
    }

    #[test]
    fn a_transaction_is_one_operation_with_several_replies() {
        let mix = Mix::named("multi:2", shape(Protocol::Resp)).unwrap();
        assert_eq!(mix.replies_per_operation(), 4);
        let set = |key| format!("*3\r\n$3\r\nSET\r\n$10\r\nkey:00000{key}\r\n$3\r\nabc\r\n");
        assert_eq!(
            sent(&mix, 1),
            format!(
                "*1\r\n$5\r\nMULTI\r\n{}{}*1\r\n$4\r\nEXEC\r\n",
                set(8),
                set(9)
            )
        );
    }

    #[test]
    fn weights_decide_how_often_an_operation_comes() {
        let mix = Mix::named("get=9,set=1", shape(Protocol::Resp)).unwrap();
        let sets = sent(&mix, 10_000).matches("SET").count();
        assert!((850..1150).contains(&sets), "{sets}");
    }

    #[test]
    fn the_number_of_an_operation_without_repetition_is_its_value_size() {
        let mix = Mix::named("set:2", shape(Protocol::Memcached)).unwrap();
        assert_eq!(sent(&mix, 1), "set key:000008 0 0 2\r\nab\r\n");
    }

    #[test]
    fn a_range_of_sizes_reaches_both_ends() {
        let size: ValueSize = "10-1000".parse().unwrap();
        let sizes = size.sizes();
        assert_eq!((sizes.len(), sizes[0], sizes[31]), (32, 10, 1000));
        assert_eq!("7".parse(), Ok(ValueSize::fixed(7)));
        assert_eq!(ValueSize::fixed(7).sizes(), [7]);
        assert_eq!(
            ValueSize {
                smallest: 1,
                largest: 3
            }
            .sizes(),
            [1, 2, 3]
        );
        assert!("9-1".parse::<ValueSize>().is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        for wrong in [
            "",
            "nothing",
            "get=x",
            "get=0",
            "get,multi:2",
            "mget:0",
            "metaget",
        ] {
            assert!(Mix::named(wrong, shape(Protocol::Resp)).is_err(), "{wrong}");
        }
        let narrow = Shape {
            key_size: 2,
            ..shape(Protocol::Resp)
        };
        assert!(Mix::named("get", narrow).is_err());
    }

    #[test]
    fn every_named_operation_can_be_built() {
        for (name, resp, memcached) in NAMED {
            assert_eq!(
                Mix::named(name, shape(Protocol::Resp)).is_ok(),
                !resp.is_empty(),
                "{name}"
            );
            assert_eq!(
                Mix::named(name, shape(Protocol::Memcached)).is_ok(),
                !memcached.is_empty(),
                "{name}"
            );
        }
    }
}
