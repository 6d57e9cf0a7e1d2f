//! Scripts and functions, byte for byte.

use tests::table::check;

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
        (
            "SCRIPT KILL",
            "-NOTBUSY No scripts in execution right now.\r\n",
        ),
    ]);
}

#[test]
fn class_4_tables_that_scripts_share_cannot_be_changed_from_behind() {
    let server = tests::server::Server::start(&tests::server::Options::new());
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
    let server = tests::server::Server::start(&tests::server::Options::new());
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
