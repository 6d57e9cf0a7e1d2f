//! Whether a script keeps to the keys that it is called with, told from its text.
//!
//! A script is atomic, so whatever it may come to has to be locked before it begins: all shards, unless it is certain
//! that every command in it names its keys as `KEYS[...]`, or by a local variable that is nothing else. This looks for
//! that certainty in the script's tokens and gives up at whatever it does not know (functions, other names for `redis`
//! or `KEYS`, keys that are put together), which is never wrong, only slower.

use hashbrown::{HashMap, HashSet};

use super::lexer::{Token, tokens};
use crate::dispatch::{
    command::{Place, Run},
    table,
};

/// Names by which a script could get at anything.
const WAYS_OUT: [&[u8]; 9] = [
    b"function",
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
const HARMLESS: [&[u8]; 8] = [
    b"status_reply",
    b"error_reply",
    b"sha1hex",
    b"log",
    b"setresp",
    b"replicate_commands",
    b"LOG_WARNING",
    b"LOG_NOTICE",
];

/// Whether the script comes to no data but that of its keys. O(length).
pub(super) fn keeps_to_its_keys(program: &[u8]) -> bool {
    tokens(program).is_some_and(|tokens| Text::new(&tokens).is_some_and(|text| text.is_local()))
}

/// A script's tokens, with what is known of them.
struct Text<'t, 'p> {
    tokens: &'t [Token<'p>],
    /// How many brackets of any kind are open before each token.
    depths: Vec<usize>,
    /// For an opening bracket its closing one.
    closings: HashMap<usize, usize>,
    /// Variables that are a key wherever they are declared.
    keys: HashSet<&'p [u8]>,
    /// The tokens of these declarations.
    declared: HashSet<usize>,
}

impl<'t, 'p> Text<'t, 'p> {
    /// `None` if brackets do not match.
    fn new(tokens: &'t [Token<'p>]) -> Option<Text<'t, 'p>> {
        let (mut depths, mut closings, mut open) = (Vec::new(), HashMap::new(), Vec::new());
        for (at, token) in tokens.iter().enumerate() {
            if matches!(token, Token::Symbol(b")" | b"]" | b"}")) {
                closings.insert(open.pop()?, at);
            }
            depths.push(open.len());
            if matches!(token, Token::Symbol(b"(" | b"[" | b"{")) {
                open.push(at);
            }
        }
        let mut text = Text {
            tokens,
            depths,
            closings,
            keys: HashSet::new(),
            declared: HashSet::new(),
        };
        text.find_declarations();
        text.drop_changed();
        open.is_empty().then_some(text)
    }

    fn is_local(&self) -> bool {
        (0..self.tokens.len()).all(|at| match self.tokens[at] {
            Token::Name(name) if WAYS_OUT.contains(&name) => false,
            Token::Name(b"KEYS") => self.reads_keys(at),
            Token::Name(b"redis" | b"server") => self.calls_locally(at),
            _ => true,
        })
    }

    fn at(&self, index: usize) -> Option<Token<'p>> {
        self.tokens.get(index).copied()
    }

    fn before(&self, index: usize) -> Option<Token<'p>> {
        self.at(index.checked_sub(1)?)
    }

    fn is(&self, index: usize, symbol: &[u8]) -> bool {
        matches!(self.at(index), Some(Token::Symbol(found)) if found == symbol)
    }

    /// `KEYS[...]`: the token behind it.
    fn key_at(&self, at: usize) -> Option<usize> {
        let named = matches!(self.at(at), Some(Token::Name(b"KEYS")));
        let closing = self.closings.get(&(at + 1));
        closing
            .filter(|_| named && self.is(at + 1, b"["))
            .map(|closing| closing + 1)
    }

    /// Finds `local a, b = KEYS[1], KEYS[2]`.
    fn find_declarations(&mut self) {
        for at in 0..self.tokens.len() {
            if matches!(self.tokens[at], Token::Name(b"local"))
                && let Some((names, end)) = self.declaration(at + 1)
            {
                for &name in &names {
                    if let Token::Name(name) = self.tokens[name] {
                        self.keys.insert(name);
                    }
                }
                self.declared.extend(names);
                self.declared.extend(at..end);
            }
        }
    }

    /// The tokens of the names, and the one behind the declaration.
    fn declaration(&self, from: usize) -> Option<(Vec<usize>, usize)> {
        let (mut at, mut names) = (from, Vec::new());
        loop {
            matches!(self.at(at)?, Token::Name(_)).then_some(())?;
            names.push(at);
            at += 1;
            if self.is(at, b"=") {
                break;
            }
            self.is(at, b",").then_some(())?;
            at += 1;
        }
        for number in 0..names.len() {
            at = self.key_at(at + 1)?;
            if number + 1 < names.len() {
                self.is(at, b",").then_some(())?;
            }
        }
        // The last expression must not go on.
        match self.at(at) {
            None | Some(Token::Symbol(b";")) => Some((names, at)),
            Some(Token::Name(name)) if name != b"and" && name != b"or" => Some((names, at)),
            _ => None,
        }
    }

    /// Takes out variables that may be something else as well.
    fn drop_changed(&mut self) {
        for at in 0..self.tokens.len() {
            let Token::Name(name) = self.tokens[at] else {
                continue;
            };
            let is_field = matches!(self.before(at), Some(Token::Symbol(b"." | b":")));
            if self.declared.contains(&at) || is_field || !self.keys.contains(name) {
                continue;
            }
            let listed =
                self.depths[at] == 0 && (self.is(at + 1, b",") || at > 0 && self.is(at - 1, b","));
            let declares = matches!(self.before(at), Some(Token::Name(b"local" | b"for")));
            let iterates = matches!(self.at(at + 1), Some(Token::Name(b"in")));
            if listed || declares || iterates || self.is(at + 1, b"=") {
                self.keys.remove(name);
            }
        }
    }

    /// Whether KEYS is only read here: `#KEYS`, or an element that is not assigned to.
    fn reads_keys(&self, at: usize) -> bool {
        if matches!(self.before(at), Some(Token::Symbol(b"." | b":"))) {
            return false;
        }
        let Some(behind) = self.key_at(at) else {
            return matches!(self.before(at), Some(Token::Symbol(b"#"))) && !self.is(at + 1, b"(");
        };
        let listed = self.depths[at] == 0 && self.is(behind, b",");
        !self.is(behind, b"=") && (!listed || self.declared.contains(&at))
    }

    /// Whether this use of `redis` runs a command on keys that were declared, or none.
    fn calls_locally(&self, at: usize) -> bool {
        let field = match self.at(at + 2) {
            Some(Token::Name(field)) if self.is(at + 1, b".") => field,
            _ => return false,
        };
        if !CALLS.contains(&field) {
            return HARMLESS.contains(&field) && !self.is(at + 3, b"=");
        }
        let open = at + 3;
        match self.closings.get(&open) {
            Some(&closing) if self.is(open, b"(") => self.is_command_local(open, closing),
            _ => false,
        }
    }

    /// Whether the arguments between two brackets are a command whose keys are certain.
    fn is_command_local(&self, open: usize, closing: usize) -> bool {
        let depth = self.depths[open] + 1;
        let mut arguments = vec![(open + 1, open + 1)];
        for at in open + 1..closing {
            if self.depths[at] == depth && self.is(at, b",") {
                arguments.push((at + 1, at + 1));
            } else if let Some(last) = arguments.last_mut() {
                last.1 = at + 1;
            }
        }
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
        command.keys.iter().all(|keys| match keys.place {
            Place::At(index) => is_key(index),
            Place::Pair { first } => is_key(first) && is_key(first + 1),
            Place::Range { first, last, step } => {
                // A last argument of several values would move the end.
                let certain = arguments.last().is_some_and(|&(from, to)| {
                    to == from + 1 && !self.is(from, b"...") || self.is_key(from, to)
                });
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
        ] {
            assert!(!keeps_to_its_keys(program.as_bytes()), "{program}");
        }
    }
}
