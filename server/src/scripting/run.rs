//! Runs a script and the commands in it.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use bstr::BStr;
use mlua::{Lua, MultiValue, Table, Value};
use protocol::resp::{
    reply::{ReplyWriter, Version},
    request::Span,
};
use storage::{
    Held,
    changes::{Changes, Readers},
    clock::Moment,
    db::Db,
};

use super::{
    Origin, Script,
    convert::{self, number_text},
    functions::Library,
    interpreter::{Interpreter, State, unlimited},
    problem::{self, Problem},
};
use crate::{
    commands::acl,
    dispatch::{
        self,
        args::Args,
        blocking, call,
        command::{Flag, Reply, Result},
        error::Error,
        gates,
        table::Registered,
    },
    metrics::{CommandMetrics, command_log::Outcome},
    notify::{self, Teller},
    persistence::trouble::Trouble,
    session::Session,
    tracking,
};

pub(super) const NO_ARGUMENTS: Error =
    Error::from_static("ERR Please specify at least one argument for this call");
pub(super) const NOT_TEXT: Error =
    Error::from_static("ERR Command arguments must be strings or integers");
const UNKNOWN: Error = Error::from_static("ERR Unknown command called from script");
const WRONG_ARITY: Error =
    Error::from_static("ERR Wrong number of args calling command from script");
const NOT_ALLOWED: Error = Error::from_static("ERR This Valkey command is not allowed from script");
const STALE: Error = Error::from_static("ERR Can not execute the command on a stale replica");
const WRITES_REFUSED: Error =
    Error::from_static("ERR Write commands are not allowed from read-only scripts.");

/// A script with what it is called with.
pub struct Call<'a> {
    pub program: Program<'a>,
    /// The whole request.
    pub args: &'a Args<'a>,
    /// The word that is the first key.
    pub first_key: usize,
    pub keys: usize,
    /// EVAL_RO, or a script that promises not to write.
    pub read_only: bool,
    /// It may run without memory to spare.
    pub allow_oom: bool,
    /// It may run on a replica that is out of touch.
    pub allow_stale: bool,
}

/// What is called.
#[derive(Clone, Copy)]
pub enum Program<'a> {
    Script(&'a Arc<Script>),
    /// A library's function of this name.
    Function(&'a Arc<Library>, &'a [u8]),
}

impl Call<'_> {
    /// Whether it says what it does, and not that it can do without memory.
    fn needs_room(&self) -> bool {
        self.announces_writes() && !self.allow_oom
    }

    /// Whether it says that it changes data.
    fn announces_writes(&self) -> bool {
        let says_what_it_does = match self.program {
            Program::Script(script) => script.body.starts_with(b"#!"),
            Program::Function(..) => true,
        };
        says_what_it_does && !self.read_only
    }

    /// Whether it may do now what it says it does, but for memory.
    fn check(&self, session: &Session) -> Result {
        let writes = self.announces_writes() && !session.repeats();
        if writes {
            gates::check_writes(session)?;
        }
        if !self.allow_stale {
            gates::check_fresh(session)?;
        }
        match Trouble::now(&session.server) {
            Some(trouble) if writes => Err(trouble.script_error()),
            _ => Ok(()),
        }
    }
}

/// Compiles a script and keeps it.
///
/// # Errors
/// It does not compile.
pub fn load(session: &Session, script: &Arc<Script>, origin: Origin) -> Result {
    let interpreter = Interpreter::current(&session.server).map_err(|error| lua_failed(&error))?;
    compile(&interpreter, script)?;
    session.server.scripting.keep(script.clone(), origin);
    Ok(())
}

fn compile(interpreter: &Interpreter, script: &Script) -> Result<mlua::Function> {
    interpreter
        .compile(&script.sha, script.program())
        .map_err(|message| {
            Error::general(format!("Error compiling script (new function): {message}"))
        })
}

/// Runs a script and writes its reply. The locks that this takes are left to the dispatcher to release.
pub fn run(session: &mut Session, db: &mut Db<'_>, call: &Call<'_>, reply: &mut Reply) -> Result {
    let interpreter = Interpreter::current(&session.server).map_err(|error| lua_failed(&error))?;
    let (function, name) = match call.program {
        Program::Script(script) => (compile(&interpreter, script)?, None),
        Program::Function(library, name) => (interpreter.function(library, name)?, Some(name)),
    };
    call.check(session)?;
    if call.needs_room() && db.is_out_of_memory() {
        return Err(Error::OUT_OF_MEMORY);
    }
    let (keys, arguments) = arguments(&interpreter, call).map_err(|error| lua_failed(&error))?;
    let locks_are_ours = !db.is_locked();
    if locks_are_ours {
        while lock(db, call).is_err() {
            call::stand_back(session)?;
        }
    }
    let state = &interpreter.state;
    let scripting = &session.server.scripting;
    let threshold_ms = scripting.busy_reply_threshold.load(Ordering::Relaxed);
    state.version.set(Version::Resp2);
    state.readers.set(Readers::ALL);
    state.running.begin(threshold_ms, name, db.locked_shards());
    state.running.set_command(call.args);
    session.flags.in_script = true;
    db.set_scripted(true);
    let database = session.database;
    state.set_caller(&session.user, database);
    let Buffers {
        reply: inner,
        words,
        spans,
    } = state.buffers.take().unwrap_or_default();
    let mut commands = Commands {
        session,
        db,
        state,
        reply: inner,
        changes: Changes::default(),
        words,
        spans,
        read_only: call.read_only,
        allow_oom: call.allow_oom,
        wrote: false,
    };
    let lua = &interpreter.lua;
    let mut command = || commands.run(lua, &state.words.take());
    let outcome = state.command.during(&mut command, || {
        if name.is_some() {
            return interpreter.call(function, keys, arguments);
        }
        interpreter.set_arguments(keys, arguments)?;
        interpreter.run(function)
    });
    let Commands {
        changes,
        reply: inner,
        words,
        spans,
        ..
    } = commands;
    state.buffers.replace(Buffers::keep(inner, words, spans));
    state.running.end(&session.server);
    session.database = database;
    db.select(database);
    db.set_readers(Readers::ALL);
    session.flags.hides_from_replicas = false;
    session.flags.in_script = false;
    if !session.flags.in_exec {
        session.frozen_time = None;
    }
    db.set_scripted(false);
    db.changes.absorb(changes);
    db.changes.log_nothing();
    if locks_are_ours && !db.changes.ready.is_empty() {
        blocking::serve(&session.server, db);
    }
    match outcome {
        Ok(Ok(value)) => {
            reply.error_is_counted = problem::is_counted(&value);
            convert::write(&value, reply, state.version.get())
        }
        Ok(Err(problem)) => {
            reply.error_is_counted = problem::is_counted(&problem);
            Err(Error::new(problem::text_of(&problem)))
        }
        Err(error) => Err(lua_failed(&error)),
    }
}

/// Locks what the script may come to.
fn lock(db: &mut Db<'_>, call: &Call<'_>) -> std::result::Result<(), Held> {
    let is_local = match call.program {
        Program::Script(script) => script.is_local,
        Program::Function(library, _) => library.is_local,
    };
    if !is_local {
        return db.try_lock_all();
    }
    let keys = call.first_key..call.first_key + call.keys;
    match call.keys {
        1 => db.try_lock(call.args.key(call.first_key).hash),
        _ => db.try_lock_each(keys.map(|index| call.args.key(index).hash)),
    }
}

fn lua_failed(error: &mlua::Error) -> Error {
    Error::general(format!("Error running script: {error}"))
}

/// The keys and the other arguments as tables.
fn arguments(interpreter: &Interpreter, call: &Call<'_>) -> mlua::Result<(Table, Table)> {
    let lua = &interpreter.lua;
    let keys = call.args.from(call.first_key).take(call.keys);
    let rest = call.args.from(call.first_key + call.keys);
    let keys = lua.create_sequence_from(keys.map(BStr::new))?;
    let arguments = lua.create_sequence_from(rest.map(BStr::new))?;
    Ok((keys, arguments))
}

/// Bytes of a script's buffers that are kept for the next one.
const BUFFER_KEPT_BYTES: usize = 64 << 10;

/// Memory that the commands of a script use, one after another.
pub(super) struct Buffers {
    reply: Reply,
    words: Vec<u8>,
    spans: Vec<Span>,
}

impl Default for Buffers {
    fn default() -> Buffers {
        Buffers {
            reply: Reply::new(ReplyWriter::new(Version::Resp2)),
            words: Vec::new(),
            spans: Vec::new(),
        }
    }
}

impl Buffers {
    /// For the next script, unless this one made them big.
    fn keep(mut reply: Reply, words: Vec<u8>, spans: Vec<Span>) -> Option<Buffers> {
        if reply.len() > BUFFER_KEPT_BYTES || words.capacity() > BUFFER_KEPT_BYTES {
            return None;
        }
        reply.clear();
        reply.later = None;
        Some(Buffers {
            reply,
            words,
            spans,
        })
    }
}

/// The commands of a script that runs.
struct Commands<'s, 'd, 'k> {
    session: &'s mut Session,
    db: &'d mut Db<'k>,
    state: &'s State,
    /// Where commands write what the script then reads.
    reply: Reply,
    /// What all commands did.
    changes: Changes,
    words: Vec<u8>,
    spans: Vec<Span>,
    read_only: bool,
    allow_oom: bool,
    /// From then on the script is not stopped for lack of memory: half a script is worse.
    wrote: bool,
}

impl Commands<'_, '_, '_> {
    /// Runs one command: whether it succeeded, and its reply or the error's text.
    fn run(&mut self, lua: &Lua, args: &MultiValue) -> mlua::Result<(bool, Value)> {
        if let Some(killed) = self.state.running.look_at_call(&self.session.server) {
            return Err(mlua::Error::external(Problem::Killed(killed)));
        }
        match self.execute(args) {
            Ok(()) => {
                let read = || self.read_reply(lua);
                Ok((true, unlimited(lua, self.reply.len(), read)?))
            }
            Err(error) => {
                self.session.server.metrics.count_error(error.code());
                let text = shown(&error);
                Ok((false, Value::String(lua.create_string(text)?)))
            }
        }
    }

    fn execute(&mut self, args: &MultiValue) -> Result {
        self.take_words(args)?;
        let (words, spans) = (
            std::mem::take(&mut self.words),
            std::mem::take(&mut self.spans),
        );
        let args = Args::new(&words, &spans);
        let result = self.find(&args).and_then(|registered| {
            let admitted = self.admit(registered, &args);
            admitted.inspect_err(|_| self.metrics(registered).rejected.add(1))?;
            self.call(registered, &args)
        });
        self.words = words;
        self.spans = spans;
        result
    }

    /// The command that the words are of.
    fn find(&self, args: &Args<'_>) -> Result<&'static Registered> {
        let found = dispatch::find(args).ok_or(UNKNOWN)?;
        dispatch::resolve(found.registered, args).map_err(|(registered, error)| match registered {
            Some(registered) => {
                self.metrics(registered).rejected.add(1);
                WRONG_ARITY
            }
            None => error,
        })
    }

    /// May the script run this command now?
    fn admit(&self, registered: &Registered, args: &Args<'_>) -> Result {
        let command = registered.command;
        let scripting = &self.session.server.scripting;
        if command.has(Flag::NoScript) && !scripting.allows_all.load(Ordering::Relaxed) {
            return Err(NOT_ALLOWED);
        }
        if self.read_only && (command.is_write() || command.has(Flag::MayReplicate)) {
            return Err(WRITES_REFUSED);
        }
        self.check_permissions(registered, args)?;
        if !command.has(Flag::Stale) && gates::check_fresh(self.session).is_err() {
            return Err(STALE);
        }
        let may_go_on = self.wrote || self.allow_oom || !command.has(Flag::DenyOom);
        if !may_go_on && self.db.is_out_of_memory() {
            return Err(Error::OUT_OF_MEMORY);
        }
        if command.is_write() && !self.wrote {
            self.check_writes()?;
        }
        Ok(())
    }

    fn metrics(&self, registered: &Registered) -> &CommandMetrics {
        &self.session.metrics.commands[registered.id]
    }

    fn check_permissions(&self, registered: &Registered, args: &Args<'_>) -> Result {
        if self.session.user.is_unrestricted() {
            return Ok(());
        }
        acl::check(self.session, self.db, registered, args, "lua").map_err(|denial| {
            let text = denial.error(&self.session.user);
            let text = text.as_bytes();
            let text = text.strip_prefix(b"NOPERM ").unwrap_or(text);
            Error::new([b"NOPERM ACL failure in script: ", text].concat())
        })
    }

    /// Whether the first change may be made; what follows it is not stopped half way.
    fn check_writes(&self) -> Result {
        gates::check_writes(self.session)?;
        match Trouble::now(&self.session.server) {
            Some(trouble) if !self.session.repeats() => Err(trouble.error()),
            _ => Ok(()),
        }
    }

    fn take_words(&mut self, args: &MultiValue) -> Result {
        self.words.clear();
        self.spans.clear();
        if args.is_empty() {
            return Err(NO_ARGUMENTS);
        }
        for arg in args {
            let start = self.words.len() as u32;
            match arg {
                Value::String(text) => self.words.extend_from_slice(&text.as_bytes()),
                Value::Integer(number) if number.unsigned_abs() <= i64::MAX as u64 / 2 => {
                    let mut buffer = itoa::Buffer::new();
                    self.words
                        .extend_from_slice(buffer.format(*number).as_bytes());
                }
                Value::Integer(number) => {
                    self.words.extend_from_slice(&number_text(*number as f64));
                }
                Value::Number(number) => self.words.extend_from_slice(&number_text(*number)),
                _ => return Err(NOT_TEXT),
            }
            let end = u32::try_from(self.words.len()).map_err(|_| Error::TOO_LARGE)?;
            self.spans.push(Span { start, end });
        }
        Ok(())
    }

    fn call(&mut self, registered: &'static Registered, args: &Args<'_>) -> Result {
        self.reply.clear();
        self.reply.set_version(self.state.version.get());
        self.wrote |= registered.command.is_write();
        if registered.command.is_write() {
            self.state.running.note_write();
        }
        self.db.begin();
        let readers = self.state.readers.get();
        self.db.set_readers(readers);
        self.session.flags.hides_from_replicas = !readers.contains(Readers::REPLICAS);
        let mut clock = Moment::now();
        let result = call::call_any(
            self.session,
            self.db,
            registered.command,
            args,
            &mut self.reply,
        );
        let outcome = Outcome {
            nanoseconds: clock.lap(),
            reply_bytes: self.reply.len(),
        };
        self.session.count_command(registered, outcome.nanoseconds);
        if result.is_err() {
            self.metrics(registered).failed.add(1);
        }
        let (server, client) = (&self.session.server, &self.session.client);
        server
            .command_log
            .note(registered.command, args, client, outcome);
        if server.monitors.is_on() {
            let database = self.session.database;
            server
                .monitors
                .show_scripted(registered.command, args, database);
        }
        let changes = std::mem::take(&mut self.db.changes);
        let stale = changes.has_stale();
        self.changes.absorb(changes);
        if stale {
            notify::tell_locked(server, self.db, &mut self.changes.notices, Teller::Script);
        }
        if self.session.flags.tracks_reads {
            tracking::remember(self.session, self.db, registered.command, args);
        }
        result?;
        while let Some(mut later) = self.reply.later.take() {
            while !later.write(&mut self.reply.writer) {}
        }
        Ok(())
    }

    fn read_reply(&self, lua: &Lua) -> mlua::Result<Value> {
        match self.reply.as_bytes() {
            Some(bytes) => convert::read(lua, bytes),
            None => {
                let bytes: Vec<&[u8]> = self.reply.segments().collect();
                convert::read(lua, &bytes.concat())
            }
        }
    }
}

/// The error as scripts see it: that a permission is missing is an error of the general kind there.
fn shown(error: &Error) -> Cow<'_, [u8]> {
    match error.as_bytes().strip_prefix(b"NOPERM ") {
        Some(sentence) => [b"ERR ", sentence].concat().into(),
        None => error.as_bytes().into(),
    }
}
