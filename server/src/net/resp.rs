//! RESP on a connection: parses a batch, prefetches its keys, executes it.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use protocol::{
    limits::Limits,
    resp::{
        reply::ReplyWriter,
        request::{Lead, RequestParser, Span, Step},
    },
};
use storage::{clock::Moment, db::Db, keyspace::Garbage};

use super::connection::{Protocol, Then, Turn};
use crate::{
    dispatch::{
        self, Found, Next,
        args::Args,
        command::{Later, Reply},
        preparation::Preparation,
    },
    runtime::Worker,
    server,
    session::Session,
    tracking,
};

/// Requests executed between looks at the output.
const BATCH: usize = 64;
/// Reply bytes after which they are sent before more requests run.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// Slices of a long reply, or of work before one, end their turn after so much time or so many bytes.
const SLICES_TIME: Duration = Duration::from_micros(100);
const SLICES_BYTES: usize = 64 * 1024;

/// A RESP connection.
pub struct Resp {
    session: Session,
    parser: RequestParser,
    later: Option<Box<dyn Later>>,
    /// Work to be done before the first request in the input runs again.
    preparation: Option<Box<Preparation>>,
}

/// One request of a batch.
pub struct Request {
    /// Where it begins in the input; its words' spans count from there.
    base: u32,
    end: u32,
    first_word: u32,
    words: u32,
    found: Option<Found<'static>>,
}

impl Resp {
    pub fn new(session: Session) -> Resp {
        Resp {
            session,
            parser: RequestParser::new(),
            later: None,
            preparation: None,
        }
    }

    /// Parses up to a batch of requests. Returns where the input after them begins and what ended the batch.
    #[inline]
    fn parse(
        &mut self,
        worker: &mut Worker,
        input: &[u8],
        from: usize,
        limits: &Limits,
    ) -> (usize, Parsed) {
        let mut at = from;
        worker.requests.clear();
        worker.spans.clear();
        while worker.requests.len() < BATCH {
            if at == input.len() {
                return (at, Parsed::Need(1));
            }
            let first_word = worker.spans.len();
            let rest = &input[at..];
            let led = worker.lead.as_ref().and_then(|(lead, registered)| {
                let spans = &mut worker.spans;
                let consumed = self.parser.parse_led(lead, rest, limits, spans)?;
                Some((consumed, *registered))
            });
            let (consumed, known) = match led {
                Some((consumed, registered)) => (consumed, Some(registered)),
                None => match self.parser.parse(rest, limits, &mut worker.spans) {
                    Ok(Step::Request { consumed }) => (consumed, None),
                    Ok(Step::Inline { consumed, args }) => {
                        return (at, Parsed::Inline(consumed, args));
                    }
                    Ok(Step::Incomplete { needed }) => return (at, Parsed::Need(needed)),
                    Err(error) => return (at, Parsed::Malformed(error)),
                },
            };
            let words = &worker.spans[first_word..];
            if !words.is_empty() {
                let args = Args::new(rest, words);
                let found = match known {
                    Some(registered) => Some(dispatch::found_as(registered, &args)),
                    None => dispatch::find(&args),
                };
                if let (Some(found), None) = (found, known)
                    && let Some(lead) = Lead::of(rest, words)
                {
                    worker.lead = Some((lead, found.registered));
                }
                worker.requests.push(Request {
                    base: at as u32,
                    end: (at + consumed) as u32,
                    first_word: first_word as u32,
                    words: words.len() as u32,
                    found,
                });
            }
            at += consumed;
            // What may change how the rest is read must have run before it is read.
            if !self.session.flags.authenticated {
                return (at, Parsed::Full);
            }
        }
        (at, Parsed::Full)
    }

    fn execute_batch(
        &mut self,
        worker: &mut Worker,
        db: &mut Db<'_>,
        input: &[u8],
    ) -> Option<Turn> {
        let requests = std::mem::take(&mut worker.requests);
        let spans = std::mem::take(&mut worker.spans);
        prefetch(db, &requests);
        let mut stopped = None;
        for request in &requests {
            let args = request.args(input, &spans);
            match self.execute(worker, db, request.found, &args) {
                None => {}
                Some((then, true)) => {
                    stopped = Some(Turn {
                        consumed: request.end as usize,
                        then,
                    });
                    break;
                }
                // It runs again later, from its beginning.
                Some((then, false)) => {
                    stopped = Some(Turn {
                        consumed: request.base as usize,
                        then,
                    });
                    break;
                }
            }
        }
        worker.requests = requests;
        worker.spans = spans;
        stopped
    }

    /// Runs one request. If the batch must stop: what then, and whether the request is done with.
    #[inline(always)]
    fn execute(
        &mut self,
        worker: &mut Worker,
        db: &mut Db<'_>,
        found: Option<Found<'static>>,
        args: &Args<'_>,
    ) -> Option<(Then, bool)> {
        match found {
            // Dispatch notes which subcommand runs.
            Some(found) => {
                worker.last_command =
                    Some(found.registered.id).filter(|_| found.registered.subcommands.is_empty());
            }
            None if is_http(args.word(0)) => return Some((Then::Close, true)),
            None => {
                worker.last_command = None;
                self.session.client.note_no_command();
            }
        }
        let next = dispatch::execute(
            &mut self.session,
            db,
            &mut worker.clock,
            found,
            args,
            &mut worker.reply,
        );
        if worker.reply.has_work() {
            self.take_work(db, &mut worker.reply);
        }
        if next == Next::Go && self.session.client.mailbox.is_filled() {
            // Messages to oneself follow the reply of the command that sent them.
            self.later = self.session.client.collect_mail(&mut worker.reply.writer);
        }
        match next {
            Next::Go if self.session.flags.handed_over => Some((Then::HandOver, true)),
            Next::Go if self.session.flags.closing => Some((Then::Close, true)),
            Next::Go if self.later.is_some() => Some((Then::Later, true)),
            Next::Go if worker.reply.writer.len() > OUTPUT_LIMIT => Some((Then::Read(0), true)),
            Next::Go => None,
            Next::Later => {
                self.later = worker.reply.later.take();
                Some((Then::Later, true))
            }
            Next::Prepare => again(Then::Later),
            Next::Wait(until) => again(Then::Wait(until)),
            Next::Blocked => Some((Then::Blocked, true)),
            Next::Stack => again(Then::Stack),
        }
    }

    /// Takes the work that a command wants done, and drops what is left of work that was done.
    #[cold]
    fn take_work(&mut self, db: &Db<'_>, reply: &mut Reply) {
        let mut runs_again = false;
        if let Some(discarded) = reply.discarded.take() {
            runs_again = true;
            self.drop_elsewhere(discarded);
        }
        match reply.preparation.take() {
            Some(preparation) if !preparation.is_done() => self.preparation = Some(preparation),
            Some(unused) => {
                runs_again = true;
                self.drop_elsewhere(unused);
            }
            None => {}
        }
        if runs_again {
            // It was the first command of this view, and has looked at the same keys before.
            db.forget_lookups();
        }
    }

    /// Drops clones of values, which may be the last by now, where it disturbs nobody.
    #[cold]
    fn drop_elsewhere(&self, clones: Box<dyn Any + Send>) {
        let keyspace = &self.session.server.keyspace;
        keyspace.free_elsewhere(Garbage::Clones(clones));
    }

    fn execute_inline(
        &mut self,
        worker: &mut Worker,
        db: &mut Db<'_>,
        words: &[Vec<u8>],
    ) -> Option<(Then, bool)> {
        if words.is_empty() {
            return None;
        }
        let (joined, spans) = join(words);
        let mut args = Args::new(&joined, &spans);
        let found = dispatch::find(&args);
        if let Some(found) = found {
            args = found.args(&joined, &spans);
        }
        self.execute(worker, db, found, &args)
    }
}

/// The batch stops at a request that runs again later, from its beginning.
fn again(then: Then) -> Option<(Then, bool)> {
    Some((then, false))
}

enum Parsed {
    /// As many as a batch takes; there may be more.
    Full,
    Need(usize),
    Inline(usize, Vec<Vec<u8>>),
    Malformed(protocol::Error),
}

impl Protocol for Resp {
    fn session(&self) -> &Session {
        &self.session
    }

    fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    fn go_on(&mut self, later: Box<dyn Later>) {
        self.later = Some(later);
    }

    fn process(&mut self, worker: &mut Worker, input: &[u8]) -> Turn {
        let server = worker.server.clone();
        let now = server::now();
        worker.begin_turn(self.session.version);
        worker.clock = Moment::now();
        worker.reply.preparation = self.preparation.take();
        tracking::collect_broadcasts();
        let mut db = Db::new(&server.keyspace, self.session.database, now);
        db.set_client(self.session.client.id);
        let max_bulk_len = worker.settings(&server).proto_max_bulk_len as usize;
        let mut at = 0;
        let turn = loop {
            let limits = if self.session.flags.authenticated {
                Limits {
                    max_bulk_len,
                    ..Limits::authenticated()
                }
            } else {
                Limits {
                    max_bulk_len,
                    ..Limits::unauthenticated()
                }
            };
            let (end, parsed) = self.parse(worker, input, at, &limits);
            if !worker.requests.is_empty()
                && let Some(turn) = self.execute_batch(worker, &mut db, input)
            {
                // What was parsed beyond the stop is parsed again.
                self.parser = RequestParser::new();
                break turn;
            }
            at = end;
            match parsed {
                Parsed::Full => {}
                Parsed::Need(needed) => {
                    break Turn {
                        consumed: at,
                        then: Then::Read(needed.max(1)),
                    };
                }
                Parsed::Inline(consumed, words) => {
                    let stopped = self.execute_inline(worker, &mut db, &words);
                    if !matches!(stopped, Some((_, false))) {
                        at += consumed;
                    }
                    if let Some((then, _)) = stopped {
                        break Turn { consumed: at, then };
                    }
                }
                Parsed::Malformed(error) => {
                    server.metrics.count_error(b"ERR");
                    worker.reply.writer.protocol_error(&error);
                    break Turn {
                        consumed: input.len(),
                        then: Then::Close,
                    };
                }
            }
        };
        db.flush_statistics();
        if turn.then != Then::Stack {
            // The turn goes on there at once.
            tracking::send_broadcasts(&server);
        }
        worker.end_turn(&self.session, now.millis());
        turn
    }

    fn write_later(&mut self, worker: &mut Worker) -> bool {
        worker.begin_turn(self.session.version);
        let until = Instant::now() + SLICES_TIME;
        let goes_on = |output: &ReplyWriter| output.len() < SLICES_BYTES && Instant::now() < until;
        if let Some(preparation) = &mut self.preparation {
            while !preparation.advance() {
                if !goes_on(&worker.reply.writer) {
                    return false;
                }
            }
            return true;
        }
        let Some(later) = &mut self.later else {
            return true;
        };
        while !later.write(&mut worker.reply.writer) {
            if !goes_on(&worker.reply.writer) {
                return false;
            }
        }
        if let Some(later) = self.later.take() {
            self.drop_elsewhere(Box::new(later));
        }
        true
    }
}

impl Drop for Resp {
    fn drop(&mut self) {
        if let Some(later) = self.later.take() {
            self.drop_elsewhere(Box::new(later));
        }
        if let Some(preparation) = self.preparation.take() {
            self.drop_elsewhere(preparation);
        }
    }
}

impl Request {
    #[inline]
    fn args<'a>(&self, input: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        let first = self.first_word as usize;
        let (input, spans) = (
            &input[self.base as usize..],
            &spans[first..first + self.words as usize],
        );
        match self.found {
            Some(found) => found.args(input, spans),
            None => Args::new(input, spans),
        }
    }
}

/// Brings the keys of a batch towards the cache.
#[inline]
fn prefetch(db: &Db<'_>, requests: &[Request]) {
    let firsts = requests.iter().filter_map(|request| request.found);
    let hashes = firsts.filter_map(Found::first_hash);
    db.keyspace().prefetch_each(db.index(), hashes);
}

/// A web browser can be made to send its requests here: they end the connection before anything of them runs.
fn is_http(name: &[u8]) -> bool {
    match name.first() {
        Some(b'P' | b'p') => name.eq_ignore_ascii_case(b"post"),
        Some(b'H' | b'h') => name.eq_ignore_ascii_case(b"host:"),
        _ => false,
    }
}

/// Words of their own as one buffer and spans, as requests have them.
pub fn join<W: AsRef<[u8]>>(words: &[W]) -> (Vec<u8>, Vec<Span>) {
    let mut joined = Vec::new();
    let spans = words
        .iter()
        .map(|word| {
            let start = joined.len() as u32;
            joined.extend_from_slice(word.as_ref());
            Span {
                start,
                end: joined.len() as u32,
            }
        })
        .collect();
    (joined, spans)
}
