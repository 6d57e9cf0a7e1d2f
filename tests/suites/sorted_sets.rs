//! Sorted sets, byte for byte.

use tests::table::{check, check_resp3};

#[test]
fn a_leaderboard_is_kept_and_read() {
    check(&[
        ("ZADD board 3200 ada 2950 grace 4100 linus", ":3\r\n"),
        ("ZINCRBY board 500 grace", "$4\r\n3450\r\n"),
        (
            "ZRANGE board 0 1 REV WITHSCORES",
            "*4\r\n$5\r\nlinus\r\n$4\r\n4100\r\n$5\r\ngrace\r\n$4\r\n3450\r\n",
        ),
        ("ZREVRANK board ada", ":2\r\n"),
        ("ZCOUNT board 3000 (4100", ":2\r\n"),
        ("ZSCORE board nobody", "$-1\r\n"),
        ("ZREMRANGEBYRANK board 0 0", ":1\r\n"),
        ("ZCARD board", ":2\r\n"),
    ]);
}

#[test]
fn zadd_honours_its_conditions() {
    check(&[
        ("ZADD z 1 a", ":1\r\n"),
        ("ZADD z NX 2 a", ":0\r\n"),
        ("ZADD z XX CH 2 a 3 b", ":1\r\n"),
        ("ZADD z GT CH 1 a", ":0\r\n"),
        ("ZADD z LT CH 1 a", ":1\r\n"),
        ("ZADD z INCR 5 a", "$1\r\n6\r\n"),
        ("ZADD z NX INCR 5 a", "$-1\r\n"),
        (
            "ZADD z NX XX 1 a",
            "-ERR XX and NX options at the same time are not compatible\r\n",
        ),
        (
            "ZADD z GT LT 1 a",
            "-ERR GT, LT, and/or NX options at the same time are not compatible\r\n",
        ),
        ("ZADD z inf a", ":0\r\n"),
        (
            "ZINCRBY z -inf a",
            "-ERR resulting score is not a number (NaN)\r\n",
        ),
        ("ZADD z 1 a 2", "-ERR syntax error\r\n"),
        ("ZADD z one a", "-ERR value is not a valid float\r\n"),
    ]);
}

#[test]
fn scores_are_doubles_in_resp3_and_pairs_are_nested() {
    check_resp3(&[
        ("ZADD z 0.1 a 1e300 b inf c", ":3\r\n"),
        ("ZSCORE z a", ",0.1\r\n"),
        (
            "ZRANGE z 0 -1 WITHSCORES",
            "*3\r\n*2\r\n$1\r\na\r\n,0.1\r\n*2\r\n$1\r\nb\r\n,1e+300\r\n*2\r\n$1\r\nc\r\n,inf\r\n",
        ),
        ("ZRANK z b WITHSCORE", "*2\r\n:1\r\n,1e+300\r\n"),
        ("ZPOPMAX z", "*2\r\n$1\r\nc\r\n,inf\r\n"),
        ("ZPOPMIN z 1", "*1\r\n*2\r\n$1\r\na\r\n,0.1\r\n"),
        ("ZMSCORE z b nobody", "*2\r\n,1e+300\r\n_\r\n"),
    ]);
}

#[test]
fn sets_take_part_in_unions_with_the_score_one() {
    check(&[
        ("ZADD z 5 a 7 b", ":2\r\n"),
        ("SADD s b c", ":2\r\n"),
        (
            "ZUNION 2 z s WEIGHTS 2 3 WITHSCORES",
            "*6\r\n$1\r\nc\r\n$1\r\n3\r\n$1\r\na\r\n$2\r\n10\r\n$1\r\nb\r\n$2\r\n17\r\n",
        ),
        ("ZINTERSTORE i 2 z s AGGREGATE MIN", ":1\r\n"),
        ("ZSCORE i b", "$1\r\n1\r\n"),
        ("ZDIFF 2 z s", "*1\r\n$1\r\na\r\n"),
        ("ZINTERCARD 2 z s LIMIT 1", ":1\r\n"),
        ("ZDIFFSTORE i 2 s s", ":0\r\n"),
        ("EXISTS i", ":0\r\n"),
    ]);
}

#[test]
fn pops_take_from_the_first_set_that_has_any() {
    check(&[
        ("ZADD z 1 a 2 b 3 c 4 d", ":4\r\n"),
        (
            "ZMPOP 2 empty z MAX COUNT 2",
            "*2\r\n$1\r\nz\r\n*2\r\n*2\r\n$1\r\nd\r\n$1\r\n4\r\n*2\r\n$1\r\nc\r\n$1\r\n3\r\n",
        ),
        (
            "BZPOPMIN empty z 0",
            "*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\n1\r\n",
        ),
        (
            "BZMPOP 0 1 z MIN",
            "*2\r\n$1\r\nz\r\n*1\r\n*2\r\n$1\r\nb\r\n$1\r\n2\r\n",
        ),
        ("EXISTS z", ":0\r\n"),
        ("ZPOPMIN z", "*0\r\n"),
        ("ZMPOP 1 z MIN", "*-1\r\n"),
        ("BZPOPMAX z -1", "-ERR timeout is negative\r\n"),
    ]);
}

#[test]
fn members_of_equal_scores_are_ranged_by_their_bytes() {
    check(&[
        ("ZADD z 0 a 0 b 0 c 0 d", ":4\r\n"),
        ("ZLEXCOUNT z (a +", ":3\r\n"),
        (
            "ZRANGE z + [b BYLEX REV LIMIT 1 2",
            "*2\r\n$1\r\nc\r\n$1\r\nb\r\n",
        ),
        ("ZRANGESTORE y z - (c BYLEX", ":2\r\n"),
        ("ZREMRANGEBYLEX y - +", ":2\r\n"),
        ("EXISTS y", ":0\r\n"),
        (
            "ZRANGEBYLEX z a c",
            "-ERR min or max not valid string range item\r\n",
        ),
    ]);
}
