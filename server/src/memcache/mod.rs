//! memcached's text protocol, classic and meta, over the keys of database 0.
//!
//! Items are string entries with optional client flags and CAS. A CAS is given to an item when somebody first asks
//! for it, and changes with every write from either protocol, so that items nobody compares cost nothing. Keys that
//! hold another type answer an error.

mod dump;
pub mod item;
mod meta;
pub mod note;
mod permissions;
pub mod prefixes;
mod room;
mod stats;
mod text;
pub mod watch;

use std::sync::Arc;

use protocol::{
    memcache::{
        Limits, LruCrawler, Parser, Request, Shutdown, Step, StoreVerb, Then as AfterRefusal,
        response::{Answer, ResponseWriter},
    },
    output::Output,
};
use smallvec::SmallVec;
use storage::{db::Db, keyspace::Key};

use self::{
    dump::{Dump, Style},
    watch::{Log, Logs, Stored},
};
use crate::{
    acl::{User, check::Reason},
    config::Settings,
    dispatch::{command::Later, gates},
    net::connection::{Protocol, Then, Turn},
    persistence::trouble::Trouble,
    runtime::Worker,
    server::{self, ShutdownRequest},
    session::Session,
};

/// Reply bytes after which they are sent before more requests run.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// The version that clients gate features on.
const VERSION: &str = "1.6.45";

/// A memcached connection.
pub struct Memcache {
    session: Session,
    parser: Parser,
    /// It is shown what others do, and runs no more commands.
    watches: bool,
    /// The list that its last command asked for, as far as it is not written.
    dump: Option<Box<Dump>>,
}

impl Memcache {
    pub fn new(mut session: Session) -> Memcache {
        let settings = session.server.config.settings();
        session.flags.authenticated =
            session.server.acl.is_open() && settings.memcached_auth_file.as_os_str().is_empty();
        session.server.watchers.connection(&session.client, None);
        Memcache {
            session,
            parser: Parser::new(),
            watches: false,
            dump: None,
        }
    }

    /// Runs one request; what to do then, if not to go on.
    fn execute(
        &mut self,
        worker: &mut Worker,
        db: &mut Db<'_>,
        settings: &Settings,
        limits: &Limits,
        request: Request<'_>,
    ) -> Option<Then> {
        self.session.commands += 1;
        let metrics = worker.metrics.clone();
        let server = self.session.server.clone();
        let counters = stats::Counters {
            server: &server,
            counters: &metrics.memcached,
            limits,
            log: Log {
                server: &server,
                descriptor: self.session.client.descriptor,
            },
        };
        let output = worker.reply.writer.output_mut();
        if !self.session.flags.authenticated {
            counters.add(stats::Counted::AuthCmds);
            self.authenticate(settings, &request, &mut ResponseWriter::new(output));
            return matches!(request, Request::Quit).then_some(Then::Close);
        }
        if !self.session.user.is_unrestricted()
            && let Err(denial) = permissions::check(&self.session, &request)
        {
            let error = denial.error(&self.session.user);
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            ResponseWriter::new(output).client_error(&text);
            return None;
        }
        if self.session.server.loading.is_active() && permissions::needs_data(&request) {
            ResponseWriter::new(output).server_error("loading the dataset in memory");
            return None;
        }
        if self.session.server.replication.concerns_writes()
            && permissions::changes_data(&request)
            && let Err(error) = gates::check_writes(&self.session)
        {
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            ResponseWriter::new(output).server_error(&text);
            return None;
        }
        if let Some(trouble) = Trouble::now(&self.session.server)
            && permissions::changes_data(&request)
        {
            let text = String::from_utf8_lossy(trouble.error().as_bytes()).into_owned();
            ResponseWriter::new(output).server_error(&text);
            return None;
        }
        let mark = output.mark();
        if db.keyspace().eviction.is_limited()
            && room::is_refused(&self.session, db, settings, &request)
        {
            room::refuse(db, &counters, &request, &mut ResponseWriter::new(output));
            return None;
        }
        if counters.log.is_on() {
            counters.log.looks(db, &request);
        }
        let result = match request {
            Request::Quit => return Some(Then::Close),
            Request::Shutdown { way } => return self.shut_down(settings, way, output),
            Request::LruCrawler {
                command: LruCrawler::Metadump { .. } | LruCrawler::Mgdump { .. },
                ..
            } if settings.memcached_disable_dumping => {
                ResponseWriter::new(output).line("ERROR metadump not allowed");
                return None;
            }
            Request::LruCrawler {
                command: LruCrawler::Metadump { classes },
                ..
            } => return self.dump(Style::Facts, classes, output),
            Request::LruCrawler {
                command: LruCrawler::Mgdump { classes },
                ..
            } => return self.dump(Style::Requests, classes, output),
            Request::Watch { logs } => {
                self.watch(settings, Logs::named(logs), output);
                return None;
            }
            Request::Get { .. }
            | Request::GetAndTouch { .. }
            | Request::Store { .. }
            | Request::Delete { .. }
            | Request::Increment { .. }
            | Request::Decrement { .. }
            | Request::Touch { .. } => text::run(db, &counters, request, output),
            Request::MetaGet { .. }
            | Request::MetaSet { .. }
            | Request::MetaDelete { .. }
            | Request::MetaArithmetic { .. }
            | Request::MetaNoop
            | Request::MetaDebug { .. } => meta::run(db, &counters, request, output),
            _ => stats::run(&self.session, db, settings, &counters, request, output),
        };
        if let Err(error) = result {
            output.truncate(mark);
            ResponseWriter::new(output).server_error(error.text());
        }
        None
    }

    /// Before a client has said who it is, a `set` whose value is `user password` is the only command.
    fn authenticate(
        &mut self,
        settings: &Settings,
        request: &Request<'_>,
        answer: &mut ResponseWriter<'_>,
    ) {
        let Request::Store {
            verb: StoreVerb::Set,
            value,
            ..
        } = request
        else {
            answer.client_error("unauthenticated");
            return;
        };
        let user = self.user_of(settings, value);
        match user {
            Some(user) => {
                self.session.become_user(user);
                answer.answer(Answer::Stored);
            }
            None if !value.contains(&b' ') => {
                answer.client_error("bad authentication token format");
            }
            None => {
                let name = value.split(|&byte| byte == b' ').next().unwrap_or_default();
                self.session
                    .note_denial(Reason::Auth, b"set", name, "toplevel");
                answer.client_error("authentication failure");
            }
        }
    }

    /// The user that `user password` names: one of the server's, or for a line of the file with memcached's users the
    /// default one.
    fn user_of(&self, settings: &Settings, credentials: &[u8]) -> Option<Arc<User>> {
        let space = credentials.iter().position(|&byte| byte == b' ')?;
        let (name, password) = (&credentials[..space], &credentials[space + 1..]);
        let acl = &self.session.server.acl;
        let is_free = |user: &Arc<User>| user.permissions().nopass;
        let user = acl
            .authenticate(name, password)
            .filter(|user| !is_free(user));
        user.or_else(|| {
            let path = settings.resolve(&settings.memcached_auth_file);
            let users = std::fs::read(path).unwrap_or_default();
            let given = [name, b":", password].concat();
            users
                .split(|&byte| byte == b'\n')
                .any(|line| !line.is_empty() && same(line.trim_ascii_end(), &given))
                .then(|| acl.default_user().clone())
        })
    }

    fn dump(&mut self, style: Style, classes: &[u8], output: &mut Output) -> Option<Then> {
        let dump = Dump::begin(style, classes, &mut ResponseWriter::new(output))?;
        self.dump = Some(Box::new(dump));
        Some(Then::Later)
    }

    /// Turns the connection into a watcher. Its commands so far must have been answered.
    fn watch(&mut self, settings: &Settings, logs: Option<Logs>, output: &mut Output) {
        let server = &self.session.server;
        let is_first = output.is_empty();
        let mut answer = ResponseWriter::new(output);
        let Some(logs) = logs else {
            answer.answer(Answer::Error);
            return;
        };
        if settings.memcached_disable_watch {
            answer.client_error("watch commands not allowed");
        } else if !is_first {
            answer.line("ERROR cannot pipeline other commands before watch");
        } else if server
            .watchers
            .add(&server.keyspace, &self.session.client, logs)
        {
            self.watches = true;
            answer.answer(Answer::Ok);
        } else {
            answer.line("WATCHER_TOO_MANY log watcher limit reached");
        }
    }

    fn shut_down(&self, settings: &Settings, _way: Shutdown, output: &mut Output) -> Option<Then> {
        if settings.memcached_allow_shutdown {
            self.session
                .server
                .shutdown
                .request(ShutdownRequest::default());
            return Some(Then::Close);
        }
        ResponseWriter::new(output).line("SERVER_ERROR: shutdown not enabled");
        None
    }
}

impl Drop for Memcache {
    fn drop(&mut self) {
        let server = &self.session.server;
        if self.watches {
            server
                .watchers
                .remove(&server.keyspace, &self.session.client);
        }
        let reason = if self.session.client.is_killed() {
            "shutdown"
        } else {
            "normal"
        };
        server
            .watchers
            .connection(&self.session.client, Some(reason));
    }
}

/// Compares in a time that depends on the lengths only.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

/// Lines of a pipeline whose keys are fetched together.
const LINES_AHEAD: usize = 64;

/// Brings the keys of a pipeline towards the cache. That a line's second word is a key is a guess, and costs nothing else
/// where it is wrong. How many bytes were looked at.
fn prefetch(db: &Db<'_>, input: &[u8]) -> usize {
    let mut hashes = SmallVec::<[u64; LINES_AHEAD]>::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', input).take(LINES_AHEAD) {
        let line = &input[start..end];
        start = end + 1;
        if start == input.len() && hashes.is_empty() {
            // It waits for nothing else.
            break;
        }
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\r'));
        if let Some(key) = words.nth(1).filter(|key| !key.is_empty()) {
            hashes.push(storage::hash::hash(key));
        }
    }
    db.keyspace().prefetch_each(0, hashes.iter().copied());
    start.max(1)
}

impl Protocol for Memcache {
    fn session(&self) -> &Session {
        &self.session
    }

    fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Nobody writes RESP replies to a memcached connection.
    fn go_on(&mut self, _later: Box<dyn Later>) {}

    fn process(&mut self, worker: &mut Worker, input: &[u8]) -> Turn {
        if self.watches {
            return Turn {
                consumed: input.len(),
                then: Then::Read(1),
            };
        }
        let server = worker.server.clone();
        let now = server::now();
        worker.begin_turn(self.session.version);
        let settings = worker.current_settings(&server);
        let known = Limits::new(settings.memcached_item_size_max as usize);
        let stranger = Limits::unauthenticated();
        let mut db = Db::new(&server.keyspace, 0, now);
        let mut at = 0;
        let mut fetched_ahead = 0;
        let turn = loop {
            if at >= fetched_ahead && db.keyspace().is_beyond_cache() {
                fetched_ahead = at + prefetch(&db, &input[at..]);
            }
            if at == input.len() {
                break Turn {
                    consumed: at,
                    then: Then::Read(1),
                };
            }
            if worker.reply.writer.len() > OUTPUT_LIMIT {
                break Turn {
                    consumed: at,
                    then: Then::Read(0),
                };
            }
            let limits = if self.session.flags.authenticated {
                &known
            } else {
                &stranger
            };
            match self.parser.parse(&input[at..], limits) {
                Step::Request { request, .. }
                    if gates::disk_is_behind(&server) && permissions::changes_data(&request) =>
                {
                    break Turn {
                        consumed: at,
                        then: Then::Wait(server::now().millis() + gates::DISK_WAIT_MS),
                    };
                }
                Step::Request { consumed, request } => {
                    at += consumed;
                    if let Some(then) = self.execute(worker, &mut db, &settings, limits, request) {
                        break Turn { consumed: at, then };
                    }
                    if self.watches {
                        break Turn {
                            consumed: input.len(),
                            then: Then::Read(1),
                        };
                    }
                }
                Step::Reject {
                    consumed,
                    rejection,
                } => {
                    at += consumed;
                    if rejection.response == Some(protocol::memcache::TOO_LARGE)
                        || rejection.stale.is_some()
                    {
                        worker.metrics.memcached[stats::Counted::StoreTooLarge as usize].add(1);
                    }
                    if let Some(stale) =
                        rejection.stale.filter(|_| self.session.flags.authenticated)
                    {
                        let log = Log {
                            server: &server,
                            descriptor: self.session.client.descriptor,
                        };
                        log.stored(&stale.bytes, Stored::TooLarge, "set", 0, 0);
                        // One that is held meanwhile stays: whoever sent this hears that it was not stored.
                        let _ = item::delete(&server, &mut db, Key::new(&stale.bytes));
                    }
                    if let Some(line) = rejection.response {
                        ResponseWriter::new(worker.reply.writer.output_mut()).line(line);
                    }
                    if rejection.then == AfterRefusal::Close {
                        break Turn {
                            consumed: input.len(),
                            then: Then::Close,
                        };
                    }
                }
                Step::Skip { consumed } => at += consumed,
                Step::Incomplete { needed } => {
                    break Turn {
                        consumed: at,
                        then: Then::Read(needed.max(1)),
                    };
                }
            }
        };
        db.flush_statistics();
        worker.end_turn(&self.session, now.millis());
        turn
    }

    fn write_later(&mut self, worker: &mut Worker) -> bool {
        let Some(dump) = &mut self.dump else {
            return true;
        };
        worker.begin_turn(self.session.version);
        let output = worker.reply.writer.output_mut();
        let done = dump.write(&self.session.server.keyspace, server::now(), output);
        if done {
            self.dump = None;
        }
        done
    }
}
