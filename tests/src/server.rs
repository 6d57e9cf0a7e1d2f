//! Starts servers for tests, each on free ports in a directory of its own, and stops them again.

use std::collections::hash_map::RandomState;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::wire::Wire;

/// Start to ready takes milliseconds; a machine that builds beside may take much longer.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at whether a server is ready or gone.
const POLL_INTERVAL: Duration = Duration::from_millis(3);
/// Another process may take a port between the look and the start.
const START_ATTEMPTS: usize = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Program {
    Ferrite,
    Valkey,
    Redis,
    Memcached,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Ferrite => "ferrite",
            Program::Valkey => "valkey-server",
            Program::Redis => "redis-server",
            Program::Memcached => "memcached",
        }
    }
}

/// What the suites run against.
pub fn subject() -> Program {
    match std::env::var("FERRITE_REFERENCE").as_deref() {
        Ok("valkey") => Program::Valkey,
        Ok(other) => panic!("FERRITE_REFERENCE={other}: only valkey is known"),
        Err(_) => Program::Ferrite,
    }
}

/// How to start a server, beyond free ports and a directory.
#[derive(Clone, Debug, Default)]
pub struct Options {
    directives: Vec<(String, String)>,
    memcached_arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Options {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a directive of the configuration.
    pub fn set(mut self, directive: &str, value: &str) -> Self {
        self.directives
            .push((directive.to_owned(), value.to_owned()));
        self
    }

    /// Sets a variable of the server's environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An argument for the real memcached, where a directive says the same to Ferrite.
    pub fn memcached_argument(mut self, argument: &str) -> Self {
        self.memcached_arguments.push(argument.to_owned());
        self
    }
}

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    program: Program,
    child: Child,
    resp_port: u16,
    memcached_port: u16,
    directory: PathBuf,
    options: Options,
    /// The memcached half of a reference, started on first use.
    companion: OnceLock<Box<Server>>,
}

impl Server {
    /// Starts the subject: Ferrite, or the reference that `FERRITE_REFERENCE` names.
    pub fn start(options: &Options) -> Self {
        Self::start_program(subject(), options).unwrap_or_else(|| {
            panic!(
                "{} is not installed; tests/peers.sh installs it",
                subject().name()
            )
        })
    }

    /// Ferrite, whatever the subject is.
    pub fn ferrite(options: &Options) -> Self {
        Self::start_program(Program::Ferrite, options).expect("ferrite is built on demand")
    }

    /// Ferrite, as soon as it answers that it loads its data.
    pub fn ferrite_loading(options: &Options) -> Self {
        Self::start_until(Program::Ferrite, options, Self::loads)
            .expect("ferrite is built on demand")
    }

    /// The real Valkey; `None` if it is not installed (see [`missing`]).
    pub fn valkey(options: &Options) -> Option<Self> {
        Self::start_program(Program::Valkey, options)
    }

    /// The real Redis; `None` if it is not installed (see [`missing`]).
    pub fn redis(options: &Options) -> Option<Self> {
        Self::start_program(Program::Redis, options)
    }

    /// The real memcached; `None` if it is not installed (see [`missing`]).
    pub fn memcached(options: &Options) -> Option<Self> {
        Self::start_program(Program::Memcached, options)
    }

    pub fn program(&self) -> Program {
        self.program
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn resp_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.resp_port))
    }

    pub fn memcached_address(&self) -> SocketAddr {
        if self.program == Program::Valkey {
            let companion = self.companion.get_or_init(|| {
                Box::new(
                    Self::memcached(&self.options)
                        .expect("memcached is installed beside valkey-server"),
                )
            });
            return companion.memcached_address();
        }
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.memcached_port))
    }

    /// A new connection to the RESP port.
    pub fn connect(&self) -> Wire {
        Wire::connect(self.resp_address())
    }

    /// A new connection to the memcached port.
    pub fn connect_memcached(&self) -> Wire {
        Wire::connect(self.memcached_address())
    }

    /// Everything the server printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.directory.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// True while the process lives.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Kills the process as a failing machine would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends the process if it runs and starts it again, on the same ports and directory and with the same options.
    pub fn restart(&mut self) {
        self.kill();
        let binary = locate(self.program).expect("it was there before");
        let ports = (self.resp_port, self.memcached_port);
        self.child = run(self.program, &binary, &self.options, ports, &self.directory);
        if let Err(reason) = self.wait_until_loaded() {
            panic!("{} did not start again: {reason}", self.program.name());
        }
    }

    /// Sends a signal by name (`TERM`, `STOP` ...).
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill(1) is part of every system");
        assert!(status.success(), "signal {name} can be sent");
    }

    /// Resident memory in bytes, as the system counts it.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap_or_default();
        let kibibytes: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        kibibytes * 1024
    }

    fn start_program(program: Program, options: &Options) -> Option<Self> {
        Self::start_until(program, options, Self::answers)
    }

    fn start_until(
        program: Program,
        options: &Options,
        is_ready: fn(&Self) -> bool,
    ) -> Option<Self> {
        let binary = locate(program)?;
        for attempt in 1..=START_ATTEMPTS {
            let mut server = Self::spawn(program, &binary, options);
            match server.wait_until(is_ready) {
                Ok(()) => return Some(server),
                Err(reason) if attempt == START_ATTEMPTS => {
                    panic!(
                        "{} did not start: {reason}\n{}",
                        program.name(),
                        server.log()
                    )
                }
                Err(_) => {}
            }
        }
        None
    }

    fn spawn(program: Program, binary: &Path, options: &Options) -> Self {
        let (resp_port, memcached_port) = (free_port(), free_port());
        let directory = new_directory();
        let ports = (resp_port, memcached_port);
        Self {
            program,
            child: run(program, binary, options, ports, &directory),
            resp_port,
            memcached_port,
            directory,
            options: options.clone(),
            companion: OnceLock::new(),
        }
    }

    /// Waits until a server that loads its data has done so.
    ///
    /// # Errors
    /// It ends instead, or takes too long.
    pub fn wait_until_loaded(&mut self) -> Result<(), String> {
        self.wait_until(Self::answers)
    }

    fn wait_until(&mut self, is_ready: fn(&Self) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}"));
            }
            if is_ready(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("it is not ready in time".to_owned());
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn loads(&self) -> bool {
        ask(self.resp_port, b"PING\r\n", &[b"-LOADING"])
    }

    fn answers(&self) -> bool {
        // A stranger is not told that the data is still being loaded; the log says when it is there.
        let loaded = || self.log().contains("Ready to accept connections");
        let resp = || {
            ask(self.resp_port, b"PING\r\n", &[b"+PONG"])
                || ask(self.resp_port, b"PING\r\n", &[b"-NOAUTH"]) && loaded()
        };
        let memcached = || {
            ask(
                self.memcached_port,
                b"version\r\n",
                &[b"VERSION", b"CLIENT_ERROR"],
            )
        };
        match self.program {
            Program::Ferrite => resp() && (self.has_no_memcached() || memcached()),
            Program::Valkey | Program::Redis => resp(),
            Program::Memcached => memcached(),
        }
    }

    fn has_no_memcached(&self) -> bool {
        self.options
            .directives
            .iter()
            .any(|(name, _)| name == "memcached-port")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.program.name(), self.log());
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Starts a program on these ports, for RESP and for memcached; its log goes on in its directory.
fn run(
    program: Program,
    binary: &Path,
    options: &Options,
    (resp_port, memcached_port): (u16, u16),
    directory: &Path,
) -> Child {
    let mut command = Command::new(binary);
    match program {
        Program::Memcached => {
            command.args(["-l", "127.0.0.1", "-U", "0", "-u", "root", "-t", "2"]);
            command
                .args(["-p", &memcached_port.to_string()])
                .args(&options.memcached_arguments);
        }
        Program::Ferrite | Program::Valkey | Program::Redis => {
            command
                .args(["--port", &resp_port.to_string(), "--save", "", "--dir"])
                .arg(directory);
            if program == Program::Ferrite {
                command.args(["--memcached-port", &memcached_port.to_string()]);
            }
            let known_to_program = |name: &str| {
                program == Program::Ferrite
                    || !(name.starts_with("memcached-") || name == "workers")
            };
            for (name, value) in options
                .directives
                .iter()
                .filter(|(name, _)| known_to_program(name))
            {
                command.arg(format!("--{name}"));
                match name.as_str() {
                    // Of several words, which the originals want one by one.
                    "replicaof" | "client-output-buffer-limit" | "user" => {
                        command.args(value.split(' '));
                    }
                    _ => {
                        command.arg(value);
                    }
                }
            }
        }
    }
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("log"))
        .expect("the temporary directory is writable");
    command
        .current_dir(directory)
        .envs(options.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be shared"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{} can be run: {error}", binary.display()))
}

/// Says that a peer is not installed: on a user's machine the test is skipped, in CI it fails.
pub fn missing(what: &str) {
    let message = format!("{what} is not installed (tests/peers.sh or .ci/run installs it)");
    assert!(!in_ci(), "{message}");
    eprintln!("SKIPPED: {message}");
}

pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The program's file: a peer from `PEERS_DIR` or the path, Ferrite from `FERRITE_BIN` or freshly built.
pub fn locate(program: Program) -> Option<PathBuf> {
    match program {
        Program::Ferrite => Some(ferrite_binary().to_owned()),
        _ => locate_peer(program.name()),
    }
}

/// A peer's program by name: `valkey-cli`, `memcached` ...
pub fn locate_peer(name: &str) -> Option<PathBuf> {
    let peers = std::env::var_os("PEERS_DIR")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cache/ferrite-peers"))
        });
    let installed = peers.map(|root| root.join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    installed
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|file| file.exists())
}

/// Ferrite in the profile of this test run, built once per run.
fn ferrite_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(ready) = std::env::var_os("FERRITE_BIN") {
            return PathBuf::from(ready);
        }
        let own = std::env::current_exe().expect("a program knows its file");
        // Tests live in target/<profile>/deps, programs in target/<profile>.
        let profile_folder = own
            .ancestors()
            .skip(1)
            .find(|folder| folder.file_name().is_some_and(|name| name != "deps"))
            .expect("cargo puts test programs below the profile's folder");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--workspace", "--bin", "ferrite"]);
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if let Some(target) = profile_folder.parent() {
            build.arg("--target-dir").arg(target);
        }
        assert!(
            build.status().expect("cargo can be run").success(),
            "ferrite builds"
        );
        profile_folder.join("ferrite")
    })
}

fn ask(port: u16, request: &[u8], answers: &[&[u8]]) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut reply = [0; 16];
    let read = stream
        .write_all(request)
        .and_then(|()| stream.read(&mut reply));
    matches!(read, Ok(len) if answers.iter().any(|answer| reply[..len].starts_with(&answer[..len.min(answer.len())]) && len > 1))
}

/// A port that nobody listens on, never the same twice in one process. Below the range that systems use for outgoing
/// connections; each process starts at a random place, since several test programs may run at once.
pub fn free_port() -> u16 {
    const LOWEST: u64 = 11_500;
    const COUNT: u64 = 20_000;
    static NEXT: OnceLock<AtomicU64> = OnceLock::new();
    let next =
        NEXT.get_or_init(|| AtomicU64::new(RandomState::new().build_hasher().finish() % COUNT));
    loop {
        let port = (LOWEST + next.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// A new empty directory under the system's temporary one.
pub fn new_directory() -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let directory =
        std::env::temp_dir().join(format!("ferrite-test-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("the temporary directory is writable");
    directory
}
