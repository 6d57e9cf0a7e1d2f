//! Rewriting the log: a new base from a snapshot, and a new increment from its cut on.
//!
//! The new increment is in the manifest before anything goes into it, and the new base before the files that it
//! replaces are deleted, so that at every moment the manifest names files that hold all the data.

use std::{
    fs::{self, File},
    io,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    base::{self, Form},
    manifest::Part,
    writer,
};
use crate::{
    log,
    server::{self, Server},
};

/// How long a rewrite may take to end that is given up, and how often somebody looks.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Time between two tries to replace a log of which nobody knows what is on disk.
const RETRY_MS: i64 = 5000;

/// Starts a rewrite on a thread of its own. False if one is running.
pub fn start_rewrite(server: &Arc<Server>) -> bool {
    start_job(server, Goal::Shorter)
}

/// Starts the rewrite that was scheduled, or that the log's growth since the last one asks for.
pub fn rewrite_when_grown(server: &Arc<Server>) {
    let aof = &server.aof;
    let status = &aof.status;
    let saving = server.snapshots.in_background.load(Ordering::Relaxed);
    if saving || status.rewriting.load(Ordering::Relaxed) {
        return;
    }
    let can_write = status.last_write_ok.load(Ordering::Relaxed);
    let started_ms = status.rewrite_started_ms.load(Ordering::Relaxed);
    let is_rested = server::now().millis() - started_ms > RETRY_MS;
    let is_uncertain = aof.uncertain.load(Ordering::Relaxed) != 0;
    let is_wanted = status.rewrite_scheduled.load(Ordering::Relaxed) || is_uncertain && is_rested;
    if can_write && is_wanted {
        start_rewrite(server);
        return;
    }
    let settings = server.config.settings();
    let percentage = u64::from(settings.auto_aof_rewrite_percentage);
    // After a failure somebody should look first.
    if !aof.is_enabled() || percentage == 0 || !status.last_rewrite_ok.load(Ordering::Relaxed) {
        return;
    }
    let size = status.current_size.load(Ordering::Relaxed);
    let base = status.base_size.load(Ordering::Relaxed).max(1);
    let growth = (size.saturating_mul(100) / base).saturating_sub(100);
    if size > settings.auto_aof_rewrite_min_size && growth >= percentage {
        log::notice(format!(
            "Starting automatic rewriting of AOF on {growth}% growth"
        ));
        start_rewrite(server);
    }
}

/// Turns the log on while clients are there: it begins with a base of what there is.
///
/// # Errors
/// Why it cannot be.
pub fn turn_on(server: &Arc<Server>) -> Result<(), String> {
    cancel_rewrite(server);
    super::replay::prepare(server)?;
    if start_job(server, Goal::FirstBase) {
        Ok(())
    } else {
        Err("a rewrite is running".into())
    }
}

/// Turns the log off; its files stay.
pub fn turn_off(server: &Server) {
    if server.aof.status.rewriting.load(Ordering::Relaxed) {
        log::notice("Killing running AOF rewrite child");
    }
    server.aof.status.cancelled.store(true, Ordering::Relaxed);
    server.aof.stop(server);
}

/// Gives up the rewrite that runs and waits for its end, which is near then.
pub fn cancel_rewrite(server: &Server) {
    let status = &server.aof.status;
    let deadline = Instant::now() + CANCEL_PATIENCE;
    status.cancelled.store(true, Ordering::Relaxed);
    while status.rewriting.load(Ordering::Acquire) && Instant::now() < deadline {
        thread::sleep(LOOK_AGAIN);
    }
}

/// What a rewrite is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// A shorter log of the same data.
    Shorter,
    /// A log where there was none, or none that goes on.
    FirstBase,
}

fn start_job(server: &Arc<Server>, goal: Goal) -> bool {
    // As the settings are now: they may change while it runs.
    let form = Form::wanted(server);
    let status = &server.aof.status;
    if status.rewriting.swap(true, Ordering::AcqRel) {
        return false;
    }
    status.cancelled.store(false, Ordering::Relaxed);
    status.rewrite_scheduled.store(false, Ordering::Relaxed);
    status
        .rewrite_started_ms
        .store(server::now().millis(), Ordering::Relaxed);
    let is_first = goal == Goal::FirstBase;
    status.first_base.store(is_first, Ordering::Relaxed);
    let working = server.clone();
    let work = move || {
        let started = Instant::now();
        let result = rewrite(&working, goal, form);
        let status = &working.aof.status;
        status
            .last_rewrite_seconds
            .store(started.elapsed().as_secs() as i64, Ordering::Relaxed);
        let cancelled = status.cancelled.load(Ordering::Relaxed);
        if result.is_ok() || !cancelled {
            status
                .last_rewrite_ok
                .store(result.is_ok(), Ordering::Relaxed);
        }
        match result {
            Ok(()) => {
                status.rewrites.fetch_add(1, Ordering::Relaxed);
                status.rewrite_failures.store(0, Ordering::Relaxed);
                log::notice("Background AOF rewrite finished successfully");
            }
            Err(_) if cancelled => {
                log::notice("Background AOF rewrite terminated by user request");
            }
            Err(error) => {
                status.rewrite_failures.fetch_add(1, Ordering::Relaxed);
                log::warning(format!(
                    "Background AOF rewrite terminated with error: {error}"
                ));
            }
        }
        status.first_base.store(false, Ordering::Relaxed);
        status.rewriting.store(false, Ordering::Release);
    };
    log::notice("Background append only file rewriting started");
    let started = thread::Builder::new()
        .name("aof-rewrite".into())
        .spawn(work);
    if started.is_err() {
        status.first_base.store(false, Ordering::Relaxed);
        status.rewriting.store(false, Ordering::Release);
    }
    started.is_ok()
}

fn rewrite(server: &Arc<Server>, goal: Goal, form: Form) -> io::Result<()> {
    let aof = &server.aof;
    let (directory, prefix) = aof.place();
    let mut increment: Option<(Part, File)> = None;
    if aof.is_enabled() || goal == Goal::FirstBase {
        let part = aof.files.lock().manifest.next_increment(&prefix);
        let file = File::options()
            .create(true)
            .append(true)
            .open(directory.join(&part.name))?;
        if goal == Goal::Shorter {
            aof.change_manifest(|manifest| manifest.increments.push(part.clone()))?;
        }
        increment = Some((part, file));
    }
    let first = increment.as_ref().map(|(part, _)| part.clone());
    let beside = directory.join(format!("temp-rewriteaof-bg-{}.aof", std::process::id()));
    let kept = increment.as_ref().map(|(part, _)| part.sequence);
    if goal == Goal::FirstBase {
        writer::start_thread(server)?;
    }
    let mut uncertain = 0;
    let written = base::write(server, &beside, form, || {
        uncertain = aof.uncertain.load(Ordering::Acquire);
        if let Some((_, file)) = increment.take() {
            aof.switch_to(file);
        }
        if goal == Goal::FirstBase {
            aof.begin(server);
        }
    });
    if let Err(error) = written {
        // A temporary file that stays is overwritten by the next try.
        let _ = fs::remove_file(&beside);
        if goal == Goal::FirstBase {
            aof.stop(server);
        }
        return Err(error);
    }
    let mut gone = Vec::new();
    let next = aof.files.lock().manifest.next_base(&prefix, form);
    fs::rename(&beside, directory.join(&next.name))?;
    aof.change_manifest(|manifest| {
        gone.extend(manifest.base.take());
        if goal == Goal::FirstBase {
            gone.append(&mut manifest.increments);
            manifest.increments.extend(first);
        }
        let is_old = |part: &Part| kept.is_none_or(|kept| part.sequence < kept);
        gone.extend(manifest.increments.extract_if(.., |part| is_old(part)));
        gone.append(&mut manifest.history);
        manifest.base = Some(next.clone());
    })?;
    // What failed after the cut may concern the new file: then the next rewrite settles it.
    let _ = aof
        .uncertain
        .compare_exchange(uncertain, 0, Ordering::AcqRel, Ordering::Relaxed);
    for part in gone {
        // A file that is in no manifest harms nobody.
        let _ = fs::remove_file(directory.join(part.name));
    }
    let size = fs::metadata(directory.join(&next.name))?.len();
    aof.status.base_size.store(size, Ordering::Relaxed);
    aof.status.current_size.store(size, Ordering::Relaxed);
    Ok(())
}
