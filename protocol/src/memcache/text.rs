//! Lines of the classic commands.

use super::meta::MetaKey;
use super::parser::{
    Announced, BAD_FORMAT, Limits, Refusal, TOO_LARGE, Target, parse_data_len, parse_i32,
    parse_integer,
};
use super::{Cas, Lru, LruCrawler, MAX_KEY_LEN, Reply, Request, Shutdown, Slabs, StoreVerb, Words};
use crate::number::parse_digits;

/// What a line is.
#[derive(Debug)]
pub(super) enum Line<'a> {
    Whole(Request<'a>),
    WithData(Announced<'a>),
}

type Result<'a, T = Line<'a>> = std::result::Result<T, Refusal<'a>>;

const ERROR: &str = "ERROR";
const BAD_EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const BAD_SLEEP: &str = "CLIENT_ERROR sleep must be one second or less";
const BAD_PERCENTAGES: &str = "ERROR hot and warm pcts must not exceed 80";
const BAD_AGE_RATIOS: &str = "ERROR hot/warm age factors must be greater than 0";
const NO_REASSIGNMENT: &str = "CLIENT_ERROR slab reassignment disabled";
const BAD_AUTOMOVE_WINDOW: &str = "CLIENT_ERROR automove window too low or too high";
const MEMLIMIT_TOO_SMALL: &str = "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m";
const MEMLIMIT_IN_BYTES: &str = "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes";

/// MiB that `cache_memlimit` takes: at least these, and fewer than those.
const MIN_MEMLIMIT: u32 = 8;
const MAX_MEMLIMIT: u32 = 1_000_000_001;

/// What `slabs automove window` takes: at least this, and less than that.
const MIN_AUTOMOVE_WINDOW: u32 = 3;
const MAX_AUTOMOVE_WINDOW: u32 = 10_000;

/// The longest that `lru_crawler sleep` takes, in microseconds.
const MAX_SLEEP: u32 = 1_000_000;

const BAD_DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";

pub(super) fn parse<'a>(command: &[u8], words: Words<'a>, limits: &Limits) -> Result<'a> {
    let reply = reply_wanted(words);
    let request = match command {
        b"get" => get(words, Cas::Omitted)?,
        b"gets" => get(words, Cas::Shown)?,
        b"gat" => get_and_touch(words, Cas::Omitted)?,
        b"gats" => get_and_touch(words, Cas::Shown)?,
        b"set" => return store(StoreVerb::Set, words, limits),
        b"add" => return store(StoreVerb::Add, words, limits),
        b"replace" => return store(StoreVerb::Replace, words, limits),
        b"append" => return store(StoreVerb::Append, words, limits),
        b"prepend" => return store(StoreVerb::Prepend, words, limits),
        // Its number follows the length.
        b"cas" => return store(StoreVerb::Cas(0), words, limits),
        b"delete" => quietly(delete(words), reply)?,
        // Too few words are too few to say anything, `noreply` too.
        b"incr" | b"decr" | b"touch" if words.count() < 2 => return Err(BAD_FORMAT.into()),
        b"incr" | b"decr" => quietly(arithmetic(command, words), reply)?,
        b"touch" => quietly(touch(words), reply)?,
        b"flush_all" => quietly(flush_all(words), reply)?,
        b"version" => Request::Version,
        b"verbosity" => quietly(verbosity(words), reply)?,
        b"quit" => Request::Quit,
        b"stats" => Request::Stats { arguments: words },
        b"slabs" => quietly(slabs(words), reply)?,
        b"lru" => quietly(lru(words), reply)?,
        b"lru_crawler" => quietly(lru_crawler(words), reply)?,
        b"watch" => Request::Watch { logs: words },
        b"cache_memlimit" => quietly(cache_memlimit(words), reply)?,
        b"shutdown" => shutdown(words),
        b"refresh_certs" => Request::RefreshCerts,
        b"extstore" => quietly(extstore(words), reply)?,
        b"config" => return config(words),
        _ => return Err(unknown(words, reply)),
    };
    Ok(Line::Whole(request))
}

/// A browser that was tricked into talking to a cache gets no second line in.
fn unknown<'a>(words: Words<'a>, reply: Reply) -> Refusal<'a> {
    match words.last_word() {
        Some(word) if word.starts_with(b"HTTP/") => Refusal::close(),
        _ => Refusal::answer(ERROR, reply),
    }
}

/// `noreply` counts as the line's last word.
fn reply_wanted(words: Words<'_>) -> Reply {
    match words.last_word() {
        Some(b"noreply") => Reply::Suppressed,
        _ => Reply::Wanted,
    }
}

/// Commands that know `noreply` keep quiet about their mistakes too.
fn quietly<'a>(
    parsed: std::result::Result<Request<'a>, &'static str>,
    reply: Reply,
) -> Result<'a, Request<'a>> {
    parsed.map_err(|response| Refusal::answer(response, reply))
}

fn key(word: Option<&[u8]>) -> std::result::Result<&[u8], &'static str> {
    word.filter(|key| key.len() <= MAX_KEY_LEN)
        .ok_or(BAD_FORMAT)
}

/// Looks at every key now, so that a bad one is known before any item is sent.
fn keys(words: Words<'_>) -> std::result::Result<Words<'_>, &'static str> {
    let mut any = false;
    for word in words {
        key(Some(word))?;
        any = true;
    }
    any.then_some(words).ok_or(BAD_FORMAT)
}

fn get(words: Words<'_>, cas: Cas) -> Result<'_, Request<'_>> {
    let keys = keys(words)?;
    Ok(Request::Get { keys, cas })
}

fn get_and_touch(mut words: Words<'_>, cas: Cas) -> Result<'_, Request<'_>> {
    let exptime = words.next().ok_or(BAD_FORMAT)?;
    if words.last_word().is_none() {
        return Err(BAD_FORMAT.into());
    }
    let exptime = parse_i32(exptime).ok_or(BAD_EXPTIME)?.into();
    let keys = keys(words)?;
    Ok(Request::GetAndTouch { exptime, keys, cas })
}

/// Until the length is known the line is refused alone; afterwards its data block is skipped with it.
fn store<'a>(verb: StoreVerb, mut words: Words<'a>, limits: &Limits) -> Result<'a> {
    let [Some(key_word), Some(flags), Some(exptime), Some(data_len)] =
        std::array::from_fn(|_| words.next())
    else {
        return Err(BAD_FORMAT.into());
    };
    let data_len = parse_data_len(data_len)?;
    let reply = reply_wanted(words);
    let target = store_target(verb, [key_word, flags, exptime], words.next(), reply)
        .map_err(|response| Refusal::answer(response, reply).skipping(data_len))?;
    if let Target::Store { key, flags, .. } = target
        && data_len > limits.max_value_len(key, flags)
    {
        let refusal = Refusal::answer(TOO_LARGE, reply).skipping(data_len);
        return Err(match verb {
            StoreVerb::Set => refusal.invalidating(MetaKey::plain(key)),
            _ => refusal,
        });
    }
    Ok(Line::WithData(Announced { data_len, target }))
}

fn store_target<'a>(
    verb: StoreVerb,
    [key_word, flags, exptime]: [&'a [u8]; 3],
    cas: Option<&[u8]>,
    reply: Reply,
) -> std::result::Result<Target<'a>, &'static str> {
    let key = key(Some(key_word))?;
    // These two alone may have a plus sign, and are taken modulo 2^32: libmemcached has 4294967295 for -1.
    let flags = parse_digits(unsigned(flags)).ok_or(BAD_FORMAT)? as u32;
    let exptime = parse_integer(unsigned(exptime)).ok_or(BAD_FORMAT)? as i32;
    let verb = match verb {
        StoreVerb::Cas(_) => StoreVerb::Cas(cas.and_then(parse_digits).ok_or(BAD_FORMAT)?),
        other => other,
    };
    Ok(Target::Store {
        verb,
        key,
        flags,
        exptime: exptime.into(),
        reply,
    })
}

fn unsigned(word: &[u8]) -> &[u8] {
    match word {
        [b'+', digits @ ..] if digits.first().is_some_and(u8::is_ascii_digit) => digits,
        other => other,
    }
}

/// More words are ignored: there was a time argument once.
fn delete(mut words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let key = key(words.next())?;
    Ok(Request::Delete { key, reply })
}

fn arithmetic<'a>(
    command: &[u8],
    mut words: Words<'a>,
) -> std::result::Result<Request<'a>, &'static str> {
    let reply = reply_wanted(words);
    let key = key(words.next())?;
    let delta = words.next().and_then(parse_digits).ok_or(BAD_DELTA)?;
    Ok(match command {
        b"incr" => Request::Increment { key, delta, reply },
        _ => Request::Decrement { key, delta, reply },
    })
}

fn touch(mut words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let key = key(words.next())?;
    let exptime = words.next().and_then(parse_i32).ok_or(BAD_EXPTIME)?;
    Ok(Request::Touch {
        key,
        exptime: exptime.into(),
        reply,
    })
}

fn flush_all(mut words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let delay = match words.next() {
        None => 0,
        Some(b"noreply") if words.last_word().is_none() => 0,
        Some(word) => parse_i32(word).ok_or(BAD_EXPTIME)?,
    };
    Ok(Request::FlushAll {
        delay: delay.into(),
        reply,
    })
}

fn verbosity(mut words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let level = words.next().and_then(parse_u32).ok_or(BAD_FORMAT)?;
    Ok(Request::Verbosity { level, reply })
}

fn slabs(words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let (words, mut rest) = arguments(words);
    let command = match words {
        [Some(b"reassign"), Some(_), Some(_)] if rest.next().is_none() => {
            return Err(NO_REASSIGNMENT);
        }
        [Some(b"automove"), Some(b"ratio"), Some(value)] => {
            Slabs::AutomoveRatio(parse_f64(value).ok_or(ERROR)?)
        }
        [Some(b"automove"), Some(b"freeratio"), Some(value)] => {
            Slabs::AutomoveFreeRatio(parse_f64(value).ok_or(ERROR)?)
        }
        [Some(b"automove"), Some(b"window"), Some(value)] => {
            match parse_u32(value).ok_or(BAD_FORMAT)? {
                window @ MIN_AUTOMOVE_WINDOW..MAX_AUTOMOVE_WINDOW => Slabs::AutomoveWindow(window),
                _ => return Err(BAD_AUTOMOVE_WINDOW),
            }
        }
        [Some(b"automove"), Some(b"ratio" | b"freeratio"), None] => return Err(ERROR),
        [Some(b"automove"), Some(level), _] => match parse_u32(level).ok_or(BAD_FORMAT)? {
            level @ 0..=2 => Slabs::Automove(level),
            _ => return Err(ERROR),
        },
        _ => return Err(ERROR),
    };
    Ok(Request::Slabs { command, reply })
}

fn lru(words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let (first, mut rest) = arguments(words);
    let command = match first {
        [Some(b"tune"), Some(hot), Some(warm)] => {
            let [hot_percent, warm_percent] = [hot, warm].map(parse_u32);
            let [hot_age_ratio, warm_age_ratio] =
                std::array::from_fn(|_| rest.next().and_then(parse_f64));
            tune(
                [hot_percent.ok_or(ERROR)?, warm_percent.ok_or(ERROR)?],
                [hot_age_ratio.ok_or(ERROR)?, warm_age_ratio.ok_or(ERROR)?],
            )?
        }
        [Some(b"mode"), Some(b"flat"), _] => Lru::Flat,
        [Some(b"mode"), Some(b"segmented"), _] => Lru::Segmented,
        [Some(b"temp_ttl"), Some(ttl), _] => Lru::TempTtl(parse_integer(ttl).ok_or(ERROR)?),
        _ => return Err(ERROR),
    };
    Ok(Request::Lru { command, reply })
}

fn tune(percents: [u32; 2], age_ratios: [f64; 2]) -> std::result::Result<Lru, &'static str> {
    let [hot_percent, warm_percent] = percents;
    let [hot_age_ratio, warm_age_ratio] = age_ratios;
    if hot_percent.saturating_add(warm_percent) > 80 {
        return Err(BAD_PERCENTAGES);
    }
    if hot_age_ratio <= 0.0 || warm_age_ratio <= 0.0 {
        return Err(BAD_AGE_RATIOS);
    }
    Ok(Lru::Tune {
        hot_percent,
        warm_percent,
        hot_age_ratio,
        warm_age_ratio,
    })
}

fn lru_crawler(words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    let (first, _) = arguments(words);
    let command = match first {
        [Some(b"enable"), ..] => LruCrawler::Enable,
        [Some(b"disable"), ..] => LruCrawler::Disable,
        [Some(b"sleep"), Some(time), _] => match parse_u32(time).ok_or(BAD_FORMAT)? {
            time @ ..=MAX_SLEEP => LruCrawler::SleepMicroseconds(time),
            _ => return Err(BAD_SLEEP),
        },
        [Some(b"tocrawl"), Some(count), _] => {
            LruCrawler::ToCrawl(parse_u32(count).ok_or(BAD_FORMAT)?)
        }
        [Some(b"crawl"), Some(classes), _] => LruCrawler::Crawl { classes },
        [Some(b"metadump"), Some(classes), _] => LruCrawler::Metadump { classes },
        [Some(b"mgdump"), Some(classes), _] => LruCrawler::Mgdump { classes },
        _ => return Err(ERROR),
    };
    Ok(Request::LruCrawler { command, reply })
}

fn cache_memlimit(mut words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    match words.next().and_then(parse_u32).ok_or(ERROR)? {
        ..MIN_MEMLIMIT => Err(MEMLIMIT_TOO_SMALL),
        MAX_MEMLIMIT.. => Err(MEMLIMIT_IN_BYTES),
        mebibytes => Ok(Request::CacheMemlimit {
            mebibytes: mebibytes.into(),
            reply,
        }),
    }
}

fn shutdown(mut words: Words<'_>) -> Request<'_> {
    let way = match words.next() {
        Some(b"graceful") => Shutdown::Graceful,
        _ => Shutdown::Now,
    };
    Request::Shutdown { way }
}

fn extstore(words: Words<'_>) -> std::result::Result<Request<'_>, &'static str> {
    let reply = reply_wanted(words);
    match arguments(words) {
        ([Some(_), Some(_), _], _) => Ok(Request::Extstore {
            arguments: words,
            reply,
        }),
        _ => Err(ERROR),
    }
}

fn config(words: Words<'_>) -> Result<'_> {
    match arguments(words) {
        ([Some(b"get"), Some(name), None], _) if name.len() <= MAX_KEY_LEN => {
            Ok(Line::Whole(Request::ConfigGet { name }))
        }
        ([Some(b"set"), Some(name), Some(flags)], mut rest) => {
            let data_len = parse_data_len(rest.next().ok_or(BAD_FORMAT)?)?;
            let refuse = || Refusal::from(BAD_FORMAT).skipping(data_len);
            if name.len() > MAX_KEY_LEN || data_len > MAX_CONFIG_LEN {
                return Err(refuse());
            }
            let flags = parse_u32(flags).ok_or_else(refuse)?;
            let target = Target::Config { name, flags };
            Ok(Line::WithData(Announced { data_len, target }))
        }
        _ => Err(ERROR.into()),
    }
}

/// Bytes of a cluster description.
const MAX_CONFIG_LEN: usize = 64 * 1024;

/// The first three words, and the others.
fn arguments(mut words: Words<'_>) -> ([Option<&[u8]>; 3], Words<'_>) {
    let first = std::array::from_fn(|_| words.next());
    (first, words)
}

fn parse_u32(word: &[u8]) -> Option<u32> {
    u32::try_from(parse_digits(word)?).ok()
}

fn parse_f64(word: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(word).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}
