//! Who may do what: users, their passwords, and the rules about commands, keys, channels and databases.
//!
//! A connection holds its [`User`]; whether that user may do everything is one atomic load, so that rules cost nothing
//! where there are none. Changing a user replaces its permissions as a whole: connections see the old or the new.

pub mod check;
pub mod log;
pub mod rules;
pub mod selector;

use std::{
    fs,
    io::{self, Read, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};

use self::{log::AclLog, rules::RuleError, selector::Selector};

pub const DEFAULT_USER: &[u8] = b"default";

/// What a user may do.
#[derive(Clone, Debug)]
pub struct Permissions {
    pub enabled: bool,
    /// Any password is right.
    pub nopass: bool,
    /// SHA-256 in lower-case hexadecimal digits.
    pub passwords: Vec<String>,
    /// One of them must allow a command; the first is the user's own, the others were given in parentheses.
    pub selectors: Vec<Selector>,
}

impl Permissions {
    /// A new user's: nothing.
    pub fn none(all_channels: bool) -> Permissions {
        Permissions {
            enabled: false,
            nopass: false,
            passwords: Vec::new(),
            selectors: vec![Selector::none(all_channels)],
        }
    }

    fn everything() -> Permissions {
        Permissions {
            enabled: true,
            nopass: true,
            passwords: Vec::new(),
            selectors: vec![Selector::everything()],
        }
    }

    pub fn accepts(&self, password: &[u8]) -> bool {
        if self.nopass {
            return true;
        }
        let given = hashed(password);
        // Digests are compared whole, so that time tells nothing about a password.
        self.passwords
            .iter()
            .fold(false, |found, known| found | (*known == given))
    }

    /// Whether one of the selectors allows a channel, or to subscribe to a pattern.
    pub fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let mut selectors = self.selectors.iter();
        selectors.any(|selector| selector.allows_channel(name, is_pattern))
    }

    /// Whether everything that the rules before said of channels is still said.
    pub fn keeps_channels(&self, before: &Permissions) -> bool {
        if self.selectors.iter().any(|selector| selector.all_channels) {
            return true;
        }
        let mut before = before.selectors.iter();
        before.all(|selector| {
            let mut channels = selector.channels.iter();
            !selector.all_channels && channels.all(|channel| self.names_channel(channel))
        })
    }

    fn names_channel(&self, channel: &[u8]) -> bool {
        let mut named = self
            .selectors
            .iter()
            .flat_map(|selector| &selector.channels);
        named.any(|named| named == channel)
    }

    /// As ACL LIST, ACL SAVE and CONFIG REWRITE write it, after the user's name.
    pub fn describe(&self) -> Vec<u8> {
        let mut words = vec![if self.enabled { "on" } else { "off" }.into()];
        if self.nopass {
            words.push(b"nopass".to_vec());
        }
        words.extend(self.passwords.iter().map(|hash| format!("#{hash}").into()));
        let mut selectors = self.selectors.iter();
        words.extend(selectors.next().map(Selector::describe));
        words.extend(selectors.map(|selector| [b"(", &*selector.describe(), b")"].concat()));
        words.join(&b' ')
    }
}

/// A user; connections of it share this.
#[derive(Debug)]
pub struct User {
    pub name: Vec<u8>,
    permissions: RwLock<Arc<Permissions>>,
    unrestricted: AtomicBool,
}

impl User {
    fn new(name: &[u8], permissions: Permissions) -> Arc<User> {
        let user = User {
            name: name.to_vec(),
            permissions: RwLock::default(),
            unrestricted: AtomicBool::new(false),
        };
        user.replace(permissions);
        Arc::new(user)
    }

    /// Whom no rules concern: the server itself, when it loads its log or applies its primary's stream.
    pub fn of_the_server() -> Arc<User> {
        User::new(DEFAULT_USER, Permissions::everything())
    }

    /// Whether every command on everything is allowed.
    #[inline]
    pub fn is_unrestricted(&self) -> bool {
        self.unrestricted.load(Ordering::Relaxed)
    }

    pub fn permissions(&self) -> Arc<Permissions> {
        self.permissions.read().clone()
    }

    fn replace(&self, permissions: Permissions) {
        let all = permissions.selectors.iter().any(Selector::is_everything);
        *self.permissions.write() = Arc::new(permissions);
        self.unrestricted.store(all, Ordering::Relaxed);
    }

    pub fn describe(&self) -> Vec<u8> {
        let permissions = self.permissions().describe();
        [b"user ", &*self.name, b" ", &permissions].concat()
    }
}

impl Default for Permissions {
    fn default() -> Permissions {
        Permissions::none(false)
    }
}

/// All users.
pub struct Acl {
    users: RwLock<HashMap<Vec<u8>, Arc<User>>>,
    default: Arc<User>,
    pub log: Mutex<AclLog>,
}

impl Default for Acl {
    fn default() -> Acl {
        let default = User::new(DEFAULT_USER, Permissions::everything());
        let mut users = HashMap::new();
        users.insert(DEFAULT_USER.to_vec(), default.clone());
        Acl {
            users: RwLock::new(users),
            default,
            log: Mutex::default(),
        }
    }
}

impl Acl {
    /// The user of connections that have not said who they are.
    pub fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// Whether a new connection needs no password.
    pub fn is_open(&self) -> bool {
        let permissions = self.default.permissions();
        permissions.enabled && permissions.nopass
    }

    pub fn user(&self, name: &[u8]) -> Option<Arc<User>> {
        self.users.read().get(name).cloned()
    }

    /// All users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<_> = self.users.read().values().cloned().collect();
        users.sort_by(|one, other| one.name.cmp(&other.name));
        users
    }

    /// The user of this name, if the password is its.
    pub fn authenticate(&self, name: &[u8], password: &[u8]) -> Option<Arc<User>> {
        let user = self.user(name)?;
        let permissions = user.permissions();
        (permissions.enabled && permissions.accepts(password)).then_some(user)
    }

    /// Sets the password of `requirepass`; none at all if it is empty.
    pub fn set_default_password(&self, password: &[u8]) {
        let mut permissions = (*self.default.permissions()).clone();
        permissions.passwords.clear();
        permissions.nopass = password.is_empty();
        if !password.is_empty() {
            permissions.passwords.push(hashed(password));
        }
        self.default.replace(permissions);
    }

    /// Applies rules to a user, who is made if missing. All of them or, if one is wrong, none.
    ///
    /// # Errors
    /// Which rule is wrong, and why.
    pub fn set_user(
        &self,
        name: &[u8],
        rules: &[&[u8]],
        all_channels: bool,
    ) -> Result<(), RuleError> {
        let mut users = self.users.write();
        let known = users.get(name);
        let mut permissions = known.map_or_else(
            || Permissions::none(all_channels),
            |user| (*user.permissions()).clone(),
        );
        rules::apply_all(&mut permissions, rules, all_channels)?;
        match known {
            Some(user) => user.replace(permissions),
            None => {
                users.insert(name.to_vec(), User::new(name, permissions));
            }
        }
        Ok(())
    }

    /// Forgets a user. False if there is none.
    pub fn delete_user(&self, name: &[u8]) -> bool {
        self.users.write().remove(name).is_some()
    }

    /// Takes users from a file in place of those there are. Users that connections have keep their identity.
    ///
    /// # Errors
    /// Every line that is wrong; then nothing changed.
    pub fn load(&self, path: &Path, all_channels: bool) -> Result<Vec<Vec<u8>>, String> {
        let text = fs::read(path).map_err(|error| {
            format!(
                "Error loading ACLs, opening file '{}': {error}",
                path.display()
            )
        })?;
        let mut loaded: HashMap<Vec<u8>, Permissions> = HashMap::new();
        let mut errors = String::new();
        for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let words: Vec<&[u8]> = line
                .split(|&byte| byte == b' ')
                .filter(|w| !w.is_empty())
                .collect();
            let outcome = match words.as_slice() {
                [b"user", name, rules @ ..] if loaded.contains_key(*name) => {
                    let _ = rules;
                    Err(format!(
                        "WARNING: Duplicate user '{}' found",
                        String::from_utf8_lossy(name)
                    ))
                }
                [b"user", name, rules @ ..] => {
                    let mut permissions = Permissions::none(all_channels);
                    rules::apply_all(&mut permissions, rules, all_channels)
                        .map(|()| {
                            loaded.insert(name.to_vec(), permissions);
                        })
                        .map_err(|error| String::from_utf8_lossy(&error.message()).into_owned())
                }
                _ => Err("line should start with user keyword".into()),
            };
            if let Err(error) = outcome {
                errors.push_str(&format!("{}:{}: {error}. ", path.display(), number + 1));
            }
        }
        if !errors.is_empty() {
            errors.push_str("WARNING: ACL errors detected, no change to the previously active ACL rules was performed");
            return Err(errors);
        }
        let default = loaded
            .remove(DEFAULT_USER)
            .unwrap_or_else(Permissions::everything);
        self.default.replace(default);
        let mut users = self.users.write();
        let gone: Vec<Vec<u8>> = users
            .keys()
            .filter(|name| *name != DEFAULT_USER && !loaded.contains_key(*name))
            .cloned()
            .collect();
        gone.iter().for_each(|name| drop(users.remove(name)));
        for (name, permissions) in loaded {
            match users.get(&name) {
                Some(user) => user.replace(permissions),
                None => {
                    let user = User::new(&name, permissions);
                    users.insert(name, user);
                }
            }
        }
        Ok(gone)
    }

    /// Writes all users to a file: beside it, synced, renamed.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension(format!("tmp-{}", std::process::id()));
        let mut file = fs::File::create(&beside)?;
        for user in self.users() {
            file.write_all(&user.describe())?;
            file.write_all(b"\n")?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)
    }
}

/// The SHA-256 of a password in hexadecimal digits.
pub fn hashed(password: &[u8]) -> String {
    let digest = Sha256::digest(password);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A random password of so many bits, in hexadecimal digits.
///
/// # Errors
/// The system has no randomness.
pub fn random_password(bits: usize) -> io::Result<String> {
    let digits = bits.div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    Ok(text)
}
