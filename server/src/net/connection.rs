//! One connection's life on its worker: read, run all complete requests, write once.
//!
//! An idle connection owns no buffers. It reads into its worker's; only the beginning of an unfinished request, or
//! replies that the socket did not take, are kept until the next turn. A client that pipelines without end yields
//! after each turn, and one that does not read its replies is not read from.

use std::{
    future::Future,
    io::{self, IoSlice},
    num::NonZero,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use protocol::output::Output;
use tokio::time::Sleep;

use super::stream::Stream;
use crate::{
    dispatch::command::Later,
    persistence::aof::Fate,
    replication::primary,
    runtime::{self, READ_BUFFER, Worker},
    scripting::stack::{self, Errand, Left, Stack},
    server,
    session::Session,
};

/// Turns that a connection takes in a row before it makes way: then all others that are ready get theirs, also those
/// whose sockets the event loop has not looked at yet.
const TURNS: u8 = 4;
/// Connections that read something in one round of the event loop from which on replies leave together at its end.
const MANY_READERS: usize = 3;
/// Longer replies leave at once: they are not to pile up.
const SMALL_OUTPUT: usize = 16 * 1024;
/// Buffers that a worker keeps for such replies.
const SPARE_BUFFERS: usize = 64;
/// Pieces of one vectored write.
const MAX_PIECES: usize = 64;
/// How far the buffer of an unfinished request grows ahead of what has arrived.
const MAX_GROWTH: usize = 1 << 20;

/// Longest request, whatever `client-query-buffer-limit` says: its words are found by numbers of 32 bits.
const MAX_REQUEST: u64 = u32::MAX as u64 - READ_BUFFER as u64;

/// What a blocked client may send ahead. Beyond that it is not read from, and its end not noticed.
const BLOCKED_INPUT: usize = 1 << 20;
/// Longer waits are waited for in parts.
const LONGEST_SLEEP_MS: i64 = 3_600_000;

/// What a protocol does with its input.
pub trait Protocol: Send + Unpin + 'static {
    fn session(&self) -> &Session;

    fn session_mut(&mut self) -> &mut Session;

    /// Runs the complete requests at the start of `input` and writes their replies to the worker's output.
    fn process(&mut self, worker: &mut Worker, input: &[u8]) -> Turn;

    /// Writes more of a reply that is written in slices. True when it is complete.
    fn write_later(&mut self, worker: &mut Worker) -> bool;

    /// The rest of a reply that came by mail, to be written by `write_later`.
    fn go_on(&mut self, later: Box<dyn Later>);
}

/// What one call of [`Protocol::process`] came to.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    pub then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// At least so many bytes more are needed; 0 when there are complete requests left.
    Read(usize),
    /// A reply goes on in [`Protocol::write_later`].
    Later,
    /// Go on at this time, in milliseconds since the epoch, or when woken.
    Wait(i64),
    /// Nothing until the command that waits is served or its time is up.
    Blocked,
    /// Go on where scripts may run.
    Stack,
    /// Write what there is, then leave the socket to the thread that serves the replica.
    HandOver,
    /// Write what there is and close.
    Close,
}

/// A connection takes its turns.
pub trait Turns: Send {
    /// Does what there is to do, within the limits of fairness.
    fn run(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Progress;
}

/// What came of a connection's turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There will be more; who is to be woken is known.
    Pending,
    /// A script is to run, which cannot be done here.
    WantsStack,
    Over,
}

struct Connection<P> {
    stream: Stream,
    protocol: P,
    /// An unfinished request, or requests not run yet.
    input: Vec<u8>,
    /// Replies that are still to be written.
    output: Option<Box<Unsent>>,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Up to where the append-only file must be on disk before the output may leave.
    hold: Option<NonZero<u64>>,
    then: Then,
    started: bool,
    /// The output leaves once the others had their turns.
    steps_back: bool,
    /// Turns since it last waited or made way.
    turns: u8,
    /// The worker's round in which it last read something.
    read_in: u32,
}

/// Replies on their way to a socket.
#[derive(Default)]
pub struct Unsent {
    output: Output,
    written: usize,
}

impl Unsent {
    fn emptied(mut self: Box<Unsent>) -> Box<Unsent> {
        self.output.clear();
        self.written = 0;
        self
    }
}

impl<P: Protocol> Connection<P> {
    fn new(stream: Stream, protocol: P) -> Connection<P> {
        Connection {
            stream,
            protocol,
            input: Vec::new(),
            output: None,
            sleep: None,
            hold: None,
            then: Then::Read(1),
            started: false,
            steps_back: false,
            turns: 0,
            read_in: 0,
        }
    }

    fn turn(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.flush(worker, cx))?;
            if self.protocol.session().client.mailbox.is_filled()
                && !matches!(self.then, Then::Later | Then::Blocked | Then::Close)
            {
                self.deliver(worker, cx)?;
                return Poll::Ready(Ok(()));
            }
            match self.then {
                Then::Close => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Then::HandOver => {
                    self.hand_over()?;
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Then::Later => {
                    if self.protocol.write_later(worker) {
                        self.then = Then::Read(0);
                    }
                    // The slices of a long reply leave room for others.
                    self.send(worker, cx)?;
                    return Poll::Ready(Ok(()));
                }
                Then::Wait(until) => {
                    let session = self.protocol.session();
                    if session.patience.is_some() || session.server.pause.is_on() {
                        // Whoever waits for replicas or in a pause may wait for ever: that the client is gone is to be
                        // noticed.
                        while self.keep_input(worker, cx)?.is_ready() {}
                    }
                    ready!(self.wait(until, cx));
                    self.then = Then::Read(0);
                }
                Then::Blocked => {
                    ready!(self.blocked(worker, cx))?;
                    return Poll::Ready(Ok(()));
                }
                // Before the turn it was seen to that this is the place.
                Then::Stack => self.then = Then::Read(0),
                Then::Read(0) if !self.input.is_empty() => {
                    let input = std::mem::take(&mut self.input);
                    self.process_owned(worker, input);
                    self.send(worker, cx)?;
                    return Poll::Ready(Ok(()));
                }
                Then::Read(needed) => {
                    ready!(self.read(worker, cx, needed))?;
                    self.count_reader(worker);
                    self.steps_back = self.should_step_back(worker);
                    self.send(worker, cx)?;
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Writes what others left for the connection.
    fn deliver(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> io::Result<()> {
        let client = &self.protocol.session().client;
        let later = client.collect_mail(&mut worker.reply.writer);
        client.note_output(worker.reply.writer.len());
        if let Some(later) = later {
            // Only the reply of a command that waited goes on later.
            self.protocol.session_mut().end_waiting();
            self.protocol.go_on(later);
            self.then = Then::Later;
        }
        self.send(worker, cx)
    }

    /// Waits for a command to be served, passing messages on and looking whether the client is still there.
    fn blocked(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let session = self.protocol.session();
        let (mut over, mut closes) = (true, false);
        if let Some(waiter) = session.waiter.clone() {
            let timed_out = waiter.deadline_ms.is_some_and(|at| self.is_due(at, cx));
            if timed_out {
                waiter.time_out(&self.protocol.session().client);
            }
            over = waiter.is_over();
            closes = waiter.closes();
        }
        if over {
            self.sleep = None;
            self.then = if closes { Then::Close } else { Then::Read(0) };
            // What ended the waiting left its reply before. Leaving takes the locks under which that was done, so that
            // its effects are in the log by now, and the reply waits for them like any other.
            let session = self.protocol.session_mut();
            session.end_waiting();
            session.client.note_commands(session.commands);
            self.protocol.session().server.aof.cover_all();
            self.deliver(worker, cx)?;
            return Poll::Ready(Ok(()));
        }
        if self.protocol.session().client.mailbox.is_filled() {
            self.deliver(worker, cx)?;
            return Poll::Ready(Ok(()));
        }
        ready!(self.keep_input(worker, cx))?;
        Poll::Ready(Ok(()))
    }

    /// Whether the time has come; if not, there will be a turn then.
    fn is_due(&mut self, at_ms: i64, cx: &mut Context<'_>) -> bool {
        loop {
            let left = at_ms.saturating_sub(server::now().millis());
            if left <= 0 {
                self.sleep = None;
                return true;
            }
            let sleep = self.sleep.get_or_insert_with(|| {
                let left = left.min(LONGEST_SLEEP_MS);
                Box::pin(tokio::time::sleep(Duration::from_millis(left as u64)))
            });
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.sleep = None;
        }
    }

    /// Keeps what a blocked client sends, to be run afterwards; notices its end.
    fn keep_input(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.len() >= BLOCKED_INPUT {
            return Poll::Pending;
        }
        let read = ready!(self.stream.poll_read(cx, &mut worker.input))?;
        if read == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.input.extend_from_slice(&worker.input[..read]);
        self.note_input();
        Poll::Ready(Ok(()))
    }

    /// Gives the socket of a replica to a thread of its own.
    fn hand_over(&mut self) -> io::Result<()> {
        let session = self.protocol.session_mut();
        let Some(wanted) = session.wanted.take() else {
            return Ok(());
        };
        let Stream::Tcp(stream) = std::mem::replace(&mut self.stream, Stream::Gone) else {
            session.flags.handed_over = false;
            return Ok(());
        };
        let (server, client) = (session.server.clone(), session.client.clone());
        primary::serve(&server, stream.into_std()?, client, *wanted);
        Ok(())
    }

    /// Reads once and runs what is complete.
    fn read(
        &mut self,
        worker: &mut Worker,
        cx: &mut Context<'_>,
        needed: usize,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            let mut buffer = std::mem::take(&mut worker.input);
            let polled = self.stream.poll_read(cx, &mut buffer);
            if let Poll::Ready(Ok(read)) = polled {
                worker.read = read;
                if read > 0 {
                    let turn = self.protocol.process(worker, &buffer[..read]);
                    self.then = turn.then;
                    if turn.consumed < read {
                        self.input = buffer[turn.consumed..read].to_vec();
                        self.note_input();
                    }
                }
            }
            worker.input = buffer;
            return match ready!(polled)? {
                0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                _ => Poll::Ready(Ok(())),
            };
        }
        let have = self.input.len();
        let grow = needed.clamp(READ_BUFFER / 4, MAX_GROWTH.max(have));
        self.input.resize(have + grow, 0);
        let polled = self.stream.poll_read(cx, &mut self.input[have..]);
        let read = if let Poll::Ready(Ok(read)) = polled {
            read
        } else {
            0
        };
        self.input.truncate(have + read);
        if ready!(polled)? == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        worker.read = read;
        self.note_input();
        let server = &self.protocol.session().server;
        let limit = worker.settings(server).client_query_buffer_limit;
        if self.input.len() as u64 > limit.min(MAX_REQUEST) {
            let memory = &server.clients.limits.memory;
            memory
                .query_limit_disconnections
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let still_needed = needed.saturating_sub(read);
        if still_needed > 0 {
            // The rest of a big argument: no use looking before it is there.
            self.then = Then::Read(still_needed);
            return Poll::Ready(Ok(()));
        }
        let input = std::mem::take(&mut self.input);
        self.process_owned(worker, input);
        Poll::Ready(Ok(()))
    }

    fn process_owned(&mut self, worker: &mut Worker, mut input: Vec<u8>) {
        let turn = self.protocol.process(worker, &input);
        self.then = turn.then;
        if turn.consumed < input.len() {
            input.drain(..turn.consumed);
            if input.capacity() > 4 * input.len() + READ_BUFFER {
                input.shrink_to(input.len());
            }
            self.input = input;
        }
        self.note_input();
    }

    fn note_input(&self) {
        self.protocol.session().client.note_input(&self.input);
    }

    /// Counts the connection among those that read something in this round, once.
    fn count_reader(&mut self, worker: &mut Worker) {
        if self.read_in != worker.round {
            self.read_in = worker.round;
            worker.readers += 1;
        }
    }

    /// Whether the worker's output is to be kept until the others that are ready had their turns, as there are others.
    ///
    /// A client with many connections sleeps until the first reply. If replies left one by one, each as soon as it is
    /// written, it would be woken for each, which costs more than the reply; several in a row find it awake.
    fn should_step_back(&self, worker: &Worker) -> bool {
        let output = worker.reply.writer.output();
        worker.readers_before >= MANY_READERS
            && !output.is_empty()
            && output.len() <= SMALL_OUTPUT
            && self.then != Then::Close
    }

    /// Sends the worker's output, and keeps what the socket does not take, or all of it where it may not leave yet.
    fn send(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> io::Result<()> {
        let output = worker.reply.writer.output_mut();
        if output.is_empty() {
            return Ok(());
        }
        if self.then == Then::Close {
            self.stream.join_end();
        }
        worker.metrics.bytes_out.add(output.len() as u64);
        worker.metrics.writes.add(1);
        self.hold = self.protocol.session().server.aof.must_wait();
        let mut written = 0;
        if self.hold.is_none() && !self.steps_back {
            written = self.write(cx, output, 0)?;
            if written == output.len() {
                output.clear();
                self.protocol.session().client.account();
                return Ok(());
            }
        }
        let mut unsent = worker.spare.pop().unwrap_or_default();
        std::mem::swap(&mut unsent.output, output);
        unsent.written = written;
        self.output = Some(unsent);
        Ok(())
    }

    /// Sends what was kept, as soon as it may leave.
    fn flush(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(end) = self.hold {
            let aof = &self.protocol.session().server.aof;
            match aof.settle(end.get(), cx.waker()) {
                Fate::Settled => self.hold = None,
                Fate::Waiting => return Poll::Pending,
                Fate::Lost => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            }
        }
        let Some(mut unsent) = self.output.take() else {
            return Poll::Ready(Ok(()));
        };
        unsent.written = self.write(cx, &unsent.output, unsent.written)?;
        if unsent.written < unsent.output.len() {
            self.output = Some(unsent);
            return Poll::Pending;
        }
        if worker.spare.len() < SPARE_BUFFERS {
            worker.spare.push(unsent.emptied());
        }
        self.protocol.session().client.note_unsent(0);
        Poll::Ready(Ok(()))
    }

    /// Writes the output from a byte on until the socket takes no more. Returns how much is written then; if that is not
    /// all, there will be a turn when the socket takes more.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        output: &Output,
        mut written: usize,
    ) -> io::Result<usize> {
        while written < output.len() {
            match write_some(&mut self.stream, cx, output, written)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(some) => written += some,
                Poll::Pending => {
                    let client = &self.protocol.session().client;
                    client.note_unsent(output.len() - written);
                    client.enforce_output_limit();
                    break;
                }
            }
        }
        Ok(written)
    }

    fn wait(&mut self, until_ms: i64, cx: &mut Context<'_>) -> Poll<()> {
        // A wake-up may mean that the reason to wait is gone, so any of them ends the waiting.
        if self.sleep.take().is_some() {
            return Poll::Ready(());
        }
        let left = until_ms
            .saturating_sub(server::now().millis())
            .clamp(1, LONGEST_SLEEP_MS);
        let mut sleep = Box::pin(tokio::time::sleep(Duration::from_millis(left as u64)));
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.sleep = Some(sleep);
        Poll::Pending
    }
}

impl<P: Protocol> Turns for Connection<P> {
    fn run(&mut self, worker: &mut Worker, cx: &mut Context<'_>) -> Progress {
        if !self.started {
            self.started = true;
            self.protocol.session().client.set_waker(cx.waker());
        }
        while self.turns < TURNS {
            if self.protocol.session().client.is_killed() && self.then != Then::Close {
                // Nobody is to get what is held back for the log's sake.
                self.then = Then::Close;
                self.output = None;
                self.hold = None;
            }
            if self.then == Then::Stack && stack::is_missing() {
                return Progress::WantsStack;
            }
            match self.turn(worker, cx) {
                Poll::Ready(Ok(())) => self.turns += 1,
                Poll::Ready(Err(_)) => {
                    worker.reply.writer.clear();
                    return Progress::Over;
                }
                Poll::Pending => {
                    self.turns = 0;
                    return Progress::Pending;
                }
            }
            if std::mem::take(&mut self.steps_back) && self.turns < TURNS {
                // Behind the others that are ready.
                cx.waker().wake_by_ref();
                return Progress::Pending;
            }
        }
        self.turns = 0;
        make_way(cx);
        Progress::Pending
    }
}

/// There will be another turn after those of all others, and after a look at the sockets.
fn make_way(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// A connection as a task of its worker.
pub struct Task<P>(Place<P>);

/// Where a connection is.
enum Place<P> {
    /// In its task, as nearly all are: the task is one allocation.
    Here(Connection<P>),
    /// It has run a script: its turns begin where more of them may run.
    Apart(Box<dyn Turns>),
    /// Its turns are paused, and go on there.
    On(Stack),
    /// It is over.
    Nowhere,
}

impl<P: Protocol> Task<P> {
    pub fn new(stream: Stream, protocol: P) -> Task<P> {
        Task(Place::Here(Connection::new(stream, protocol)))
    }

    fn run(&mut self, cx: &mut Context<'_>) -> Progress {
        if let Place::Here(connection) = &mut self.0 {
            let progress = runtime::with_worker(|worker| connection.run(worker, cx));
            if progress != Progress::WantsStack {
                return progress;
            }
        }
        let left = match std::mem::replace(&mut self.0, Place::Nowhere) {
            Place::Here(connection) => start(Box::new(connection), cx),
            Place::Apart(connection) => start(connection, cx),
            Place::On(stack) => stack.resume(),
            Place::Nowhere => return Progress::Over,
        };
        match left {
            Left::Done(connection, progress) => {
                self.0 = Place::Apart(connection);
                progress
            }
            Left::Paused(stack) => {
                self.0 = Place::On(stack);
                make_way(cx);
                Progress::Pending
            }
        }
    }
}

fn start(connection: Box<dyn Turns>, cx: &Context<'_>) -> Left {
    let waker = cx.waker().clone();
    stack::run(Errand { connection, waker })
}

impl<P: Protocol> Future for Task<P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.get_mut().run(cx) {
            Progress::Over => Poll::Ready(()),
            Progress::Pending | Progress::WantsStack => Poll::Pending,
        }
    }
}

impl<P> Drop for Task<P> {
    fn drop(&mut self) {
        if let Place::On(stack) = std::mem::replace(&mut self.0, Place::Nowhere) {
            stack.abandon();
        }
    }
}

fn write_some(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    output: &Output,
    written: usize,
) -> Poll<io::Result<usize>> {
    if let Some(bytes) = output.as_bytes() {
        return stream.poll_write(cx, &bytes[written..]);
    }
    let pieces: smallvec::SmallVec<[IoSlice<'_>; 8]> = output
        .segments_from(written)
        .take(MAX_PIECES)
        .map(IoSlice::new)
        .collect();
    stream.poll_write_vectored(cx, &pieces)
}
