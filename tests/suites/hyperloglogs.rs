//! HyperLogLogs: counts, unions, and strings that are none.

use tests::table::check;

const NOT_ONE: &str = "-WRONGTYPE Key is not a valid HyperLogLog string value.\r\n";

#[test]
fn elements_are_counted_and_merged() {
    check(&[
        ("PFADD p", ":1\r\n"),
        ("PFADD p", ":0\r\n"),
        ("PFADD p a b c", ":1\r\n"),
        ("PFADD p a", ":0\r\n"),
        ("PFCOUNT p", ":3\r\n"),
        ("PFCOUNT missing", ":0\r\n"),
        ("PFADD q c d", ":1\r\n"),
        ("PFCOUNT p q missing", ":4\r\n"),
        ("PFMERGE d p q", "+OK\r\n"),
        ("PFCOUNT d", ":4\r\n"),
        ("OBJECT ENCODING d", "$3\r\nraw\r\n"),
        ("PFDEBUG ENCODING d", "+sparse\r\n"),
        ("PFDEBUG TODENSE d", ":1\r\n"),
        ("STRLEN d", ":12304\r\n"),
        ("PFCOUNT d", ":4\r\n"),
    ]);
}

#[test]
fn strings_that_are_no_hyperloglog_are_refused() {
    check(&[
        ("SET s text", "+OK\r\n"),
        ("PFADD s a", NOT_ONE),
        ("PFCOUNT s", NOT_ONE),
        ("PFMERGE d s", NOT_ONE),
        ("EXISTS d", ":0\r\n"),
        ("RPUSH l a", ":1\r\n"),
        (
            "PFCOUNT l",
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        (
            "PFDEBUG ENCODING missing",
            "-ERR The specified key does not exist\r\n",
        ),
    ]);
}
