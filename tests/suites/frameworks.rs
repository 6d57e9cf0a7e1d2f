//! Job queues, rate limiters, locks, caches and sessions of Python and Node.js do their work on Ferrite and on the real
//! servers: what they report must be the same. The programs are in `tests/frameworks`, which `tests/frameworks.sh`
//! installs their libraries for.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tests::server::{Options, Server, missing};

/// Much longer than any of the programs takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/frameworks");

/// Where `tests/frameworks.sh` has put the libraries.
fn installed() -> Option<PathBuf> {
    let home = env::var_os("FRAMEWORKS_DIR")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache/ferrite-frameworks")))?;
    home.join(".complete").exists().then_some(home)
}

/// A program at work on one server.
struct Work {
    server: Server,
    child: Child,
}

impl Work {
    fn start(server: Server, mut command: Command) -> Work {
        let file = |name: &str| {
            File::create(server.directory().join(name)).expect("the directory is writable")
        };
        let child = command
            .env("RESP_PORT", server.resp_address().port().to_string())
            .env(
                "MEMCACHED_PORT",
                server.memcached_address().port().to_string(),
            )
            .stdin(Stdio::null())
            .stdout(file("transcript"))
            .stderr(file("errors"))
            .spawn()
            .expect("the interpreter can be run");
        Work { server, child }
    }

    /// What the program reported, once it has ended well.
    fn transcript(&mut self) -> String {
        let text =
            |name: &str| fs::read_to_string(self.server.directory().join(name)).unwrap_or_default();
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status.to_string(),
                None if Instant::now() > deadline => {
                    let _ = self.child.kill();
                    break "not in time".to_owned();
                }
                None => thread::sleep(Duration::from_millis(50)),
            }
        };
        assert_eq!(
            status,
            "exit status: 0",
            "on {:?}, after\n{}\n{}",
            self.server.program(),
            text("transcript"),
            text("errors")
        );
        text("transcript")
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs one of the programs on Ferrite and on the real servers, at the same time.
fn compare(program: &str) {
    let Some(home) = installed() else {
        return missing("the frameworks of tests/frameworks.sh");
    };
    let Some(real) = Server::valkey(&Options::new()) else {
        return missing("valkey-server");
    };
    let command = || {
        let file = Path::new(PROGRAMS).join(program);
        let mut command = match file.extension() {
            Some(extension) if extension == "py" => {
                let mut python = Command::new(home.join("python/bin/python"));
                python.args(["-B", "-W", "ignore"]);
                python
            }
            _ => {
                let mut node = Command::new("node");
                node.args(["--no-warnings", "--no-deprecation"])
                    .env("NODE_PATH", home.join("node/node_modules"));
                node
            }
        };
        command.arg(file);
        command
    };
    let mut tested = Work::start(Server::ferrite(&Options::new()), command());
    let mut reference = Work::start(real, command());
    let expected = reference.transcript();
    assert!(expected.lines().count() > 10, "{expected}");
    assert_eq!(tested.transcript(), expected);
}

#[test]
fn job_queues_of_python() {
    compare("python/queues.py");
}

#[test]
fn limiters_and_locks_of_python() {
    compare("python/limits_and_locks.py");
}

#[test]
fn caches_and_sessions_of_python() {
    compare("python/caches.py");
}

#[test]
fn job_queues_of_node() {
    compare("node/queues.js");
}

#[test]
fn limiters_and_locks_of_node() {
    compare("node/limits_and_locks.js");
}

#[test]
fn caches_and_sessions_of_node() {
    compare("node/caches.js");
}
