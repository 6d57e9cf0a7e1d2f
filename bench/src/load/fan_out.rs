//! Publish and subscribe: one publisher, many subscribers; an operation is one delivery.
//!
//! `window` messages are in flight: the next is published when the oldest has reached every subscriber.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::client::{connect, resp};
use super::engine::{Moment, Outcome};
use super::latency::Latencies;
use super::reply::{Protocol, ReplyReader, Tally};
use crate::epoll::{Epoll, Interest};
use crate::{Result, affinity};

/// No delivery for this long means that messages were lost.
const HANG: Duration = Duration::from_secs(30);

pub(crate) struct FanOut {
    pub(crate) target: SocketAddr,
    pub(crate) subscribers: usize,
    pub(crate) window: usize,
    pub(crate) message_size: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    pub(crate) cores: Vec<usize>,
    /// Give way to other threads of this process, such as a probe, when they want to run.
    pub(crate) background: bool,
}

struct Subscriber {
    stream: TcpStream,
    reader: ReplyReader,
    /// The number of the next message.
    next: u64,
}

/// Messages published and not yet everywhere: the time each was sent and the subscribers it has to reach.
struct InFlight {
    first: u64,
    messages: VecDeque<(Instant, usize)>,
}

impl FanOut {
    /// Runs on a thread of its own, so that the caller keeps its cores.
    pub(crate) fn run(&self, watch: &mut (dyn FnMut(Moment) + Send)) -> Result<Outcome> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                affinity::pin(&self.cores)?;
                if self.background {
                    affinity::give_way()?;
                }
                self.publish(watch)
            });
            thread.join().map_err(|_| "the publisher panicked")?
        })
    }

    fn publish(&self, watch: &mut dyn FnMut(Moment)) -> Result<Outcome> {
        let mut epoll = Epoll::new()?;
        let mut tally = Tally::default();
        let mut subscribers = self.subscribe(&epoll, &mut tally)?;
        let publisher = connect(self.target)?;
        publisher.set_nonblocking(true)?;
        epoll.add(&publisher, subscribers.len(), Interest::Read)?;
        let mut publisher = Subscriber {
            stream: publisher,
            reader: ReplyReader::new(Protocol::Resp),
            next: 0,
        };
        let request = resp(&format!(
            "PUBLISH channel {}",
            "m".repeat(self.message_size)
        ));
        let batch = request.repeat(self.window);

        let mut in_flight = InFlight {
            first: 0,
            messages: VecDeque::with_capacity(self.window),
        };
        let mut latencies = Latencies::new();
        let mut input = vec![0; 64 * 1024];
        let (start, mut opened, mut deliveries, mut last) =
            (Instant::now(), None, 0u64, Instant::now());
        let mut to_publish = self.window;
        loop {
            let now = Instant::now();
            match opened {
                None if now - start >= self.warm_up => {
                    (opened, deliveries) = (Some(now), 0);
                    latencies.clear();
                    watch(Moment::Opened);
                }
                Some(opened) if now - opened >= self.measured => break,
                _ => {}
            }
            if to_publish > 0 {
                in_flight
                    .messages
                    .extend(std::iter::repeat_n((now, self.subscribers), to_publish));
                write_all(&mut publisher.stream, &batch[..to_publish * request.len()])?;
                to_publish = 0;
            }
            let ready = epoll.wait(Some(Duration::from_millis(100)))?;
            if ready == 0 && last.elapsed() > HANG {
                return Err("messages were published but not delivered".into());
            }
            for index in 0..ready {
                last = now;
                let token = epoll.ready(index).token;
                let Some(subscriber) = subscribers.get_mut(token) else {
                    publisher.receive(&mut input, &mut tally)?;
                    continue;
                };
                let messages = subscriber.receive(&mut input, &mut tally)?;
                let now = Instant::now();
                for _ in 0..messages {
                    let message = (subscriber.next - in_flight.first) as usize;
                    let (sent, waiting) = in_flight
                        .messages
                        .get_mut(message)
                        .ok_or("a message nobody sent")?;
                    latencies.record((now - *sent).as_nanos() as u64, 1);
                    *waiting -= 1;
                    subscriber.next += 1;
                }
                deliveries += messages;
            }
            while in_flight
                .messages
                .front()
                .is_some_and(|&(_, waiting)| waiting == 0)
            {
                in_flight.messages.pop_front();
                in_flight.first += 1;
                to_publish += 1;
            }
        }
        let seconds = opened.map_or(0.0, |opened| opened.elapsed().as_secs_f64());
        watch(Moment::Closed);
        Ok(Outcome {
            operations: deliveries,
            seconds,
            latency: latencies.summary(),
            tally,
        })
    }

    fn subscribe(&self, epoll: &Epoll, tally: &mut Tally) -> Result<Vec<Subscriber>> {
        let mut subscribers = Vec::with_capacity(self.subscribers);
        let mut input = [0; 1024];
        for token in 0..self.subscribers {
            let mut stream = connect(self.target)?;
            stream.write_all(&resp("SUBSCRIBE channel"))?;
            let mut subscriber = Subscriber {
                stream,
                reader: ReplyReader::new(Protocol::Resp),
                next: 0,
            };
            while subscriber.receive(&mut input, tally)? == 0 {}
            subscriber.stream.set_nonblocking(true)?;
            epoll.add(&subscriber.stream, token, Interest::Read)?;
            subscribers.push(subscriber);
        }
        Ok(subscribers)
    }
}

impl Subscriber {
    /// One read; returns the messages that ended in it.
    fn receive(&mut self, input: &mut [u8], tally: &mut Tally) -> Result<u64> {
        match self.stream.read(input) {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(read) => self.reader.feed(&input[..read], tally),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Publishes are few and small: if the kernel has no room, trying again is good enough.
fn write_all(stream: &mut TcpStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
