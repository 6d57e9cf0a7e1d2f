//! A worker's interpreter.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;
use mlua::{
    ChunkMode, Error, Function, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Table, Value,
    VmState,
};
use protocol::resp::reply::Version;

use super::{
    Scripting, Sha, api, libraries,
    problem::{self, Problem, raise},
    random::Random,
    running::Running,
};
use crate::server::Server;

/// Memory that the values of one interpreter may take.
const MEMORY_MAX_BYTES: usize = 1 << 30;
/// Instructions between looks at the clock: about a millisecond.
const INSTRUCTIONS_PER_LOOK: u32 = 100_000;
/// Compiled scripts kept; beyond this many all are forgotten, and compiled again when they are asked for.
const COMPILED_MAX: usize = 2000;

thread_local! {
    static INTERPRETER: RefCell<Option<Rc<Interpreter>>> = const { RefCell::new(None) };
}

/// A Lua state with what the server adds to it.
pub(super) struct Interpreter {
    pub(super) lua: Lua,
    /// Runs a function under the error handler.
    run: Function,
    /// The globals that scripts see.
    visible: Table,
    pub(super) state: Rc<State>,
    compiled: RefCell<HashMap<Sha, Function>>,
    generation: u64,
}

/// What the functions of the `redis` table work with.
#[derive(Default)]
pub(super) struct State {
    /// Runs a command for the script that runs now.
    pub(super) command: RefCell<Option<Function>>,
    /// The RESP version that replies come in.
    pub(super) version: Cell<Version>,
    pub(super) random: Random,
    pub(super) running: Running,
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
        lua.set_memory_limit(MEMORY_MAX_BYTES)?;
        let state = Rc::new(State::default());
        let natives = natives(&lua, server, &state)?;
        let sandbox = lua
            .load(include_str!("sandbox.lua"))
            .set_name("=server")
            .set_mode(ChunkMode::Text);
        let (run, _call, visible, _protect): (Function, Function, Table, Function) =
            sandbox.call(natives)?;
        let (shared, running) = (server.clone(), state.clone());
        let look = HookTriggers::new().every_nth_instruction(INSTRUCTIONS_PER_LOOK);
        lua.set_global_hook(look, move |_, _| {
            if running.running.must_end(&shared.scripting.slow) {
                return Err(Error::external(Problem::Killed));
            }
            Ok(VmState::Continue)
        })?;
        Ok(Interpreter {
            lua,
            run,
            visible,
            state,
            compiled: RefCell::default(),
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
        chunk.into_function().map_err(|error| match error {
            Error::SyntaxError { message, .. } => message,
            other => other.to_string(),
        })
    }

    /// Sets KEYS and ARGV.
    pub(super) fn set_arguments(&self, keys: Value, arguments: Value) -> mlua::Result<()> {
        self.visible.raw_set("KEYS", keys)?;
        self.visible.raw_set("ARGV", arguments)
    }

    /// Runs a compiled script: what it returned, or the error that nobody caught.
    pub(super) fn run(&self, function: Function) -> mlua::Result<Result<Value, Value>> {
        let (ok, value): (bool, Value) = self.run.call(function)?;
        Ok(if ok { Ok(value) } else { Err(value) })
    }
}

impl Scripting {
    fn generation(&self) -> u64 {
        self.generation.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// A function of the server that scripts call.
pub(super) fn native<F>(lua: &Lua, function: F) -> mlua::Result<Function>
where
    F: Fn(&Lua, MultiValue) -> Result<MultiValue, Failure> + 'static,
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
    let random = state.clone();
    let next = native(lua, move |_, args| Ok(api::random(&random.random, &args)?))?;
    table.raw_set("random", next)?;
    let random = state.clone();
    let seed = native(lua, move |_, args| {
        let seed = args.front().and_then(api::number_of);
        let seed = seed.ok_or_else(|| api::expected(&args, 1, "randomseed", "number"))?;
        random.random.seed(super::convert::to_integer(seed) as i32);
        Ok(MultiValue::new())
    })?;
    table.raw_set("randomseed", seed)?;
    table.raw_set("redis", api::table(lua, server, state)?)?;
    libraries::add(lua, &table)?;
    Ok(table)
}
