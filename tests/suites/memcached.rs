//! memcached's protocol, over the same keys.

use tests::{
    server::{Options, Server, missing},
    table::{check_memcached, check_memcached_on},
    wire::{Wire, parts},
};

#[test]
fn items_are_stored_and_fetched() {
    check_memcached(&[
        ("set k 5 0 3\r\nabc\r\n", "STORED\r\n"),
        ("get k missing\r\n", "VALUE k 5 3\r\nabc\r\nEND\r\n"),
        ("add k 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        ("append k 0 0 1\r\nd\r\n", "STORED\r\n"),
        ("get k\r\n", "VALUE k 5 4\r\nabcd\r\nEND\r\n"),
        ("delete k\r\n", "DELETED\r\n"),
        ("delete k\r\n", "NOT_FOUND\r\n"),
        ("set n 0 0 2\r\n10\r\n", "STORED\r\n"),
        ("decr n 1\r\n", "9\r\n"),
        ("get n\r\n", "VALUE n 0 2\r\n9 \r\nEND\r\n"),
        ("incr n 18446744073709551615\r\n", "8\r\n"),
        ("touch n 100\r\n", "TOUCHED\r\n"),
        ("cas missing 0 0 1 1\r\nx\r\n", "NOT_FOUND\r\n"),
        ("bogus\r\n", "ERROR\r\n"),
    ]);
}

#[test]
fn a_guessed_cas_is_not_that_of_an_item() {
    check_memcached(&[
        ("set other 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("set k 0 0 1\r\nx\r\n", "STORED\r\n"),
        ("cas k 0 0 1 1\r\ny\r\n", "EXISTS\r\n"),
        ("get k\r\n", "VALUE k 0 1\r\nx\r\nEND\r\n"),
    ]);
}

#[test]
fn exptimes_are_cut_to_32_bits_since_libmemcached_sends_minus_one_so() {
    check_memcached(&[
        ("set k 0 4294967295 1\r\nx\r\n", "STORED\r\n"),
        ("get k\r\n", "END\r\n"),
        ("set k 0 4294967396 1\r\nx\r\n", "STORED\r\n"),
        ("mg k t\r\n", "HD t100\r\n"),
        (
            "add k 0 9223372036854775808 1\r\nx\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
    ]);
}

#[test]
fn meta_commands_answer_what_they_are_asked_for() {
    check_memcached(&[
        ("ms k 3 T0 F7\r\nabc\r\n", "HD\r\n"),
        ("mg k v f s t O1 k\r\n", "VA 3 f7 s3 t-1 O1 kk\r\nabc\r\n"),
        ("mg missing v\r\n", "EN\r\n"),
        ("mg missing v q\r\n", ""),
        ("mg lease v N30 t\r\n", "VA 0 t30 W\r\n\r\n"),
        ("mg lease v N30\r\n", "VA 0 Z\r\n\r\n"),
        ("ma n N0 J13 v\r\n", "VA 2\r\n13\r\n"),
        ("ma n D2 v\r\n", "VA 2\r\n15\r\n"),
        ("md k q\r\n", ""),
        ("md k\r\n", "NF\r\n"),
    ]);
}

#[test]
fn class_24_a_refused_block_is_swallowed_and_never_runs() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    let mut block = "flush_all\r\n".repeat(200_000);
    block.truncate(2_000_000);
    wire.send(
        format!("set kept 0 0 1\r\nx\r\nset k 0 0 2000000\r\n{block}\r\nget k kept\r\n").as_bytes(),
    );
    let answer = wire.until(b"END\r\n").expect("an answer");
    assert_eq!(
        String::from_utf8_lossy(&answer),
        "STORED\r\nSERVER_ERROR object too large for cache\r\nVALUE kept 0 1\r\nx\r\nEND\r\n"
    );
}

#[test]
fn class_32_both_protocols_see_the_same_values() {
    let server = Server::start(&Options::new());
    let mut resp = server.connect();
    let mut memcached = server.connect_memcached();
    check_memcached_on(&mut memcached, &[("set k 9 100 2\r\n41\r\n", "STORED\r\n")]);
    assert_eq!(resp.line("GET k"), "$2\r\n41\r\n");
    assert_eq!(resp.line("TTL k"), ":100\r\n");
    assert_eq!(resp.line("INCR k"), ":42\r\n");
    check_memcached_on(
        &mut memcached,
        &[("get k\r\n", "VALUE k 9 2\r\n42\r\nEND\r\n")],
    );
    assert_eq!(resp.line("SET k plain"), "+OK\r\n");
    check_memcached_on(
        &mut memcached,
        &[("get k\r\n", "VALUE k 0 5\r\nplain\r\nEND\r\n")],
    );
}

/// A line of `watch` without what differs from run to run: time, number, descriptor, port.
fn without_figures(line: &str) -> String {
    let words = line.trim_end().split(' ').filter(|word| {
        ["ts=", "gid=", "cfd=", "rport="]
            .iter()
            .all(|figure| !word.starts_with(figure))
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn watchers_are_shown_what_others_do() {
    let server = Server::start(&Options::new());
    let mut watcher = server.connect_memcached();
    watcher.send(b"watch fetchers mutations deletions connevents\r\n");
    assert_eq!(watcher.until(b"\r\n").expect("an answer"), b"OK\r\n");
    let mut wire = server.connect_memcached();
    let requests =
        b"set k 0 60 3\r\nabc\r\nget k gone\r\nms YSBi 1 b MR\r\nx\r\ndelete k\r\nquit\r\n";
    wire.send(requests);
    // The connection that found the server ready may end only now.
    let shown: Vec<String> = std::iter::repeat_with(|| watcher.until(b"\n").expect("a line"))
        .map(|line| without_figures(&String::from_utf8_lossy(&line)))
        .filter(|line| !line.starts_with("type=conn_close"))
        .take(9)
        .collect();
    assert_eq!(
        shown,
        [
            "type=conn_new rip=127.0.0.1 transport=tcp",
            "type=item_get key=k status=not_found clsid=0 size=0",
            "type=item_store key=k status=stored cmd=set ttl=60 clsid=1 size=3",
            "type=item_get key=k status=found clsid=1 size=3",
            "type=item_get key=gone status=not_found clsid=0 size=0",
            "type=item_get key=a%20b status=not_found clsid=0 size=0",
            "type=item_store key=a%20b status=not_stored cmd=replace ttl=0 clsid=1 size=1",
            "type=item_get key=k status=found clsid=1 size=3",
            "type=deleted key=k cmd=delete clsid=1 size=3",
        ]
    );
}

#[test]
fn class_35_a_watcher_that_does_not_read_is_told_what_it_missed() {
    let server = Server::start(&Options::new());
    let mut watcher = server.connect_memcached();
    watcher.send(b"watch fetchers\r\n");
    assert_eq!(watcher.until(b"\r\n").expect("an answer"), b"OK\r\n");
    let mut wire = server.connect_memcached();
    let (rounds, keys) = (150, 20);
    let line = format!("get{}\r\n", format!(" {}", "k".repeat(240)).repeat(keys));
    let requests = [line.repeat(100).as_bytes(), b"mn\r\n"].concat();
    for _ in 0..rounds {
        wire.send(&requests);
        wire.until(b"MN\r\n").expect("all answers");
    }
    // Enough is read for the next line to find room, and to be told of what did not.
    watcher.send(b"ignored\r\n");
    let seen = watcher.within(std::time::Duration::from_millis(500));
    wire.send(b"get last\r\nmn\r\n");
    wire.until(b"MN\r\n").expect("an answer");
    let end = watcher.until(b"key=last").expect("the last line");
    let all = [seen, end].concat();
    assert!(all.len() < 100 * rounds * keys * 240 / 2, "it was bounded");
    let text = String::from_utf8_lossy(&all);
    let skipped = text
        .lines()
        .filter_map(|line| line.strip_prefix("skipped="));
    let skipped: usize = skipped
        .map(|count| count.parse::<usize>().expect("a count"))
        .sum();
    let shown = text.matches("type=item_get").count();
    assert_eq!(shown + skipped, 100 * rounds * keys + 1);
}

#[test]
fn dumps_list_all_items_in_slices() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    let items: String = (0..20_000)
        .map(|number| format!("set key:{number} 0 0 1 noreply\r\nx\r\n"))
        .collect();
    wire.send(items.as_bytes());
    wire.send(b"lru_crawler metadump all\r\n");
    let dump = wire.until(b"END\r\n").expect("a dump");
    let text = String::from_utf8_lossy(&dump);
    assert!(text.starts_with("OK\r\nkey=key%3A"));
    assert_eq!(text.matches("key=key%3A").count(), 20_000);
    wire.send(b"lru_crawler mgdump all\r\nmn\r\n");
    let dump = wire.until(b"EN\r\nMN\r\n").expect("a dump");
    assert_eq!(
        String::from_utf8_lossy(&dump).matches("mg key:").count(),
        20_000
    );
}

#[test]
fn class_22_appending_makes_no_item_larger_than_items_may_be() {
    let server = Server::start(&Options::new().set("memcached-item-size-max", "1024"));
    let mut wire = server.connect_memcached();
    let [fits, beyond] = [964, 965].map(|len| "x".repeat(len - 500));
    let half = "x".repeat(500);
    check_memcached_on(
        &mut wire,
        &[
            (&format!("set k 0 0 500\r\n{half}\r\n"), "STORED\r\n"),
            (
                &format!("append k 0 0 465\r\n{beyond}\r\n"),
                "NOT_STORED\r\n",
            ),
            (
                &format!("prepend k 0 0 465\r\n{beyond}\r\n"),
                "NOT_STORED\r\n",
            ),
            (&format!("ms k 465 MA\r\n{beyond}\r\n"), "NS\r\n"),
            (&format!("ms k 465 MP\r\n{beyond}\r\n"), "NS\r\n"),
            ("mg k s\r\n", "HD s500\r\n"),
            (&format!("ms k 464 MA s\r\n{fits}\r\n"), "HD s964\r\n"),
        ],
    );
}

#[test]
fn class_26_strangers_may_only_say_who_they_are() {
    let server = Server::start(&Options::new().set("requirepass", "secret"));
    let mut wire = server.connect_memcached();
    for request in [
        "get k",
        "flush_all",
        "mg k v",
        "stats",
        "watch",
        "shutdown",
        "mn",
        "ms k 14\r\ndefault secret",
    ] {
        wire.send(format!("{request}\r\n").as_bytes());
        let answer = wire.until(b"\r\n").expect("an answer");
        assert_eq!(answer, b"CLIENT_ERROR unauthenticated\r\n", "{request}");
    }
    for (credentials, expected) in [
        ("secret", "CLIENT_ERROR bad authentication token format\r\n"),
        ("default wrong", "CLIENT_ERROR authentication failure\r\n"),
        ("default secret", "STORED\r\n"),
    ] {
        let len = credentials.len();
        wire.send(format!("set k 0 0 {len}\r\n{credentials}\r\n").as_bytes());
        let answer = wire.until(b"\r\n").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), expected);
    }
    check_memcached_on(&mut wire, &[("get k\r\n", "END\r\n")]);
}

#[test]
fn class_06_strangers_cannot_make_the_server_hold_much() {
    let server = Server::start(&Options::new().set("requirepass", "secret"));
    let mut wire = server.connect_memcached();
    wire.send(format!("set k 0 0 1000000\r\n{}", "x".repeat(100_000)).as_bytes());
    let answer = wire.until(b"\r\n").expect("an answer before the data");
    assert_eq!(answer, b"SERVER_ERROR object too large for cache\r\n");
    let mut wire = server.connect_memcached();
    wire.send(format!("get{}", " key".repeat(1000)).as_bytes());
    assert_eq!(wire.until_closed().expect("the end"), b"");
}

#[test]
fn class_22_the_binary_protocol_is_refused_at_its_first_byte() {
    let server = Server::start(&Options::new());
    let mut wire = server.connect_memcached();
    wire.send(b"\x80");
    assert_eq!(wire.until_closed().expect("the end"), b"");
}

#[test]
fn clients_are_told_the_clusters_nodes() {
    let server = Server::start(&Options::new());
    let port = server.memcached_address().port();
    let mut wire = server.connect_memcached();
    let mut told = || {
        wire.send(b"config get cluster\r\n");
        let answer = wire.until(b"\r\nEND\r\n").expect("an answer");
        let text = String::from_utf8(answer).expect("text");
        let (head, description) = text.split_once("\r\n").expect("a head");
        let description = description.strip_suffix("\r\nEND\r\n").expect("it ends so");
        assert_eq!(head, format!("CONFIG cluster 0 {}", description.len()));
        let (version, nodes) = description.split_once('\n').expect("two lines");
        (version.parse::<u64>().expect("a number"), nodes.to_owned())
    };
    let (first, nodes) = told();
    assert_eq!(nodes, format!("127.0.0.1|127.0.0.1|{port}\n"));
    let mut resp = server.connect();
    let two = "a.example|10.0.0.1|11211 b.example||11212";
    let set = format!("CONFIG SET memcached-cluster-nodes \"{two}\"");
    assert_eq!(resp.line(&set), "+OK\r\n");
    let (second, nodes) = told();
    assert_eq!(nodes, format!("{two}\n"));
    assert!(second > first, "clients look at newer descriptions only");
    let refused = resp.line("CONFIG SET memcached-cluster-nodes \"a.example:11211\"");
    assert!(refused.starts_with("-ERR"), "{refused}");
}

/// The names after `STAT`, without the numbers of classes and connections.
fn statistics(wire: &mut Wire, request: &str) -> Vec<String> {
    wire.send(format!("{request}\r\n").as_bytes());
    let answer = wire.until(b"END\r\n").expect("an answer");
    let text = String::from_utf8(answer).expect("text");
    let names = text.lines().filter_map(|line| line.strip_prefix("STAT "));
    names
        .filter_map(|line| line.split(' ').next())
        .map(|name| match name.rsplit_once(':') {
            Some((_, name)) => name.to_owned(),
            None => name.to_owned(),
        })
        .collect()
}

#[test]
fn statistics_have_memcacheds_names_in_its_order() {
    let Some(memcached) = Server::memcached(&Options::new()) else {
        return missing("memcached");
    };
    let server = Server::start(&Options::new());
    let mut wires = [&memcached, &server].map(Server::connect_memcached);
    for wire in &mut wires {
        check_memcached_on(
            wire,
            &[
                ("set a 1 0 1\r\nx\r\n", "STORED\r\n"),
                ("get a\r\n", "VALUE a 1 1\r\nx\r\nEND\r\n"),
            ],
        );
    }
    for request in ["stats", "stats settings", "stats items", "stats slabs"] {
        let [wanted, told] = wires.each_mut().map(|wire| statistics(wire, request));
        let mut told = told.iter();
        for name in wanted.iter().filter(|name| *name != "libevent") {
            assert!(
                told.any(|own| own == name),
                "{request}: no {name}, or out of order"
            );
        }
    }
}

#[test]
fn statistics_count_as_memcached_does() {
    let requests = [
        "get a\r\n",
        "set a 0 0 1\r\nx\r\n",
        "get a a b\r\n",
        "gat 100 a b\r\n",
        "mg a v\r\n",
        "mg a T30\r\n",
        "mg b T30\r\n",
        "mg lease N30 v\r\n",
        "ms a 1 C5\r\nx\r\n",
        "ms gone 1 C5\r\nx\r\n",
        "ms a 1 E1000000\r\nx\r\n",
        "ms a 1 C1000000\r\nx\r\n",
        "append a 0 0 1\r\ny\r\n",
        "add a 0 0 1\r\nx\r\n",
        "cas a 0 0 1 999999999\r\nx\r\n",
        "ma n N0 J5\r\n",
        "ma n\r\n",
        "ma gone\r\n",
        "incr n 1\r\n",
        "decr gone 1\r\n",
        "md a I\r\n",
        "md a\r\n",
        "md a\r\n",
        "delete n\r\n",
        "touch lease 100\r\n",
        "add a 0 0 2000000\r\n",
    ];
    let counters = [
        "cmd_get",
        "cmd_set",
        "cmd_touch",
        "get_hits",
        "get_misses",
        "delete_misses",
        "delete_hits",
        "incr_misses",
        "incr_hits",
        "decr_misses",
        "decr_hits",
        "cas_misses",
        "cas_hits",
        "cas_badval",
        "touch_hits",
        "touch_misses",
        "store_too_large",
        "curr_items",
        "total_items",
    ];
    let Some(memcached) = Server::memcached(&Options::new()) else {
        return missing("memcached");
    };
    let server = Server::start(&Options::new());
    let count = |server: &Server| {
        let mut wire = server.connect_memcached();
        wire.send(requests.concat().as_bytes());
        wire.send(&[&[b'x'; 2_000_000][..], b"\r\nmn\r\n"].concat());
        wire.until(b"MN\r\n").expect("all answers");
        wire.send(b"stats\r\n");
        let text = String::from_utf8(wire.until(b"END\r\n").expect("statistics"));
        let text = text.expect("text");
        let wanted = counters.map(|name| format!("STAT {name} "));
        let lines = text
            .lines()
            .filter(|line| wanted.iter().any(|name| line.starts_with(name)));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(count(&server), count(&memcached));
}

/// What a subscriber to keyspace events is told of keys, up to a key that is deleted for this.
fn events(subscriber: &mut Wire, other: &mut Wire) -> Vec<String> {
    other.line("SET end 1");
    other.line("DEL end");
    let mut told = Vec::new();
    loop {
        let message = subscriber.reply().expect("a message");
        let (_, words) = parts(&message);
        let word = |index: usize| {
            let bulk = String::from_utf8_lossy(words[index]).into_owned();
            bulk.lines().last().unwrap_or_default().to_owned()
        };
        let event = word(2).rsplit(':').next().unwrap_or_default().to_owned();
        match (event.as_str(), word(3).as_str()) {
            ("del", "end") => return told,
            ("set", "end") => {}
            (event, key) => told.push(format!("{event} {key}")),
        }
    }
}

#[test]
fn what_becomes_of_items_is_told_as_of_keys() {
    let options = Options::new()
        .set("notify-keyspace-events", "EA")
        .set("memcached-item-size-max", "10000")
        .set("enable-debug-command", "yes");
    let server = Server::ferrite(&options);
    let (mut subscriber, mut other) = (server.connect(), server.connect());
    let mut wire = server.connect_memcached();
    other.line("DEBUG SET-ACTIVE-EXPIRE 0");
    subscriber.line("PSUBSCRIBE __keyevent@0__:*");

    check_memcached_on(&mut wire, &[("set k 0 0 1\r\nx\r\n", "STORED\r\n")]);
    assert_eq!(events(&mut subscriber, &mut other), ["set k"]);
    let large = format!("set k 0 0 20000\r\n{}\r\nmn\r\n", "x".repeat(20_000));
    wire.send(large.as_bytes());
    let answer = wire.until(b"MN\r\n").expect("an answer");
    assert!(answer.starts_with(b"SERVER_ERROR object too large for cache"));
    assert_eq!(events(&mut subscriber, &mut other), ["del k"]);

    for key in ["a", "b", "c"] {
        other.line(&format!("SET {key} 1 PX 1"));
    }
    std::thread::sleep(std::time::Duration::from_millis(10));
    check_memcached_on(&mut wire, &[("get a b c\r\n", "END\r\n")]);
    let mut told = events(&mut subscriber, &mut other);
    told.retain(|event| event.starts_with("expired"));
    assert_eq!(told, ["expired a", "expired b", "expired c"]);
}
