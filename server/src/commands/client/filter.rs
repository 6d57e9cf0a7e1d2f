//! Which clients CLIENT LIST and CLIENT KILL are about.

use std::mem::discriminant;

use storage::value::number;

use super::{flags, quoting};
use crate::{
    dispatch::{args::Args, command::Result, error::Error},
    server::Server,
    server::now,
    session::registry::{Address, Client},
};

/// Conditions that a client must all meet.
pub(super) struct Filter {
    conditions: Vec<Condition>,
    skip_me: bool,
}

struct Condition {
    test: Test,
    /// `NOT-` before the option's name.
    negated: bool,
}

enum Test {
    Ids(Vec<u64>),
    Kind(Kind),
    User(Vec<u8>),
    Address(Vec<u8>),
    LocalAddress(Vec<u8>),
    Ip(Vec<u8>),
    Name(Vec<u8>),
    LibraryName(Vec<u8>),
    LibraryVersion(Vec<u8>),
    Flags(Vec<u8>),
    Capabilities(Vec<u8>),
    Database(u32),
    AgeSeconds(i64),
    IdleSeconds(i64),
}

/// What a connection is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Primary,
    Replica,
    PubSub,
}

/// Every letter that CLIENT LIST may show as a flag.
const FLAG_LETTERS: &[u8] = b"bcdeirtuxABEIMNOPRSTU";

impl Filter {
    /// Reads the options from word `index` on. KILL spares this client unless told otherwise, LIST does not.
    pub(super) fn read(
        args: &Args<'_>,
        mut index: usize,
        server: &Server,
        skip_me: bool,
    ) -> Result<Filter> {
        let mut filter = Filter {
            conditions: Vec::new(),
            skip_me,
        };
        while index < args.len() {
            let option = args.word(index).to_ascii_uppercase();
            let value = args.get(index + 1).ok_or(Error::SYNTAX)?;
            index += 2;
            let (option, negated) = match option.strip_prefix(b"NOT-") {
                Some(rest) => (rest, true),
                None => (&option[..], false),
            };
            let test = match option {
                b"ID" => {
                    let mut ids = vec![client_id(value)?];
                    while let Some(id) = args.get(index).filter(|word| is_number(word)) {
                        ids.push(client_id(id)?);
                        index += 1;
                    }
                    Test::Ids(ids)
                }
                b"SKIPME" if !negated => {
                    filter.skip_me = match value.to_ascii_lowercase().as_slice() {
                        b"yes" => true,
                        b"no" => false,
                        _ => return Err(Error::SYNTAX),
                    };
                    continue;
                }
                b"MAXAGE" if !negated => Test::AgeSeconds(seconds(value, "maxage")?),
                b"IDLE" if !negated => Test::IdleSeconds(seconds(value, "idle")?),
                b"DB" => Test::Database(database(value, server.keyspace.databases())?),
                b"TYPE" => Test::Kind(kind(value)?),
                b"USER" if server.acl.user(value).is_some() => Test::User(value.to_vec()),
                b"USER" => return Err(quoting("No such user '", value, "'")),
                b"FLAGS" => Test::Flags(letters(value, FLAG_LETTERS, "flags")?),
                b"CAPA" => Test::Capabilities(letters(value, b"r", "capa")?),
                b"ADDR" => Test::Address(value.to_vec()),
                b"LADDR" => Test::LocalAddress(value.to_vec()),
                b"IP" => Test::Ip(value.to_vec()),
                b"NAME" => Test::Name(value.to_vec()),
                b"LIB-NAME" => Test::LibraryName(value.to_vec()),
                b"LIB-VER" => Test::LibraryVersion(value.to_vec()),
                _ => return Err(Error::SYNTAX),
            };
            filter.add(Condition { test, negated });
        }
        Ok(filter)
    }

    /// An option that is said again replaces what it said before.
    fn add(&mut self, condition: Condition) {
        self.conditions.retain(|known| {
            discriminant(&known.test) != discriminant(&condition.test)
                || known.negated != condition.negated
        });
        self.conditions.push(condition);
    }

    pub(super) fn matches(&self, client: &Client, me: &Client) -> bool {
        let spared = self.skip_me && client.id == me.id;
        !spared
            && self
                .conditions
                .iter()
                .all(|condition| condition.test.holds(client) != condition.negated)
    }
}

impl Test {
    fn holds(&self, client: &Client) -> bool {
        let now = now().millis();
        match self {
            Test::Ids(ids) => ids.contains(&client.id),
            Test::Kind(kind) => *kind == kind_of(client),
            Test::User(name) => client.details().user() == name,
            Test::Address(address) => client.address.to_string().as_bytes() == address,
            Test::LocalAddress(address) => client.local_address.to_string().as_bytes() == address,
            Test::Ip(ip) => match &client.address {
                Address::Tcp(address) => address.ip().to_string().as_bytes() == ip,
                Address::Unix(path) => path.as_bytes() == ip,
            },
            Test::Name(name) => client.details().name == *name,
            Test::LibraryName(name) => client.details().library_name == *name,
            Test::LibraryVersion(version) => client.details().library_version == *version,
            Test::Flags(wanted) => {
                let flags = flags(client);
                wanted
                    .iter()
                    .all(|letter| flags.as_bytes().contains(letter))
            }
            Test::Capabilities(wanted) => {
                wanted.is_empty()
                    || client
                        .can_redirect
                        .load(std::sync::atomic::Ordering::Relaxed)
            }
            Test::Database(database) => client.database() == *database,
            Test::AgeSeconds(least) => (now - client.connected_at_ms) / 1000 >= *least,
            Test::IdleSeconds(least) => (now - client.last_active_ms()) / 1000 >= *least,
        }
    }
}

fn kind_of(client: &Client) -> Kind {
    if client.is_replica.load(std::sync::atomic::Ordering::Relaxed) {
        Kind::Replica
    } else if client.is_primary() {
        Kind::Primary
    } else if client.subscriptions() > 0 {
        Kind::PubSub
    } else {
        Kind::Normal
    }
}

fn is_number(word: &[u8]) -> bool {
    number::parse_i64(word).is_some()
}

fn client_id(word: &[u8]) -> Result<u64> {
    let id = number::parse_i64(word).ok_or(Error::SYNTAX)?;
    u64::try_from(id)
        .ok()
        .filter(|&id| id > 0)
        .ok_or(Error::general("client-id should be greater than 0"))
}

fn seconds(word: &[u8], what: &str) -> Result<i64> {
    let seconds = number::parse_i64(word)
        .ok_or_else(|| Error::general(format!("{what} is not an integer or out of range")))?;
    if seconds <= 0 {
        return Err(Error::general(format!("{what} should be greater than 0")));
    }
    Ok(seconds)
}

fn database(word: &[u8], databases: usize) -> Result<u32> {
    let index =
        number::parse_i64(word).ok_or(Error::general("DB is not an integer or out of range"))?;
    u32::try_from(index)
        .ok()
        .filter(|&index| (index as usize) < databases)
        .ok_or_else(|| {
            Error::general(format!(
                "DB number should be between 0 and {}",
                databases.saturating_sub(1)
            ))
        })
}

fn kind(word: &[u8]) -> Result<Kind> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(Kind::Normal),
        b"master" | b"primary" => Ok(Kind::Primary),
        b"slave" | b"replica" => Ok(Kind::Replica),
        b"pubsub" => Ok(Kind::PubSub),
        _ => Err(quoting("Unknown client type '", word, "'")),
    }
}

fn letters(word: &[u8], known: &[u8], what: &str) -> Result<Vec<u8>> {
    if word.iter().all(|letter| known.contains(letter)) {
        return Ok(word.to_vec());
    }
    let before = format!("Unknown {what} found in the provided filter: ");
    Err(quoting(&before, word, ""))
}
