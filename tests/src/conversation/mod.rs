//! Random conversations of several connections with two servers: every byte that each connection receives must be the
//! same on both, in the same order, replies and pushes alike.
//!
//! One step is sent at a time, to both servers, and the next only when all is quiet again, so that what happens follows
//! from the steps alone. That all is quiet is known from other connections, one per worker, which are answered behind
//! what came before. A conversation that differs is said again and again with fewer steps, until each that is left is
//! needed to show the difference.

mod grammar;

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::wire::{Wire, encode, find, frame, show, split_line};

/// Connections of a conversation; the first only ever directs the others, and is never blocked itself.
pub const CONNECTIONS: usize = 5;
/// Workers that a server has at most.
pub const WORKERS: usize = 2;
/// How often all workers are asked whether they are done: for the step itself, for those on other workers whom it tells
/// or serves, and for those whom that serves in turn.
const ROUNDS: usize = 4;
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
    let mut waits = [false; CONNECTIONS];
    for (number, step) in steps.iter().enumerate() {
        if waits[step.connection] {
            // What is sent behind a command that waits runs when others end the waiting, beside what they do next.
            continue;
        }
        for side in &mut sides {
            side.send(step);
        }
        match settle(&mut sides) {
            Settled::Differs(connection, said) => return Some((number, connection, said)),
            Settled::Same(answered) => {
                for (waits, answered) in waits.iter_mut().zip(answered) {
                    *waits &= !answered;
                }
                let answered = answered[step.connection];
                waits[step.connection] = !answered && sides[1].waits(step.connection);
            }
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

/// What a step came to.
enum Settled {
    /// Which connections were given replies.
    Same([bool; CONNECTIONS]),
    /// A connection was told different things.
    Differs(usize, [Vec<u8>; 2]),
}

/// Waits until all is quiet.
fn settle(sides: &mut [Side; 2]) -> Settled {
    let deadline = Instant::now() + PATIENCE;
    loop {
        sides.iter_mut().for_each(Side::settle);
        let different =
            (0..CONNECTIONS).find(|&number| !same(&sides[0].told[number], &sides[1].told[number]));
        match different {
            None => {
                let told = std::array::from_fn(|number| answers(&sides[1].told[number]));
                for side in sides {
                    side.told.iter_mut().for_each(Vec::clear);
                }
                return Settled::Same(told);
            }
            Some(number) if Instant::now() > deadline => {
                let said = sides.each_ref().map(|side| side.told[number].clone());
                return Settled::Differs(number, said);
            }
            Some(_) => {}
        }
    }
}

/// Whether there is a reply among what a connection was told.
fn answers(mut told: &[u8]) -> bool {
    const MESSAGES: [&[u8]; 4] = [
        b">",
        b"*3\r\n$7\r\nmessage\r\n",
        b"*3\r\n$8\r\nsmessage\r\n",
        b"*4\r\n$8\r\npmessage\r\n",
    ];
    while let Ok(Some(len)) = frame(told) {
        if !MESSAGES.iter().any(|message| told.starts_with(message)) {
            return true;
        }
        told = &told[len..];
    }
    false
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

/// That all keys are stale: Valkey writes the null of the tracking connection's protocol also when another is told.
const ALL_STALE: [(&[u8], &[u8]); 2] = [
    (b"invalidate\r\n$-1\r\n", b"invalidate\r\n_\r\n"),
    (
        b"__redis__:invalidate\r\n_\r\n",
        b"__redis__:invalidate\r\n$-1\r\n",
    ),
];

/// Whether two servers said the same, but for what they mean to say differently.
fn same(tested: &[u8], reference: &[u8]) -> bool {
    if tested == reference {
        return true;
    }
    let mut reference = reference.to_vec();
    for (theirs, ours) in MODULES.into_iter().chain(ALL_STALE) {
        let mut from = 0;
        while let Some(at) = find(&reference[from..], theirs) {
            reference.splice(from + at..from + at + theirs.len(), ours.iter().copied());
            from += at + ours.len();
        }
    }
    tested == reference
}

/// All connections with one server.
struct Side {
    /// One on every worker, whose requests do nothing.
    probes: Vec<Wire>,
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
        Side {
            probes: (0..WORKERS).map(|_| Wire::connect(server)).collect(),
            streams,
            ids,
            told: vec![Vec::new(); CONNECTIONS],
        }
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

    /// Waits until the server has done all that was asked of it, and reads what it said.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            self.probes.iter_mut().for_each(|probe| {
                probe.line("PING");
            });
        }
        self.receive();
    }

    /// Whether a connection waits for something. Asks the server, as no reply may also be what was asked for.
    fn waits(&mut self, connection: usize) -> bool {
        let id = self.ids[connection];
        let shown = self.probes[0].line(&format!("CLIENT LIST ID {id}"));
        let mut words = shown.split(' ');
        words.any(|word| {
            word.strip_prefix("flags=")
                .is_some_and(|flags| flags.contains('b'))
        })
    }

    /// Reads what is there.
    fn receive(&mut self) {
        let mut chunk = [0; 16 * 1024];
        for (stream, told) in self.streams.iter_mut().zip(&mut self.told) {
            loop {
                match stream.read(&mut chunk) {
                    Ok(len) if len > 0 => told.extend_from_slice(&chunk[..len]),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        }
    }
}
