//! Random conversations of several connections with two servers: every byte that each connection receives must be the
//! same on both, in the same order, replies and pushes alike.
//!
//! One step is sent at a time, to both servers, and the next only when all is quiet again, so that what happens follows
//! from the steps alone. A conversation that differs is said again and again with fewer steps, until each that is left
//! is needed to show the difference.

mod grammar;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::wire::{Wire, encode, find, show, split_line};

/// Connections of a conversation; the first only ever directs the others, and is never blocked itself.
pub const CONNECTIONS: usize = 5;
/// Nothing more comes when there was silence for so long.
const QUIET: Duration = Duration::from_millis(2);
/// A reply that has not come by then does not come: the connection is blocked, or its replies are off.
const REPLY: Duration = Duration::from_millis(8);
/// What differs for so long stays different.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long a conversation that differs is made shorter.
const SHORTENING: Duration = Duration::from_secs(20);

/// What one connection sends at once: one command, or a few in one write.
#[derive(Clone, Debug)]
pub struct Step {
    pub connection: usize,
    /// Lines as in [`split_line`]; `{id:N}` stands for the number of connection N.
    pub lines: Vec<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.connection, self.lines.join(" | "))
    }
}

/// A conversation in which the servers said different things, as short as it could be made.
#[derive(Debug)]
pub struct Difference {
    pub steps: Vec<Step>,
    connection: usize,
    said: [Vec<u8>; 2],
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(formatter, "  {step}")?;
        }
        writeln!(
            formatter,
            "after which connection {} is told",
            self.connection
        )?;
        writeln!(formatter, "  tested    {}", show(&self.said[0]))?;
        write!(formatter, "  reference {}", show(&self.said[1]))
    }
}

/// A random conversation of so many steps.
pub fn invent(random: &mut Random, len: usize) -> Vec<Step> {
    (0..len)
        .map(|number| grammar::step(random, number))
        .collect()
}

/// Has a conversation with both servers. If they differ, returns the shortest form of it that was found.
pub fn compare(servers: [SocketAddr; 2], steps: &[Step]) -> Option<Difference> {
    let (last, connection, said) = converse(servers, steps)?;
    let mut found = Difference {
        steps: steps[..=last].to_vec(),
        connection,
        said,
    };
    let deadline = Instant::now() + SHORTENING;
    let mut chunk = found.steps.len() / 2;
    while chunk > 0 {
        let mut end = found.steps.len();
        while end > 0 && Instant::now() < deadline {
            let start = end.saturating_sub(chunk);
            let mut steps = found.steps.clone();
            steps.drain(start..end.min(steps.len()));
            if let Some((last, connection, said)) = converse(servers, &steps) {
                steps.truncate(last + 1);
                found = Difference {
                    steps,
                    connection,
                    said,
                };
            }
            end = start.min(found.steps.len());
        }
        chunk /= 2;
    }
    Some(found)
}

/// The step after which a connection was told different things, the connection, and the things since the step.
type Found = (usize, usize, [Vec<u8>; 2]);

fn converse(servers: [SocketAddr; 2], steps: &[Step]) -> Option<Found> {
    servers.iter().for_each(|&server| clear(server));
    let mut sides = servers.map(Side::new);
    align(servers, &mut sides);
    for (number, step) in steps.iter().enumerate() {
        for side in &mut sides {
            side.send(step);
        }
        if let Some((connection, said)) = settle(&mut sides, step.connection) {
            return Some((number, connection, said));
        }
    }
    None
}

/// Leaves the server as if nothing had been said, with no connections of before.
fn clear(server: SocketAddr) {
    let mut wire = Wire::connect(server);
    let deadline = Instant::now() + Duration::from_secs(10);
    wire.line("CLIENT KILL TYPE normal SKIPME yes");
    wire.line("CLIENT KILL TYPE pubsub SKIPME yes");
    while wire.line("CLIENT LIST").matches("id=").count() > 1 {
        assert!(Instant::now() < deadline, "connections end");
        std::thread::sleep(Duration::from_millis(1));
    }
    wire.line("FLUSHALL");
    wire.line("SCRIPT FLUSH");
    wire.line("CONFIG SET notify-keyspace-events \"\"");
}

/// Makes both servers number the connections alike, so that replies that tell a number are the same.
fn align(servers: [SocketAddr; 2], sides: &mut [Side; 2]) {
    loop {
        let first = sides.each_ref().map(|side| side.ids[0]);
        if first[0] == first[1] {
            return;
        }
        let behind = usize::from(first[0] > first[1]);
        let missing = first[0].abs_diff(first[1]);
        for _ in 0..missing {
            Wire::connect(servers[behind]).line("PING");
        }
        *sides = servers.map(Side::new);
    }
}

/// Waits until all is quiet. If a connection was told different things: which, and what.
fn settle(sides: &mut [Side; 2], sender: usize) -> Option<(usize, [Vec<u8>; 2])> {
    let begun = Instant::now();
    let mut last = begun;
    loop {
        if sides.iter_mut().any(Side::receive) {
            last = Instant::now();
        }
        let different =
            (0..CONNECTIONS).find(|&number| !same(&sides[0].told[number], &sides[1].told[number]));
        let answered = !sides[0].told[sender].is_empty();
        match different {
            None if last.elapsed() > QUIET && (answered || begun.elapsed() > REPLY) => {
                for side in sides {
                    side.told.iter_mut().for_each(Vec::clear);
                }
                return None;
            }
            Some(number) if last.elapsed() > PATIENCE => {
                let said = sides.each_ref().map(|side| side.told[number].clone());
                return Some((number, said));
            }
            _ => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

/// What HELLO says of Valkey's built-in module, in both protocol versions, and what it says without.
const MODULES: [(&[u8], &[u8]); 2] = [
    (
        b"*1\r\n%4\r\n$4\r\nname\r\n$3\r\nlua\r\n$3\r\nver\r\n:1\r\n$4\r\npath\r\n$3\r\nlua\r\n$4\r\nargs\r\n*0\r\n",
        b"*0\r\n",
    ),
    (
        b"*1\r\n*8\r\n$4\r\nname\r\n$3\r\nlua\r\n$3\r\nver\r\n:1\r\n$4\r\npath\r\n$3\r\nlua\r\n$4\r\nargs\r\n*0\r\n",
        b"*0\r\n",
    ),
];

/// Whether two servers said the same, but for the modules they have.
fn same(tested: &[u8], reference: &[u8]) -> bool {
    if tested == reference {
        return true;
    }
    let mut reference = reference.to_vec();
    for (with, without) in MODULES {
        while let Some(at) = find(&reference, with) {
            reference.splice(at..at + with.len(), without.iter().copied());
        }
    }
    tested == reference
}

/// All connections with one server.
struct Side {
    streams: Vec<TcpStream>,
    ids: Vec<u64>,
    /// What came since the last time that all was quiet and the same.
    told: Vec<Vec<u8>>,
}

impl Side {
    fn new(server: SocketAddr) -> Side {
        let (mut streams, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let mut wire = Wire::connect(server);
            let id = wire.line("CLIENT ID");
            ids.push(id[1..].trim().parse().expect("a number"));
            let stream = wire.stream().try_clone().expect("a socket can be shared");
            stream
                .set_nonblocking(true)
                .expect("sockets can be made not to block");
            streams.push(stream);
        }
        let told = vec![Vec::new(); CONNECTIONS];
        Side { streams, ids, told }
    }

    fn send(&mut self, step: &Step) {
        let mut bytes = Vec::new();
        for line in &step.lines {
            let mut line = line.clone();
            for (number, id) in self.ids.iter().enumerate() {
                line = line.replace(&format!("{{id:{number}}}"), &id.to_string());
            }
            encode(&split_line(&line), &mut bytes);
        }
        // Requests are far smaller than what a socket takes; one that is closed shows when it is read.
        let _ = self.streams[step.connection].write_all(&bytes);
    }

    /// Reads what is there. True if anything was.
    fn receive(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let mut any = false;
        for (stream, told) in self.streams.iter_mut().zip(&mut self.told) {
            loop {
                match stream.read(&mut chunk) {
                    Ok(len) if len > 0 => {
                        told.extend_from_slice(&chunk[..len]);
                        any = true;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        }
        any
    }
}
