//! The language of ACL SETUSER: one rule a word, a selector in parentheses.

use std::fmt;

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
    /// A selector's parenthesis is not closed; its words so far.
    Unmatched(Vec<u8>),
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleError::Rule(rule, reason) => write!(
                f,
                "Error in ACL SETUSER modifier '{}': {reason}",
                String::from_utf8_lossy(rule)
            ),
            RuleError::Unmatched(start) => write!(
                f,
                "Unmatched parenthesis in acl selector starting at '{}'.",
                String::from_utf8_lossy(start)
            ),
        }
    }
}

const SYNTAX: &str = "Syntax error";
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
    let mut open: Option<Vec<u8>> = None;
    for rule in rules {
        match &mut open {
            Some(words) => {
                words.push(b' ');
                words.extend_from_slice(rule);
            }
            None if rule.starts_with(b"(") => open = Some(rule.to_vec()),
            None => joined.push(rule.to_vec()),
        }
        if rule.ends_with(b")") {
            joined.extend(open.take());
        }
    }
    match open {
        Some(words) => Err(RuleError::Unmatched(words)),
        None => Ok(joined),
    }
}

fn apply(
    permissions: &mut Permissions,
    rule: &[u8],
    all_channels: bool,
) -> Result<(), &'static str> {
    match rule.to_ascii_lowercase().as_slice() {
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
                for word in words
                    .split(u8::is_ascii_whitespace)
                    .filter(|word| !word.is_empty())
                {
                    apply_to_selector(&mut selector, word)?;
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
    match rule.to_ascii_lowercase().as_slice() {
        b"" => {}
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
            [b'%', rest @ ..] => {
                let tilde = rest.iter().position(|&byte| byte == b'~').ok_or(SYNTAX)?;
                let access = read_access(&rest[..tilde])?;
                add_key(selector, &rest[tilde + 1..], access)?;
            }
            [b'&', pattern @ ..] => add_channel(selector, pattern)?,
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let category = facts::category(name).ok_or(UNKNOWN)?;
                let name = String::from_utf8_lossy(name).to_ascii_lowercase();
                selector.set_category(category, &name, *sign == b'+');
            }
            [b'+', name @ ..] => allow_command(selector, name)?,
            [b'-', name @ ..] => {
                let registered = table().find_full(name).ok_or(UNKNOWN)?;
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
    let bar = name.iter().position(|&byte| byte == b'|').ok_or(UNKNOWN)?;
    let (name, argument) = (&name[..bar], &name[bar + 1..]);
    let registered = table().find(name).ok_or(UNKNOWN)?;
    let argument = std::str::from_utf8(argument).map_err(|_| UNKNOWN)?;
    if argument.is_empty() {
        return Err(SYNTAX);
    }
    if argument.contains('|') || !registered.subcommands.is_empty() {
        return Err(UNKNOWN);
    }
    selector.allow_first_argument(registered, argument);
    Ok(())
}

fn read_access(letters: &[u8]) -> Result<KeyAccess, &'static str> {
    let has = |wanted: u8| {
        letters
            .iter()
            .any(|letter| letter.eq_ignore_ascii_case(&wanted))
    };
    let known = letters.iter().all(|letter| b"rwRW".contains(letter));
    if letters.is_empty() || !known {
        return Err(SYNTAX);
    }
    Ok(KeyAccess {
        read: has(b'r'),
        write: has(b'w'),
    })
}

fn add_key(selector: &mut Selector, pattern: &[u8], access: KeyAccess) -> Result<(), &'static str> {
    if has_space_or_nul(pattern) {
        return Err(SYNTAX);
    }
    if selector.all_keys {
        return Err(USELESS_KEY);
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
    if has_space_or_nul(pattern) {
        return Err(SYNTAX);
    }
    if selector.all_channels {
        return Err(USELESS_CHANNEL);
    }
    if !selector.channels.iter().any(|known| known == pattern) {
        selector.channels.push(pattern.to_vec());
    }
    Ok(())
}

fn has_space_or_nul(text: &[u8]) -> bool {
    text.iter()
        .any(|&byte| byte == 0 || byte.is_ascii_whitespace())
}

fn read_databases(numbers: &[u8]) -> Result<Databases, &'static str> {
    let mut these = Vec::new();
    for number in numbers.split(|&byte| byte == b',') {
        let number = storage::value::number::parse_u64(number).ok_or(SYNTAX)?;
        if number > i32::MAX as u64 {
            return Err(SYNTAX);
        }
        if !these.contains(&number) {
            these.push(number);
        }
    }
    these.sort_unstable();
    Ok(Databases::These(these))
}
