//! Whether a script keeps to the keys that it is called with, told from its text.
//!
//! A script is atomic, so whatever it may come to has to be locked before it begins: all shards, unless it is certain
//! that every command in it names its keys as `KEYS[...]`, or by a variable that is nothing else. This looks for that
//! certainty in the tokens of the script or library and gives up at whatever it does not know (other names for `redis`
//! or `KEYS`, keys that are put together), which is never wrong, only slower.
//!
//! It does not look at scopes: a name stands for a key if it does so wherever it is declared. Parameters of local
//! functions do, if all calls pass keys.

use hashbrown::{HashMap, HashSet};

use super::lexer::{Token, tokens};
use crate::dispatch::{
    command::{Place, Run},
    table,
};

/// Names by which a script could get at anything.
const WAYS_OUT: [&[u8]; 8] = [
    b"load",
    b"loadstring",
    b"dofile",
    b"setfenv",
    b"getfenv",
    b"_G",
    b"rawset",
    b"setmetatable",
];

/// Functions of the `redis` table that run a command.
const CALLS: [&[u8]; 2] = [b"call", b"pcall"];

/// What else of the `redis` table may be used, since it comes to no data.
const HARMLESS: [&[u8]; 10] = [
    b"status_reply",
    b"error_reply",
    b"sha1hex",
    b"log",
    b"setresp",
    b"set_repl",
    b"replicate_commands",
    b"register_function",
    b"LOG_WARNING",
    b"LOG_NOTICE",
];

/// Whether the script comes to no data but that of its keys. O(length), for texts that are not made to take longer.
pub(super) fn keeps_to_its_keys(program: &[u8]) -> bool {
    is_local(program, Kind::Script)
}

/// Whether all functions of the library come to no data but that of their keys.
pub(super) fn library_keeps_to_its_keys(program: &[u8]) -> bool {
    is_local(program, Kind::Library)
}

fn is_local(program: &[u8], kind: Kind) -> bool {
    let tokens = tokens(program);
    tokens.is_some_and(|tokens| Text::new(&tokens, kind).is_some_and(|text| text.is_local()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its keys are `KEYS`.
    Script,
    /// Keys are the first argument of each of its functions. It lives on between calls.
    Library,
}

/// A text's tokens, with what is known of them.
struct Text<'t, 'p> {
    tokens: &'t [Token<'p>],
    /// For each token the bracket, or the keyword of the block, that is open around it.
    parents: Vec<Option<usize>>,
    /// For an opening bracket its closing one.
    closings: HashMap<usize, usize>,
    /// Names that are the table of all keys wherever they are declared.
    tables: HashSet<&'p [u8]>,
    /// Names that are a key wherever they are declared.
    keys: HashSet<&'p [u8]>,
    /// These declarations, by the token of the name.
    declarations: HashMap<usize, Source<'p>>,
    /// The tokens of all functions' parameters.
    parameters: HashSet<usize>,
    /// Tokens of expressions in declarations, whose commas are no list of assigned names.
    initial: HashSet<usize>,
}

/// Where a declared name has its value from.
#[derive(Clone, Copy)]
enum Source<'p> {
    /// The expression between two tokens.
    Expression(usize, usize),
    /// An element of the table that this token names.
    Element(usize),
    /// What the calls of a local function pass at this place.
    Parameter(&'p [u8], usize),
    /// The server's: the table of keys.
    Keys,
}

/// A function as it is written.
struct Definition<'p> {
    /// The name of a local function, and the name's token.
    name: Option<(&'p [u8], usize)>,
    /// The tokens of its parameters.
    parameters: Vec<usize>,
    /// The server calls it, with the table of keys.
    is_callback: bool,
}

impl<'t, 'p> Text<'t, 'p> {
    /// `None` if brackets or blocks do not match, or a library makes functions that could outlive a call.
    fn new(tokens: &'t [Token<'p>], kind: Kind) -> Option<Text<'t, 'p>> {
        let mut text = Text {
            tokens,
            parents: Vec::new(),
            closings: HashMap::new(),
            tables: HashSet::new(),
            keys: HashSet::new(),
            declarations: HashMap::new(),
            parameters: HashSet::new(),
            initial: HashSet::new(),
        };
        text.find_blocks()?;
        if kind == Kind::Script {
            text.tables.insert(b"KEYS");
        }
        let functions = text.find_functions();
        if kind == Kind::Library && functions.iter().any(|(at, _)| text.is_within_function(*at)) {
            return None;
        }
        text.declare_parameters(functions.iter().map(|(_, definition)| definition), kind);
        text.find_locals();
        text.find_elements();
        text.drop_changed();
        while text.drop_unfounded() {}
        Some(text)
    }

    /// Finds what is open around each token.
    fn find_blocks(&mut self) -> Option<()> {
        let mut open = Vec::new();
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Symbol(b")" | b"]" | b"}") => {
                    let opening = open.pop()?;
                    matches!(self.tokens[opening], Token::Symbol(_)).then_some(())?;
                    self.closings.insert(opening, at);
                }
                Token::Name(b"end" | b"until") => {
                    matches!(self.tokens[open.pop()?], Token::Name(_)).then_some(())?;
                }
                _ => {}
            }
            self.parents.push(open.last().copied());
            let opens = matches!(
                token,
                Token::Symbol(b"(" | b"[" | b"{")
                    | Token::Name(b"function" | b"do" | b"if" | b"repeat")
            );
            if opens {
                open.push(at);
            }
        }
        open.is_empty().then_some(())
    }

    /// All functions, by their keyword.
    fn find_functions(&self) -> Vec<(usize, Definition<'p>)> {
        let keywords =
            (0..self.tokens.len()).filter(|&at| self.tokens[at] == Token::Name(b"function"));
        keywords.map(|at| (at, self.definition(at))).collect()
    }

    fn definition(&self, at: usize) -> Definition<'p> {
        let is_local = |index: Option<usize>| {
            let token = index.and_then(|index| self.at(index));
            matches!(token, Some(Token::Name(b"local")))
        };
        let name = if is_local(at.checked_sub(1)) {
            Some(at + 1)
        } else if at > 2 && self.is(at - 1, b"=") && is_local(at.checked_sub(3)) {
            Some(at - 2)
        } else {
            None
        };
        let open = (at + 1..self.tokens.len()).find(|&index| self.is(index, b"("));
        let end = open.and_then(|open| self.closings.get(&open).copied());
        let parameters = open.unwrap_or(at)..end.unwrap_or(at);
        Definition {
            name: name.and_then(|at| Some((self.name(at)?, at))),
            parameters: parameters.filter(|&at| self.name(at).is_some()).collect(),
            is_callback: self.is_registered(at),
        }
    }

    /// Whether the function or name at this token is what `register_function` is given.
    fn is_registered(&self, at: usize) -> bool {
        let Some(around) = self.parents[at] else {
            return false;
        };
        let is_callee = |open: usize| {
            matches!(self.before(open), Some(Token::Name(b"register_function")))
                || matches!(self.before(open), Some(Token::Symbol(b"(")))
                    && open > 1
                    && matches!(
                        self.before(open - 1),
                        Some(Token::Name(b"register_function"))
                    )
        };
        let is_named = at > 1
            && self.is(at - 1, b"=")
            && matches!(self.before(at - 1), Some(Token::Name(b"callback")));
        is_callee(around)
            && match self.tokens[around] {
                Token::Symbol(b"{") => is_named,
                Token::Symbol(b"(") => matches!(self.before(at), Some(Token::Symbol(b","))),
                _ => false,
            }
    }

    fn is_within_function(&self, at: usize) -> bool {
        let mut around = self.parents[at];
        while let Some(opening) = around {
            if self.tokens[opening] == Token::Name(b"function") {
                return true;
            }
            around = self.parents[opening];
        }
        false
    }

    fn declare_parameters<'d>(
        &mut self,
        functions: impl Iterator<Item = &'d Definition<'p>> + Clone,
        kind: Kind,
    ) where
        'p: 'd,
    {
        for definition in functions.clone() {
            self.parameters.extend(&definition.parameters);
            let namesakes = |name: &[u8]| {
                let mut all = functions.clone();
                all.any(|other| {
                    !std::ptr::eq(other, definition)
                        && other.name.is_some_and(|(known, _)| known == name)
                })
            };
            let name = definition.name.filter(|(name, _)| !namesakes(name));
            let registered = name.is_some_and(|(name, at)| self.is_only_registered(name, at));
            let is_callback = kind == Kind::Library && (definition.is_callback || registered);
            for (place, &at) in definition.parameters.iter().enumerate() {
                let Token::Name(parameter) = self.tokens[at] else {
                    continue;
                };
                let source = match name {
                    _ if is_callback && place == 0 => Source::Keys,
                    Some((name, _)) if !is_callback => Source::Parameter(name, place),
                    _ => continue,
                };
                match source {
                    Source::Keys => self.tables.insert(parameter),
                    _ => self.keys.insert(parameter),
                };
                self.declarations.insert(at, source);
            }
        }
    }

    /// Whether a local function is given to the server and to nobody else.
    fn is_only_registered(&self, name: &[u8], declared: usize) -> bool {
        let mut uses = self.uses(name).filter(|&at| at != declared).peekable();
        uses.peek().is_some() && uses.all(|at| self.is_registered(at) && !self.is(at + 1, b"("))
    }

    /// Where a name stands that is no field's.
    fn uses(&self, name: &[u8]) -> impl Iterator<Item = usize> {
        let all = (0..self.tokens.len()).filter(move |&at| self.name(at) == Some(name));
        all.filter(|&at| !self.is_field(at))
    }

    /// Finds `local a, b = KEYS[1], KEYS[2]`.
    fn find_locals(&mut self) {
        for at in 0..self.tokens.len() {
            if self.tokens[at] != Token::Name(b"local") {
                continue;
            }
            let Some(declared) = self.declaration(at + 1) else {
                continue;
            };
            for (at, from, to) in declared {
                if let Token::Name(name) = self.tokens[at] {
                    self.keys.insert(name);
                }
                self.declarations.insert(at, Source::Expression(from, to));
                self.initial.extend(from..to);
            }
        }
    }

    /// The token of each name, and its expression.
    fn declaration(&self, from: usize) -> Option<Vec<(usize, usize, usize)>> {
        let (mut at, mut names) = (from, Vec::new());
        loop {
            self.name(at)?;
            names.push(at);
            at += 1;
            if self.is(at, b"=") {
                break;
            }
            self.is(at, b",").then_some(())?;
            at += 1;
        }
        let mut declared = Vec::new();
        for (number, &name) in names.iter().enumerate() {
            let start = at + 1;
            self.name(start)?;
            at = match self.closings.get(&(start + 1)) {
                Some(&closing) if self.is(start + 1, b"[") => closing + 1,
                _ => start + 1,
            };
            declared.push((name, start, at));
            if number + 1 < names.len() {
                self.is(at, b",").then_some(())?;
            }
        }
        // The last expression must not go on.
        match self.at(at) {
            None | Some(Token::Symbol(b";")) => Some(declared),
            Some(Token::Name(name)) if name != b"and" && name != b"or" => Some(declared),
            _ => None,
        }
    }

    /// Finds `for index, key in ipairs(KEYS) do`.
    fn find_elements(&mut self) {
        for at in 4..self.tokens.len() {
            let (Some(table), true) = (self.table_walked(at), self.is(at - 2, b",")) else {
                continue;
            };
            let is_pair = matches!(self.before(at - 3), Some(Token::Name(b"for")));
            if let (Token::Name(name), true) = (self.tokens[at - 1], is_pair) {
                self.keys.insert(name);
                self.declarations.insert(at - 1, Source::Element(table));
            }
        }
    }

    /// The token of the table in `in ipairs(table) do`, whose first token this is.
    fn table_walked(&self, at: usize) -> Option<usize> {
        let words = matches!(self.at(at), Some(Token::Name(b"in")))
            && matches!(self.at(at + 1), Some(Token::Name(b"ipairs")))
            && self.is(at + 2, b"(")
            && self.is(at + 4, b")")
            && matches!(self.at(at + 5), Some(Token::Name(b"do")));
        (words && self.is_only_called(b"ipairs")).then_some(at + 3)
    }

    /// Whether a name of Lua's stands for nothing else.
    fn is_only_called(&self, name: &[u8]) -> bool {
        self.uses(name).all(|at| {
            self.is(at + 1, b"(") && !matches!(self.before(at), Some(Token::Name(b"function")))
        })
    }

    /// Takes out names that may be something else as well.
    fn drop_changed(&mut self) {
        for at in 0..self.tokens.len() {
            let Some(name) = self.name(at) else {
                continue;
            };
            if !self.declarations.contains_key(&at) && !self.is_field(at) && self.is_changed(at) {
                self.keys.remove(name);
                self.tables.remove(name);
            }
        }
        let both: Vec<_> = self.keys.intersection(&self.tables).copied().collect();
        for name in both {
            self.keys.remove(name);
            self.tables.remove(name);
        }
    }

    /// Whether the name at this token is declared or assigned to.
    fn is_changed(&self, at: usize) -> bool {
        let listed = self.is_statement(at)
            && !self.initial.contains(&at)
            && (self.is(at + 1, b",") || at > 0 && self.is(at - 1, b","));
        let declares = matches!(
            self.before(at),
            Some(Token::Name(b"local" | b"for" | b"function"))
        );
        let iterates = matches!(self.at(at + 1), Some(Token::Name(b"in")));
        let assigned = self.is(at + 1, b"=");
        listed || declares || iterates || assigned || self.parameters.contains(&at)
    }

    /// Whether no bracket is open around the token but those around its block.
    fn is_statement(&self, at: usize) -> bool {
        self.parents[at].is_none_or(|opening| matches!(self.tokens[opening], Token::Name(_)))
    }

    /// Takes out names whose declarations are not founded on keys. False if there are none.
    fn drop_unfounded(&mut self) -> bool {
        let unfounded: Vec<&[u8]> = self
            .declarations
            .iter()
            .filter_map(|(&at, &source)| {
                let name = self.name(at)?;
                let known = self.keys.contains(name) || self.tables.contains(name);
                (known && !self.is_founded(source)).then_some(name)
            })
            .collect();
        for name in &unfounded {
            self.keys.remove(*name);
            self.tables.remove(*name);
        }
        !unfounded.is_empty()
    }

    fn is_founded(&self, source: Source<'p>) -> bool {
        match source {
            Source::Keys => true,
            Source::Expression(from, to) => self.is_key(from, to),
            Source::Element(table) => self.is_table(table),
            Source::Parameter(function, place) => self.uses(function).all(|at| {
                let is_definition =
                    matches!(self.before(at), Some(Token::Name(b"function" | b"local")));
                is_definition || self.passes_key(at + 1, place)
            }),
        }
    }

    /// Whether the call whose bracket opens here passes a key at this place.
    fn passes_key(&self, open: usize, place: usize) -> bool {
        let Some(&closing) = self.closings.get(&open).filter(|_| self.is(open, b"(")) else {
            return false;
        };
        let arguments = self.arguments(open, closing);
        let argument = arguments.get(place);
        argument.is_some_and(|&(from, to)| self.is_key(from, to))
    }

    fn is_local(&self) -> bool {
        (0..self.tokens.len()).all(|at| match self.tokens[at] {
            Token::Name(name) if WAYS_OUT.contains(&name) => false,
            Token::Name(b"redis" | b"server") => self.calls_locally(at),
            Token::Name(_) if self.is_table(at) => self.reads_table(at),
            _ => true,
        })
    }

    fn at(&self, index: usize) -> Option<Token<'p>> {
        self.tokens.get(index).copied()
    }

    fn before(&self, index: usize) -> Option<Token<'p>> {
        self.at(index.checked_sub(1)?)
    }

    fn name(&self, index: usize) -> Option<&'p [u8]> {
        match self.at(index)? {
            Token::Name(name) => Some(name),
            _ => None,
        }
    }

    fn is(&self, index: usize, symbol: &[u8]) -> bool {
        matches!(self.at(index), Some(Token::Symbol(found)) if found == symbol)
    }

    fn is_field(&self, at: usize) -> bool {
        matches!(self.before(at), Some(Token::Symbol(b"." | b":")))
    }

    /// Whether the table of keys is named here.
    fn is_table(&self, at: usize) -> bool {
        let name = self.name(at).filter(|_| !self.is_field(at));
        name.is_some_and(|name| self.tables.contains(name))
    }

    /// `KEYS[...]`: the token behind it.
    fn key_at(&self, at: usize) -> Option<usize> {
        let closing = self.closings.get(&(at + 1));
        closing
            .filter(|_| self.is_table(at) && self.is(at + 1, b"["))
            .map(|closing| closing + 1)
    }

    /// `unpack(KEYS)`.
    fn is_spread(&self, from: usize, to: usize) -> bool {
        to == from + 4
            && self.name(from) == Some(b"unpack")
            && self.is_only_called(b"unpack")
            && self.is(from + 1, b"(")
            && self.is_table(from + 2)
            && self.is(from + 3, b")")
    }

    /// Whether the table of keys is only read here.
    fn reads_table(&self, at: usize) -> bool {
        if self.declarations.contains_key(&at) {
            return true;
        }
        if let Some(behind) = self.key_at(at) {
            let listed = self.is_statement(at)
                && !self.initial.contains(&at)
                && (self.is(behind, b",") || at > 0 && self.is(at - 1, b","));
            return !self.is(behind, b"=") && !listed;
        }
        let is_counted = matches!(self.before(at), Some(Token::Symbol(b"#")));
        let is_walked = at > 2 && self.table_walked(at - 3) == Some(at);
        let is_spread = at > 1 && self.is_spread(at - 2, at + 2);
        is_counted && !self.is(at + 1, b"(") || is_walked || is_spread
    }

    /// Whether this use of `redis` runs a command on keys that were declared, or none.
    fn calls_locally(&self, at: usize) -> bool {
        let field = match self.at(at + 2) {
            Some(Token::Name(field)) if self.is(at + 1, b".") => field,
            _ => return false,
        };
        if !CALLS.contains(&field) {
            let replication = field.starts_with(b"REPL_");
            return (HARMLESS.contains(&field) || replication) && !self.is(at + 3, b"=");
        }
        let open = at + 3;
        match self.closings.get(&open) {
            Some(&closing) if self.is(open, b"(") => self.is_command_local(open, closing),
            _ => false,
        }
    }

    /// Where the arguments between two brackets begin and end.
    fn arguments(&self, open: usize, closing: usize) -> Vec<(usize, usize)> {
        let mut arguments = vec![(open + 1, open + 1)];
        for at in open + 1..closing {
            if self.parents[at] == Some(open) && self.is(at, b",") {
                arguments.push((at + 1, at + 1));
            } else if let Some(last) = arguments.last_mut() {
                last.1 = at + 1;
            }
        }
        arguments
    }

    /// Whether the arguments between two brackets are a command whose keys are certain.
    fn is_command_local(&self, open: usize, closing: usize) -> bool {
        let arguments = self.arguments(open, closing);
        let name = match arguments[0] {
            (from, to) if to == from + 1 => match self.tokens[from] {
                Token::Text(name) => name,
                _ => return false,
            },
            _ => return false,
        };
        let Some(registered) = table::table().find(name) else {
            return false;
        };
        let command = registered.command;
        if !registered.subcommands.is_empty() {
            return false;
        }
        if command.keys.is_empty() {
            return matches!(command.run, Run::Session(_));
        }
        let is_key = |index: usize| {
            arguments
                .get(index)
                .is_some_and(|&(from, to)| self.is_key(from, to))
        };
        let last = arguments.len() - 1;
        let (from, to) = arguments[last];
        let is_spread = self.is_spread(from, to);
        command.keys.iter().all(|keys| match keys.place {
            Place::At(index) => is_key(index),
            Place::Pair { first } => is_key(first) && is_key(first + 1),
            // Wherever the keys end, all that follow the first are keys.
            Place::Range { first, .. } if is_spread => first <= last && (first..last).all(is_key),
            Place::Range { first, last, step } => {
                // A last argument of several values would move the end.
                let certain = to == from + 1 && !self.is(from, b"...") || self.is_key(from, to);
                let end = arguments.len().saturating_sub(last);
                certain && first < end && (first..end).step_by(step).all(is_key)
            }
            _ => false,
        })
    }

    /// Whether the tokens are one of the script's keys and nothing more.
    fn is_key(&self, from: usize, to: usize) -> bool {
        match self.at(from) {
            Some(Token::Name(name)) if to == from + 1 => self.keys.contains(name),
            _ => self.key_at(from) == Some(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_that_name_their_keys_are_local() {
        for program in [
            "return redis.call('GET', KEYS[1])",
            "return redis.call(\"set\", KEYS[1], ARGV[1], 'PX', ARGV[2])",
            "if redis.call('get',KEYS[1]) == ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end",
            "local key = KEYS[1]\nlocal now = tonumber(ARGV[1])\nredis.call('ZADD', key, now, now .. '-' .. ARGV[2])\n\
             return redis.call('ZCARD', key)",
            "local a, b = KEYS[1], KEYS[2]; return {redis.call('rename', a, b), #KEYS}",
            "for i = 1, #KEYS do redis.call('incr', KEYS[i]) end",
            "for i = 1, 3 do redis.pcall('del', KEYS[i], KEYS[i + 1]) end -- KEYS = nothing",
            "redis.call('mset', KEYS[1], 'KEYS', KEYS[2], [[redis = {}]])",
            "local t = redis.call('time') return t[1]",
            "redis.call('sadd', KEYS[1], unpack(ARGV))",
            "local t = {key = 1} t.key = 2 return redis.call('get', KEYS[t.key])",
            "return 1",
            "local function get(key) return redis.call('get', key) end return {get(KEYS[1]), get(KEYS[2])}",
            "local get = function(key, how) return redis.call(\"getex\", key, 'PX', how) end return get(KEYS[1], ARGV[1])",
            "local function walk(key, left) if left > 0 then redis.call('incr', key) return walk(key, left - 1) end end\n\
             local key = KEYS[1] return walk(key, 3)",
            "local function a(k) return redis.call('get', k) end local function b(k) return a(k) end return b(KEYS[1])",
            "for i, key in ipairs(KEYS) do redis.call('del', key) end",
            "return redis.call('mget', unpack(KEYS))",
            "local function sum(...) local s = 0 for _, x in ipairs({...}) do s = s + x end return s end\n\
             return sum(redis.call('get', KEYS[1]), 2)",
            "local a, b = KEYS[1], KEYS[2] local c = a; return pcall(function() return redis.call('get', c) end)",
            "if KEYS[1] then redis.set_repl(redis.REPL_NONE) redis.call('set', KEYS[1], (function(a, b) return a, b end)(1)) end",
        ] {
            assert!(keeps_to_its_keys(program.as_bytes()), "{program}");
        }
    }

    #[test]
    fn scripts_that_may_do_otherwise_are_not() {
        for program in [
            "return redis.call('GET', 'x')",
            "return redis.call('GET', ARGV[1])",
            "return redis.call('GET', KEYS[1] .. 'x')",
            "return redis.call('GET', (KEYS[1]))",
            "return redis.call('GET', KEYS[1] or 'x')",
            "return redis.call(ARGV[1], KEYS[1])",
            "return redis.call('get' .. 'range', KEYS[1])",
            "return redis['call']('GET', 'x')",
            "local c = redis.call return c('GET', 'x')",
            "local r = redis return r.call('GET', 'x')",
            "local redis = {} return redis",
            "KEYS[1] = 'x' return redis.call('GET', KEYS[1])",
            "local a a, KEYS[1] = 1, 'x' return redis.call('GET', KEYS[1])",
            "KEYS[1], a = 'x', 1 return redis.call('GET', KEYS[1])",
            "local KEYS = {'x'} return redis.call('GET', KEYS[1])",
            "table.insert(KEYS, 'x') return redis.call('GET', KEYS[2])",
            "local k = KEYS k[1] = 'x' return redis.call('GET', KEYS[1])",
            "local key = KEYS[1] .. 'x' return redis.call('GET', key)",
            "local key = KEYS[1]\nkey = 'x' return redis.call('GET', key)",
            "local key = KEYS[1] local a a, key = 1, 'x' return redis.call('GET', key)",
            "local key = KEYS[1] local key, a = 'x' return redis.call('GET', key)",
            "local key = KEYS[1] for key in pairs(ARGV) do redis.call('GET', key) end",
            "local key = KEYS[1] for _, key in pairs(ARGV) do redis.call('GET', key) end",
            "local key = KEYS[1] for key = 1, 2 do redis.call('GET', key) end",
            "local key = KEYS[1] pcall(function() key = 'x' end) return redis.call('GET', key)",
            "local a, key = KEYS[1], 'x' return redis.call('GET', key)",
            "local a, key = KEYS[1] return redis.call('GET', key)",
            "redis.call('del', KEYS[1], unpack(ARGV))",
            "redis.call('del', KEYS[1], ...)",
            "redis.call('mset', KEYS[1], 'a', 'x', 'b')",
            "redis.call('rename', KEYS[1], 'x')",
            "redis.call('sort', KEYS[1], 'by', 'w_*')",
            "redis.call('zunionstore', KEYS[1], 1, KEYS[2])",
            "redis.call('keys', '*')",
            "redis.call('dbsize')",
            "redis.call('flushall')",
            "redis.call('object', 'encoding', KEYS[1])",
            "redis.call('nope', KEYS[1])",
            "redis.call 'randomkey'",
            "redis.call{'get', 'x'}",
            "redis.call = 1",
            "redis.log = redis.call",
            "_G.redis.call('get', 'x')",
            "setmetatable({}, {})",
            "loadstring('x')()",
            "return redis.call('GET', KEYS[1]",
            "return 'redis",
            "local function get(key) return redis.call('get', key) end return get(ARGV[1])",
            "local function get(key) return redis.call('get', key) end return get(KEYS[1] .. 'x')",
            "local function get(key) return redis.call('get', key) end return get()",
            "local function get(key) return redis.call('get', key) end local g = get return g(ARGV[1])",
            "local function get(key) return redis.call('get', key) end return pcall(get, ARGV[1])",
            "local function get(key) key = key .. 'x' return redis.call('get', key) end return get(KEYS[1])",
            "local function get(key) return redis.call('get', key) end\n\
             local function put(key) return redis.call('get', key) end return {get(KEYS[1]), put(ARGV[1])}",
            "local function get(key) return redis.call('get', key) end\n\
             local function get(key) return redis.call('get', key) end return get(KEYS[1])",
            "local t = {} function t.get(key) return redis.call('get', key) end return t.get(KEYS[1])",
            "local key = KEYS[1] local function f(key) return redis.call('get', key) end return f('x')",
            "local key = KEYS[1] local function f() local a a, key = 1, 'x' end f() return redis.call('get', key)",
            "local key = KEYS[1] local function key() end return redis.call('get', key)",
            "local key = KEYS[1] return (function(a, key) return redis.call('get', key) end)(1, 'x')",
            "return (function(KEYS) return redis.call('get', KEYS[1]) end)({'x'})",
            "(function() local a a, KEYS[1] = 1, 'x' end)() return redis.call('get', KEYS[1])",
            "local f, t = ipairs(KEYS) t[1] = 'x' return redis.call('get', KEYS[1])",
            "for i, key in ipairs({'x'}) do redis.call('del', key) end",
            "local ipairs = function() return pairs({'x'}) end for i, key in ipairs(KEYS) do redis.call('del', key) end",
            "local function unpack() return 'x' end return redis.call('mget', unpack(KEYS))",
            "for i, key in ipairs(KEYS) do end for i, key in ipairs(ARGV) do redis.call('del', key) end",
            "local c = ARGV[1] return redis.call('get', c)",
            "local a = KEYS[1] local b = a .. 'x'; return redis.call('get', b)",
            "return redis.call('get', unpack(KEYS))",
            "end return 1",
        ] {
            assert!(!keeps_to_its_keys(program.as_bytes()), "{program}");
        }
    }

    #[test]
    fn libraries_whose_functions_keep_to_their_keys_are_local() {
        for program in [
            "redis.register_function('get', function(keys, args) return redis.call('get', keys[1]) end)",
            "local function set(keys, args) return server.call('set', keys[1], args[1]) end\n\
             server.register_function('set', set)",
            "redis.register_function{function_name = 'get', callback = function(keys) \
                 local key = keys[1] return redis.call('get', key) end, flags = {'no-writes'}}",
            "local function one(key) return redis.call('get', key) end\n\
             local function all(keys, args) local r = {} for i, k in ipairs(keys) do r[i] = one(k) end return r end\n\
             redis.register_function({function_name = 'all', callback = all})\n\
             redis.register_function('first', function(keys) return one(keys[1]) end)",
            "redis.register_function('one', function() return 1 end)",
        ] {
            assert!(library_keeps_to_its_keys(program.as_bytes()), "{program}");
        }
    }

    #[test]
    fn libraries_that_may_do_otherwise_are_not() {
        for program in [
            "redis.register_function('get', function(keys, args) return redis.call('get', args[1]) end)",
            "redis.register_function('get', function(keys, args) return redis.call('get', KEYS[1]) end)",
            "redis.register_function('get', function(keys) keys[1] = 'x' return redis.call('get', keys[1]) end)",
            "redis.register_function('get', function(keys) local k = keys k[1] = 'x' end)",
            "local function get(keys) return redis.call('get', keys[1]) end\n\
             redis.register_function('get', get) redis.register_function('other', function() return get({'x'}) end)",
            "local kept redis.register_function('a', function(keys) local k = keys[1] \
                 kept = function() return redis.call('get', k) end end)\n\
             redis.register_function('b', function(keys) return kept() end)",
            "local kept redis.register_function('a', function(keys) kept = keys[1] end)\n\
             redis.register_function('b', function(keys) return redis.call('get', kept) end)",
            "local function f(keys) return redis.call('get', keys[1]) end redis.register_function('f', f) f({'x'})",
        ] {
            assert!(!library_keeps_to_its_keys(program.as_bytes()), "{program}");
        }
    }
}
