//! Strings, counters and bitmaps, byte for byte.

use tests::table::{check, check_resp3};

#[test]
fn strings_are_set_and_read() {
    check(&[
        ("SET greeting hello", "+OK\r\n"),
        ("GET greeting", "$5\r\nhello\r\n"),
        ("GET missing", "$-1\r\n"),
        ("APPEND greeting !", ":6\r\n"),
        ("GETRANGE greeting -2 -1", "$2\r\no!\r\n"),
        ("SETRANGE greeting 10 x", ":11\r\n"),
        ("STRLEN greeting", ":11\r\n"),
        ("MSET a 1 b 2", "+OK\r\n"),
        ("MGET a missing b", "*3\r\n$1\r\n1\r\n$-1\r\n$1\r\n2\r\n"),
        ("MSETNX a 3 c 3", ":0\r\n"),
        ("GETDEL a", "$1\r\n1\r\n"),
        ("EXISTS a b c", ":1\r\n"),
    ]);
}

#[test]
fn sets_options_are_honoured() {
    check(&[
        ("SET k v NX", "+OK\r\n"),
        ("SET k w NX", "$-1\r\n"),
        ("SET k w XX GET", "$1\r\nv\r\n"),
        ("SET k x IFEQ v", "$-1\r\n"),
        ("SET k x IFEQ w", "+OK\r\n"),
        ("SET k y EX 100", "+OK\r\n"),
        ("TTL k", ":100\r\n"),
        ("SET k z KEEPTTL", "+OK\r\n"),
        ("TTL k", ":100\r\n"),
        ("SET k z", "+OK\r\n"),
        ("TTL k", ":-1\r\n"),
        ("SET k v NX XX", "-ERR syntax error\r\n"),
        (
            "SET k v EX 0",
            "-ERR invalid expire time in 'set' command\r\n",
        ),
    ]);
}

#[test]
fn counters_count_and_refuse_what_is_no_number() {
    check(&[
        ("INCR n", ":1\r\n"),
        ("INCRBY n 9223372036854775806", ":9223372036854775807\r\n"),
        ("INCR n", "-ERR increment or decrement would overflow\r\n"),
        ("SET n abc", "+OK\r\n"),
        ("INCR n", "-ERR value is not an integer or out of range\r\n"),
        ("SET f 0.1", "+OK\r\n"),
        ("INCRBYFLOAT f 0.2", "$3\r\n0.3\r\n"),
        ("OBJECT ENCODING f", "$6\r\nembstr\r\n"),
        ("SET i 12", "+OK\r\n"),
        ("OBJECT ENCODING i", "$3\r\nint\r\n"),
    ]);
}

#[test]
fn bits_are_set_counted_and_found() {
    check(&[
        ("SETBIT b 7 1", ":0\r\n"),
        ("SETBIT b 7 1", ":1\r\n"),
        ("GETBIT b 7", ":1\r\n"),
        ("BITCOUNT b", ":1\r\n"),
        ("BITPOS b 1", ":7\r\n"),
        ("BITFIELD b SET u8 8 255 GET u4 8", "*2\r\n:0\r\n:15\r\n"),
        ("BITFIELD b OVERFLOW FAIL INCRBY u8 8 1", "*1\r\n$-1\r\n"),
        ("BITOP NOT c b", ":2\r\n"),
        ("BITCOUNT c", ":7\r\n"),
        (
            "SETBIT b 4294967296 1",
            "-ERR bit offset is not an integer or out of range\r\n",
        ),
    ]);
}

#[test]
fn class_01_integer_overflow_in_offsets_is_refused() {
    check(&[
        (
            "SETRANGE k 9223372036854775807 x",
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        ),
        ("SETRANGE k -1 x", "-ERR offset is out of range\r\n"),
        (
            "GETRANGE k -9223372036854775808 9223372036854775807",
            "$0\r\n\r\n",
        ),
        (
            "EXPIRE k 9223372036854775807",
            "-ERR invalid expire time in 'expire' command\r\n",
        ),
        (
            "DECRBY k -9223372036854775808",
            "-ERR decrement would overflow\r\n",
        ),
        ("PING", "+PONG\r\n"),
    ]);
}

#[test]
fn nothing_is_null_in_resp3() {
    check_resp3(&[("GET missing", "_\r\n"), ("MGET missing", "*1\r\n_\r\n")]);
}
