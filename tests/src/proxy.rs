//! A TCP proxy that stands for a bad network: connections through it are cut, stalled and resumed at will.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Between two looks at what is wanted.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Passes connections on to one server. Dropping it cuts them.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    /// Nothing is passed on, and nothing is closed.
    stalled: AtomicBool,
    /// New connections are closed at once.
    refuses: AtomicBool,
    ended: AtomicBool,
    /// Both ends of each connection.
    open: Mutex<Vec<[TcpStream; 2]>>,
}

impl Proxy {
    pub fn start(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("it can be polled");
        let address = listener.local_addr().expect("it has an address");
        let shared = Arc::new(Shared {
            target,
            stalled: AtomicBool::new(false),
            refuses: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        thread::spawn(move || {
            while !accepting.ended.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((client, _)) => accepting.pass_on(client),
                    Err(_) => thread::sleep(LOOK_AGAIN),
                }
            }
        });
        Proxy { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Passes nothing on until [`Proxy::resume`].
    pub fn stall(&self) {
        self.shared.stalled.store(true, Ordering::Relaxed);
    }

    pub fn resume(&self) {
        self.shared.stalled.store(false, Ordering::Relaxed);
    }

    /// Whether new connections are closed at once.
    pub fn set_refuses(&self, refuses: bool) {
        self.shared.refuses.store(refuses, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.shared.cut();
    }
}

impl Shared {
    fn cut(&self) {
        let open = std::mem::take(&mut *self.open.lock().expect("no thread panics"));
        for stream in open.iter().flatten() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn pass_on(self: &Arc<Self>, client: TcpStream) {
        if self.refuses.load(Ordering::Relaxed) {
            return;
        }
        // Whoever is not there any more closes, as without a proxy.
        let Ok(server) = TcpStream::connect_timeout(&self.target, Duration::from_secs(1)) else {
            return;
        };
        let ends = [client, server];
        for stream in &ends {
            stream.set_nonblocking(false).expect("it can wait");
            stream.set_nodelay(true).expect("TCP_NODELAY can be set");
            stream
                .set_read_timeout(Some(LOOK_AGAIN))
                .expect("a timeout can be set");
        }
        let clone = |index: usize| ends[index].try_clone().expect("a socket can be shared");
        for (from, to) in [(clone(0), clone(1)), (clone(1), clone(0))] {
            let shared = self.clone();
            thread::spawn(move || shared.copy(from, to));
        }
        self.open.lock().expect("no thread panics").push(ends);
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = [0; 16 * 1024];
        while !self.ended.load(Ordering::Relaxed) {
            if self.stalled.load(Ordering::Relaxed) {
                thread::sleep(LOOK_AGAIN);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(read @ 1..) if to.write_all(&buffer[..read]).is_ok() => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                _ => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
