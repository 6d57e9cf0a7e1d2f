//! What replicas are sent, word for word.

use tests::{
    server::{Options, Server},
    wire::{Wire, parts, split_line},
};

use super::{ask, eventually, options};

/// A server that sends its copies at once.
fn primary(options: &Options) -> Server {
    let options = options.clone().set("repl-diskless-sync-delay", "0");
    Server::start(&options)
}

/// Follows a primary as a replica does, and only listens.
struct Listener(Wire);

impl Listener {
    /// Past the copy of the data.
    fn new(primary: &Server) -> Listener {
        let mut wire = primary.connect();
        wire.send(b"SYNC\r\n");
        let mut head = wire.until(b"\r\n").expect("the copy's length");
        while head == b"\r\n" || head == b"\n" {
            head = wire.until(b"\r\n").expect("the copy's length");
        }
        let text = String::from_utf8_lossy(&head);
        let len = text.trim().trim_start_matches('$').parse();
        wire.exactly(len.expect("the copy's length in bytes"))
            .expect("the copy");
        Listener(wire)
    }

    /// The commands up to `SET end of-test`, the names in lower case and without the heartbeat.
    fn until_end(&mut self, primary: &Server) -> Vec<String> {
        ask(primary, "SET end of-test");
        let mut commands = Vec::new();
        loop {
            let request = self.0.reply().expect("a command");
            let (_, words) = parts(&request);
            let mut words: Vec<String> = words.iter().map(|word| text(word)).collect();
            words[0].make_ascii_lowercase();
            match &*words[0] {
                "ping" | "replconf" | "select" => {}
                "set" if words[1] == "end" => return commands,
                _ => commands.push(words.join(" ")),
            }
        }
    }
}

/// What a bulk string holds.
fn text(bulk: &[u8]) -> String {
    let text = String::from_utf8_lossy(bulk);
    text.split("\r\n").nth(1).unwrap_or_default().to_owned()
}

#[test]
fn keys_that_nobody_deletes_by_name_are_unlinked_unless_the_settings_say_otherwise() {
    let server = primary(&options());
    ask(&server, "DEBUG SET-ACTIVE-EXPIRE 0");
    let cases: &[(&str, &[&str], &str)] = &[
        ("expire", &["SET k v", "SET k v PXAT 1000"], "k"),
        ("expire", &["SET k v", "GETEX k PXAT 1000"], "k"),
        ("expire", &["SET k v", "PEXPIREAT k 1000"], "k"),
        ("expire", &["SET k v", "EXPIRE k -1"], "k"),
        ("server-del", &["SADD s a b", "SPOP s 5"], "s"),
    ];
    for (setting, lines, key) in cases {
        for (lazy, command) in [("yes", "unlink"), ("no", "del")] {
            let line = format!("CONFIG SET lazyfree-lazy-{setting} {lazy}");
            assert_eq!(ask(&server, &line), "+OK\r\n");
            let mut listener = Listener::new(&server);
            lines.iter().for_each(|line| drop(ask(&server, line)));
            let sent = listener.until_end(&server);
            assert_eq!(
                sent.last(),
                Some(&format!("{command} {key}")),
                "{lines:?}: {sent:?}"
            );
        }
    }
    let mut listener = Listener::new(&server);
    ["SET k v", "GETDEL k"]
        .iter()
        .for_each(|line| drop(ask(&server, line)));
    assert_eq!(listener.until_end(&server), ["set k v", "del k"]);
}

#[test]
fn evicted_keys_are_unlinked() {
    let server = primary(&options().set("maxmemory-policy", "allkeys-lru"));
    for (lazy, command) in [("yes", "unlink k"), ("no", "del k")] {
        ask(&server, "CONFIG SET maxmemory 0");
        ask(&server, "FLUSHALL");
        ask(&server, "SET k v");
        ask(
            &server,
            &format!("CONFIG SET lazyfree-lazy-eviction {lazy}"),
        );
        let mut listener = Listener::new(&server);
        ask(&server, "CONFIG SET maxmemory 1");
        eventually("the key is evicted", || {
            ask(&server, "EXISTS k") == ":0\r\n"
        });
        ask(&server, "CONFIG SET maxmemory 0");
        assert_eq!(listener.until_end(&server), [command]);
    }
}

#[test]
fn walks_delete_what_they_meet_expired_key_by_key() {
    let server = primary(&options());
    ask(&server, "DEBUG SET-ACTIVE-EXPIRE 0");
    for walk in ["SCAN 0", "SCAN 0 COUNT 1000 TYPE string", "RANDOMKEY"] {
        ask(&server, "FLUSHALL");
        for key in ["a", "b"] {
            ask(&server, &format!("SET {key} v PX 1"));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
        let mut listener = Listener::new(&server);
        let mut sent = Vec::new();
        // RANDOMKEY looks at some.
        eventually("they are deleted", || {
            ask(&server, walk);
            sent.extend(listener.until_end(&server));
            ask(&server, "DEL end");
            ask(&server, "DBSIZE") == ":0\r\n"
        });
        sent.retain(|sent| sent != "DEL end" && sent != "del end");
        sent.sort();
        assert_eq!(sent, ["unlink a", "unlink b"], "{walk}");
    }
}

#[test]
fn who_is_served_is_sent_apart_from_what_served_him() {
    let server = primary(&options());
    let mut listener = Listener::new(&server);
    let mut waiting = server.connect();
    waiting.send_command(&split_line("BZMPOP 0 1 z MIN COUNT 2"));
    eventually("it waits", || {
        ask(&server, "INFO clients").contains("blocked_clients:1\r\n")
    });
    ask(&server, "ZADD z 1 a 2 b 3 c");
    assert!(waiting.reply().expect("what was popped").starts_with(b"*2"));
    assert_eq!(
        listener.until_end(&server),
        ["zadd z 1 a 2 b 3 c", "zpopmin z 2"]
    );
}

#[test]
fn a_deadline_in_milliseconds_is_sent_as_it_came() {
    let server = primary(&options());
    let mut listener = Listener::new(&server);
    ask(&server, "SET k v pxat 99999999999999");
    ask(&server, "SET k v EXAT 99999999999");
    assert_eq!(
        listener.until_end(&server),
        ["set k v pxat 99999999999999", "set k v PXAT 99999999999000"]
    );
}
