//! Scripts and functions, byte for byte.

use std::time::{Duration, Instant};

use tests::{
    server::{Options, Server, missing},
    table::check,
    wire::Wire,
};

#[test]
fn scripts_answer_and_fail_as_they_should() {
    check(&[
        (
            "EVAL \"return {KEYS[1],ARGV[1],3.9}\" 1 k a",
            "*3\r\n$1\r\nk\r\n$1\r\na\r\n:3\r\n",
        ),
        (
            "EVAL \"return redis.call('set',KEYS[1],'x')\" 1 k",
            "+OK\r\n",
        ),
        (
            "EVAL \"return redis.call('incr',KEYS[1])\" 1 k",
            "-ERR value is not an integer or out of range script: on @user_script:1.\r\n",
        ),
        (
            "EVAL \"return redis.pcall('nope')\" 0",
            "-ERR Unknown command called from script\r\n",
        ),
        (
            "EVAL_RO \"return redis.call('set','k','v')\" 0",
            "-ERR Write commands are not allowed from read-only scripts. script: on @user_script:1.\r\n",
        ),
        (
            "EVAL \"a=1\" 0",
            "-ERR user_script:1: Attempt to modify a readonly table script: on @user_script:1.\r\n",
        ),
        (
            "EVAL \"local t={} for i=1,7000 do t[i]=i end return redis.call('rpush',KEYS[1],unpack(t))\" 1 many",
            ":7000\r\n",
        ),
        (
            "EVAL \"return cjson.encode({1,0.1,{}})\" 0",
            "$10\r\n[1,0.1,{}]\r\n",
        ),
        (
            "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
            "-NOSCRIPT No matching script.\r\n",
        ),
        (
            "SCRIPT LOAD \"return 1\"",
            "$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n",
        ),
        (
            "EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0",
            ":1\r\n",
        ),
        ("EVAL \"return {err='-x'}\" 0", "--x\r\n"),
        (
            "EVAL \"error({err=5})\" 0",
            "-5 script: on @user_script:1.\r\n",
        ),
        (
            "EVAL \"error({err='-x'})\" 0",
            "--x script: on @user_script:1.\r\n",
        ),
        (
            "EVAL \"return loadstring('return nothing')()\" 0",
            "-ERR [string \"return nothing\"]:1: Script attempted to access nonexistent global variable 'nothing' \
             script: on return nothing:1.\r\n",
        ),
        (
            "EVAL \"return {pcall(cjson.decode, {})}\" 0",
            "*2\r\n$-1\r\n$51\r\nbad argument #1 to '?' (string expected, got table)\r\n",
        ),
        ("EVALSHA x y 0", "-NOSCRIPT No matching script.\r\n"),
        (
            "SCRIPT KILL",
            "-NOTBUSY No scripts in execution right now.\r\n",
        ),
    ]);
}

#[test]
fn class_4_tables_that_scripts_share_cannot_be_changed_from_behind() {
    let server = Server::start(&Options::new());
    let mut connection = server.connect();
    for call in [
        "table.insert(redis, 1)",
        "table.remove(redis)",
        "table.sort(redis)",
        "rawset(redis, 'x', 1)",
        "setmetatable(redis, {})",
    ] {
        let reply = connection.line(&format!("EVAL \"{call}\" 0"));
        assert!(
            reply.contains("Attempt to modify a readonly table"),
            "{call}: {reply}"
        );
    }
    let sorted =
        connection.line("EVAL \"local t = {3, 1}; table.insert(t, 2); table.sort(t); return t\" 0");
    assert_eq!(sorted, "*3\r\n:1\r\n:2\r\n:3\r\n");
}

#[test]
fn acl_check_cmd_answers_for_the_caller() {
    let server = Server::start(&Options::new());
    let mut connection = server.connect();
    connection.line("ACL SETUSER s on nopass ~a +get +eval");
    connection.line("AUTH s x");
    for (arguments, expected) in [
        ("'get', 'a'", ":1\r\n"),
        ("'get', 'b'", "$-1\r\n"),
        ("'set', 'a', '1'", "$-1\r\n"),
    ] {
        let line = format!("EVAL \"return redis.acl_check_cmd({arguments})\" 0");
        assert_eq!(connection.line(&line), expected, "{arguments}");
    }
}

/// The names of the keys, and nothing else.
fn names(connection: &mut Wire) -> Vec<String> {
    let reply = connection.line("KEYS *");
    let words = reply.lines().filter(|line| !line.starts_with(['*', '$']));
    let mut names: Vec<String> = words.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

/// Who is told of what, by every name that scripts have for it: to replicas, and to the append-only file.
fn replication_is_chosen(start: impl Fn(&Options) -> Option<Server>) {
    let durable = Options::new()
        .set("appendonly", "yes")
        .set("appendfsync", "always");
    let (Some(mut primary), Some(replica)) = (start(&durable), start(&Options::new())) else {
        return missing("valkey-server");
    };
    let (mut here, mut there) = (primary.connect(), replica.connect());
    let port = primary.resp_address().port();
    assert_eq!(
        there.line(&format!("REPLICAOF 127.0.0.1 {port}")),
        "+OK\r\n"
    );
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait = |there: &mut Wire, key: &str| {
        while there.line(&format!("EXISTS {key}")) != ":1\r\n" {
            assert!(Instant::now() < deadline, "the replica has {key}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    here.line("SET before 1");
    wait(&mut there, "before");
    let mut listener = replica.connect();
    listener.line("SUBSCRIBE news");
    let script = "for _, who in ipairs({'NONE', 'AOF', 'REPLICA', 'SLAVE', 'ALL'}) do \
                      redis.set_repl(redis['REPL_' .. who]) \
                      redis.call('set', who, 1) \
                      redis.call('publish', 'news', who) \
                  end \
                  redis.set_repl(redis.REPL_NONE)";
    assert_eq!(here.command(&["EVAL", script, "0"]), b"$-1\r\n");
    let library = "#!lua name=l\nserver.register_function('f', function() \
                       server.set_repl(server.REPL_NONE) server.call('set', 'hidden', 1) \
                       server.set_repl(server.REPL_ALL) server.call('set', 'told', 1) end)";
    here.command(&["FUNCTION", "LOAD", library]);
    here.line("MULTI");
    here.line("FCALL f 0");
    here.line("SET transaction 1");
    here.line("EXEC");
    // The choice is the script's alone.
    here.line("EVAL \"redis.call('set', 'next', 1)\" 0");
    here.line("SET after 1");
    wait(&mut there, "after");
    let told = ["after", "before", "next", "told", "transaction"];
    let expected = |chosen: &[&str]| {
        let mut names: Vec<String> = chosen.iter().chain(&told).map(|&s| s.to_owned()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(&mut there), expected(&["ALL", "REPLICA", "SLAVE"]));
    for who in ["REPLICA", "SLAVE", "ALL"] {
        let message = listener.reply().expect("a message");
        let message = String::from_utf8_lossy(&message).into_owned();
        assert!(message.ends_with(&format!("\r\n{who}\r\n")), "{message}");
    }
    there.line("REPLICAOF NO ONE");
    drop(here);
    primary.restart();
    assert_eq!(names(&mut primary.connect()), expected(&["ALL", "AOF"]));
}

#[test]
fn scripts_choose_who_is_told_of_what_they_do() {
    replication_is_chosen(|options| Some(Server::ferrite(options)));
}

#[test]
fn scripts_of_valkey_choose_likewise() {
    replication_is_chosen(Server::valkey);
}

#[test]
fn libraries_register_functions_when_they_are_loaded_only_and_in_time() {
    let late = "#!lua name=late\nlocal lib = redis\nserver.register_function('f', function() \
                lib.register_function('g', function() end) end)";
    let endless = "#!lua name=endless\nwhile true do end";
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    assert_eq!(wire.command(&["FUNCTION", "LOAD", late]), b"$4\r\nlate\r\n");
    let reply = wire.line("FCALL f 0");
    assert!(
        reply.starts_with(
            "-ERR server.register_function can only be called on FUNCTION LOAD command"
        ),
        "{reply}"
    );
    assert_eq!(
        wire.command(&["FUNCTION", "LOAD", endless]),
        b"-ERR Error registering functions: ERR FUNCTION LOAD timeout\r\n"
    );
}

#[test]
fn function_subcommands_are_named_as_they_came() {
    for (line, name) in [
        ("function restore a b c", "restore"),
        ("Function Flush sync x", "Flush"),
    ] {
        let expected = format!(
            "-ERR unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP.\r\n"
        );
        check(&[(line, &expected)]);
    }
}

#[test]
fn replicas_run_what_says_that_it_does_no_harm() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let code = "#!lua name=l\n\
                server.register_function('plain', function() return 1 end)\n\
                server.register_function{function_name='reads', callback=function() return 2 end, flags={'no-writes'}}\n\
                server.register_function{function_name='stale', callback=function() \
                return server.call('get', 'x') end, flags={'no-writes', 'allow-stale'}}";
    wire.command(&["FUNCTION", "LOAD", code]);
    wire.line("REPLICAOF 127.0.0.1 1");
    let read_only = "-READONLY You can't write against a read only replica.\r\n";
    let down =
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n";
    assert_eq!(wire.line("FCALL plain 0"), read_only);
    assert_eq!(wire.line("FCALL reads 0"), ":2\r\n");
    assert_eq!(wire.line("FCALL stale 0"), "$-1\r\n");
    wire.line("CONFIG SET replica-serve-stale-data no");
    assert_eq!(wire.line("FCALL plain 0"), read_only);
    assert_eq!(wire.line("FCALL reads 0"), down);
    assert_eq!(wire.line("EVAL \"return 1\" 0"), down);
    let refused = "-ERR Can not execute the command on a stale replica script: on @user_function:";
    let reply = wire.line("FCALL stale 0");
    assert!(reply.starts_with(refused), "{reply}");
}

#[test]
fn tables_of_many_keys_are_packed_and_returned_whole() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    assert_eq!(
        wire.line(
            "EVAL \"local m={} for i=1,20000 do m[tostring(i)]=i end return #cmsgpack.pack(m)\" 0"
        ),
        ":168515\r\n"
    );
    wire.line("EVAL \"for i=1,20000 do redis.call('HSET',KEYS[1],i,i) redis.call('SADD',KEYS[2],'m'..i) end\" 2 h s");
    for (command, key, head) in [
        ("HGETALL", "h", "*40000\r\n"),
        ("SMEMBERS", "s", "*20000\r\n"),
    ] {
        let script = format!("redis.setresp(3) return redis.call('{command}',KEYS[1])");
        let reply = wire.command(&["EVAL", &script, "1", key]);
        assert!(reply.starts_with(head.as_bytes()), "{command}");
    }
}

#[test]
fn the_first_line_of_a_script_knows_quotes() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    for (script, expected) in [
        ("#!\"lua\"\nreturn 1", ":1\r\n"),
        ("#!lua \"flags=no-writes\"\nreturn 1", ":1\r\n"),
        (
            "#!lua flags=\"no-writes\nreturn 1",
            "-ERR Invalid engine in script shebang\r\n",
        ),
        (
            "#! lua\nreturn 1",
            "-ERR Unknown lua shebang option: lua\r\n",
        ),
    ] {
        let reply = wire.command(&["EVAL", script, "0"]);
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{script}");
    }
    for (library, expected) in [
        (
            "#!lua name=\"q\\x41\"\nserver.register_function('f', function() end)",
            "$2\r\nqA\r\n",
        ),
        ("#!lua name=\"q\n", "-ERR Invalid library metadata\r\n"),
        ("#! name=q\nreturn 1", "-ERR Engine '' not found\r\n"),
    ] {
        let reply = wire.command(&["FUNCTION", "LOAD", library]);
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{library}");
    }
}

#[test]
fn time_stands_still_in_scripts_and_transactions() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let reply = wire.line(
        "EVAL \"local a=redis.call('TIME') for i=1,100000 do end local b=redis.call('TIME') \
         return {a[1]==b[1] and a[2]==b[2]}\" 0",
    );
    assert_eq!(reply, "*1\r\n:1\r\n");
    wire.line("MULTI");
    wire.line("TIME");
    wire.line("EVAL \"for i=1,100000 do end return redis.call('TIME')\" 0");
    let reply = wire.line("EXEC");
    let (first, second) = reply
        .strip_prefix("*2\r\n")
        .map(|rest| rest.split_at(rest.len() / 2))
        .expect("two times");
    assert_eq!(first, second);
}

#[test]
fn scripts_see_sets_that_sort_leaves_alone_in_order() {
    check(&[
        ("SADD s b c a aa", ":4\r\n"),
        (
            "EVAL \"return redis.call('SORT',KEYS[1],'BY','nothing')\" 1 s",
            "*4\r\n$1\r\na\r\n$2\r\naa\r\n$1\r\nb\r\n$1\r\nc\r\n",
        ),
    ]);
}

#[test]
fn scripts_that_were_not_used_for_longest_are_forgotten() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect();
    let sha = |wire: &mut Wire, number: usize| {
        let sha = wire.line(&format!(
            "EVAL \"return redis.sha1hex('return {number}')\" 0"
        ));
        sha.lines().nth(1).expect("a name").to_owned()
    };
    let names: Vec<String> = [0, 1, 2, 3].map(|number| sha(&mut wire, number)).to_vec();
    wire.line("SCRIPT FLUSH");
    wire.line("CONFIG RESETSTAT");
    for number in 0..500 {
        wire.line(&format!("EVAL \"return {number}\" 0"));
    }
    wire.line(&format!("EVALSHA {} 0", names[0]));
    wire.line(&format!("EVALSHA {} 0", names[3]));
    wire.line("EVAL \"return 1\" 0");
    wire.line("EVAL \"return 1000\" 0");
    let exist = wire.line(&format!("SCRIPT EXISTS {}", names.join(" ")));
    assert_eq!(exist, "*4\r\n:1\r\n:1\r\n:0\r\n:1\r\n");
    assert!(wire.line("INFO stats").contains("evicted_scripts:1\r\n"));
    for number in 2000..2497 {
        wire.line(&format!("EVAL \"return {number}\" 0"));
    }
    let exist = wire.line(&format!("SCRIPT EXISTS {}", names.join(" ")));
    assert_eq!(exist, "*4\r\n:0\r\n:1\r\n:0\r\n:1\r\n");
    wire.line("CONFIG RESETSTAT");
    assert!(wire.line("INFO stats").contains("evicted_scripts:0\r\n"));
}

#[test]
fn the_debugger_of_scripts_is_asked_for_without_debug() {
    check(&[("SCRIPT DEBUG NO", "+OK\r\n")]);
}
