//! Reads the notation of a declaration's `syntax` into the tree of arguments that COMMAND DOCS shows.
//!
//! ```text
//! key                 an argument          TOKEN             a word as it stands
//! TOKEN value         one with its token   TOKEN a b         a block with a token
//! [x]                 may be left out      <x | y>           one of several
//! x [x ...]           once or more         [TOKEN x [TOKEN x ...]]   each time with its token
//! ```

/// One node of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Argument {
    pub name: String,
    pub kind: Kind,
    pub token: Option<String>,
    pub optional: bool,
    pub multiple: bool,
    pub multiple_token: bool,
    pub arguments: Vec<Argument>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    String,
    Integer,
    Double,
    Key,
    Pattern,
    UnixTime,
    PureToken,
    OneOf,
    Block,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Double => "double",
            Kind::Key => "key",
            Kind::Pattern => "pattern",
            Kind::UnixTime => "unix-time",
            Kind::PureToken => "pure-token",
            Kind::OneOf => "oneof",
            Kind::Block => "block",
        }
    }
}

/// The arguments that a syntax describes.
pub(super) fn arguments(syntax: &str) -> Vec<Argument> {
    let mut spaced = String::with_capacity(syntax.len() * 2);
    for letter in syntax.chars() {
        match letter {
            '[' | ']' | '<' | '>' | '|' => spaced.extend([' ', letter, ' ']),
            other => spaced.push(other),
        }
    }
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words };
    let mut all = Vec::new();
    // A stray closing bracket ends a sequence; what follows it is read as well.
    while !parser.words.is_empty() {
        all.extend(parser.alternatives());
        parser.words = parser.words.get(1..).unwrap_or_default();
    }
    all
}

struct Parser<'s> {
    words: &'s [&'s str],
}

impl<'s> Parser<'s> {
    fn next(&mut self) -> Option<&'s str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn peek(&self) -> Option<&'s str> {
        self.words.first().copied()
    }

    /// Sequences separated by bars, up to a closing bracket: one sequence as it is, several as a choice.
    fn alternatives(&mut self) -> Vec<Argument> {
        let mut choices = vec![self.sequence()];
        while self.peek() == Some("|") {
            self.next();
            choices.push(self.sequence());
        }
        if choices.len() == 1 {
            return choices.swap_remove(0);
        }
        let arguments: Vec<Argument> = choices.into_iter().map(together).collect();
        let name = arguments
            .first()
            .map_or_else(String::new, |first| first.name.clone());
        vec![Argument {
            name,
            kind: Kind::OneOf,
            arguments,
            ..Argument::default()
        }]
    }

    fn sequence(&mut self) -> Vec<Argument> {
        let mut found: Vec<Argument> = Vec::new();
        while let Some(word) = self.peek() {
            match word {
                "]" | ">" | "|" => break,
                "[" => {
                    self.next();
                    if self.repeats() {
                        self.repeat(&mut found);
                    } else {
                        let mut inner = together(self.alternatives());
                        inner.optional = true;
                        self.next();
                        found.push(inner);
                    }
                }
                "<" => {
                    self.next();
                    let inner = self.alternatives();
                    self.next();
                    found.push(together(inner));
                }
                word => {
                    self.next();
                    found.push(leaf(word));
                }
            }
        }
        tokens(found)
    }

    /// Whether the bracket just opened is a repetition: it closes behind dots, without others inside.
    fn repeats(&self) -> bool {
        let close = self.words.iter().position(|word| *word == "]");
        let open = self.words.iter().position(|word| *word == "[");
        close.is_some_and(|close| {
            close > 0 && self.words[close - 1] == "..." && open.is_none_or(|open| open > close)
        })
    }

    /// Reads `x y ...]` and marks what precedes, if it is that, as repeated.
    fn repeat(&mut self, found: &mut Vec<Argument>) {
        let mut names = Vec::new();
        while let Some(word) = self.next() {
            match word {
                "]" => break,
                "..." | "<" | ">" | "|" => {}
                word => names.push(word),
            }
        }
        let with_token = names.first().is_some_and(|word| is_token(word));
        let count = names.len().clamp(1, found.len().max(1));
        if found.is_empty() {
            return;
        }
        let tail = found.split_off(found.len() - count.min(found.len()));
        let mut repeated = together(tokens(tail));
        repeated.multiple = true;
        repeated.multiple_token = with_token;
        found.push(repeated);
    }
}

/// Several arguments as one.
fn together(mut arguments: Vec<Argument>) -> Argument {
    if arguments.len() == 1 {
        return arguments.swap_remove(0);
    }
    Argument {
        name: arguments
            .first()
            .filter(|first| first.kind == Kind::PureToken)
            .map_or_else(|| "data".to_owned(), |first| first.name.clone()),
        kind: Kind::Block,
        arguments,
        ..Argument::default()
    }
}

/// Gives tokens to the arguments that follow them: one argument takes it over, several become a block.
fn tokens(arguments: Vec<Argument>) -> Vec<Argument> {
    let mut found: Vec<Argument> = Vec::new();
    let mut waiting = arguments.into_iter().peekable();
    while let Some(argument) = waiting.next() {
        if argument.kind != Kind::PureToken || argument.token.is_none() || argument.optional {
            found.push(argument);
            continue;
        }
        let mut following = Vec::new();
        while let Some(next) = waiting
            .next_if(|next| !next.optional && next.token.is_none() && next.kind != Kind::PureToken)
        {
            following.push(next);
        }
        if following.is_empty() {
            found.push(argument);
            continue;
        }
        let mut owner = together(following);
        if owner.kind == Kind::Block {
            owner.name = argument.name;
        }
        owner.token = argument.token;
        found.push(owner);
    }
    found
}

/// Words in capitals and signs stand for themselves.
fn is_token(word: &str) -> bool {
    !word.chars().any(|letter| letter.is_ascii_lowercase())
}

fn leaf(word: &str) -> Argument {
    if is_token(word) {
        return Argument {
            name: word.to_ascii_lowercase(),
            kind: Kind::PureToken,
            token: Some(word.trim_matches('"').to_owned()),
            ..Argument::default()
        };
    }
    Argument {
        name: word.to_owned(),
        kind: kind(word),
        ..Argument::default()
    }
}

/// What an argument is, by its name.
fn kind(name: &str) -> Kind {
    match name {
        "key" | "newkey" | "source" | "destination" | "key1" | "key2" | "destkey" | "sourcekey" => {
            Kind::Key
        }
        "pattern" => Kind::Pattern,
        name if name.starts_with("unix-time") => Kind::UnixTime,
        "longitude" | "latitude" | "radius" | "width" | "height" | "score" | "weight" => {
            Kind::Double
        }
        "count" | "seconds" | "milliseconds" | "offset" | "index" | "start" | "stop" | "end"
        | "db" | "numkeys" | "cursor" | "increment" | "decrement" | "length" | "client-id"
        | "index1" | "index2" | "destination-db" | "maxage" | "idle" | "numfields" | "bit"
        | "numreplicas" | "numlocal" | "ttl" | "rank" | "maxlen" | "min-len" | "size"
        | "idletime" | "frequency" | "num-matches" | "limit" | "protover" | "samples" => {
            Kind::Integer
        }
        _ => Kind::String,
    }
}

#[cfg(test)]
mod tests {
    use super::{Argument, arguments};

    /// A tree in one line: `name:kind{inside}`, `?` optional, `*` multiple, `@token`.
    fn show(arguments: &[Argument]) -> String {
        let one = |argument: &Argument| {
            let mut text = format!("{}:{}", argument.name, argument.kind.name());
            if let Some(token) = &argument.token {
                text.push_str(&format!("@{token}"));
            }
            for (set, sign) in [
                (argument.optional, "?"),
                (argument.multiple, "*"),
                (argument.multiple_token, "+"),
            ] {
                if set {
                    text.push_str(sign);
                }
            }
            if !argument.arguments.is_empty() {
                text.push_str(&format!("{{{}}}", show(&argument.arguments)));
            }
            text
        };
        arguments.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn syntaxes_become_trees() {
        for (syntax, tree) in [
            ("", ""),
            ("key", "key:key"),
            ("[message]", "message:string?"),
            ("key [key ...]", "key:key*"),
            (
                "key value [key value ...]",
                "data:block*{key:key value:string}",
            ),
            (
                "<ON | OFF>",
                "on:oneof{on:pure-token@ON off:pure-token@OFF}",
            ),
            (
                "key [NX | XX] [EX seconds | KEEPTTL]",
                "key:key nx:oneof?{nx:pure-token@NX xx:pure-token@XX} \
                 seconds:oneof?{seconds:integer@EX keepttl:pure-token@KEEPTTL}",
            ),
            (
                "[LIMIT offset count]",
                "limit:block@LIMIT?{offset:integer count:integer}",
            ),
            (
                "key [GET pattern [GET pattern ...]]",
                "key:key pattern:pattern@GET?*+",
            ),
            (
                "STREAMS key [key ...] id [id ...]",
                "streams:block@STREAMS{key:key* id:string*}",
            ),
            ("[ID client-id [client-id ...]]", "client-id:integer@ID?*"),
        ] {
            assert_eq!(show(&arguments(syntax)), tree, "{syntax}");
        }
    }

    #[test]
    fn every_declared_syntax_is_balanced() {
        for registered in crate::dispatch::table::table().all() {
            let syntax = registered.command.syntax;
            let count = |sign| syntax.matches(sign).count();
            assert_eq!(count('['), count(']'), "{}", registered.full_name);
            assert_eq!(count('<'), count('>'), "{}", registered.full_name);
        }
    }
}
