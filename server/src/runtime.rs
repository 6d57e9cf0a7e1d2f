//! The workers: each a thread with an event loop of its own, on which its connections live and die.

use std::{
    cell::{OnceCell, RefCell},
    io,
    mem::MaybeUninit,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use protocol::resp::{
    reply::{ReplyWriter, Version},
    request::{Lead, Span},
};
use socket2::SockRef;
use storage::clock::Moment;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::{Builder, Runtime},
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
};

use crate::{
    config::{Settings, Snapshot},
    dispatch::{command::Reply, table::Registered},
    memcache::Memcache,
    metrics::WorkerMetrics,
    net::{
        connection::{Task, Unsent},
        listener::{self, Exchange, Listening},
        resp::{Request, Resp},
        stream::Stream,
    },
    scripting::stack,
    server::{self, Server},
    session::{
        Session,
        mailbox::Post,
        registry::{Address, Arrival, Wire},
    },
    tracking,
};

/// Bytes of the buffer that a worker's connections read into.
pub const READ_BUFFER: usize = 64 * 1024;

/// Stack of a worker; scripts nest deeply. Untouched pages cost nothing.
pub const STACK_BYTES: usize = 16 << 20;

thread_local! {
    /// What the connections of this thread share, unless one of them has taken it away.
    static WORKER: RefCell<Option<Box<Worker>>> = const { RefCell::new(None) };
    static SEAT: OnceCell<Seat> = const { OnceCell::new() };
}

/// What makes a thread a worker.
struct Seat {
    server: Arc<Server>,
    index: usize,
    post: Arc<Post>,
}

/// Works with what this thread's connections share.
pub fn with_worker<R>(work: impl FnOnce(&mut Worker) -> R) -> R {
    WORKER.with_borrow_mut(|worker| work(worker.get_or_insert_with(new_worker)))
}

/// All connections that were ready had their turns.
fn end_round() {
    WORKER.with_borrow_mut(|worker| {
        if let Some(worker) = worker {
            // Of a connection that was closed in the middle of its turn.
            tracking::send_broadcasts(&worker.server);
            worker.readers_before = std::mem::take(&mut worker.readers);
            worker.round = worker.round.wrapping_add(1);
        }
    });
}

/// Takes it away, to be brought back; whoever asks meanwhile gets another.
pub fn take_worker() -> Box<Worker> {
    WORKER.take().unwrap_or_else(new_worker)
}

pub fn put_worker(worker: Box<Worker>) {
    WORKER.set(Some(worker));
}

#[cold]
fn new_worker() -> Box<Worker> {
    let worker = SEAT.with(|seat| seat.get().map(Worker::new));
    Box::new(worker.expect("connections run on workers only"))
}

/// What the connections of one worker share: buffers that only one of them needs at a time.
pub struct Worker {
    /// Counted by this thread alone, so that holding it for a turn costs others nothing.
    pub server: Rc<Arc<Server>>,
    pub input: Box<[u8]>,
    pub spans: Vec<Span>,
    pub requests: Vec<Request>,
    /// How the last request began that was found by its name, and its command.
    pub lead: Option<(Lead, &'static Registered)>,
    pub reply: Reply,
    pub metrics: Arc<WorkerMetrics>,
    pub post: Arc<Post>,
    settings: Snapshot,
    /// Bytes read in this turn.
    pub read: usize,
    /// The last command run in this turn.
    pub last_command: Option<usize>,
    /// When the last command ended, or the turn began.
    pub clock: Moment,
    /// The event loop's round, which lasts until nothing is ready.
    pub round: u32,
    /// Connections that read something in this round, and in the one before.
    pub readers: usize,
    pub readers_before: usize,
    /// Emptied, for replies that leave at the end of a round.
    pub spare: Vec<Box<Unsent>>,
}

impl Worker {
    fn new(seat: &Seat) -> Worker {
        let server = &seat.server;
        let mut reply = Reply::new(ReplyWriter::new(Version::Resp2));
        reply.may_prepare = true;
        Worker {
            server: Rc::new(server.clone()),
            input: vec![0; READ_BUFFER].into(),
            spans: Vec::new(),
            requests: Vec::new(),
            lead: None,
            reply,
            metrics: server.metrics.workers[seat.index].clone(),
            post: seat.post.clone(),
            settings: Snapshot::new(&server.config),
            read: 0,
            last_command: None,
            clock: Moment::now(),
            round: 1,
            readers: 0,
            readers_before: 0,
            spare: Vec::new(),
        }
    }

    /// The settings as they are now.
    #[inline]
    pub fn settings(&mut self, server: &Server) -> &Settings {
        self.settings.current(&server.config)
    }

    /// The settings as they are now, to keep for a turn.
    pub fn current_settings(&mut self, server: &Server) -> Arc<Settings> {
        self.settings.current(&server.config).clone()
    }

    /// Ready to write one connection's replies.
    #[inline]
    pub fn begin_turn(&mut self, version: Version) {
        self.reply.writer.set_version(version);
        self.last_command = None;
    }

    /// Counts what a connection's turn came to.
    #[inline]
    pub fn end_turn(&mut self, session: &Session, now_ms: i64) {
        let read = std::mem::take(&mut self.read);
        self.metrics.bytes_in.add(read as u64);
        self.metrics.reads.add(1);
        session.client.note_turn(
            now_ms,
            read,
            self.reply.writer.len(),
            session.commands,
            self.last_command,
        );
    }
}

/// A connection on its way to a worker.
pub struct Incoming {
    socket: Socket,
    wire: Wire,
    address: Address,
    local_address: Address,
}

enum Socket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Incoming {
    pub fn tcp(
        stream: std::net::TcpStream,
        wire: Wire,
        address: Address,
        local_address: Address,
    ) -> Incoming {
        Incoming {
            socket: Socket::Tcp(stream),
            wire,
            address,
            local_address,
        }
    }

    pub fn unix(stream: std::os::unix::net::UnixStream, wire: Wire, address: Address) -> Incoming {
        Incoming {
            socket: Socket::Unix(stream),
            wire,
            local_address: address.clone(),
            address,
        }
    }

    /// Starts the connection on the worker of this thread.
    fn start(self, server: &Arc<Server>) -> io::Result<()> {
        let stream = match self.socket {
            Socket::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Socket::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        };
        let limit = server.config.settings().maxclients as usize;
        let now = server::now().millis();
        let post = with_worker(|worker| worker.post.clone());
        let arrival = Arrival {
            wire: self.wire,
            address: self.address,
            local_address: self.local_address,
            descriptor: stream.descriptor(),
            now_ms: now,
            post,
        };
        let admitted = server.clients.add(limit, arrival);
        server.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let Some(client) = admitted else {
            server
                .metrics
                .rejected_connections
                .fetch_add(1, Ordering::Relaxed);
            refuse(&stream, self.wire);
            return Ok(());
        };
        let metrics = with_worker(|worker| worker.metrics.clone());
        let session = Session::new(server.clone(), client, metrics);
        match self.wire {
            Wire::Resp | Wire::Primary => drop(tokio::spawn(Task::new(stream, Resp::new(session)))),
            Wire::Memcached => drop(tokio::spawn(Task::new(stream, Memcache::new(session)))),
        }
        Ok(())
    }
}

/// Tells a client that there are too many, as far as its socket takes the line at once. What it has sent is read first: to
/// close on it would reset the connection, which may cost the client the line.
fn refuse(stream: &Stream, wire: Wire) {
    let line: &[u8] = match wire {
        Wire::Resp | Wire::Primary => b"-ERR max number of clients reached\r\n",
        Wire::Memcached => b"ERROR Too many open connections\r\n",
    };
    // The event loop has not seen yet that the socket is ready.
    let socket = match stream {
        Stream::Tcp(stream) => SockRef::from(stream),
        Stream::Unix(stream) => SockRef::from(stream),
        Stream::Gone => return,
    };
    let mut unread = [MaybeUninit::uninit(); 1024];
    let _ = socket.recv(&mut unread);
    let _ = socket.send(line);
}

/// The way to all workers, for whoever accepts connections.
#[derive(Clone)]
pub struct Workers {
    inboxes: Arc<[UnboundedSender<Incoming>]>,
    next: Arc<AtomicUsize>,
}

impl Workers {
    /// Gives a connection to the next worker in turn.
    pub fn place(&self, incoming: Incoming) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.inboxes.len();
        // A worker ends only with the program, and connections with it.
        let _ = self.inboxes[next].send(incoming);
    }
}

/// Starts all workers; the first one accepts.
///
/// # Errors
/// The system refuses an event loop or a thread.
pub fn start(server: &Arc<Server>, listeners: Vec<Listening>) -> io::Result<Vec<JoinHandle<()>>> {
    let count = server.metrics.workers.len();
    let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| unbounded_channel()).unzip();
    let workers = Workers {
        inboxes: inboxes.into(),
        next: Arc::new(AtomicUsize::new(0)),
    };
    let exchanges = server.listeners.start(&listeners)?;
    let mut listeners = Some((workers, listeners, exchanges));
    let mut threads = Vec::new();
    for (index, receiver) in receivers.into_iter().enumerate() {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(end_round)
            .build()?;
        let server = server.clone();
        let listeners = listeners.take();
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .stack_size(STACK_BYTES)
            .spawn(move || run(&server, index, &runtime, receiver, listeners))?;
        threads.push(thread);
    }
    Ok(threads)
}

/// Takes back what others have freed of this thread's memory, whenever that is asked for.
async fn collect(server: Arc<Server>) {
    loop {
        server.collect.notified().await;
        storage::alloc::collect();
    }
}

fn run(
    server: &Arc<Server>,
    index: usize,
    runtime: &Runtime,
    mut inbox: UnboundedReceiver<Incoming>,
    listeners: Option<(Workers, Vec<Listening>, UnboundedReceiver<Exchange>)>,
) {
    let post = Arc::<Post>::default();
    let seat = Seat {
        server: server.clone(),
        index,
        post: post.clone(),
    };
    SEAT.with(|empty| assert!(empty.set(seat).is_ok(), "a thread becomes a worker once"));
    stack::begin_worker();
    runtime.block_on(async {
        tokio::spawn(post.run());
        tokio::spawn(sleep_when_told(server.asleep_until.subscribe()));
        tokio::spawn(collect(server.clone()));
        if let Some((workers, listeners, exchanges)) = listeners {
            let server = server.clone();
            tokio::spawn(listener::accept_all(server, workers, listeners, exchanges));
        }
        while let Some(incoming) = inbox.recv().await {
            // A socket that the event loop refuses is closed: the client sees that.
            let _ = incoming.start(server);
        }
    });
}

/// DEBUG SLEEP: stops this worker with all its connections, once for every change.
async fn sleep_when_told(mut asleep_until: watch::Receiver<Instant>) {
    while asleep_until.changed().await.is_ok() {
        let until = *asleep_until.borrow_and_update();
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}
