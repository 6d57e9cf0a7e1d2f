//! A worker's interpreter.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;
use mlua::{
    ChunkMode, Error, Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib,
    Table, Value, VmState,
};
use protocol::resp::reply::Version;
use storage::{changes::Readers, keyspace::Shards, lent::Lent};

use super::{
    Scripting, Sha, api,
    functions::{Library, Registering, check_names, register},
    libraries,
    problem::{self, Problem, raise},
    random::Random,
    run::Buffers,
    running::Running,
    shebang::quoting,
};
use crate::{acl::User, dispatch, server::Server};

/// Memory that the values of one interpreter may take while Lua runs.
///
/// For the server's own code there is no limit: with one, mlua makes every value within a protected call of its own,
/// which costs more than all else about a short script.
const MEMORY_MAX_BYTES: usize = 1 << 30;
/// Replies of commands may take that much beyond the limit.
const UNLIMITED_MAX_BYTES: usize = 1 << 20;
/// Instructions between looks at the clock: about a millisecond.
const INSTRUCTIONS_PER_LOOK: u32 = 100_000;
/// Compiled scripts kept; beyond this many all are forgotten, and compiled again when they are asked for.
const COMPILED_MAX: usize = 2000;

/// Milliseconds that a library may take to register its functions.
const LOADING_MAX_MS: u64 = 500;

thread_local! {
    static INTERPRETER: RefCell<Option<Rc<Interpreter>>> = const { RefCell::new(None) };
}

/// A Lua state with what the server adds to it.
pub(super) struct Interpreter {
    pub(super) lua: Lua,
    /// Lua's `xpcall`, and the handler of errors that scripts run under.
    xpcall: Function,
    handler: Function,
    /// Runs a function with two arguments under the error handler.
    call: Function,
    /// Chooses what the globals are.
    enter: Function,
    view: Cell<View>,
    /// The globals that scripts see.
    visible: Table,
    /// `KEYS` and `ARGV`.
    names: [mlua::String; 2],
    pub(super) state: Rc<State>,
    compiled: RefCell<HashMap<Sha, Function>>,
    libraries: RefCell<HashMap<Box<[u8]>, Loaded>>,
    generation: u64,
}

/// What the globals are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Script,
    Function,
    /// A library that registers its functions.
    Loading,
}

/// A library that was run here.
struct Loaded {
    library: Arc<Library>,
    functions: HashMap<Box<[u8]>, Function>,
}

/// What the functions of the `redis` table work with.
#[derive(Default)]
pub(super) struct State {
    /// Runs a command for the script that runs now: whether it succeeded, and its reply or the error's text.
    pub(super) command: Lent<mlua::Result<(bool, Value)>>,
    /// The command's words.
    pub(super) words: RefCell<MultiValue>,
    /// On whose behalf the script runs, or the last one ran, and in which database.
    pub(super) caller: RefCell<Option<(Arc<User>, usize)>>,
    /// The RESP version that replies come in.
    pub(super) version: Cell<Version>,
    /// Who is told of what commands do.
    pub(super) readers: Cell<Readers>,
    /// What the library that is loaded now has registered.
    pub(super) registered: RefCell<Vec<Registering>>,
    pub(super) random: Random,
    pub(super) running: Running,
    /// Memory that one script leaves to the next.
    pub(super) buffers: RefCell<Option<Buffers>>,
}

impl State {
    pub(super) fn set_caller(&self, user: &Arc<User>, database: usize) {
        let mut caller = self.caller.borrow_mut();
        match &mut *caller {
            // Counting references to one user on all workers would cost them more than the script.
            Some((known, index)) if Arc::ptr_eq(known, user) => *index = database,
            other => *other = Some((user.clone(), database)),
        }
    }
}

impl Interpreter {
    /// The interpreter of this worker; a new one after SCRIPT FLUSH.
    pub(super) fn current(server: &Arc<Server>) -> mlua::Result<Rc<Interpreter>> {
        let generation = server.scripting.generation();
        INTERPRETER.with_borrow_mut(|slot| {
            if let Some(interpreter) = slot
                && interpreter.generation == generation
            {
                return Ok(interpreter.clone());
            }
            let interpreter = Rc::new(Interpreter::new(server, generation)?);
            *slot = Some(interpreter.clone());
            Ok(interpreter)
        })
    }

    fn new(server: &Arc<Server>, generation: u64) -> mlua::Result<Interpreter> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        let state = Rc::new(State::default());
        let natives = natives(&lua, server, &state)?;
        let sandbox = lua
            .load(include_str!("sandbox.lua"))
            .set_name(problem::SANDBOX)
            .set_mode(ChunkMode::Text);
        let (xpcall, handler, call, enter, visible) = sandbox.call(natives)?;
        let (shared, running) = (server.clone(), state.clone());
        let look = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK);
        lua.set_global_hook(look, move |_, _| match running.running.look(&shared) {
            Some(killed) => Err(Error::external(Problem::Killed(killed))),
            None => Ok(VmState::Continue),
        })?;
        let names = [lua.create_string("KEYS")?, lua.create_string("ARGV")?];
        Ok(Interpreter {
            lua,
            xpcall,
            handler,
            call,
            enter,
            view: Cell::new(View::Script),
            visible,
            names,
            state,
            compiled: RefCell::default(),
            libraries: RefCell::default(),
            generation,
        })
    }

    /// The compiled script.
    ///
    /// # Errors
    /// The text of the compiler's error.
    pub(super) fn compile(&self, sha: &Sha, program: &[u8]) -> Result<Function, String> {
        if let Some(function) = self.compiled.borrow().get(sha) {
            return Ok(function.clone());
        }
        let function = self.compile_as("@user_script", program)?;
        let mut compiled = self.compiled.borrow_mut();
        if compiled.len() >= COMPILED_MAX {
            compiled.clear();
        }
        compiled.insert(*sha, function.clone());
        Ok(function)
    }

    fn compile_as(&self, name: &str, program: &[u8]) -> Result<Function, String> {
        let chunk = self
            .lua
            .load(program)
            .set_name(name)
            .set_mode(ChunkMode::Text);
        let compiled = limited(&self.lua, || chunk.into_function());
        compiled.map_err(|error| match error {
            Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// Sets KEYS and ARGV.
    pub(super) fn set_arguments(&self, keys: Table, arguments: Table) -> mlua::Result<()> {
        let [keys_name, arguments_name] = &self.names;
        self.visible.raw_set(keys_name, keys)?;
        self.visible.raw_set(arguments_name, arguments)
    }

    fn enter(&self, view: View) -> mlua::Result<()> {
        if self.view.replace(view) == view {
            return Ok(());
        }
        self.enter.call(match view {
            View::Script => "script",
            View::Function => "function",
            View::Loading => "loading",
        })
    }

    /// Runs a library: what it registers.
    ///
    /// # Errors
    /// It does not compile, fails, or registers what may not be.
    pub(super) fn load_library(
        &self,
        program: &[u8],
    ) -> dispatch::command::Result<Vec<Registering>> {
        let function = self
            .compile_as("@user_function", program)
            .map_err(|message| {
                dispatch::error::Error::general(format!("Error compiling function: {message}"))
            })?;
        self.state.registered.borrow_mut().clear();
        self.state.caller.take();
        let failed = |text: &[u8]| quoting("Error registering functions: ", text, "");
        let broken = |error: Error| failed(format!("ERR {error}").as_bytes());
        self.enter(View::Loading).map_err(broken)?;
        self.state
            .running
            .begin(LOADING_MAX_MS, None, Shards::default());
        self.state.running.limit();
        let outcome = self.run(function);
        self.state.running.stop();
        self.enter(View::Script).map_err(broken)?;
        let registered = std::mem::take(&mut *self.state.registered.borrow_mut());
        match outcome.map_err(broken)? {
            Ok(_) => {
                check_names(&registered)?;
                Ok(registered)
            }
            Err(problem) => Err(failed(&problem::message(&problem))),
        }
    }

    /// A function of a library, which is run first if it is new here.
    ///
    /// # Errors
    /// As [`Interpreter::load_library`].
    pub(super) fn function(
        &self,
        library: &Arc<Library>,
        name: &[u8],
    ) -> dispatch::command::Result<Function> {
        let known = |loaded: &Loaded| Arc::ptr_eq(&loaded.library, library);
        if !self
            .libraries
            .borrow()
            .get(&library.name)
            .is_some_and(known)
        {
            let registered = self.load_library(library.program())?;
            let functions = registered
                .into_iter()
                .map(|one| (one.described.name, one.callback));
            let loaded = Loaded {
                library: library.clone(),
                functions: functions.collect(),
            };
            self.libraries
                .borrow_mut()
                .insert(library.name.clone(), loaded);
        }
        let libraries = self.libraries.borrow();
        let found = libraries
            .get(&library.name)
            .and_then(|loaded| loaded.functions.get(name));
        found.cloned().ok_or(dispatch::error::Error::from_static(
            "ERR Function not found",
        ))
    }

    /// Runs a library's function, as [`Interpreter::run`] does a script.
    pub(super) fn call(
        &self,
        function: Function,
        keys: Table,
        arguments: Table,
    ) -> mlua::Result<Result<Value, Value>> {
        self.enter(View::Function)?;
        let arguments = (function, keys, arguments);
        let outcome = limited(&self.lua, || self.call.call::<(bool, Value)>(arguments));
        self.enter(View::Script)?;
        let (ok, value) = outcome?;
        Ok(if ok { Ok(value) } else { Err(value) })
    }

    /// Runs a compiled script: what it returned, or the error that nobody caught.
    pub(super) fn run(&self, function: Function) -> mlua::Result<Result<Value, Value>> {
        let arguments = (function, &self.handler);
        let outcome = limited(&self.lua, || self.xpcall.call::<(bool, Value)>(arguments));
        let (ok, value) = outcome?;
        Ok(if ok { Ok(value) } else { Err(value) })
    }
}

/// Lua runs within this.
fn limited<R>(lua: &Lua, work: impl FnOnce() -> mlua::Result<R>) -> mlua::Result<R> {
    lua.set_memory_limit(MEMORY_MAX_BYTES)?;
    let outcome = work();
    lua.set_memory_limit(0)?;
    outcome
}

/// The server's code, called by Lua, makes values of so many bytes within this.
pub(super) fn unlimited<R>(
    lua: &Lua,
    bytes: usize,
    work: impl FnOnce() -> mlua::Result<R>,
) -> mlua::Result<R> {
    if bytes > UNLIMITED_MAX_BYTES {
        return work();
    }
    lua.set_memory_limit(0)?;
    let outcome = work();
    lua.set_memory_limit(MEMORY_MAX_BYTES)?;
    outcome
}

impl Scripting {
    fn generation(&self) -> u64 {
        self.generation.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A function of the server that scripts call.
pub(super) fn native<F, R>(lua: &Lua, function: F) -> mlua::Result<Function>
where
    F: Fn(&Lua, MultiValue) -> Result<R, Failure> + 'static,
    R: IntoLuaMulti,
{
    lua.create_function(move |lua, args: MultiValue| {
        function(lua, args).map_err(|failure| match failure {
            Failure::Problem(problem) => raise(lua, problem),
            Failure::Lua(error) => error,
        })
    })
}

/// Why a function of the server failed.
pub(super) enum Failure {
    Problem(Problem),
    /// Out of memory, most likely.
    Lua(Error),
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::Problem(problem)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Lua(error)
    }
}

/// Everything that the sandbox takes from the server.
fn natives(lua: &Lua, server: &Arc<Server>, state: &Rc<State>) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    table.raw_set("shown", lua.create_function(problem::shown)?)?;
    table.raw_set("value", lua.create_function(problem::value)?)?;
    table.raw_set("handler", lua.create_function(problem::handler)?)?;
    table.raw_set("complain", lua.create_function(problem::complain)?)?;
    let random = state.clone();
    let next = native(lua, move |_, args| Ok(api::random(&random.random, &args)?))?;
    table.raw_set("random", next)?;
    let random = state.clone();
    let seed = native(lua, move |_, args| {
        let seed = args.front().and_then(api::number_of);
        let seed = seed.ok_or_else(|| api::expected(&args, 1, "number"))?;
        random.random.seed(super::convert::to_integer(seed) as i32);
        Ok(MultiValue::new())
    })?;
    table.raw_set("randomseed", seed)?;
    table.raw_set("redis", api::table(lua, server, state)?)?;
    let registry = state.clone();
    let register = native(lua, move |_, args| {
        if !registry.running.is_limited() {
            return Err(Failure::from(Problem::reply(
                "ERR server.register_function can only be called on FUNCTION LOAD command",
            )));
        }
        let registering = register(&args)?;
        registry.registered.borrow_mut().push(registering);
        Ok(MultiValue::new())
    })?;
    table.raw_set("register_function", register)?;
    libraries::add(lua, &table)?;
    Ok(table)
}
