//! Functions: libraries of named functions that FCALL calls.
//!
//! The sources are shared; each interpreter runs a library when one of its functions is first called there. What a
//! library keeps in its local variables is therefore kept per worker.

use std::{collections::BTreeMap, sync::Arc};

use mlua::{Function, MultiValue, Value};
use parking_lot::Mutex;
use storage::rdb::{crc64::crc64, reader::Reader, writer::Writer};

use super::{
    api::text_of,
    interpreter::{Failure, Interpreter},
    locality,
    problem::Problem,
    shebang::{self, Flags, quoting},
};
use crate::{
    dispatch::{command::Result, error::Error},
    server::Server,
};

/// All libraries.
#[derive(Default)]
pub struct Functions(Mutex<Libraries>);

/// Libraries by name. Cheap to clone.
#[derive(Clone, Default)]
pub struct Libraries(Arc<BTreeMap<Box<[u8]>, Arc<Library>>>);

/// A library as it was sent, with the functions that it registers.
pub struct Library {
    pub name: Box<[u8]>,
    pub code: Box<[u8]>,
    pub functions: Vec<Described>,
    /// They come to no data but that of the keys that they are called with.
    pub(super) is_local: bool,
}

/// Libraries that ran and do not serve yet.
pub struct Prepared(Named);

/// What is known of a function.
#[derive(Clone)]
pub struct Described {
    pub name: Box<[u8]>,
    pub description: Option<Box<[u8]>>,
    pub flags: Flags,
}

/// A function that a library registers while it runs.
pub(super) struct Registering {
    pub(super) described: Described,
    pub(super) callback: Function,
}

/// What becomes of libraries that are there when others are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They stay, and none may have a restored one's name.
    Append,
    /// Those of the same name are replaced.
    Replace,
    /// They go.
    Flush,
}

impl Functions {
    /// Runs a library's source and keeps it under its name, which is returned.
    ///
    /// # Errors
    /// The source is not sound, or a name is taken.
    pub fn load(&self, server: &Arc<Server>, code: &[u8], replace: bool) -> Result<Box<[u8]>> {
        let (name, _) = head(code)?;
        if !replace && self.0.lock().0.contains_key(&*name) {
            return Err(quoting("Library '", &name, "' already exists"));
        }
        let library = Arc::new(examine(server, code)?);
        let mut libraries = self.0.lock();
        let mut next = (*libraries.0).clone();
        let old = next.remove(&library.name);
        if old.is_some() && !replace {
            return Err(quoting("Library '", &library.name, "' already exists"));
        }
        add(&mut next, library.clone())?;
        libraries.0 = Arc::new(next);
        Ok(library.name.clone())
    }

    /// Forgets a library. False if there is none of this name.
    pub fn delete(&self, name: &[u8]) -> bool {
        let mut libraries = self.0.lock();
        let mut next = (*libraries.0).clone();
        let found = next.remove(name).is_some();
        libraries.0 = Arc::new(next);
        found
    }

    pub fn flush(&self) {
        *self.0.lock() = Libraries::default();
    }

    /// Runs the sources of a full copy, so that all of them can take the place of all there is.
    ///
    /// # Errors
    /// One is not sound, or two register the same name.
    pub fn prepare(server: &Arc<Server>, sources: &[Vec<u8>]) -> Result<Prepared> {
        let mut prepared = BTreeMap::new();
        for code in sources {
            add_library(&mut prepared, Arc::new(examine(server, code)?))?;
        }
        Ok(Prepared(prepared))
    }

    /// Puts a copy's libraries in the place of all there is.
    pub fn take_over(&self, prepared: Prepared) {
        self.0.lock().0 = Arc::new(prepared.0);
    }

    /// All libraries, by name.
    pub fn all(&self) -> Vec<Arc<Library>> {
        self.0.lock().0.values().cloned().collect()
    }

    /// All libraries as they are now.
    pub fn current(&self) -> Libraries {
        self.0.lock().clone()
    }

    /// All libraries as FUNCTION RESTORE takes them.
    pub fn dump(&self) -> Vec<u8> {
        const INFALLIBLE: &str = "writing to a vector succeeds";
        let mut writer = Writer::new(Vec::new(), true);
        for library in self.all() {
            writer.bytes(&[RECORD]).expect(INFALLIBLE);
            writer.string(&library.code).expect(INFALLIBLE);
        }
        let version = storage::rdb::VALKEY_VERSION as u16;
        writer.bytes(&version.to_le_bytes()).expect(INFALLIBLE);
        let checksum = writer.checksum();
        writer.bytes(&checksum.to_le_bytes()).expect(INFALLIBLE);
        writer.into_sink().expect(INFALLIBLE)
    }

    /// Loads what [`Functions::dump`] wrote: all of it, or nothing.
    ///
    /// # Errors
    /// The payload or a library is not sound, or a name is taken.
    pub fn restore(&self, server: &Arc<Server>, payload: &[u8], policy: Policy) -> Result {
        let mut restored = BTreeMap::new();
        for code in read_dump(payload)? {
            add_library(&mut restored, Arc::new(examine(server, &code)?))?;
        }
        let mut libraries = self.0.lock();
        let mut next = match policy {
            Policy::Flush => BTreeMap::new(),
            Policy::Append | Policy::Replace => (*libraries.0).clone(),
        };
        if policy == Policy::Replace {
            next.retain(|name, _| !restored.contains_key(name));
        }
        for library in restored.into_values() {
            add_library(&mut next, library)?;
        }
        libraries.0 = Arc::new(next);
        Ok(())
    }
}

impl Libraries {
    /// The library that has a function of this name, in any case, and what is known of the function.
    pub fn find(&self, name: &[u8]) -> Option<(Arc<Library>, Described)> {
        self.0.values().find_map(|library| {
            let mut functions = library.functions.iter();
            let described = functions.find(|known| known.name.eq_ignore_ascii_case(name))?;
            Some((library.clone(), described.clone()))
        })
    }
}

/// The type byte of a library in a dump.
const RECORD: u8 = 0xf5;
const BAD_PAYLOAD: Error = Error::from_static("ERR DUMP payload version or checksum are wrong");

fn read_dump(payload: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (body, checksum) = payload.split_last_chunk().ok_or(BAD_PAYLOAD)?;
    let (body, version) = body.split_last_chunk().ok_or(BAD_PAYLOAD)?;
    let summed = &payload[..payload.len() - size_of::<u64>()];
    let sound = u64::from_le_bytes(*checksum) == crc64(summed);
    if !sound || u32::from(u16::from_le_bytes(*version)) > storage::rdb::VALKEY_VERSION {
        return Err(BAD_PAYLOAD);
    }
    let mut reader = Reader::from_slice(body);
    let mut codes = Vec::new();
    let bad = |_| Error::from_static("ERR Failed loading library data");
    while !reader.is_at_end().map_err(bad)? {
        if reader.byte().map_err(bad)? != RECORD {
            return Err(Error::from_static("ERR given type is not a function"));
        }
        let mut code = Vec::new();
        reader.string(&mut code).map_err(bad)?;
        codes.push(code);
    }
    Ok(codes)
}

type Named = BTreeMap<Box<[u8]>, Arc<Library>>;

fn add_library(libraries: &mut Named, library: Arc<Library>) -> Result {
    if libraries.contains_key(&library.name) {
        return Err(quoting("Library ", &library.name, " already exists"));
    }
    add(libraries, library)
}

/// Adds a library whose functions' names must be free.
fn add(libraries: &mut Named, library: Arc<Library>) -> Result {
    for function in &library.functions {
        let taken = |other: &Arc<Library>| {
            other
                .functions
                .iter()
                .any(|known| known.name == function.name)
        };
        if libraries.values().any(taken) {
            return Err(quoting("Function ", &function.name, " already exists"));
        }
    }
    libraries.insert(library.name.clone(), library);
    Ok(())
}

/// Reads a library's first line and runs it to see what it registers.
fn examine(server: &Arc<Server>, code: &[u8]) -> Result<Library> {
    let (name, program) = head(code)?;
    let interpreter =
        Interpreter::current(server).map_err(|error| Error::general(error.to_string()))?;
    let registered = interpreter.load_library(program)?;
    let functions: Vec<Described> = registered.into_iter().map(|one| one.described).collect();
    if functions.is_empty() {
        return Err(Error::from_static("ERR No functions registered"));
    }
    Ok(Library {
        name: name.into(),
        code: code.into(),
        functions,
        is_local: locality::library_keeps_to_its_keys(program),
    })
}

/// The library's name, and the program behind its first line.
fn head(code: &[u8]) -> Result<(Vec<u8>, &[u8])> {
    let (words, program) =
        shebang::split(code).ok_or(Error::from_static("ERR Missing library metadata"))?;
    const INVALID: Error = Error::from_static("ERR Invalid library metadata");
    let words = words.ok_or(INVALID)?;
    if program.is_empty() {
        return Err(INVALID);
    }
    let engine = words.first().map_or(&b""[..], |engine| engine);
    let mut name = None;
    for word in &words[1..] {
        let Some(given) = word.strip_prefix(b"name=") else {
            return Err(quoting("Invalid metadata value given: ", word, ""));
        };
        if name.replace(given.to_vec()).is_some() {
            return Err(Error::from_static(
                "ERR Invalid metadata value, name argument was given multiple times",
            ));
        }
    }
    let name = name.ok_or(Error::from_static("ERR Library name was not given"))?;
    if !is_name(&name) {
        return Err(Error::from_static(
            "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long",
        ));
    }
    if !engine.eq_ignore_ascii_case(b"lua") {
        return Err(quoting("Engine '", engine, "' not found"));
    }
    Ok((name, program))
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

impl Library {
    /// The source without its first line.
    pub(super) fn program(&self) -> &[u8] {
        shebang::split(&self.code).map_or(&self.code, |(_, program)| program)
    }
}

/// Names must be sound, and different within a library.
pub(super) fn check_names(registered: &[Registering]) -> Result {
    for (index, one) in registered.iter().enumerate() {
        let name = &one.described.name;
        if !is_name(name) {
            return Err(Error::from_static(
                "ERR Function names can only contain letters, numbers, or underscores(_) and must be at least one character long",
            ));
        }
        if registered[..index]
            .iter()
            .any(|other| other.described.name == *name)
        {
            return Err(Error::from_static(
                "ERR Function already exists in the library",
            ));
        }
    }
    Ok(())
}

/// `register_function(name, callback)`, or with a table of named arguments.
pub(super) fn register(args: &MultiValue) -> std::result::Result<Registering, Failure> {
    let wrong = |text: &str| Failure::from(Problem::reply(format!("ERR {text}")));
    match (args.len(), args.front(), args.get(1)) {
        (1, Some(Value::Table(table)), _) => {
            let mut named = NamedArguments::default();
            for pair in table.pairs::<Value, Value>() {
                let (key, value) = pair?;
                named.set(&key, value)?;
            }
            named.finish()
        }
        (1, ..) => Err(wrong(
            "calling server.register_function with a single argument is only applicable to Lua table (representing named arguments).",
        )),
        (2, Some(name), Some(callback)) => {
            let name = text_of(name).ok_or_else(|| {
                wrong("first argument to server.register_function must be a string")
            })?;
            let Value::Function(callback) = callback else {
                return Err(wrong(
                    "second argument to server.register_function must be a function",
                ));
            };
            Ok(Registering {
                described: Described {
                    name: name.into(),
                    description: None,
                    flags: Flags::default(),
                },
                callback: callback.clone(),
            })
        }
        _ => Err(wrong(
            "wrong number of arguments to server.register_function",
        )),
    }
}

/// The named arguments of `register_function`.
#[derive(Default)]
struct NamedArguments {
    name: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    callback: Option<Function>,
    flags: Flags,
}

impl NamedArguments {
    fn set(&mut self, key: &Value, value: Value) -> std::result::Result<(), Failure> {
        let wrong = |text: &str| Failure::from(Problem::reply(format!("ERR {text}")));
        let key = match key {
            Value::String(key) => key.as_bytes().to_vec(),
            _ => Vec::new(),
        };
        match &*key {
            b"function_name" => {
                let name = text_of(&value).ok_or_else(|| {
                    wrong(
                        "function_name argument given to server.register_function must be a string",
                    )
                })?;
                self.name = Some(name);
            }
            b"description" => {
                let description = text_of(&value).ok_or_else(|| {
                    wrong("description argument given to server.register_function must be a string")
                })?;
                self.description = Some(description);
            }
            b"callback" => {
                let Value::Function(callback) = value else {
                    return Err(wrong(
                        "callback argument given to server.register_function must be a function",
                    ));
                };
                self.callback = Some(callback);
            }
            b"flags" => {
                let Value::Table(flags) = value else {
                    return Err(wrong(
                        "flags argument to server.register_function must be a table representing function flags",
                    ));
                };
                for flag in flags.sequence_values::<Value>() {
                    let flag = flag?;
                    let known = text_of(&flag).is_some_and(|flag| self.flags.set(&flag));
                    if !known {
                        return Err(wrong("unknown flag given"));
                    }
                }
            }
            _ => return Err(wrong("unknown argument given to server.register_function")),
        }
        Ok(())
    }

    fn finish(self) -> std::result::Result<Registering, Failure> {
        let wrong = |text: &str| Failure::from(Problem::reply(format!("ERR {text}")));
        let name = self
            .name
            .ok_or_else(|| wrong("server.register_function must get a function name argument"))?;
        let callback = self
            .callback
            .ok_or_else(|| wrong("server.register_function must get a callback argument"))?;
        Ok(Registering {
            described: Described {
                name: name.into(),
                description: self.description.map(Into::into),
                flags: self.flags,
            },
            callback,
        })
    }
}
