//! Streams, byte for byte.

use tests::table::check;

#[test]
fn entries_are_added_read_and_deleted() {
    check(&[
        ("XADD s 1-1 a 1", "$3\r\n1-1\r\n"),
        ("XADD s 1-* a 2", "$3\r\n1-2\r\n"),
        ("XLEN s", ":2\r\n"),
        (
            "XADD s 1-2 a 3",
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n",
        ),
        ("XADD missing NOMKSTREAM * a 1", "$-1\r\n"),
        (
            "XRANGE s (1-1 +",
            "*1\r\n*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\na\r\n$1\r\n2\r\n",
        ),
        (
            "XREVRANGE s + - COUNT 1",
            "*1\r\n*2\r\n$3\r\n1-2\r\n*2\r\n$1\r\na\r\n$1\r\n2\r\n",
        ),
        ("XDEL s 1-1 9-9", ":1\r\n"),
        ("XTRIM s MAXLEN 0", ":1\r\n"),
        ("EXISTS s", ":1\r\n"),
        ("XREAD STREAMS s 0", "*-1\r\n"),
    ]);
}

#[test]
fn groups_deliver_repeat_and_acknowledge() {
    check(&[
        ("XGROUP CREATE s g $ MKSTREAM", "+OK\r\n"),
        (
            "XGROUP CREATE s g $",
            "-BUSYGROUP Consumer Group name already exists\r\n",
        ),
        ("XADD s 1-1 a 1", "$3\r\n1-1\r\n"),
        (
            "XREADGROUP GROUP g c STREAMS s >",
            "*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n",
        ),
        ("XREADGROUP GROUP g c STREAMS s >", "*-1\r\n"),
        (
            "XPENDING s g",
            "*4\r\n:1\r\n$3\r\n1-1\r\n$3\r\n1-1\r\n*1\r\n*2\r\n$1\r\nc\r\n$1\r\n1\r\n",
        ),
        ("XCLAIM s g d 0 1-1 JUSTID", "*1\r\n$3\r\n1-1\r\n"),
        (
            "XREADGROUP GROUP g c STREAMS s 0",
            "*1\r\n*2\r\n$1\r\ns\r\n*0\r\n",
        ),
        (
            "XAUTOCLAIM s g c 0 0 JUSTID",
            "*3\r\n$3\r\n0-0\r\n*1\r\n$3\r\n1-1\r\n*0\r\n",
        ),
        ("XACK s g 1-1", ":1\r\n"),
        ("XGROUP DELCONSUMER s g c", ":0\r\n"),
        ("XGROUP DESTROY s g", ":1\r\n"),
    ]);
}
