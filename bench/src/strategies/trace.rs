//! A trace: which objects were asked for, when, how large they are and how long they stay valid.
//!
//! Read from CSV, plain or gzip, with a header line:
//!
//! ```text
//! ts,key,size,ttl
//! 0,17,512,0          seconds, object, bytes of the value, seconds to live (0 = for ever)
//! 0.001,4,6350,60
//! ```
//!
//! `size` and `ttl` may be missing, and columns may come in any order. Objects may be named by anything without a
//! comma; here they are numbered in the order they are first seen, so that policies can use plain arrays.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::Result;

/// Bytes of a key on the wire: `obj:` and 16 digits.
pub(crate) const KEY_BYTES: u32 = 20;

/// The size of objects in a trace that does not tell.
const SIZE_WITHOUT_COLUMN: u32 = 100;

/// Longer lines are no trace.
const MAX_LINE: u64 = 64 * 1024;

/// The largest value: Redis' limit for strings.
const MAX_SIZE: u32 = 512 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Milliseconds since the trace began.
    pub(crate) at_ms: u64,
    pub(crate) object: u32,
    /// Seconds; 0 is for ever.
    pub(crate) ttl: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) requests: Vec<Request>,
    /// Bytes of each object's value.
    pub(crate) sizes: Vec<u32>,
}

impl Trace {
    /// # Errors
    /// A file that cannot be read, or a line that is no request, by its number.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let zipped = name.ends_with(".gz");
        let name = name.trim_end_matches(".gz").trim_end_matches(".csv");
        let input: Box<dyn Read> = if zipped {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        Self::parse(name, BufReader::new(input))
            .map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(super) fn parse(name: &str, mut input: impl BufRead) -> Result<Self> {
        let mut line = String::new();
        read_line(&mut input, &mut line)?;
        let columns = Columns::of(&line)?;
        let mut builder = Builder::new(name);
        let mut numbers: HashMap<String, u32> = HashMap::new();
        for number in 2.. {
            line.clear();
            if !read_line(&mut input, &mut line)? {
                break;
            }
            let text = line.trim_end();
            if text.is_empty() {
                continue;
            }
            let row = columns
                .row(text)
                .ok_or_else(|| format!("line {number} is no request: {text}"))?;
            let object = match numbers.get(row.key) {
                Some(&object) => object,
                None => {
                    let object = builder.object(row.size)?;
                    numbers.insert(row.key.to_owned(), object);
                    object
                }
            };
            builder.request(row.at_ms, object, row.ttl);
        }
        builder.finish()
    }

    /// Writes the trace as CSV.
    ///
    /// # Errors
    /// Whatever writing meets.
    pub(crate) fn write(&self, mut output: impl Write) -> Result<()> {
        writeln!(output, "ts,key,size,ttl")?;
        for request in &self.requests {
            let (seconds, millis) = (request.at_ms / 1000, request.at_ms % 1000);
            let size = self.sizes[request.object as usize];
            let (object, ttl) = (request.object, request.ttl);
            writeln!(output, "{seconds}.{millis:03},{object},{size},{ttl}")?;
        }
        Ok(())
    }

    pub(crate) fn objects(&self) -> usize {
        self.sizes.len()
    }

    /// Bytes of all distinct objects with their keys.
    pub(crate) fn bytes(&self) -> u64 {
        self.sizes
            .iter()
            .map(|&size| u64::from(size + KEY_BYTES))
            .sum()
    }

    /// For each request the number of the next one for the same object, `u32::MAX` if there is none.
    pub(crate) fn next_uses(&self) -> Vec<u32> {
        let mut next = vec![u32::MAX; self.requests.len()];
        let mut seen = vec![u32::MAX; self.objects()];
        for (index, request) in self.requests.iter().enumerate().rev() {
            next[index] = seen[request.object as usize];
            seen[request.object as usize] = index as u32;
        }
        next
    }

    /// Only the first `limit` requests, of the objects in them.
    pub(crate) fn truncate(&mut self, limit: usize) {
        self.requests.truncate(limit);
        // Objects are numbered as they are first seen.
        let last = self.requests.iter().map(|request| request.object).max();
        self.sizes
            .truncate(last.map_or(0, |last| last as usize + 1));
    }
}

/// A trace as it grows.
pub(crate) struct Builder {
    trace: Trace,
}

impl Builder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            trace: Trace {
                name: name.to_owned(),
                ..Trace::default()
            },
        }
    }

    /// A new object.
    ///
    /// # Errors
    /// More objects than 32 bits can number.
    pub(crate) fn object(&mut self, size: u32) -> Result<u32> {
        let number = u32::try_from(self.trace.sizes.len()).map_err(|_| "too many objects")?;
        self.trace.sizes.push(size);
        Ok(number)
    }

    pub(crate) fn request(&mut self, at_ms: u64, object: u32, ttl: u32) {
        self.trace.requests.push(Request { at_ms, object, ttl });
    }

    /// # Errors
    /// A trace without a request, or with more than 32 bits can number.
    pub(crate) fn finish(self) -> Result<Trace> {
        if self.trace.requests.is_empty() {
            return Err("there is no request in it".into());
        }
        if self.trace.requests.len() >= u32::MAX as usize {
            return Err("more than 4 billion requests".into());
        }
        Ok(self.trace)
    }
}

/// Where the columns are.
struct Columns {
    at: usize,
    key: usize,
    size: Option<usize>,
    ttl: Option<usize>,
}

struct Row<'a> {
    at_ms: u64,
    key: &'a str,
    size: u32,
    ttl: u32,
}

impl Columns {
    fn of(header: &str) -> Result<Self> {
        let place = |name: &str| {
            header
                .trim_end()
                .split(',')
                .position(|column| column.trim() == name)
        };
        Ok(Self {
            at: place("ts").ok_or("the first line names no column ts")?,
            key: place("key").ok_or("the first line names no column key")?,
            size: place("size"),
            ttl: place("ttl"),
        })
    }

    fn row<'a>(&self, line: &'a str) -> Option<Row<'a>> {
        let mut row = Row {
            at_ms: 0,
            key: "",
            size: SIZE_WITHOUT_COLUMN,
            ttl: 0,
        };
        let mut found = 0;
        for (place, text) in line.split(',').enumerate() {
            let text = text.trim();
            if place == self.at {
                let seconds: f64 = text.parse().ok()?;
                if !(0.0..=1e12).contains(&seconds) {
                    return None;
                }
                row.at_ms = (seconds * 1000.0).round() as u64;
                found += 1;
            } else if place == self.key {
                row.key = text;
                found += 1;
            } else if Some(place) == self.size {
                row.size = text.parse().ok().filter(|size| *size <= MAX_SIZE)?;
            } else if Some(place) == self.ttl {
                row.ttl = text.parse().ok()?;
            }
        }
        (found == 2 && !row.key.is_empty()).then_some(row)
    }
}

/// False at the end.
fn read_line(input: &mut impl BufRead, line: &mut String) -> Result<bool> {
    let read = input.take(MAX_LINE).read_line(line)?;
    if read as u64 == MAX_LINE {
        return Err("a line without end".into());
    }
    Ok(read > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let text = "key,ttl,ts,size\na,0,0,10\nb,60,0.5,20\na,0,1.25,10\n";
        let trace = Trace::parse("t", text.as_bytes()).unwrap();
        assert_eq!(trace.sizes, [10, 20]);
        let request = |at_ms, object, ttl| Request { at_ms, object, ttl };
        assert_eq!(
            trace.requests,
            [request(0, 0, 0), request(500, 1, 60), request(1250, 0, 0)]
        );
        assert_eq!(trace.next_uses(), [2, u32::MAX, u32::MAX]);
        assert_eq!(trace.bytes(), 70);
    }

    #[test]
    fn a_trace_that_is_written_is_read_again() {
        let text = "ts,key,size,ttl\n0.000,0,10,0\n1.050,1,20,60\n";
        let trace = Trace::parse("t", text.as_bytes()).unwrap();
        let mut written = Vec::new();
        trace.write(&mut written).unwrap();
        assert_eq!(written, text.as_bytes());
    }

    #[test]
    fn what_is_no_trace_is_refused_with_the_line() {
        for (text, problem) in [
            ("", "no column ts"),
            ("ts,size\n", "no column key"),
            ("ts,key\n", "no request"),
            ("ts,key\nx,1\n", "line 2"),
            ("ts,key,size\n0,1,5\n1,2,-3\n", "line 3"),
            ("ts,key\n0\n", "line 2"),
        ] {
            let error = Trace::parse("t", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }
}
