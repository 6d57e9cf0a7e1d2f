//! Accepts connections and spreads them over the workers, one after the other.

use std::{
    io,
    net::{Shutdown, SocketAddr, ToSocketAddrs},
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rustix::{fs::Mode, process::umask};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::AbortHandle,
};

use crate::{
    runtime::{Incoming, Workers},
    server::Server,
    session::registry::{Address, Wire},
};

/// After the system refused to accept (out of descriptors, say): long enough not to spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

const PROTECTED: &[u8] = b"-DENIED Ferrite is running in protected mode because protected mode is enabled and no \
password is set for the default user. In this mode connections are only accepted from the loopback interface. To \
connect from other machines, set a password with 'requirepass', or, on a network you trust, turn protected mode off \
with 'CONFIG SET protected-mode no' from this machine.\r\n";

/// A bound socket, not yet in an event loop.
pub enum Listening {
    Tcp(std::net::TcpListener, Wire),
    Unix(std::os::unix::net::UnixListener, Wire, Arc<str>),
}

/// The listening TCP sockets, which CONFIG SET exchanges while the server runs. Connections stay as they are.
#[derive(Default)]
pub struct Listeners {
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// The sockets once more, beside those that are accepted from.
    sockets: Vec<(Wire, Socket)>,
    /// To whoever accepts.
    acceptor: Option<UnboundedSender<Exchange>>,
}

/// Sockets that take the place of all that served a protocol over TCP.
pub struct Exchange {
    wire: Wire,
    listeners: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// Notes the sockets of the start. Returns what will tell of those that take their place.
    ///
    /// # Errors
    /// The system has no descriptors to spare.
    pub fn start(&self, listening: &[Listening]) -> io::Result<UnboundedReceiver<Exchange>> {
        let (acceptor, exchanges) = unbounded_channel();
        let mut open = self.open.lock();
        open.acceptor = Some(acceptor);
        for listening in listening {
            if let Listening::Tcp(listener, wire) = listening {
                open.sockets.push((*wire, listener.try_clone()?.into()));
            }
        }
        Ok(exchanges)
    }

    /// Listens on these addresses for a protocol, and no longer on those that it had; port 0 listens on none.
    ///
    /// The old sockets make way before the new ones are bound only if they must: it costs clients that are about to be
    /// accepted their connections.
    ///
    /// # Errors
    /// An address that cannot be bound, with its text; then the old ones are listened on as before.
    pub fn exchange(
        &self,
        wire: Wire,
        addresses: &[String],
        port: u16,
        backlog: u32,
    ) -> Result<(), (String, io::Error)> {
        let mut open = self.open.lock();
        let bind = || match port {
            0 => Ok(Vec::new()),
            port => bind_tcp(addresses, port, backlog),
        };
        let of_wire = |(known, _): &&(Wire, Socket)| *known == wire;
        let bound = match bind() {
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse => {
                for (_, socket) in open.sockets.iter().filter(of_wire) {
                    // Bound as it stays, it does not listen any more: others may do so on its port.
                    let _ = socket.shutdown(Shutdown::Both);
                }
                bind().inspect_err(|_| {
                    for (_, socket) in open.sockets.iter().filter(of_wire) {
                        let _ = socket.listen(backlog_of_system(backlog));
                    }
                })
            }
            other => other,
        }?;
        let failed = |error| (addresses.join(" "), error);
        let copies = bound.iter().map(|listener| listener.try_clone());
        let copies = copies.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        open.sockets.retain(|(known, socket)| {
            if *known == wire {
                let _ = socket.shutdown(Shutdown::Both);
            }
            *known != wire
        });
        open.sockets
            .extend(copies.into_iter().map(|copy| (wire, copy.into())));
        if let Some(acceptor) = &open.acceptor {
            // Whoever accepts does so for as long as the program runs.
            let _ = acceptor.send(Exchange {
                wire,
                listeners: bound,
            });
        }
        Ok(())
    }
}

/// Binds every address of a list. Those that begin with `-` may be missing on this machine.
///
/// # Errors
/// An address that cannot be bound, with its text.
pub fn bind_tcp(
    addresses: &[String],
    port: u16,
    backlog: u32,
) -> Result<Vec<std::net::TcpListener>, (String, io::Error)> {
    let mut bound = Vec::new();
    for text in addresses {
        let (address, optional) = text
            .strip_prefix('-')
            .map_or((text.as_str(), false), |address| (address, true));
        let resolved = match address {
            "*" => vec![SocketAddr::from(([0, 0, 0, 0], port))],
            "::*" => vec![SocketAddr::from(([0; 8], port))],
            name => match (name, port).to_socket_addrs() {
                Ok(addresses) => addresses.take(1).collect(),
                Err(_) if optional => continue,
                Err(error) => return Err((text.clone(), error)),
            },
        };
        for address in resolved {
            match bind_one(address, backlog) {
                Ok(listener) => bound.push(listener),
                Err(error) if optional && is_missing(&error) => {}
                Err(error) => return Err((text.clone(), error)),
            }
        }
    }
    Ok(bound)
}

fn bind_one(address: SocketAddr, backlog: u32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog_of_system(backlog))?;
    Ok(socket.into())
}

fn backlog_of_system(backlog: u32) -> i32 {
    backlog.min(i32::MAX as u32) as i32
}

/// The address is not one of this machine's, or of a kind it does not speak.
fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || [Some(libc::EAFNOSUPPORT), Some(libc::EPROTONOSUPPORT)].contains(&error.raw_os_error())
}

/// Binds a Unix socket, in place of one that a former server left behind. With permissions other than 0 it has them from
/// the first moment, so that nobody connects in between; no other thread may make files meanwhile. It is shown as `name`.
///
/// # Errors
/// The path cannot be bound.
pub fn bind_unix(path: &Path, name: &Path, permissions: u32, wire: Wire) -> io::Result<Listening> {
    let _ = std::fs::remove_file(path);
    let usual = (permissions != 0).then(|| umask(Mode::from_raw_mode(!permissions & 0o777)));
    let listener = std::os::unix::net::UnixListener::bind(path);
    if let Some(usual) = usual {
        umask(usual);
    }
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(Listening::Unix(
        listener,
        wire,
        name.to_string_lossy().into(),
    ))
}

/// Accepts from all sockets, and from those that take their place.
pub async fn accept_all(
    server: Arc<Server>,
    workers: Workers,
    listening: Vec<Listening>,
    mut exchanges: UnboundedReceiver<Exchange>,
) {
    let spawn = |listening: Listening| {
        let task = tokio::spawn(accept(server.clone(), workers.clone(), listening));
        task.abort_handle()
    };
    let mut tasks: Vec<(Wire, AbortHandle)> = Vec::new();
    for listening in listening {
        match listening {
            Listening::Tcp(_, wire) => tasks.push((wire, spawn(listening))),
            Listening::Unix(..) => drop(spawn(listening)),
        }
    }
    while let Some(Exchange { wire, listeners }) = exchanges.recv().await {
        tasks.retain(|(known, task)| {
            if *known == wire {
                task.abort();
            }
            *known != wire
        });
        let listening = listeners
            .into_iter()
            .map(|listener| Listening::Tcp(listener, wire));
        tasks.extend(listening.map(|listening| (wire, spawn(listening))));
    }
}

/// Accepts from one socket for as long as it listens.
///
/// # Errors
/// The socket cannot be watched by the event loop.
async fn accept(server: Arc<Server>, workers: Workers, listening: Listening) -> io::Result<()> {
    match listening {
        Listening::Tcp(listener, wire) => {
            let mut keepalive = None;
            let listener = TcpListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let Ok(stream) = stream.into_std() else {
                            continue;
                        };
                        let wanted = server.config.settings().tcp_keepalive;
                        if keepalive != Some(wanted) {
                            keepalive = Some(wanted);
                            tune(SockRef::from(&listener), wanted);
                            tune(SockRef::from(&stream), wanted);
                        }
                        admit_tcp(&server, &workers, stream, peer, wire);
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
                }
            }
        }
        Listening::Unix(listener, wire, path) => {
            let listener = UnixListener::from_std(listener)?;
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let Ok(stream) = stream.into_std() else {
                            continue;
                        };
                        let address = Address::Unix(path.clone());
                        workers.place(Incoming::unix(stream, wire, address));
                    }
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
                }
            }
        }
    }
}

/// What a connection inherits from the socket that accepts it. Options that fail leave it slower or longer-lived, no
/// worse.
fn tune(socket: SockRef<'_>, keepalive_seconds: u32) {
    let _ = socket.set_tcp_nodelay(true);
    if keepalive_seconds == 0 {
        let _ = socket.set_keepalive(false);
        return;
    }
    let time = Duration::from_secs(keepalive_seconds.into());
    let keepalive = TcpKeepalive::new()
        .with_time(time)
        .with_interval((time / 3).max(Duration::from_secs(1)));
    let _ = socket.set_tcp_keepalive(&keepalive.with_retries(3));
}

fn admit_tcp(
    server: &Server,
    workers: &Workers,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    wire: Wire,
) {
    let settings = server.config.settings();
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if settings.protected_mode
        && server.acl.default_user().permissions().nopass
        && !peer.ip().is_loopback()
    {
        // A courtesy: if the socket does not take the line at once, closing must do.
        let _ = io::Write::write(&mut &stream, PROTECTED);
        server
            .metrics
            .rejected_connections
            .fetch_add(1, Ordering::Relaxed);
        return;
    }
    let local = stream.local_addr().unwrap_or(peer);
    workers.place(Incoming::tcp(
        stream,
        wire,
        Address::Tcp(peer),
        Address::Tcp(local),
    ));
}
