//! Lua scripts: random programs over values of every kind, the libraries, and commands of the other groups.
//!
//! A program declares a few variables, runs some statements that use and change them, and returns or raises something.
//! Left out is what a server may answer as it likes: addresses of tables and functions, the clock, the order of unordered
//! replies, and keys of tables that are hashed by their address.

use super::{Compare, Generator, Step, named};

/// Variables that every program has, and that any part of it may use.
const VARIABLES: [&str; 4] = ["a", "b", "c", "t"];
/// Nesting of expressions and of blocks.
const MAX_DEPTH: usize = 4;

pub(super) fn next(g: &mut Generator) -> Step {
    match g.random.below(100) {
        0..8 => command(g),
        8..12 => library(g),
        12..20 => call_function(g),
        20..24 => around_the_cache(g),
        24..32 => run(g, "EVAL_RO"),
        _ => run(g, "EVAL"),
    }
}

/// A command of another group, so that scripts find something.
fn command(g: &mut Generator) -> Step {
    const GROUPS: &[&str] = &[
        "string",
        "hash",
        "list",
        "set",
        "sorted_set",
        "bitmap",
        "stream",
    ];
    let group = g.random.pick(GROUPS);
    let step = (named(group).next)(g);
    match step.name().starts_with("OBJECT") {
        true => step.compare(Compare::Shape),
        false => step,
    }
}

/// One whose reply is the same in any case, and not long.
fn exact_command(g: &mut Generator) -> Option<Step> {
    (0..4)
        .map(|_| command(g))
        .find(|step| step.compare == Compare::Exact && words_len(step) < 500)
}

fn words_len(step: &Step) -> usize {
    step.args.iter().map(Vec::len).sum()
}

fn run(g: &mut Generator, name: &str) -> Step {
    let shebang = match g.random.below(40) {
        0 => "#!lua\n",
        1 => "#!lua flags=no-writes\n",
        2 => "#!lua flags=allow-oom,no-writes,allow-stale\n",
        3 => "#!lua flags=nonsense\n",
        4 => "#!lua name=x\n",
        5 => "#!python\n",
        6 => "#!lua flags=no-cluster, allow-cross-slot-keys\n",
        _ => "",
    };
    let program = shebang.to_owned() + &program(g);
    let step = Step::new(name).arg(program);
    with_arguments(g, step)
}

/// Keys and other arguments, counted.
fn with_arguments(g: &mut Generator, step: Step) -> Step {
    let keys = if g.chance(80) { g.some_keys(3) } else { vec![] };
    let count = keys.len().to_string();
    let count = if g.chance(97) {
        count.into()
    } else {
        g.integer()
    };
    let arguments: Vec<Vec<u8>> = (0..g.random.below(3)).map(|_| g.value()).collect();
    step.arg(count).args(keys).args(arguments)
}

/// A library with one function, named alike.
fn library(g: &mut Generator) -> Step {
    let number = g.random.below(4);
    let name = match g.random.below(30) {
        0 => String::new(),
        1 => "with space".to_owned(),
        2 => "f0".to_owned(),
        _ => format!("f{number}"),
    };
    let body = program(g);
    let function = format!("function(KEYS, ARGV) {body} end");
    let registered = match g.random.below(20) {
        0 => format!("{{function_name='{name}', callback={function}, flags={{'no-writes'}}}}"),
        1 => format!("{{function_name='{name}', callback={function}, description='what'}}"),
        2 => format!("{{function_name='{name}', callback={function}, flags={{'nonsense'}}}}"),
        3 => format!("{{name='{name}', callback={function}}}"),
        4 => format!("'{name}', 1"),
        5 => format!("'{name}'"),
        6 => expression(g, 2),
        7..10 => format!(
            "{{function_name='{name}', callback={function}, flags={{'no-writes', 'allow-oom'}}}}"
        ),
        _ => format!("'{name}', {function}"),
    };
    let head = match g.random.below(25) {
        0 => format!("#!lua name=l{number} name=x"),
        1 => "#!lua".to_owned(),
        2 => format!("#!js name=l{number}"),
        3 => "local x = 1".to_owned(),
        _ => format!("#!lua name=l{number}"),
    };
    let first = if g.chance(10) {
        statement(g, 2)
    } else {
        String::new()
    };
    let step = Step::new("FUNCTION").arg("LOAD");
    let step = if g.chance(90) {
        step.arg("REPLACE")
    } else {
        step
    };
    step.arg(format!(
        "{head}\n{first}\nredis.register_function({registered})"
    ))
    .plain()
}

fn call_function(g: &mut Generator) -> Step {
    let name = if g.chance(80) { "FCALL" } else { "FCALL_RO" };
    let step = Step::new(name).arg(format!("f{}", g.random.below(5)));
    with_arguments(g, step)
}

fn around_the_cache(g: &mut Generator) -> Step {
    let sha = g.random.pick(&[
        "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
        "E0E1F9FABFC9D4800C877A703B823AC0578FF8DB",
        "ffffffffffffffffffffffffffffffffffffffff",
        "abc",
        "",
    ]);
    match g.random.below(12) {
        0 => Step::new("SCRIPT").arg("LOAD").arg("return 1"),
        1 => Step::new("SCRIPT").arg("EXISTS").arg(sha).arg("abc"),
        2 => Step::new("SCRIPT").arg("SHOW").arg(sha),
        3 => Step::new("EVALSHA").arg(sha).arg("0"),
        4 => Step::new("EVALSHA_RO").arg(sha).arg("0"),
        5 => Step::new("SCRIPT").arg("KILL"),
        6 => Step::new("FUNCTION").arg("KILL"),
        7 => Step::new("FUNCTION").arg("STATS").plain(),
        8 => Step::new("FUNCTION")
            .arg("DELETE")
            .arg(format!("l{}", g.random.below(5))),
        9 => Step::new("SCRIPT")
            .arg("FLUSH")
            .arg(g.one_of(&["SYNC", "ASYNC", "NOW"])),
        _ => {
            let step = Step::new("FUNCTION").arg("LIST").arg("LIBRARYNAME");
            let step = step.arg(format!("l{}", g.random.below(5)));
            if g.chance(50) {
                step.arg("WITHCODE")
            } else {
                step
            }
        }
    }
}

fn program(g: &mut Generator) -> String {
    let mut text = String::new();
    if g.chance(20) {
        text.push_str("redis.setresp(3) ");
    }
    for name in ["a", "b", "c"] {
        let value = if g.chance(80) {
            literal(g)
        } else {
            expression(g, 1)
        };
        if g.chance(95) {
            text.push_str(&format!("local {name} = {value} "));
        }
    }
    text.push_str(&format!("local t = {} ", table(g, 2)));
    text.push_str(&format!(
        "local function f(x, ...) return {} end ",
        endless_no_more(expression(g, 2))
    ));
    for _ in 0..g.random.below(5) {
        text.push_str(&statement(g, 0));
        text.push(if g.chance(30) { '\n' } else { ' ' });
    }
    let result = expression(g, 0);
    let ending = match g.random.below(30) {
        0 => format!("error({result})"),
        1 => format!("error({result}, {})", g.random.below(4)),
        2 => format!("return {result}, 2"),
        3 => format!("return {{type({result}), #ARGV, {}}}", expression(g, 1)),
        4 => format!("return {{pcall(error, {result})}}"),
        5 => format!(
            "return {{xpcall(function() error({result}) end, function(e) return {{type(e), e}} end)}}"
        ),
        6 => format!("return {{err = {result}}}"),
        7 => format!("return {{ok = tostring(#cjson.encode({result}))}}"),
        8 => format!("return {{double = {result}}}"),
        9 => format!("return {{map = {result}}}"),
        10 => format!("return {{set = {result}}}"),
        11 => format!("return {{big_number = {result}}}"),
        12 => format!("return {{verbatim_string = {{format = 'txt', string = {result}}}}}"),
        13 => "return".to_owned(),
        14 => String::new(),
        15 => format!("return pcall(cjson.encode, {result})"),
        _ => format!("return {result}"),
    };
    text + &ending
}

fn statement(g: &mut Generator, depth: usize) -> String {
    let variable = g.random.pick(&VARIABLES);
    if depth >= MAX_DEPTH {
        return format!("{variable} = {}", expression(g, depth));
    }
    match g.random.below(40) {
        0..8 => format!("local {variable} = {}", expression(g, depth)),
        8..12 => format!("{variable} = {}", expression(g, depth)),
        12..14 => format!(
            "{variable}[{}] = {}",
            g.random.between(-1, 4),
            expression(g, depth)
        ),
        14..17 => format!(
            "if {} then {} else {} end",
            expression(g, depth + 1),
            statement(g, depth + 1),
            statement(g, depth + 1)
        ),
        17..19 => format!(
            "for i = 1, {} do {} end",
            g.random.below(4),
            statement(g, depth + 1)
        ),
        19 => format!(
            "for i, v in ipairs({}) do {} end",
            expression(g, depth + 1),
            statement(g, depth + 1)
        ),
        20 => format!(
            "local function f(x, ...) {} return {} end",
            if g.chance(50) { "x = 1" } else { "" },
            endless_no_more(expression(g, depth + 1))
        ),
        21 => format!("pcall(function() {} end)", statement(g, depth + 1)),
        22 => format!("do {} end", statement(g, depth + 1)),
        23 => format!(
            "redis.setresp({})",
            g.random.pick(&["2", "3", "3", "4", "nil", "'3'"])
        ),
        24 => format!("g{} = {}", g.random.below(3), expression(g, depth + 1)),
        25 => format!("table.insert({variable}, {})", expression(g, depth + 1)),
        26 => format!("table.sort({variable})"),
        27 => format!("error({})", expression(g, depth + 1)),
        28 => format!(
            "redis.set_repl({})",
            g.random
                .pick(&["redis.REPL_ALL", "redis.REPL_NONE", "4", "{}", "'1'"])
        ),
        29 => format!("string.{} = 1", g.random.pick(&["rep", "new"])),
        30 => format!("setmetatable({variable}, {})", metatable(g, depth + 1)),
        31 => format!("while {variable} do {} break end", statement(g, depth + 1)),
        _ => format!("local {variable} = {}", call(g, depth)),
    }
}

fn expression(g: &mut Generator, depth: usize) -> String {
    if depth >= MAX_DEPTH {
        return literal(g);
    }
    match g.random.below(40) {
        0..7 => literal(g),
        7..13 => g.random.pick(&VARIABLES).to_owned(),
        13 => format!("KEYS[{}]", g.random.below(4)),
        14 => format!("ARGV[{}]", g.random.below(4)),
        15 => g
            .random
            .pick(&["#KEYS", "#ARGV", "KEYS", "ARGV", "..."])
            .to_owned(),
        16..19 => table(g, depth + 1),
        19..22 => {
            let operator = g.random.pick(&[
                "+", "-", "*", "/", "%", "^", "..", "==", "~=", "<", "<=", ">", ">=", "and", "or",
            ]);
            let (left, right) = (expression(g, depth + 1), expression(g, depth + 1));
            format!("({left} {operator} {right})")
        }
        22 => format!(
            "({} {})",
            g.random.pick(&["-", "not", "#"]),
            expression(g, depth + 1)
        ),
        23..25 => format!("{}[{}]", g.random.pick(&VARIABLES), key(g)),
        25 => format!(
            "(function(...) return {} end)({})",
            expression(g, depth + 1),
            expression(g, depth + 1)
        ),
        26 => format!("f({})", expression(g, depth + 1)),
        27 => g
            .random
            .pick(&[
                "redis.REDIS_VERSION",
                "redis.REDIS_VERSION_NUM",
                "server.SERVER_NAME",
                "redis.LOG_WARNING",
                "server.VALKEY_VERSION",
                "server.VALKEY_VERSION_NUM",
                "redis.REPL_ALL",
                "redis.nothing",
                "math.pi",
                "math.huge",
                "_VERSION",
                "cjson._NAME",
                "cjson.null",
                "nothing",
                "_G.nothing",
                "string.nothing",
                "cjson._VERSION",
                "cmsgpack._VERSION",
                "cmsgpack._NAME",
                "cmsgpack._COPYRIGHT",
            ])
            .to_owned(),
        _ => call(g, depth),
    }
}

fn key(g: &mut Generator) -> String {
    match g.random.below(10) {
        0..4 => g.random.between(-1, 4).to_string(),
        4..8 => quoted(
            g.random
                .pick(&["x", "err", "ok", "double", "map", "set", "__index"])
                .as_bytes(),
        ),
        _ => literal(g),
    }
}

fn literal(g: &mut Generator) -> String {
    match g.random.below(30) {
        0 => "nil".to_owned(),
        1 => "true".to_owned(),
        2 => "false".to_owned(),
        3..9 => g.random.between(-5, 30).to_string(),
        9..12 => g
            .random
            .pick(&[
                "0.5",
                "-0.0",
                "3.99",
                "-3.99",
                "1e15",
                "1e17",
                "2^53",
                "2^63",
                "-2^63",
                "1e300",
                "(0/0)",
                "(1/0)",
                "(-1/0)",
                "0.1",
                "1e-7",
                "123456789012",
                "4294967296",
                "2147483648",
                "-2147483649",
                "0x10",
                "100000000000000",
            ])
            .to_owned(),
        12..16 => {
            let value = g.value();
            quoted(&value[..value.len().min(300)])
        }
        16..18 => {
            let number = g.odd_number();
            quoted(&number)
        }
        18..20 => quoted(
            g.random
                .pick(&[
                    "\r\n",
                    "-x",
                    "-x y",
                    "ERR x",
                    "a\r\nb",
                    "\0",
                    "a\0b",
                    "  ",
                    "x y z",
                    "-",
                    "--x y",
                    "\n",
                    "WRONGTYPE no",
                ])
                .as_bytes(),
        ),
        20..22 => "{}".to_owned(),
        22 => {
            let index = g.random.below(5);
            format!("{{{}}}", vec!["1"; index].join(","))
        }
        _ => {
            let value = g.member();
            quoted(&value[..value.len().min(300)])
        }
    }
}

/// A string of Lua's.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("'");
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b' ' | b'-' | b'_' | b'.' | b':' | b'*' => {
                text.push(byte as char);
            }
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text.push('\'');
    text
}

/// At most one key that is a text, and no others beside it but positions: Valkey hashes texts in a way of its own, so that
/// several come in another order.
fn table(g: &mut Generator, depth: usize) -> String {
    const NAMES: &[&str] = &[
        "err",
        "ok",
        "double",
        "map",
        "set",
        "big_number",
        "verbatim_string",
        "format",
        "string",
        "x",
        "ignore_error_stats_update",
        "source",
        "line",
        "['a b']",
        "['1']",
    ];
    let mut fields = Vec::new();
    let named = g.chance(40);
    if named {
        let value = expression(g, depth + 1);
        fields.push(format!("{} = {value}", g.random.pick(NAMES)));
    }
    for _ in 0..g.random.below(5) {
        let value = expression(g, depth + 1);
        fields.push(match g.random.below(10) {
            0 if !named => format!("[{}] = {value}", g.random.between(-1, 12)),
            1 if !named => format!("[{}] = {value}", g.random.pick(&["1.5", "2^20", "true"])),
            _ => value,
        });
    }
    format!("{{{}}}", fields.join(", "))
}

fn metatable(g: &mut Generator, depth: usize) -> String {
    let field = g.random.pick(&[
        "__index",
        "__newindex",
        "__call",
        "__add",
        "__concat",
        "__eq",
        "__lt",
        "__len",
        "__tostring",
        "__metatable",
        "__unm",
    ]);
    match g.random.below(4) {
        0 => format!("{{{field} = {}}}", expression(g, depth + 1)),
        _ => format!(
            "{{{field} = function(x, y) return {} end}}",
            expression(g, depth + 1)
        ),
    }
}

/// A call of a function of Lua's, of a library's, or of the server's.
fn call(g: &mut Generator, depth: usize) -> String {
    let depth = depth + 1;
    match g.random.below(20) {
        0..7 => server_call(g, depth),
        7..9 => json(g, depth),
        9 => packed(g, depth),
        10 => structure(g, depth),
        11 => bits(g, depth),
        12..15 => text(g, depth),
        15 => tables(g, depth),
        16 => number(g, depth),
        17 => server_function(g, depth),
        _ => basic(g, depth),
    }
}

fn server_call(g: &mut Generator, depth: usize) -> String {
    let mut words: Vec<String> = match exact_command(g) {
        Some(step) => step.args.iter().map(|word| quoted(word)).collect(),
        None => vec!["'PING'".to_owned()],
    };
    if words.len() > 1 && g.chance(30) {
        let at = g.random.below(words.len() - 1) + 1;
        words[at] = expression(g, depth);
    }
    if g.chance(3) {
        words.truncate(g.random.below(2));
    }
    let words = words.join(", ");
    let table = g.random.pick(&["redis", "server"]);
    match g.random.below(12) {
        0 => format!("type({table}.pcall({words}))"),
        1 => format!("pcall(cjson.encode, {table}.call({words}))"),
        2 if !words.is_empty() => format!("pcall({table}.call, {words})"),
        // An error's table has two keys that are texts, whose order is Valkey's own.
        3..8 => format!(
            "(function() local r = {table}.pcall({words}) return type(r) == 'table' and r.err or r end)()"
        ),
        _ => format!("{table}.call({words})"),
    }
}

/// Fewer or more arguments than a function wants, now and then.
fn arguments(g: &mut Generator, wanted: usize, depth: usize) -> String {
    let count = match g.random.below(15) {
        0 => wanted.saturating_sub(1),
        1 => wanted + 1,
        _ => wanted,
    };
    let words: Vec<String> = (0..count).map(|_| expression(g, depth)).collect();
    words.join(", ")
}

/// Without calls of `f`, as the body of `f`.
fn endless_no_more(text: String) -> String {
    match text.contains("f(") {
        true => "nil".to_owned(),
        false => text,
    }
}

/// In brackets, so that it is no tail call: what Ferrite's sandbox wraps would not know who called it.
fn maybe_caught(g: &mut Generator, function: &str, arguments: &str) -> String {
    // Lua's own checks, which the dev profile has, stop at many results within pcall.
    if function.contains("unpack") || g.chance(50) {
        return format!("({function}({arguments}))");
    }
    let comma = if arguments.is_empty() { "" } else { ", " };
    format!("({{pcall({function}{comma}{arguments})}})")
}

fn json(g: &mut Generator, depth: usize) -> String {
    const TEXTS: &[&str] = &[
        "{}",
        "[]",
        "[1,2,3]",
        "{\"a\":1,\"b\":[true,false,null]}",
        "1",
        "-0",
        "1e400",
        "nan",
        "inf",
        "0x10",
        "01",
        "[1,",
        "{\"a\"",
        "\"\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "tru",
        "null",
        " 1 ",
        "1 2",
        "\"a\nb\"",
        "[1 2]",
        "{1:2}",
        "{\"a\":{\"b\":{\"c\":[]}}}",
        "\"\\x\"",
        "",
        "[]]",
        "-",
        "1.5e3",
        "-1.5E-3",
        "[1.0,100000000000000000000]",
        "\"\\/\"",
        "+1",
        "{\"a\":1,\"a\":2,\"c\":3,\"d\":4,\"e\":5,\"f\":6}",
        "NaN",
        "Infinity",
        "-Infinity",
        "\"abc",
        "'a'",
        "[\"\\u0000\"]",
    ];
    match g.random.below(12) {
        0..5 => {
            let arguments = arguments(g, 1, depth);
            maybe_caught(g, "cjson.encode", &arguments)
        }
        5..8 => {
            let text = g.random.pick(TEXTS).as_bytes().to_vec();
            maybe_caught(g, "cjson.decode", &quoted(&text))
        }
        8 => format!(
            "cjson.encode(cjson.decode({}))",
            quoted(g.random.pick(TEXTS).as_bytes())
        ),
        9 => {
            let arguments = arguments(g, 1, depth);
            maybe_caught(g, "cjson.decode", &arguments)
        }
        10 => format!("cjson.encode({})", table(g, depth)),
        _ => {
            let function = g.random.pick(&["cjson.encode", "cjson.decode"]);
            format!("{{pcall({function}, {})}}", arguments(g, 1, depth))
        }
    }
}

fn packed(g: &mut Generator, depth: usize) -> String {
    match g.random.below(6) {
        0..2 => {
            let arguments = arguments(g, 2, depth);
            maybe_caught(g, "cmsgpack.pack", &arguments)
        }
        2 => format!(
            "{{cmsgpack.unpack(cmsgpack.pack({}))}}",
            arguments(g, 2, depth)
        ),
        3 => {
            let len = g.random.below(12);
            let bytes = g.random.bytes(len);
            maybe_caught(g, "cmsgpack.unpack", &quoted(&bytes))
        }
        4 => {
            let function = g
                .random
                .pick(&["cmsgpack.unpack_one", "cmsgpack.unpack_limit"]);
            let arguments = format!(
                "cmsgpack.pack({}), {}",
                arguments(g, 2, depth),
                arguments(g, 1, depth)
            );
            maybe_caught(g, function, &arguments)
        }
        // Not within pcall, where Lua's own checks, which the dev profile has, stop at many results.
        _ => format!("(cmsgpack.unpack({}))", arguments(g, 1, depth)),
    }
}

fn structure(g: &mut Generator, depth: usize) -> String {
    let mut format = String::new();
    for _ in 0..g.random.below(5) {
        format.push_str(g.random.pick(&[
            ">", "<", "=", "!", "!4", "!3", "b", "B", "h", "H", "l", "L", "T", "i", "I", "i3",
            "I2", "i8", "i33", "f", "d", "x", "s", "c", "c0", "c3", " ", "q",
        ]));
    }
    let format = quoted(format.as_bytes());
    let (function, arguments) = match g.random.below(6) {
        0..3 => (
            "struct.pack",
            format!("{format}, {}", arguments(g, 3, depth)),
        ),
        3 => {
            let len = g.random.below(20);
            let bytes = g.random.bytes(len);
            ("struct.unpack", format!("{format}, {}", quoted(&bytes)))
        }
        4 => (
            "struct.unpack",
            format!("{format}, {}", arguments(g, 2, depth)),
        ),
        _ => ("struct.size", format),
    };
    maybe_caught(g, function, &arguments)
}

fn bits(g: &mut Generator, depth: usize) -> String {
    let function = g.random.pick(&[
        "bit.tobit",
        "bit.bnot",
        "bit.bswap",
        "bit.band",
        "bit.bor",
        "bit.bxor",
        "bit.lshift",
        "bit.rshift",
        "bit.arshift",
        "bit.rol",
        "bit.ror",
        "bit.tohex",
    ]);
    // One wrong argument at most: which of two is told first is each server's own.
    let mut words = [expression(g, depth), g.random.between(-40, 40).to_string()];
    if g.chance(30) {
        words.reverse();
    }
    let arguments = words.join(", ");
    maybe_caught(g, function, &arguments)
}

fn text(g: &mut Generator, depth: usize) -> String {
    const PATTERNS: &[&str] = &[
        ".",
        "%d+",
        "(%w)(%w)",
        "^a",
        "b$",
        "[a-c]+",
        "[^a]",
        "()",
        "%",
        "[",
        "(",
        "%1",
        "x*",
        "%b()",
        "%f[%w]",
        ".-b",
        "\\000",
        "",
        "(((",
        "%z",
        "[]]",
        "[%",
        "^",
        "$",
        "(a*(.)%w(%s*))",
    ];
    let pattern = quoted(g.random.pick(PATTERNS).as_bytes());
    let subject = expression(g, depth);
    let (function, arguments) = match g.random.below(16) {
        0 => (
            "string.rep",
            format!("{subject}, {}", g.random.between(-1, 30)),
        ),
        1 => (
            "string.sub",
            format!("{subject}, {}", arguments(g, 2, depth)),
        ),
        2 => (
            "string.byte",
            format!("{subject}, {}", g.random.between(-3, 5)),
        ),
        3 => ("string.char", arguments(g, 2, depth)),
        4..7 => {
            let format = g.random.pick(&[
                "%d", "%s", "%5.2f", "%x", "%q", "%c", "%g", "%i", "%u", "%e", "%%", "%", "%5s",
                "%-5d|", "%05d", "%.3s", "%y", "%d %s", "%.20s", "%10q", "%.14g", "%.17g", "%a",
                "%+d", "% d", "%#x", "%100d", "%.100f", "%123d",
            ]);
            (
                "string.format",
                format!("{}, {}", quoted(format.as_bytes()), arguments(g, 1, depth)),
            )
        }
        7 => ("string.find", format!("{subject}, {pattern}")),
        8 => ("string.match", format!("{subject}, {pattern}")),
        9 => (
            "string.gsub",
            format!("{subject}, {pattern}, {}", expression(g, depth)),
        ),
        10 => (
            "string.gsub",
            format!(
                "{subject}, {pattern}, {{a = 1, b = 'x'}}, {}",
                g.random.below(3)
            ),
        ),
        11 => (
            "string.find",
            format!("{subject}, {pattern}, {}, true", g.random.between(-3, 3)),
        ),
        12 => {
            let function = g.random.pick(&[
                "string.upper",
                "string.lower",
                "string.reverse",
                "string.len",
            ]);
            (function, subject)
        }
        13 => ("string.nothing", subject),
        14 => {
            return format!(
                "({subject}):{}({})",
                g.random.pick(&["upper", "len", "rep", "sub"]),
                g.random.below(4)
            );
        }
        _ => {
            return format!(
                "(function() local r = {{}} for w in string.gmatch({subject}, {pattern}) do r[#r + 1] = w end return r end)()"
            );
        }
    };
    maybe_caught(g, function, &arguments)
}

fn tables(g: &mut Generator, depth: usize) -> String {
    let subject = if g.chance(60) {
        table(g, depth)
    } else {
        expression(g, depth)
    };
    let (function, arguments) = match g.random.below(10) {
        0 => ("table.concat", subject),
        1 => return format!("(select('#', unpack({subject}, 1, 8000)))"),
        9 => (
            "table.concat",
            format!("{subject}, {}", arguments(g, 1, depth)),
        ),
        2 => (
            "table.concat",
            format!("{subject}, ',', 1, {}", g.random.below(4)),
        ),
        3 => ("table.remove", format!("{subject}, {}", g.random.below(4))),
        4 => ("table.maxn", subject),
        5 => ("table.getn", subject),
        6 => return format!("(unpack({subject}))"),
        7 => (
            "unpack",
            format!(
                "{subject}, 1, {}",
                g.random.pick(&["3", "-1", "10", "10000000"])
            ),
        ),
        _ => {
            return format!(
                "(function() local r = {subject} table.sort(r{}) return r end)()",
                g.random
                    .pick(&["", ", function(x, y) return x > y end", ", 1"])
            );
        }
    };
    maybe_caught(g, function, &arguments)
}

fn number(g: &mut Generator, depth: usize) -> String {
    let function = g.random.pick(&[
        "math.floor",
        "math.ceil",
        "math.abs",
        "math.max",
        "math.min",
        "math.fmod",
        "math.modf",
        "math.sqrt",
        "math.frexp",
        "math.ldexp",
        "math.pow",
        "math.nothing",
        "tonumber",
        "tonumber",
        "math.mod",
        "math.deg",
    ]);
    let count = 1 + g.random.below(2);
    let arguments = arguments(g, count, depth);
    maybe_caught(g, function, &arguments)
}

fn server_function(g: &mut Generator, depth: usize) -> String {
    let function = g.random.pick(&[
        "redis.sha1hex",
        "redis.error_reply",
        "redis.status_reply",
        "redis.error_reply",
        "redis.status_reply",
        "redis.acl_check_cmd",
        "redis.setresp",
        "redis.set_repl",
        "redis.replicate_commands",
        "redis.breakpoint",
        "server.log",
        "redis.nothing",
    ]);
    let count = 1 + g.random.below(2);
    let arguments = arguments(g, count, depth);
    maybe_caught(g, function, &arguments)
}

/// `tostring` only of what has no address.
fn basic(g: &mut Generator, depth: usize) -> String {
    let subject = expression(g, depth);
    let (function, arguments) = match g.random.below(18) {
        0..3 => ("type", subject),
        3 => {
            return format!(
                "(function(x) return type(x) == 'number' and tostring(x) or type(x) end)({subject})"
            );
        }
        4 => (
            "select",
            format!(
                "{}, {}",
                g.random.pick(&["1", "2", "'#'", "-1", "0", "-5"]),
                arguments(g, 2, depth)
            ),
        ),
        5 => ("rawget", format!("{subject}, {}", key(g))),
        6 => ("rawset", format!("{subject}, {}, 1", g.random.below(3))),
        7 => ("rawequal", arguments(g, 2, depth)),
        8 => ("assert", arguments(g, 2, depth)),
        9 => ("error", subject),
        10 => {
            let text = quoted(format!("return {subject}").as_bytes());
            return format!("(loadstring({text}) or function() return 'none' end)()");
        }
        11 => (
            "getmetatable",
            g.random.pick(&["{}", "nil", "1", "t"]).to_owned(),
        ),
        12 => return format!("setmetatable({}, {})", table(g, depth), metatable(g, depth)),
        13 => (
            "loadstring",
            g.random
                .pick(&[
                    "'return ('",
                    "'x x'",
                    "'\\27Lua'",
                    "nil",
                    "{}",
                    "'return 1 +'",
                ])
                .to_owned(),
        ),
        14 => (
            "next",
            g.random
                .pick(&["{}", "{1}", "nil", "1", "{x = 1}"])
                .to_owned(),
        ),
        15 => return format!("({}).x", expression(g, depth)),
        16 => ("print", subject),
        _ => {
            let name = g.random.pick(&[
                "dofile",
                "loadfile",
                "require",
                "module",
                "setfenv",
                "getfenv",
                "newproxy",
                "io",
                "debug",
                "os",
                "package",
                "coroutine",
            ]);
            return format!("type({name})");
        }
    };
    maybe_caught(g, function, &arguments)
}
