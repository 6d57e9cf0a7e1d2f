//! The load itself: threads with a share of the connections each, driven by readiness, in a closed or an open loop.
//!
//! **Closed loop**: each connection sends a batch of `pipeline` operations, waits for all replies, and sends the next.
//! **Open loop**: operations are due at fixed times, whatever the server does, and their latency counts from the time they were
//! due, not from the time a connection was free to send them: a stalled server cannot make its own stall look short.
//!
//! A thread has one output and one input buffer for all its connections and no allocation per operation; a connection owns
//! memory only while the kernel would not take all of its output.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::latency::{Latencies, Summary};
use super::mix::Mix;
use super::popularity::{KeyPicker, Popularity};
use super::reply::{Protocol, ReplyReader, Tally};
use crate::epoll::{Epoll, Interest, Ready};
use crate::{Result, affinity};

/// Read per system call; large enough for the replies of a deep pipeline.
const INPUT_BYTES: usize = 256 * 1024;

/// How often a waiting thread looks whether the run is over.
const PHASE_CHECK: Duration = Duration::from_millis(50);

/// Time between two progress reports.
const PROGRESS: Duration = Duration::from_secs(1);

/// Nothing at all received for this long means that the server hangs.
const HANG: Duration = Duration::from_secs(60);

/// What to send, where, how and for how long.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) target: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) mix: Mix,
    pub(crate) keys: Keys,
    pub(crate) threads: usize,
    /// Over all threads.
    pub(crate) connections: usize,
    /// Closed loop: operations per batch. Open loop: most operations in flight per connection.
    pub(crate) pipeline: usize,
    /// Operations per second over all threads; `None` for the closed loop.
    pub(crate) rate: Option<f64>,
    pub(crate) length: Length,
    /// Connect anew for every batch.
    pub(crate) reconnect: bool,
    pub(crate) cores: Vec<usize>,
    /// Give way to other threads of this process, such as a probe, when they want to run.
    pub(crate) background: bool,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Keys {
    Drawn {
        count: u64,
        popularity: Popularity,
    },
    /// `0..count`, divided among the threads.
    InOrder {
        count: u64,
    },
}

#[derive(Clone, Copy)]
pub(crate) enum Length {
    Time {
        warm_up: Duration,
        measured: Duration,
    },
    Operations(u64),
}

/// Told to the caller while the run goes on. `Opened` and `Closed` bracket exactly the operations of [`Outcome`].
pub(crate) enum Moment {
    Opened,
    Progress { elapsed: Duration, operations: u64 },
    Closed,
}

pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) latency: Summary,
    pub(crate) tally: Tally,
}

impl Outcome {
    pub(crate) fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.seconds.max(1e-9)
    }
}

/// Runs the job to its end.
pub(crate) fn run(job: &Job, watch: &mut dyn FnMut(Moment)) -> Result<Outcome> {
    let threads = job.threads.clamp(1, job.connections.max(1));
    let shared = Shared {
        phase: AtomicU8::new(match job.length {
            Length::Time { .. } => WARM_UP,
            Length::Operations(_) => MEASURED,
        }),
        counters: (0..threads).map(|_| Counter::default()).collect(),
        ended: AtomicUsize::new(0),
        barrier: Barrier::new(threads + 1),
        start: Instant::now(),
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                let shared = &shared;
                scope.spawn(move || {
                    let outcome = Worker::connect(job, shared, index, threads);
                    // All are connected; the window opens; all begin.
                    shared.barrier.wait();
                    shared.barrier.wait();
                    let outcome = outcome.and_then(Worker::run);
                    shared.ended.fetch_add(1, Ordering::Release);
                    outcome
                })
            })
            .collect();
        shared.barrier.wait();
        let (operations, seconds) = supervise(job, &shared, watch);
        let (mut latencies, mut tally) = (Latencies::new(), Tally::default());
        for handle in handles {
            let (thread_latencies, thread_tally) =
                handle.join().map_err(|_| "a load thread panicked")??;
            latencies.add(&thread_latencies);
            tally.add(thread_tally);
        }
        Ok(Outcome {
            operations,
            seconds,
            latency: latencies.summary(),
            tally,
        })
    })
}

const WARM_UP: u8 = 0;
const MEASURED: u8 = 1;
const STOPPED: u8 = 2;

struct Shared {
    phase: AtomicU8,
    counters: Vec<Counter>,
    ended: AtomicUsize,
    barrier: Barrier,
    /// Times are nanoseconds since this.
    start: Instant,
}

/// Operations completed by one thread, alone on its cache line.
#[derive(Default)]
#[repr(align(128))]
struct Counter(AtomicU64);

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn operations(&self) -> u64 {
        self.counters
            .iter()
            .map(|counter| counter.0.load(Ordering::Relaxed))
            .sum()
    }

    fn any_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) > 0
    }

    fn all_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) == self.counters.len()
    }
}

/// Opens and closes the measured window; returns the operations in it and its seconds.
fn supervise(job: &Job, shared: &Shared, watch: &mut dyn FnMut(Moment)) -> (u64, f64) {
    if let Length::Time { warm_up, .. } = job.length {
        shared.barrier.wait();
        let end = Instant::now() + warm_up;
        while Instant::now() < end && !shared.any_ended() {
            thread::sleep(PHASE_CHECK.min(end.saturating_duration_since(Instant::now())));
        }
    }
    let (opened, before) = (Instant::now(), shared.operations());
    shared.phase.store(MEASURED, Ordering::Release);
    watch(Moment::Opened);
    if let Length::Operations(_) = job.length {
        shared.barrier.wait();
    }
    let over = || match job.length {
        // A thread ends early only when it failed.
        Length::Time { measured, .. } => opened.elapsed() >= measured || shared.any_ended(),
        Length::Operations(_) => shared.all_ended(),
    };
    let step = match job.length {
        Length::Time { .. } => PHASE_CHECK,
        Length::Operations(_) => Duration::from_millis(1),
    };
    let mut next_report = PROGRESS;
    while !over() {
        let left = match job.length {
            Length::Time { measured, .. } => measured.saturating_sub(opened.elapsed()),
            Length::Operations(_) => step,
        };
        thread::sleep(step.min(left));
        if opened.elapsed() >= next_report {
            next_report += PROGRESS;
            watch(Moment::Progress {
                elapsed: opened.elapsed(),
                operations: shared.operations() - before,
            });
        }
    }
    let (seconds, operations) = (opened.elapsed().as_secs_f64(), shared.operations() - before);
    watch(Moment::Closed);
    shared.phase.store(STOPPED, Ordering::Release);
    (operations, seconds)
}

struct Worker<'run> {
    job: &'run Job,
    shared: &'run Shared,
    counter: &'run AtomicU64,
    epoll: Epoll,
    connections: Vec<Connection>,
    picker: KeyPicker,
    output: Vec<u8>,
    input: Vec<u8>,
    latencies: Latencies,
    tally: Tally,
    phase: u8,
    completed: u64,
    /// Operations not sent yet, if they are counted.
    left_to_send: u64,
    in_flight: u64,
    /// Open loop: nanoseconds between operations, the number of the next one, and the connection whose turn it is.
    interval_ns: f64,
    next_due: u64,
    turn: usize,
}

struct Connection {
    stream: TcpStream,
    reader: ReplyReader,
    /// Replies owed by the server.
    owed: u64,
    /// Closed loop: when the batch was sent.
    sent_at: u64,
    /// Open loop: when the operations in flight were due.
    due: VecDeque<u64>,
    /// Output the kernel has not taken, and how much of it it has.
    unsent: Vec<u8>,
    taken: usize,
    waits_for_room: bool,
    /// Open loop: has new output in `unsent`.
    dirty: bool,
}

impl<'run> Worker<'run> {
    fn connect(job: &'run Job, shared: &'run Shared, index: usize, threads: usize) -> Result<Self> {
        affinity::pin(&job.cores)?;
        if job.background {
            affinity::give_way()?;
        }
        // Without this, waits for a time end up to 50 us late.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let share = |total: u64| {
            total * (index as u64 + 1) / threads as u64 - total * index as u64 / threads as u64
        };
        let epoll = Epoll::new()?;
        let mut connections = Vec::new();
        for token in 0..share(job.connections.max(1) as u64) as usize {
            let connection = Connection::open(job)?;
            epoll.add(&connection.stream, token, Interest::Read)?;
            connections.push(connection);
        }
        let seed = job.seed.wrapping_mul(1_000_003).wrapping_add(index as u64);
        let picker = match job.keys {
            Keys::Drawn { count, popularity } => KeyPicker::new(count, popularity, seed),
            Keys::InOrder { count } => {
                let from = count * index as u64 / threads as u64;
                KeyPicker::sequential(from, from + share(count), seed)
            }
        };
        Ok(Self {
            job,
            shared,
            counter: &shared.counters[index].0,
            epoll,
            connections,
            picker,
            output: Vec::with_capacity(job.mix.largest_operation() * job.pipeline),
            input: vec![0; INPUT_BYTES],
            latencies: Latencies::new(),
            tally: Tally::default(),
            phase: WARM_UP,
            completed: 0,
            left_to_send: match job.length {
                Length::Time { .. } => u64::MAX,
                Length::Operations(operations) => share(operations),
            },
            in_flight: 0,
            interval_ns: job.rate.map_or(0.0, |rate| 1e9 * threads as f64 / rate),
            next_due: 0,
            turn: 0,
        })
    }

    fn run(mut self) -> Result<(Latencies, Tally)> {
        let open_loop_start = self.shared.now();
        if self.job.rate.is_none() {
            for token in 0..self.connections.len() {
                self.send_batch(token, self.shared.now())?;
            }
        }
        let mut last_event = Instant::now();
        while !self.is_over() {
            let timeout = match self.job.rate {
                None => PHASE_CHECK,
                Some(_) => self.send_due(open_loop_start)?.min(PHASE_CHECK),
            };
            let ready = self.epoll.wait(Some(timeout))?;
            for index in 0..ready {
                self.serve(self.epoll.ready(index))?;
            }
            self.counter.store(self.completed, Ordering::Relaxed);
            if ready > 0 {
                last_event = Instant::now();
            } else if self.in_flight > 0 && last_event.elapsed() > HANG {
                return Err(format!("no reply for {} seconds", HANG.as_secs()).into());
            }
        }
        Ok((self.latencies, self.tally))
    }

    /// Follows the phase: what the warm-up recorded is dropped when the window opens.
    fn is_over(&mut self) -> bool {
        let phase = self.shared.phase.load(Ordering::Acquire);
        if phase != self.phase && phase == MEASURED {
            self.latencies.clear();
            self.tally = Tally::default();
        }
        self.phase = phase;
        phase == STOPPED || (self.left_to_send == 0 && self.in_flight == 0)
    }

    fn serve(&mut self, ready: Ready) -> Result<()> {
        if ready.writable {
            self.connections[ready.token].flush(&self.epoll, ready.token)?;
        }
        if ready.readable {
            self.receive(ready.token)?;
        }
        Ok(())
    }

    fn receive(&mut self, token: usize) -> Result<()> {
        let connection = &mut self.connections[token];
        let mut replies = 0;
        loop {
            match connection.stream.read(&mut self.input) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(read) => {
                    replies += connection
                        .reader
                        .feed(&self.input[..read], &mut self.tally)?;
                    if read < self.input.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("reading replies: {error}").into()),
            }
        }
        let per_operation = self.job.mix.replies_per_operation();
        let owed = connection
            .owed
            .checked_sub(replies)
            .ok_or("the server sent more replies than requests")?;
        let completed = connection.owed.div_ceil(per_operation) - owed.div_ceil(per_operation);
        connection.owed = owed;
        if completed == 0 {
            return Ok(());
        }
        self.completed += completed;
        self.in_flight -= completed;
        let now = self.shared.now();
        if self.job.rate.is_some() {
            for due in connection.due.drain(..completed as usize) {
                self.latencies.record(now.saturating_sub(due), 1);
            }
            return Ok(());
        }
        self.latencies.record(now - connection.sent_at, completed);
        if owed == 0 {
            if self.job.reconnect {
                self.connections[token] = Connection::open(self.job)?;
                self.epoll
                    .add(&self.connections[token].stream, token, Interest::Read)?;
            }
            self.send_batch(token, now)?;
        }
        Ok(())
    }

    /// Closed loop: sends the next batch of a connection that has none in flight; its latency counts from `since`.
    fn send_batch(&mut self, token: usize, since: u64) -> Result<()> {
        let batch = self.left_to_send.min(self.job.pipeline as u64);
        if batch == 0 {
            return Ok(());
        }
        self.left_to_send -= batch;
        self.in_flight += batch;
        self.output.clear();
        for _ in 0..batch {
            self.job.mix.append(&mut self.output, &mut self.picker);
        }
        let connection = &mut self.connections[token];
        connection.owed = batch * self.job.mix.replies_per_operation();
        connection.sent_at = since;
        connection.send(&self.output, &self.epoll, token)
    }

    /// Open loop: sends what is due by now, as far as connections have room, and returns the time until more is due.
    fn send_due(&mut self, start: u64) -> Result<Duration> {
        let now = self.shared.now();
        let due_at = |number: u64, interval: f64| start + (number as f64 * interval) as u64;
        while self.left_to_send > 0 && due_at(self.next_due, self.interval_ns) <= now {
            let Some(token) = self.connection_with_room() else {
                return Ok(PHASE_CHECK);
            };
            let connection = &mut self.connections[token];
            self.job
                .mix
                .append(&mut connection.unsent, &mut self.picker);
            connection.owed += self.job.mix.replies_per_operation();
            connection
                .due
                .push_back(due_at(self.next_due, self.interval_ns));
            connection.dirty = true;
            self.next_due += 1;
            self.left_to_send -= 1;
            self.in_flight += 1;
        }
        for (token, connection) in self.connections.iter_mut().enumerate() {
            if std::mem::take(&mut connection.dirty) {
                connection.flush(&self.epoll, token)?;
            }
        }
        Ok(Duration::from_nanos(
            due_at(self.next_due, self.interval_ns).saturating_sub(self.shared.now()),
        ))
    }

    /// The next connection in turn with fewer than `pipeline` operations in flight.
    fn connection_with_room(&mut self) -> Option<usize> {
        for _ in 0..self.connections.len() {
            let token = self.turn;
            self.turn = (self.turn + 1) % self.connections.len();
            if self.connections[token].due.len() < self.job.pipeline {
                return Some(token);
            }
        }
        None
    }
}

impl Connection {
    fn open(job: &Job) -> Result<Self> {
        let stream = super::client::connect(job.target)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            reader: ReplyReader::new(job.protocol),
            owed: 0,
            sent_at: 0,
            due: VecDeque::new(),
            unsent: Vec::new(),
            taken: 0,
            waits_for_room: false,
            dirty: false,
        })
    }

    /// Writes `bytes`; what the kernel does not take is kept and written when there is room.
    fn send(&mut self, bytes: &[u8], epoll: &Epoll, token: usize) -> Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return self.flush(epoll, token);
        }
        let written = self.write(bytes)?;
        if written < bytes.len() {
            self.unsent.extend_from_slice(&bytes[written..]);
            self.flush(epoll, token)?;
        }
        Ok(())
    }

    fn flush(&mut self, epoll: &Epoll, token: usize) -> Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        self.taken += self.write(&unsent[self.taken..])?;
        self.unsent = unsent;
        let blocked = self.taken < self.unsent.len();
        if !blocked {
            self.unsent.clear();
            self.taken = 0;
        }
        if blocked != self.waits_for_room {
            self.waits_for_room = blocked;
            epoll.change(
                &self.stream,
                token,
                if blocked {
                    Interest::ReadAndWrite
                } else {
                    Interest::Read
                },
            )?;
        }
        Ok(())
    }

    /// Writes until the kernel takes no more; returns how much it took.
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(0) => return Err("the server takes no more input".into()),
                Ok(taken) => written += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending requests: {error}").into()),
            }
        }
        Ok(written)
    }
}
