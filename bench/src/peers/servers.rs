//! The servers that are compared: how each is found, started, and known to be ready.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::client::{Client, ping_request};
use crate::load::reply::Protocol;
use crate::{Result, affinity};

/// A server that does not answer by then will not.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Asked to end, a server with gigabytes to free gets this long.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Memory memcached may use, in MiB: more than any workload needs, so that nothing is evicted.
const MEMCACHED_MIB: &str = "16384";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Ferrite,
    Valkey,
    Redis,
    Dragonfly,
    Memcached,
    Pogocache,
    Floor,
}

/// One program spoken to in one protocol.
#[derive(Clone, Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
    pub(crate) protocol: Protocol,
    path: PathBuf,
}

/// Names as they appear in tables and after `--servers`.
const ALL: [(&str, Program, Protocol); 10] = [
    ("ferrite", Program::Ferrite, Protocol::Resp),
    ("ferrite-mc", Program::Ferrite, Protocol::Memcached),
    ("valkey", Program::Valkey, Protocol::Resp),
    ("redis", Program::Redis, Protocol::Resp),
    ("dragonfly", Program::Dragonfly, Protocol::Resp),
    ("memcached", Program::Memcached, Protocol::Memcached),
    ("pogocache", Program::Pogocache, Protocol::Resp),
    ("pogocache-mc", Program::Pogocache, Protocol::Memcached),
    ("floor", Program::Floor, Protocol::Resp),
    ("floor-mc", Program::Floor, Protocol::Memcached),
];

impl Contestant {
    pub(crate) fn is_ferrite(&self) -> bool {
        self.program == Program::Ferrite
    }

    pub(crate) fn is_floor(&self) -> bool {
        self.program == Program::Floor
    }

    /// Holds data types besides strings and answers as Redis does.
    pub(crate) fn has_types(&self) -> bool {
        self.protocol == Protocol::Resp
            && matches!(
                self.program,
                Program::Ferrite | Program::Valkey | Program::Redis | Program::Dragonfly
            )
    }

    /// Another of its kind can follow it by REPLICAOF.
    pub(crate) fn replicates(&self) -> bool {
        self.protocol == Protocol::Resp
            && matches!(
                self.program,
                Program::Ferrite | Program::Valkey | Program::Redis
            )
    }

    /// The installed contestants among `wanted`, or all installed ones. Naming one that is not there is an error.
    pub(crate) fn installed(
        wanted: &[String],
        ferrite: Option<&Path>,
        peers: &Path,
    ) -> Result<Vec<Self>> {
        if let Some(unknown) = wanted
            .iter()
            .find(|name| !ALL.iter().any(|(known, ..)| known == name))
        {
            return Err(format!("there is no server called {unknown}").into());
        }
        let mut found = Vec::new();
        for (name, program, protocol) in ALL {
            if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
                continue;
            }
            match program.find(ferrite, peers)? {
                Some(path) => found.push(Self {
                    name,
                    program,
                    protocol,
                    path,
                }),
                None if wanted.is_empty() => {}
                None => return Err(format!("{name} is not installed").into()),
            }
        }
        Ok(found)
    }
}

impl Program {
    fn find(self, ferrite: Option<&Path>, peers: &Path) -> Result<Option<PathBuf>> {
        let own = std::env::current_exe()?;
        let name = match self {
            Self::Floor => return Ok(Some(own)),
            Self::Ferrite => {
                let path = ferrite.map_or_else(|| own.with_file_name("ferrite"), Path::to_path_buf);
                return Ok(path.is_file().then_some(path));
            }
            Self::Valkey => "valkey-server",
            Self::Redis => "redis-server",
            Self::Dragonfly => "dragonfly",
            Self::Memcached => "memcached",
            Self::Pogocache => "pogocache",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::iter::once(peers.to_path_buf()).chain(std::env::split_paths(&path));
        Ok(directories
            .map(|directory| directory.join(name))
            .find(|path| path.is_file()))
    }
}

/// How servers of a group of workloads are started.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) threads: usize,
    pub(crate) cores: Vec<usize>,
    /// What the floor answers GET with.
    pub(crate) value_size: usize,
    pub(crate) max_clients: usize,
}

/// A running server; dropping it ends it and removes its directory.
pub(crate) struct Server {
    pub(crate) contestant: Contestant,
    pub(crate) target: SocketAddr,
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts the server on a free port and waits until it answers.
    pub(crate) fn start(contestant: &Contestant, setting: &Setting) -> Result<Self> {
        Self::start_under(&[], contestant, setting)
    }

    /// The same with another program and its arguments in front, such as valgrind.
    pub(crate) fn start_under(
        wrapper: &[String],
        contestant: &Contestant,
        setting: &Setting,
    ) -> Result<Self> {
        let port = free_port()?;
        let other_port = free_port()?;
        let directory =
            std::env::temp_dir().join(format!("ferrite-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let log = File::create(directory.join("log"))?;
        let mut words = wrapper.to_vec();
        words.push(contestant.path.to_string_lossy().into_owned());
        words.extend(arguments(contestant, setting, port, other_port, &directory));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&directory)
            .stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // The child inherits the cores of the thread that starts it.
        let child = affinity::pinned(&setting.cores, || {
            command
                .spawn()
                .map_err(|error| format!("starting {}: {error}", words[0]).into())
        })?;
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self {
            contestant: contestant.clone(),
            target,
            child,
            directory,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let protocol = self.contestant.protocol;
        loop {
            let answered = Client::connect(self.target, protocol)
                .and_then(|mut client| client.call(&ping_request(protocol)));
            let Err(error) = answered else {
                return Ok(());
            };
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let end: String = log.lines().rev().take(5).collect::<Vec<_>>().join(" | ");
                return Err(format!(
                    "{} does not start: {error}; its last words: {end}",
                    self.contestant.name
                )
                .into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the server and waits until it is gone.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("not a process id")?;
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.stop().is_err() {
            eprintln!("bench: could not end {}", self.contestant.name);
        }
        // A leftover directory in the temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn arguments(
    contestant: &Contestant,
    setting: &Setting,
    port: u16,
    other_port: u16,
    directory: &Path,
) -> Vec<String> {
    let (port, other_port) = (port.to_string(), other_port.to_string());
    let (threads, value_size) = (setting.threads.to_string(), setting.value_size.to_string());
    let (directory, max_clients) = (directory.to_string_lossy(), setting.max_clients.to_string());
    let like_redis = [
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--maxclients",
        &max_clients,
    ];
    let arguments: Vec<&str> = match contestant.program {
        Program::Ferrite => {
            let (resp, memcached) = match contestant.protocol {
                Protocol::Resp => (&port, &other_port),
                Protocol::Memcached => (&other_port, &port),
            };
            let ports = [
                "--port",
                resp,
                "--memcached-port",
                memcached,
                "--io-threads",
                &threads,
                "--dir",
                &directory,
            ];
            [&ports[..], &like_redis].concat()
        }
        Program::Valkey | Program::Redis => {
            let first = [
                "--port",
                &port,
                "--io-threads",
                &threads,
                "--dir",
                &directory,
            ];
            [&first[..], &like_redis].concat()
        }
        Program::Dragonfly => vec![
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--proactor_threads",
            &threads,
            "--dbfilename",
            "",
            "--dir",
            &directory,
        ],
        // Items may be a little over 1 MiB, for values of exactly that.
        Program::Memcached => vec![
            "-p",
            &port,
            "-U",
            "0",
            "-l",
            "127.0.0.1",
            "-t",
            &threads,
            "-m",
            MEMCACHED_MIB,
            "-c",
            &max_clients,
            "-u",
            "root",
            "-I",
            if setting.value_size >= 1 << 20 {
                "2m"
            } else {
                "1m"
            },
        ],
        Program::Pogocache => vec![
            "-p",
            &port,
            "--threads",
            &threads,
            "--maxconns",
            &max_clients,
        ],
        Program::Floor => vec![
            "floor",
            "--port",
            &port,
            "--threads",
            &threads,
            "--value-size",
            &value_size,
        ],
    };
    arguments.into_iter().map(str::to_owned).collect()
}

/// A port nobody listens on. Another process may take it first; then the server says so and does not start.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
