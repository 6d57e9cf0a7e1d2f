//! Lists, byte for byte.

use tests::table::check;

#[test]
fn both_ends_are_pushed_and_popped() {
    check(&[
        ("RPUSH l a b c", ":3\r\n"),
        ("LPUSH l 1 2", ":5\r\n"),
        ("LPUSHX missing x", ":0\r\n"),
        ("LLEN l", ":5\r\n"),
        ("LPOP l", "$1\r\n2\r\n"),
        ("RPOP l 2", "*2\r\n$1\r\nc\r\n$1\r\nb\r\n"),
        ("LPOP l 0", "*0\r\n"),
        ("LPOP l 10", "*2\r\n$1\r\n1\r\n$1\r\na\r\n"),
        ("EXISTS l", ":0\r\n"),
        ("LPOP l", "$-1\r\n"),
        ("LPOP l 1", "*-1\r\n"),
        (
            "LPOP l -1",
            "-ERR value is out of range, must be positive\r\n",
        ),
    ]);
}

#[test]
fn elements_are_found_by_index_and_value() {
    check(&[
        ("RPUSH l a b c b", ":4\r\n"),
        ("LINDEX l -1", "$1\r\nb\r\n"),
        ("LINDEX l 4", "$-1\r\n"),
        ("LRANGE l 1 -2", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n"),
        ("LPOS l b", ":1\r\n"),
        ("LPOS l b RANK -1", ":3\r\n"),
        ("LPOS l b COUNT 0", "*2\r\n:1\r\n:3\r\n"),
        ("LPOS l b COUNT 0 MAXLEN 3", "*1\r\n:1\r\n"),
        ("LPOS l x", "$-1\r\n"),
    ]);
}

#[test]
fn the_middle_is_changed() {
    check(&[
        ("RPUSH l a b c b", ":4\r\n"),
        ("LSET l 0 A", "+OK\r\n"),
        ("LSET l 9 A", "-ERR index out of range\r\n"),
        ("LSET missing 0 A", "-ERR no such key\r\n"),
        ("LINSERT l BEFORE c x", ":5\r\n"),
        ("LINSERT l AFTER missing x", ":-1\r\n"),
        ("LREM l -1 b", ":1\r\n"),
        ("LTRIM l 1 2", "+OK\r\n"),
        ("LRANGE l 0 -1", "*2\r\n$1\r\nb\r\n$1\r\nx\r\n"),
        ("LTRIM l 5 9", "+OK\r\n"),
        ("EXISTS l", ":0\r\n"),
    ]);
}

#[test]
fn elements_move_between_lists() {
    check(&[
        ("RPUSH a 1 2 3", ":3\r\n"),
        ("LMOVE a b LEFT RIGHT", "$1\r\n1\r\n"),
        ("RPOPLPUSH a a", "$1\r\n3\r\n"),
        ("LRANGE a 0 -1", "*2\r\n$1\r\n3\r\n$1\r\n2\r\n"),
        ("LMOVE missing b LEFT LEFT", "$-1\r\n"),
        ("SET text x", "+OK\r\n"),
        (
            "LMOVE a text LEFT LEFT",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        (
            "LMPOP 2 missing a RIGHT COUNT 5",
            "*2\r\n$1\r\na\r\n*2\r\n$1\r\n2\r\n$1\r\n3\r\n",
        ),
        ("LMPOP 1 a LEFT", "*-1\r\n"),
    ]);
}

#[test]
fn waiting_pops_take_what_is_there() {
    check(&[
        ("RPUSH l a b c", ":3\r\n"),
        ("BLPOP missing l 1", "*2\r\n$1\r\nl\r\n$1\r\na\r\n"),
        ("BLMOVE l m RIGHT LEFT 1", "$1\r\nc\r\n"),
        ("BLMPOP 1 1 l LEFT", "*2\r\n$1\r\nl\r\n*1\r\n$1\r\nb\r\n"),
        ("BLPOP l -1", "-ERR timeout is negative\r\n"),
        ("MULTI", "+OK\r\n"),
        ("BRPOPLPUSH missing l 0", "+QUEUED\r\n"),
        ("BLPOP missing 0", "+QUEUED\r\n"),
        ("EXEC", "*2\r\n$-1\r\n*-1\r\n"),
    ]);
}

#[test]
fn long_lists_are_quicklists_and_answer_in_full() {
    let push = format!("RPUSH l{}", " element".repeat(3000));
    let whole = format!("*3000\r\n{}", "$7\r\nelement\r\n".repeat(3000));
    check(&[
        (&push, ":3000\r\n"),
        ("OBJECT ENCODING l", "$9\r\nquicklist\r\n"),
        ("LRANGE l 0 -1", &whole),
        ("RPOP l 3000", &whole),
        ("EXISTS l", ":0\r\n"),
    ]);
}

#[test]
fn elements_are_sorted() {
    check(&[
        ("RPUSH l 3 10 2", ":3\r\n"),
        ("SORT l", "*3\r\n$1\r\n2\r\n$1\r\n3\r\n$2\r\n10\r\n"),
        (
            "SORT l ALPHA DESC LIMIT 0 2",
            "*2\r\n$1\r\n3\r\n$1\r\n2\r\n",
        ),
        (
            "SORT_RO l BY nosort LIMIT 1 5",
            "*2\r\n$2\r\n10\r\n$1\r\n2\r\n",
        ),
        ("SORT_RO l STORE x", "-ERR syntax error\r\n"),
        ("MSET w3 1 w2 5 w10 3 name3 three", "+OK\r\n"),
        (
            "SORT l BY w* GET # GET name*",
            "*6\r\n$1\r\n3\r\n$5\r\nthree\r\n$2\r\n10\r\n$-1\r\n$1\r\n2\r\n$-1\r\n",
        ),
        ("SORT l BY w* GET name* STORE sorted", ":3\r\n"),
        (
            "LRANGE sorted 0 -1",
            "*3\r\n$5\r\nthree\r\n$0\r\n\r\n$0\r\n\r\n",
        ),
        ("SORT missing STORE sorted", ":0\r\n"),
        ("EXISTS sorted", ":0\r\n"),
        ("RPUSH l x", ":4\r\n"),
        (
            "SORT l",
            "-ERR One or more scores can't be converted into double\r\n",
        ),
        (
            "SORT w2",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
    ]);
}
