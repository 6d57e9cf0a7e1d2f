//! FAILOVER: hands the part of the primary to a replica once it has everything, while writes wait.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    log,
    server::{self, PauseReason, Server},
};

/// How often the replica's progress is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long an abortion may take to be seen.
const ABORT: Duration = Duration::from_secs(2);
/// How long the replica may take to answer once it is asked to take over.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Where a failover stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    None,
    WaitingForSync,
    InProgress,
}

#[derive(Default)]
pub struct Failover {
    state: AtomicU8,
    aborted: AtomicBool,
}

/// What FAILOVER asks for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Where the new primary listens; `None` takes the first replica that has everything.
    pub target: Option<(String, u16)>,
    pub timeout: Option<Duration>,
    /// Hands over when the time is up, even if the target lacks something.
    pub force: bool,
}

impl Failover {
    pub fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::None,
            1 => State::WaitingForSync,
            _ => State::InProgress,
        }
    }

    /// The word for it in INFO.
    pub fn name(&self) -> &'static str {
        match self.state() {
            State::None => "no-failover",
            State::WaitingForSync => "waiting-for-sync",
            State::InProgress => "failover-in-progress",
        }
    }

    fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Gives up what has not handed over, and waits until that has been seen. False if nothing is under way.
    pub fn abort(&self) -> bool {
        if self.state() == State::None {
            return false;
        }
        self.aborted.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + ABORT;
        while self.state() != State::None && Instant::now() < deadline {
            thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

/// Starts a failover on a thread of its own; nothing else may be under way.
pub fn start(server: &Arc<Server>, request: Request) {
    let failover = &server.replication.failover;
    failover.aborted.store(false, Ordering::Relaxed);
    failover.set(State::WaitingForSync);
    server.pause.hold(PauseReason::Failover);
    let working = server.clone();
    let work = move || {
        run(&working, &request);
        working.replication.failover.set(State::None);
        working.resume(PauseReason::Failover);
    };
    if let Err(error) = thread::Builder::new().name("failover".into()).spawn(work) {
        log::warning(format!("FAILOVER cannot be started: {error}"));
        failover.set(State::None);
        server.resume(PauseReason::Failover);
    }
}

fn run(server: &Arc<Server>, request: &Request) {
    let replication = &server.replication;
    let Some((host, port)) = wait_for_replica(server, request) else {
        log::notice("Failover aborted.");
        return;
    };
    log::notice(format!(
        "Failover target is {host}:{port}, asking it to take over."
    ));
    replication.failover.set(State::InProgress);
    let link = replication.ask_to_take_over(server, &host, port);
    server
        .config
        .change(|settings| settings.replicaof = Some((host.clone(), port)));
    let deadline = Instant::now() + HANDSHAKE;
    while !link.is_up() {
        let aborted = replication.failover.aborted.load(Ordering::Relaxed);
        let refused = link.was_refused();
        if refused {
            log::warning(format!(
                "Aborting failover to {host}:{port}: Failover target rejected psync request"
            ));
        }
        if aborted || refused || Instant::now() > deadline {
            log::warning("The failover target did not take over: this server stays the primary.");
            replication.promote(server);
            server.config.change(|settings| settings.replicaof = None);
            return;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Waits until the target, or any replica, has the whole stream. `None` if it does not come to that.
fn wait_for_replica(server: &Server, request: &Request) -> Option<(String, u16)> {
    let replication = &server.replication;
    let started = Instant::now();
    replication.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
    let mut asked = server::now().millis();
    loop {
        if replication.failover.aborted.load(Ordering::Relaxed) {
            return None;
        }
        let offset = replication.offset();
        let ready = replication.replicas.lock().iter().find_map(|replica| {
            let place = replica.place();
            let wanted = request
                .target
                .as_ref()
                .is_none_or(|target| *target == place);
            (wanted && replica.acknowledged() >= offset).then_some(place)
        });
        if ready.is_some() {
            return ready;
        }
        if request
            .timeout
            .is_some_and(|timeout| started.elapsed() >= timeout)
        {
            let forced = request.target.clone().filter(|_| request.force);
            if let Some((host, port)) = &forced {
                log::notice(format!(
                    "Failover to {host}:{port} time out exceeded, failing over."
                ));
            } else {
                log::notice("Replica never caught up before timeout");
            }
            return forced;
        }
        // An answer may have been overtaken by a ping.
        let now = server::now().millis();
        if now - asked > 1000 {
            replication.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
            asked = now;
        }
        thread::sleep(LOOK_AGAIN);
    }
}
