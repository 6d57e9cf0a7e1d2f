//! What has to be done for replicas every now and then, and before the end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::primary::Replica;
use crate::{
    log,
    server::{self, PauseReason, Server},
};

/// How often somebody looks whether replicas have come to the stream's end.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long the end waits for the last bytes to leave.
const LAST_BYTES: Duration = Duration::from_secs(1);

/// Once a second: pings replicas, gives up on those that are silent, and forgets a stream that nobody has followed for
/// long.
pub fn maintain(server: &Server, seconds: u64) {
    let replication = &server.replication;
    let settings = server.config.settings();
    if replication.replicas.lock().is_empty() {
        forget_stream(server, settings.repl_backlog_ttl);
        return;
    }
    replication.alone_since_ms.store(0, Ordering::Relaxed);
    let now = server::now().millis();
    for replica in replication.replicas.lock().iter() {
        let silent = now - replica.heard_ms();
        if replica.should_speak() && silent > i64::from(settings.repl_timeout) * 1000 {
            log::warning(format!(
                "Disconnecting timedout replica (streaming sync): {replica}"
            ));
            replica.close();
        }
    }
    if seconds.is_multiple_of(u64::from(settings.repl_ping_replica_period)) {
        replication.append_plain(&[b"PING"]);
    }
}

/// Ten times a second: closes the links to replicas for which more is kept than `client-output-buffer-limit` allows.
pub fn enforce_limits(server: &Server) {
    let replicas = server.replication.replicas.lock().clone();
    for replica in replicas {
        let client = &replica.client;
        client.note_unsent(held_bytes(server, &replica) as usize);
        client.enforce_output_limit();
        if client.is_killed() {
            replica.close();
        }
    }
}

/// What the primary keeps for a replica: the stream that it was not sent yet and, during a full sync, what has changed
/// since the cut and is not on its way yet.
fn held_bytes(server: &Server, replica: &Replica) -> u64 {
    let copy = match replica.is_being_copied() {
        true => server.keyspace.snapshot_bytes(),
        false => 0,
    };
    let stream = server.replication.stream.lock();
    let behind = replica
        .sent()
        .map_or(0, |sent| stream.end().saturating_sub(sent));
    behind + copy as u64
}

/// Gives up the stream if there has been no replica for `ttl_seconds`; 0 keeps it.
fn forget_stream(server: &Server, ttl_seconds: u64) {
    let replication = &server.replication;
    if !replication.is_active() || replication.is_replica() || ttl_seconds == 0 {
        return;
    }
    let now = server::now().millis();
    let since = replication.alone_since_ms.load(Ordering::Relaxed);
    if since == 0 {
        replication.alone_since_ms.store(now, Ordering::Relaxed);
        return;
    }
    let alone_seconds = (now - since).max(0) as u64 / 1000;
    if alone_seconds < ttl_seconds {
        return;
    }
    // Whoever comes now waits here before it looks for the stream.
    let replicas = replication.replicas.lock();
    if !replicas.is_empty() {
        return;
    }
    replication.settle_log(server, server.aof.is_enabled(), || {
        replication.active.store(false, Ordering::Relaxed);
    });
    replication.change_id();
    drop(replicas);
    replication.alone_since_ms.store(0, Ordering::Relaxed);
    log::notice(format!(
        "Replication backlog freed after {alone_seconds} seconds without connected replicas."
    ));
}

/// Before the end: lets replicas that are behind catch up, while writes wait, for `shutdown-timeout` at most, or until
/// the request is taken back or becomes urgent. Whether writes wait from now on.
pub async fn wait_for_replicas(server: &Server) -> bool {
    let replication = &server.replication;
    let timeout = Duration::from_secs(server.config.settings().shutdown_timeout.into());
    if lagging(server).is_empty() || timeout.is_zero() {
        return false;
    }
    log::notice("Waiting for replicas before shutting down.");
    server.pause.hold(PauseReason::Shutdown);
    replication.append_plain(&[b"REPLCONF", b"GETACK", b"*"]);
    let deadline = Instant::now() + timeout;
    let deadline_ms = server::now().millis() + timeout.as_millis() as i64;
    let shutdown = &server.shutdown;
    shutdown.deadline_ms.store(deadline_ms, Ordering::Relaxed);
    let may_wait = || shutdown.current().is_some_and(|request| !request.now);
    while may_wait() && !lagging(server).is_empty() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    shutdown.deadline_ms.store(0, Ordering::Relaxed);
    true
}

/// Says which replicas lack something at the end.
pub fn tell_lagging(server: &Server) {
    let replication = &server.replication;
    let all = replication.replicas.lock().len();
    let lagging = lagging(server);
    for replica in &lagging {
        let end = replication.offset();
        let behind = end.saturating_sub(replica.acknowledged());
        let lag = (server::now().millis() - replica.heard_ms()) / 1000;
        log::notice(format!(
            "Lagging replica {replica} reported offset {behind} behind master, lag={lag}, state=online."
        ));
    }
    if all > 0 {
        log::notice(format!(
            "{} of {all} replicas are in sync when shutting down.",
            all - lagging.len()
        ));
    }
}

/// Replicas that follow the stream and have not acknowledged all data. What was said to them only does not count.
fn lagging(server: &Server) -> Vec<Arc<Replica>> {
    let replication = &server.replication;
    let end = replication.stream.lock().data_end();
    let mut replicas = replication.replicas.lock().clone();
    replicas.retain(|replica| replica.is_online() && replica.acknowledged() < end);
    replicas
}

/// At the end, when nothing changes any more: lets the last bytes of the stream leave.
pub fn finish(server: &Server) {
    let replication = &server.replication;
    replication.end_stream(true);
    let deadline = Instant::now() + LAST_BYTES;
    let end = replication.offset();
    let is_behind = |replica: &Arc<Replica>| {
        replica.is_online() && replica.sent().is_some_and(|sent| sent < end)
    };
    while replication.replicas.lock().iter().any(is_behind) && Instant::now() < deadline {
        std::thread::sleep(LOOK_AGAIN);
    }
}
