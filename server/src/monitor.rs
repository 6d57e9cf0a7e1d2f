//! MONITOR: clients that are shown every command that runs.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::RwLock;
use protocol::resp::reply::ReplyWriter;

use crate::{
    config::words,
    dispatch::{
        args::Args,
        command::{Command, Flag},
    },
    metrics::command_log::is_secret,
    session::{mailbox::Message, registry::Client},
};

/// Those who watch. While nobody does, a command costs one load.
#[derive(Default)]
pub struct Monitors {
    count: AtomicUsize,
    clients: RwLock<Vec<Arc<Client>>>,
}

impl Monitors {
    #[inline]
    pub fn is_on(&self) -> bool {
        // Relaxed: a command that runs while a monitor joins may go unseen.
        self.count.load(Ordering::Relaxed) > 0
    }

    pub fn add(&self, client: &Arc<Client>) {
        client.is_monitor.store(true, Ordering::Relaxed);
        let mut clients = self.clients.write();
        clients.push(client.clone());
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    pub fn remove(&self, client: &Client) {
        client.is_monitor.store(false, Ordering::Relaxed);
        let mut clients = self.clients.write();
        clients.retain(|monitor| monitor.id != client.id);
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// Shows a command, after it ran; administration is not shown.
    #[cold]
    pub fn show(&self, command: &Command, args: &Args<'_>, database: usize, client: &Client) {
        if !command.has(Flag::Admin) && !command.has(Flag::SkipMonitor) {
            self.send(args, database, &client.address);
        }
    }

    /// Shows a script, before it runs, so that its commands come behind it.
    #[cold]
    pub fn show_script(&self, args: &Args<'_>, database: usize, client: &Client) {
        self.send(args, database, &client.address);
    }

    /// Shows a command that a script ran.
    #[cold]
    pub fn show_scripted(&self, command: &Command, args: &Args<'_>, database: usize) {
        if !command.has(Flag::Admin) && !command.has(Flag::SkipMonitor) {
            self.send(args, database, &"lua");
        }
    }

    fn send(&self, args: &Args<'_>, database: usize, source: &dyn Display) {
        let line = line(args, database, source);
        let message = Message::new(|writer: &mut ReplyWriter| {
            writer.raw(b"+");
            writer.raw(&line);
            writer.raw(b"\r\n");
        });
        let clients = self.clients.read();
        clients.iter().for_each(|monitor| monitor.push(&message));
    }
}

/// `time [database client] "word" ...`; quoting leaves no line ends in it.
fn line(args: &Args<'_>, database: usize, source: &dyn Display) -> Vec<u8> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut line = format!(
        "{}.{:06} [{database} {source}]",
        since.as_secs(),
        since.subsec_micros(),
    )
    .into_bytes();
    for (index, word) in args.from(0).enumerate() {
        line.push(b' ');
        let shown = match is_secret(args, index) {
            true => b"(redacted)",
            false => word,
        };
        words::quote(shown, &mut line);
    }
    line
}
