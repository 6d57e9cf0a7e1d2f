//! The thread that writes the log and forces it to disk.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Aof, Buffer, Segment,
    base::{self, Form},
    manifest::Manifest,
};
use crate::{
    config::AppendFsync, dispatch::args::Args, log, persistence::trouble::reason, server::Server,
};
use protocol::{
    limits::Limits,
    resp::request::{RequestParser, Step},
};

/// Longest time that bytes stay in the buffer unless `always` wants them written.
const ROUND: Duration = Duration::from_millis(50);
/// Time between two fsyncs of `everysec`.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// An fsync that takes longer is worth a line in the log.
const SLOW_SYNC: Duration = Duration::from_secs(2);
/// Time before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Opens the log's current increment, makes what is missing (at the first start, the base and the increment), and
/// starts writing. What there was has been loaded, and no client is there yet.
///
/// # Errors
/// The directory or a file cannot be made.
pub fn start(server: &Arc<Server>) -> io::Result<()> {
    let aof = &server.aof;
    let (directory, prefix) = aof.place();
    let (has_base, increment) = {
        let files = aof.files.lock();
        let manifest = &files.manifest;
        (
            manifest.base.is_some() || !manifest.increments.is_empty(),
            manifest.increments.last().cloned(),
        )
    };
    if !has_base {
        let form = Form::wanted(server);
        let part = aof.files.lock().manifest.next_base(&prefix, form);
        log::notice(format!(
            "Creating AOF base file {} on server start",
            part.name
        ));
        base::write(server, &directory.join(&part.name), form, || {})?;
        aof.change_manifest(|manifest| manifest.base = Some(part))?;
    }
    let name = match increment {
        Some(part) => part.name,
        None => {
            let part = aof.files.lock().manifest.next_increment(&prefix);
            let name = part.name.clone();
            log::notice(format!("Creating AOF incr file {name} on server start"));
            File::create(directory.join(&name))?;
            aof.change_manifest(|manifest| manifest.increments.push(part))?;
            name
        }
    };
    let file = OpenOptions::new().append(true).open(directory.join(name))?;
    // What was loaded may have been written by a process that was killed before it was on disk.
    file.sync_all()?;
    aof.switch_to(file);
    aof.begin(server);
    start_thread(server)
}

/// Starts the thread that writes; the first thing in the buffer is the file to write to.
pub(super) fn start_thread(server: &Arc<Server>) -> io::Result<()> {
    let aof = server.aof.clone();
    aof.configure(&server.config.settings());
    let weak = Arc::downgrade(server);
    let work = move || {
        let mut writer = Writer {
            file: None,
            dirty: false,
            unsynced: Some(Vec::new()),
            synced_len: 0,
            last_sync: Instant::now(),
            complained: false,
        };
        let mut fsync = AppendFsync::EverySecond;
        loop {
            if let Some(server) = weak.upgrade() {
                fsync = server.config.settings().appendfsync;
            }
            if writer.round(&aof, fsync) {
                return;
            }
        }
    };
    let thread = thread::Builder::new().name("aof".into()).spawn(work)?;
    *server.aof.thread.lock() = Some(thread);
    Ok(())
}

impl Aof {
    /// From here on effects are logged.
    pub(super) fn begin(&self, server: &Server) {
        server.replication.settle_log(server, true, || {
            self.enabled.store(true, Ordering::Relaxed);
        });
    }

    /// Logs nothing more, writes and syncs what is buffered, and ends the writing thread. Replies that wait for what the
    /// disk does not take are never sent.
    pub fn stop(&self, server: &Server) {
        server.replication.settle_log(server, false, || {});
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        self.buffer.lock().stopping = true;
        self.more.notify_one();
        // It ends by itself; a panic in it has been printed.
        let _ = thread.join();
        self.enabled.store(false, Ordering::Relaxed);
        let mut buffer = self.buffer.lock();
        // The count goes on, for those who still wait.
        let end = buffer.end;
        *buffer = Buffer::default();
        buffer.end = end;
        drop(buffer);
        self.lost.store(end, Ordering::Release);
        self.uncertain.store(0, Ordering::Relaxed);
        self.buffered_bytes.store(0, Ordering::Relaxed);
        self.wake_all();
    }

    fn is_stopping(&self) -> bool {
        self.buffer.lock().stopping
    }

    /// The files' directory, for those that write there.
    pub(super) fn place(&self) -> (std::path::PathBuf, String) {
        let files = self.files.lock();
        (files.directory.clone(), files.prefix.clone())
    }

    /// Changes the manifest, on disk first.
    pub(super) fn change_manifest(
        &self,
        change: impl FnOnce(&mut Manifest),
    ) -> io::Result<Manifest> {
        let mut files = self.files.lock();
        let mut manifest = files.manifest.clone();
        change(&mut manifest);
        manifest.store(&files.directory, &files.prefix)?;
        files.manifest = manifest.clone();
        Ok(manifest)
    }
}

struct Writer {
    file: Option<File>,
    /// Written but not synced.
    dirty: bool,
    /// What was written since the last fsync, to be written again if the next one fails; `None` if that is not all of
    /// it. Kept with `always` only, where it is what one fsync covers.
    unsynced: Option<Vec<u8>>,
    /// The file's length at the last fsync.
    synced_len: u64,
    last_sync: Instant,
    /// The log has a line about the failure that lasts.
    complained: bool,
}

impl Writer {
    /// Waits for something to write, writes it, and syncs as the policy says. True when the log has been stopped.
    fn round(&mut self, aof: &Aof, fsync: AppendFsync) -> bool {
        let (segments, end, stopping) = {
            let mut buffer = aof.buffer.lock();
            if buffer.segments.is_empty() && !buffer.stopping {
                aof.more.wait_for(&mut buffer, ROUND);
            }
            (
                std::mem::take(&mut buffer.segments),
                buffer.end,
                buffer.stopping,
            )
        };
        let always = fsync == AppendFsync::Always;
        if always && self.unsynced.is_none() {
            // The policy has changed: from here on everything is kept.
            self.sync(aof, stopping);
        }
        let mut is_whole = true;
        for segment in segments {
            is_whole &= self.write_segment(aof, segment, always, stopping);
        }
        let due = fsync == AppendFsync::EverySecond && self.last_sync.elapsed() >= SYNC_INTERVAL;
        if self.dirty && (always || due || stopping) {
            self.sync(aof, stopping);
        }
        if is_whole && !self.dirty && aof.uncertain.load(Ordering::Acquire) == 0 {
            aof.note_synced(end);
        }
        if stopping {
            return aof.buffer.lock().segments.is_empty();
        }
        if !always {
            // Workers append meanwhile, and are not woken for it.
            thread::sleep(if aof.buffered_bytes() > super::WAKE_BYTES {
                Duration::ZERO
            } else {
                ROUND / 5
            });
        }
        false
    }

    /// Writes a segment as a whole, however long that takes. False if the log ends before.
    fn write_segment(&mut self, aof: &Aof, segment: Segment, always: bool, stopping: bool) -> bool {
        if let Some(next) = segment.file {
            self.sync(aof, stopping);
            self.file = None;
            let Some(len) = self.measure(aof, &next, stopping) else {
                return false;
            };
            self.synced_len = len;
            self.file = Some(next);
        }
        let mut rest = segment.bytes.as_slice();
        let delay = aof.write_delay.load(Ordering::Relaxed);
        if delay > 0 && !rest.is_empty() {
            thread::sleep(Duration::from_micros(delay));
        }
        while let Some(file) = self.file.as_mut().filter(|_| !rest.is_empty()) {
            match file.write(rest) {
                Ok(written) => {
                    rest = &rest[written..];
                    self.dirty = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let written = segment.bytes.len() - rest.len();
                    let whole = whole_len(&segment.bytes[..written]);
                    if whole < written && take_back(file, (written - whole) as u64).is_ok() {
                        rest = &segment.bytes[whole..];
                    }
                    self.complain(aof, "Error writing to the AOF file", &error);
                    if stopping || aof.is_stopping() {
                        log::warning("The end of the append-only file is lost.");
                        return false;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
        if self.file.is_some() {
            let written = segment.bytes.len();
            aof.buffered_bytes.fetch_sub(written, Ordering::Relaxed);
            let size = &aof.status.current_size;
            size.fetch_add(written as u64, Ordering::Relaxed);
            if written > 0 {
                self.keep(segment.bytes, always);
                self.recover(aof);
            }
        }
        true
    }

    /// The length of a file to go on in, however long it takes to find out: it may be cut there later. `None` if the log
    /// ends before.
    fn measure(&mut self, aof: &Aof, file: &File, stopping: bool) -> Option<u64> {
        loop {
            match file.metadata() {
                Ok(facts) => return Some(facts.len()),
                Err(error) => {
                    self.complain(aof, "Error reading the AOF file's length", &error);
                    if stopping || aof.is_stopping() {
                        log::warning("The end of the append-only file is lost.");
                        return None;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn keep(&mut self, bytes: Vec<u8>, always: bool) {
        match &mut self.unsynced {
            Some(kept) if always && kept.is_empty() => *kept = bytes,
            Some(kept) if always => kept.extend_from_slice(&bytes),
            kept => *kept = None,
        }
    }

    /// Forces the file to disk, however long that takes; gives up only when the log ends.
    fn sync(&mut self, aof: &Aof, stopping: bool) {
        let mut failed = false;
        while let Some(file) = self.file.as_ref().filter(|_| self.dirty) {
            let started = Instant::now();
            let synced = match &self.unsynced {
                Some(kept) if failed => write_again(file, self.synced_len, kept),
                _ => file.sync_data(),
            };
            match synced.and_then(|()| file.metadata()) {
                Ok(facts) => {
                    self.note_duration(aof, started.elapsed());
                    self.dirty = false;
                    self.unsynced = Some(Vec::new());
                    self.synced_len = facts.len();
                    self.last_sync = Instant::now();
                    self.recover(aof);
                }
                Err(error) => {
                    failed = true;
                    if self.unsynced.is_none() {
                        // Nobody knows what of the file is on disk now, and an fsync that succeeds later does not tell:
                        // only a new log does.
                        aof.uncertain.fetch_add(1, Ordering::Release);
                        let scheduled = &aof.status.rewrite_scheduled;
                        scheduled.store(true, Ordering::Relaxed);
                    }
                    self.complain(aof, "Error forcing the AOF file to disk", &error);
                    if stopping || aof.is_stopping() {
                        return;
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    fn note_duration(&self, aof: &Aof, duration: Duration) {
        if duration > SLOW_SYNC {
            aof.status.delayed_fsyncs.fetch_add(1, Ordering::Relaxed);
            log::notice(format!(
                "Asynchronous AOF fsync is taking too long (disk is busy?): {:.1} seconds.",
                duration.as_secs_f64()
            ));
        }
    }

    fn complain(&mut self, aof: &Aof, what: &str, error: &io::Error) {
        aof.note_error(error);
        if !self.complained {
            log::warning(format!("{what}: {}", reason(error)));
            self.complained = true;
        }
    }

    fn recover(&mut self, aof: &Aof) {
        if self.complained {
            self.complained = false;
            log::warning("AOF write error looks solved. The server can write again.");
            aof.status.last_write_ok.store(true, Ordering::Relaxed);
        }
    }
}

/// Shortens a file by so many bytes that were written last: half a command does no good.
fn take_back(file: &File, bytes: u64) -> io::Result<()> {
    let size = file.metadata()?.len();
    file.set_len(size.saturating_sub(bytes))
}

/// Writes to disk what an fsync did not: after one has failed the system may take pages for written that are not, so that
/// they are cut off and written as new ones.
fn write_again(mut file: &File, synced_len: u64, bytes: &[u8]) -> io::Result<()> {
    file.set_len(synced_len)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// How much of the beginning of a segment is commands and transactions that are complete.
fn whole_len(bytes: &[u8]) -> usize {
    let limits = Limits {
        max_bulk_len: usize::MAX >> 1,
        ..Limits::authenticated()
    };
    let mut parser = RequestParser::new();
    let mut spans = Vec::new();
    let (mut at, mut whole, mut in_transaction) = (0, 0, false);
    while at < bytes.len() {
        if bytes[at] == b'#' {
            let Some(length) = memchr::memchr(b'\n', &bytes[at..]) else {
                break;
            };
            at += length + 1;
        } else {
            spans.clear();
            let Ok(Step::Request { consumed }) = parser.parse(&bytes[at..], &limits, &mut spans)
            else {
                break;
            };
            let args = Args::new(&bytes[at..at + consumed], &spans);
            in_transaction = (in_transaction || args.is(0, "MULTI")) && !args.is(0, "EXEC");
            at += consumed;
        }
        if !in_transaction {
            whole = at;
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_command_or_transaction_is_not_whole() {
        let one = b"*1\r\n$4\r\nPING\r\n";
        let multi = b"*1\r\n$5\r\nMULTI\r\n";
        let exec = b"*1\r\n$4\r\nEXEC\r\n";
        let stamp = b"#TS:1700000000\r\n";
        let bytes = [&stamp[..], one, multi, one, exec, one].concat();
        let ends = [
            0,
            stamp.len(),
            stamp.len() + one.len(),
            bytes.len() - one.len(),
            bytes.len(),
        ];
        for len in 0..=bytes.len() {
            let whole = whole_len(&bytes[..len]);
            let expected = ends.iter().rev().find(|&&end| end <= len);
            assert_eq!(Some(&whole), expected, "{len}");
        }
    }
}
