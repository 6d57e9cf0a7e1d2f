//! The language of ACL SETUSER: one rule a word, a selector in parentheses.

use protocol::resp::inline;

use super::{
    Permissions, hashed,
    selector::{Databases, KeyAccess, KeyPattern, Selector},
};
use crate::{commands::command::facts, dispatch::table::table};

/// A rule that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    /// The rule, and what is wrong with it.
    Rule(Vec<u8>, &'static str),
    /// A selector's parenthesis is not closed; its first word.
    Unmatched(Vec<u8>),
}

impl RuleError {
    /// What SETUSER answers.
    pub fn message(&self) -> Vec<u8> {
        match self {
            RuleError::Rule(rule, reason) => [
                b"Error in ACL SETUSER modifier '",
                text(rule),
                b"': ",
                reason.as_bytes(),
            ]
            .concat(),
            RuleError::Unmatched(start) => [
                b"Unmatched parenthesis in acl selector starting at '",
                text(start),
                b"'.",
            ]
            .concat(),
        }
    }
}

const SYNTAX: &str = "Syntax error";
const OUTSIDE_DATABASES: &str = "The provided database ID is out of range";
const SUBCOMMAND_ARGUMENT: &str = "Allowing first-arg of a subcommand is not supported";
const UNKNOWN: &str = "Unknown command or category name in ACL";
const USELESS_KEY: &str = "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have \
                           any effect. Try 'resetkeys' to start with an empty list of patterns";
const USELESS_CHANNEL: &str = "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
                               not have any effect. Try 'resetchannels' to start with an empty list of channels";
const BAD_HASH: &str = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters";
const NO_SUCH_PASSWORD: &str = "The password you are trying to remove from the user does not exist";

/// Applies the rules in order.
///
/// # Errors
/// The first rule that is wrong; `permissions` is then of no use.
pub fn apply_all(
    permissions: &mut Permissions,
    rules: &[&[u8]],
    all_channels: bool,
) -> Result<(), RuleError> {
    for rule in join_selectors(rules)? {
        apply(permissions, &rule, all_channels)
            .map_err(|reason| RuleError::Rule(rule.clone(), reason))?;
    }
    Ok(())
}

/// Puts the words between parentheses together.
fn join_selectors(rules: &[&[u8]]) -> Result<Vec<Vec<u8>>, RuleError> {
    let mut joined = Vec::new();
    let mut rules = rules.iter();
    while let Some(rule) = rules.next() {
        let mut words = rule.to_vec();
        while words.starts_with(b"(") && !words.ends_with(b")") {
            let more = rules.next();
            let more = more.ok_or_else(|| RuleError::Unmatched(rule.to_vec()))?;
            words.push(b' ');
            words.extend_from_slice(more);
        }
        joined.push(words);
    }
    Ok(joined)
}

fn apply(
    permissions: &mut Permissions,
    rule: &[u8],
    all_channels: bool,
) -> Result<(), &'static str> {
    match text(rule).to_ascii_lowercase().as_slice() {
        b"on" => permissions.enabled = true,
        b"off" => permissions.enabled = false,
        b"nopass" => {
            permissions.nopass = true;
            permissions.passwords.clear();
        }
        b"resetpass" => {
            permissions.nopass = false;
            permissions.passwords.clear();
        }
        // Payloads of RESTORE are always checked.
        b"sanitize-payload" | b"skip-sanitize-payload" => {}
        b"reset" => *permissions = Permissions::none(all_channels),
        b"clearselectors" => permissions.selectors.truncate(1),
        _ => match rule {
            [b'>', password @ ..] => add_password(permissions, hashed(password)),
            [b'#', hash @ ..] => add_password(permissions, read_hash(hash)?),
            [b'<', password @ ..] => remove_password(permissions, &hashed(password))?,
            [b'!', hash @ ..] => remove_password(permissions, &read_hash(hash)?)?,
            [b'(', words @ .., b')'] => {
                let mut selector = Selector::none(all_channels);
                // Words whose quotes are wrong make an empty selector, as in Valkey.
                for word in inline::split(text(words)).unwrap_or_default() {
                    apply_to_selector(&mut selector, &word)?;
                }
                permissions.selectors.push(selector);
            }
            _ => apply_to_selector(&mut permissions.selectors[0], rule)?,
        },
    }
    Ok(())
}

fn add_password(permissions: &mut Permissions, hash: String) {
    permissions.nopass = false;
    if !permissions.passwords.contains(&hash) {
        permissions.passwords.push(hash);
    }
}

fn remove_password(permissions: &mut Permissions, hash: &str) -> Result<(), &'static str> {
    let known = permissions.passwords.iter().position(|known| known == hash);
    permissions.passwords.remove(known.ok_or(NO_SUCH_PASSWORD)?);
    Ok(())
}

fn read_hash(text: &[u8]) -> Result<String, &'static str> {
    let is_hash = text.len() == 64
        && text
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let text = std::str::from_utf8(text).ok().filter(|_| is_hash);
    text.map(str::to_owned).ok_or(BAD_HASH)
}

fn apply_to_selector(selector: &mut Selector, rule: &[u8]) -> Result<(), &'static str> {
    match text(rule).to_ascii_lowercase().as_slice() {
        b"" if rule.is_empty() => {}
        b"allkeys" | b"~*" => {
            selector.all_keys = true;
            selector.keys.clear();
        }
        b"resetkeys" => {
            selector.all_keys = false;
            selector.keys.clear();
        }
        b"allchannels" | b"&*" => {
            selector.all_channels = true;
            selector.channels.clear();
        }
        b"resetchannels" => {
            selector.all_channels = false;
            selector.channels.clear();
        }
        b"alldbs" => selector.databases = Databases::All,
        b"resetdbs" => selector.databases = Databases::These(Vec::new()),
        b"allcommands" | b"+@all" => selector.set_all_commands(true),
        b"nocommands" | b"-@all" => selector.set_all_commands(false),
        [b'd', b'b', b'=', numbers @ ..] => selector.databases = read_databases(numbers)?,
        _ => match rule {
            [b'~', pattern @ ..] => add_key(selector, pattern, KeyAccess::BOTH)?,
            [b'%', ..] if selector.all_keys => return Err(USELESS_KEY),
            [b'%', rest @ ..] => {
                let (access, pattern) = read_access(rest)?;
                add_key(selector, pattern, access)?;
            }
            [b'&', pattern @ ..] => add_channel(selector, pattern)?,
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let category = facts::category(text(name)).ok_or(UNKNOWN)?;
                selector.set_category(category, *sign == b'+');
            }
            [b'+', name @ ..] => allow_command(selector, text(name))?,
            [b'-', name @ ..] => {
                let registered = table().find_full(text(name)).ok_or(UNKNOWN)?;
                selector.set_command(registered, false);
            }
            _ => return Err(SYNTAX),
        },
    }
    Ok(())
}

fn allow_command(selector: &mut Selector, name: &[u8]) -> Result<(), &'static str> {
    if let Some(registered) = table().find_full(name) {
        selector.set_command(registered, true);
        return Ok(());
    }
    let last_bar = name.iter().rposition(|&byte| byte == b'|').ok_or(UNKNOWN)?;
    let (name, argument) = (&name[..last_bar], &name[last_bar + 1..]);
    let registered = table().find_full(name).ok_or(UNKNOWN)?;
    if name.contains(&b'|') {
        return Err(SUBCOMMAND_ARGUMENT);
    }
    let argument = std::str::from_utf8(argument).map_err(|_| UNKNOWN)?;
    if argument.is_empty() {
        return Err(SYNTAX);
    }
    if !registered.subcommands.is_empty() {
        return Err(UNKNOWN);
    }
    selector.allow_first_argument(registered, argument);
    Ok(())
}

/// What is between `%` and the pattern, which begins behind `~` or is empty.
fn read_access(rest: &[u8]) -> Result<(KeyAccess, &[u8]), &'static str> {
    let tilde = rest.iter().position(|&byte| byte == b'~');
    let (letters, pattern) = match tilde {
        Some(tilde) => (&rest[..tilde], &rest[tilde + 1..]),
        None => (rest, &[][..]),
    };
    let mut access = KeyAccess::NONE;
    for letter in letters {
        let granted = match letter.to_ascii_lowercase() {
            b'r' => &mut access.read,
            b'w' => &mut access.write,
            _ => return Err(SYNTAX),
        };
        if std::mem::replace(granted, true) {
            return Err(SYNTAX);
        }
    }
    if access == KeyAccess::NONE {
        return Err(SYNTAX);
    }
    Ok((access, pattern))
}

fn add_key(selector: &mut Selector, pattern: &[u8], access: KeyAccess) -> Result<(), &'static str> {
    if selector.all_keys {
        return Err(USELESS_KEY);
    }
    if has_space_or_nul(pattern) {
        return Err(SYNTAX);
    }
    let known = selector
        .keys
        .iter_mut()
        .find(|known| known.pattern == pattern);
    match known {
        Some(known) => {
            known.access.read |= access.read;
            known.access.write |= access.write;
        }
        None => selector.keys.push(KeyPattern {
            pattern: pattern.to_vec(),
            access,
        }),
    }
    Ok(())
}

fn add_channel(selector: &mut Selector, pattern: &[u8]) -> Result<(), &'static str> {
    if selector.all_channels {
        return Err(USELESS_CHANNEL);
    }
    if has_space_or_nul(pattern) {
        return Err(SYNTAX);
    }
    if !selector.channels.iter().any(|known| known == pattern) {
        selector.channels.push(pattern.to_vec());
    }
    Ok(())
}

fn has_space_or_nul(text: &[u8]) -> bool {
    text.iter().any(|&byte| byte == 0 || is_c_space(byte))
}

fn read_databases(numbers: &[u8]) -> Result<Databases, &'static str> {
    let mut these = Vec::new();
    for number in numbers.split(|&byte| byte == b',') {
        let number = read_database(number)?;
        if !these.contains(&number) {
            these.push(number);
        }
    }
    these.sort_unstable();
    Ok(Databases::These(these))
}

/// A number as C's `strtol` reads it: after white space, with a sign, with leading zeros.
fn read_database(number: &[u8]) -> Result<u64, &'static str> {
    let blanks = number.iter().take_while(|byte| is_c_space(**byte)).count();
    let (negative, digits) = match &number[blanks..] {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(SYNTAX);
    }
    let number = digits.iter().fold(0_u64, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    if negative && number > 0 || number > i32::MAX as u64 {
        return Err(OUTSIDE_DATABASES);
    }
    Ok(number)
}

/// What C's `isspace` says, which counts the vertical tab.
const fn is_c_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Words of rules end at a zero byte, but for patterns and passwords.
fn text(word: &[u8]) -> &[u8] {
    word.split(|&byte| byte == 0).next().unwrap_or_default()
}
