//! Servers that a study starts for itself, with a memory limit and a policy.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::load::client::{Client, ping_request};
use crate::load::reply::Protocol;

const READY_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// memcached takes its limit in these.
const MIB: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    Ferrite,
    Valkey,
    Memcached,
}

/// A program with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) program: Program,
    policy: &'static str,
}

pub(super) const ALL: &[Contender] = &[
    contender("ferrite-lru", Program::Ferrite, "allkeys-lru"),
    contender("ferrite-lfu", Program::Ferrite, "allkeys-lfu"),
    contender("ferrite-s3fifo", Program::Ferrite, "allkeys-s3fifo"),
    contender("ferrite-sieve", Program::Ferrite, "allkeys-sieve"),
    contender("ferrite-tinylfu", Program::Ferrite, "allkeys-tinylfu"),
    contender("valkey-lru", Program::Valkey, "allkeys-lru"),
    contender("valkey-lfu", Program::Valkey, "allkeys-lfu"),
    contender("memcached", Program::Memcached, ""),
];

const fn contender(name: &'static str, program: Program, policy: &'static str) -> Contender {
    Contender {
        name,
        program,
        policy,
    }
}

impl Contender {
    pub(super) fn protocol(self) -> Protocol {
        match self.program {
            Program::Memcached => Protocol::Memcached,
            _ => Protocol::Resp,
        }
    }

    /// Where the program is: Ferrite beside this one, others in `peers` or on the path.
    pub(super) fn find(self, ferrite: Option<&Path>, peers: &Path) -> Result<Option<PathBuf>> {
        let name = match self.program {
            Program::Ferrite => {
                let own = std::env::current_exe()?.with_file_name("ferrite");
                let path = ferrite.map_or(own, Path::to_path_buf);
                return Ok(path.is_file().then_some(path));
            }
            Program::Valkey => "valkey-server",
            Program::Memcached => "memcached",
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::iter::once(peers.to_path_buf())
            .chain(std::env::split_paths(&path))
            .map(|directory| directory.join(name))
            .find(|path| path.is_file()))
    }

    fn arguments(
        self,
        port: u16,
        memcached_port: u16,
        directory: &Path,
        limit_bytes: u64,
    ) -> Vec<String> {
        let (port, memcached_port) = (port.to_string(), memcached_port.to_string());
        let limit = match self.program {
            Program::Memcached => (limit_bytes / MIB).max(1),
            _ => limit_bytes,
        };
        let limit = limit.to_string();
        let directory = directory.to_string_lossy();
        let redis = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            &directory,
            "--maxmemory",
            &limit,
            "--maxmemory-policy",
            self.policy,
        ];
        let arguments = match self.program {
            Program::Ferrite => [&redis[..], &["--memcached-port", &memcached_port]].concat(),
            Program::Valkey => redis.to_vec(),
            Program::Memcached => vec![
                "-p",
                &port,
                "-U",
                "0",
                "-l",
                "127.0.0.1",
                "-m",
                &limit,
                "-u",
                "root",
            ],
        };
        arguments.into_iter().map(str::to_owned).collect()
    }
}

/// A running server; dropping it ends it and removes its directory.
pub(super) struct Running {
    pub(super) target: SocketAddr,
    /// Ferrite's other port.
    pub(super) memcached: Option<SocketAddr>,
    child: Child,
    directory: PathBuf,
}

impl Running {
    /// # Errors
    /// A program that does not start or does not answer in time.
    pub(super) fn start(contender: Contender, path: &Path, limit_bytes: u64) -> Result<Self> {
        let port = free_port()?;
        let memcached_port = free_port()?;
        let directory =
            std::env::temp_dir().join(format!("ferrite-strategies-{}-{port}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let log = File::create(directory.join("log"))?;
        let child = Command::new(path)
            .args(contender.arguments(port, memcached_port, &directory, limit_bytes))
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("starting {}: {error}", path.display()))?;
        let mut running = Self {
            target: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            memcached: (contender.program == Program::Ferrite)
                .then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, memcached_port))),
            child,
            directory,
        };
        running.wait_until_ready(contender)?;
        Ok(running)
    }

    fn wait_until_ready(&mut self, contender: Contender) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let protocol = contender.protocol();
        loop {
            let answered = Client::connect(self.target, protocol)
                .and_then(|mut client| client.call(&ping_request(protocol)));
            let Err(error) = answered else {
                return Ok(());
            };
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                let words = log.lines().last().unwrap_or_default();
                let name = contender.name;
                return Err(format!("{name} does not start: {error}; it says: {words}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) -> Result<()> {
        let process = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or("not a process id")?;
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        kill_process(process, Signal::TERM)?;
        let deadline = Instant::now() + ENDS_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop().is_err() {
            eprintln!("bench: could not end the server at {}", self.target);
        }
        // A leftover directory in the temporary files harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A port nobody listens on. Another process may take it first; then the server says so and does not start.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
