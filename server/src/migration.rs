//! Keys on their way to another server, for MIGRATE.
//!
//! The reference server does nothing else meanwhile. Here a thread of its own sends clones of the values, without locks, and
//! watches the keys as a transaction does. What the target has taken is deleted in one step, under the locks of all these
//! keys, as far as nobody changed it: a key that did change is sent once more, and one that is gone is deleted at the target
//! too, so that in the end each key is at one place, as it was last. Beside clients that keep changing the keys this is
//! given up after some rounds; then they stay here.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use storage::{
    Held,
    changes::EventClass,
    db::Db,
    keyspace::Key,
    rdb::{self, Dialect},
    shard::WatchMark,
    time::Timestamp,
    value::Value,
};

use crate::{
    dispatch::{call::release, error::Error, transaction::forget_watch},
    server::{self, Server},
    session::registry::Client,
};

/// Keys that are sent before their replies are read, so that neither side's buffers fill up.
const BATCH: usize = 256;
/// Bytes after which what was written leaves.
const WRITE_BYTES: usize = 64 * 1024;
/// Longest reply of a target.
const MAX_REPLY: u64 = 64 * 1024;
/// How often keys that change are sent again.
const ROUNDS: usize = 16;
/// Threads that send at once; more migrations wait for one.
const MAX_RUNNING: usize = 32;
/// How long the thread waits for a lock that a script holds for long, before it tries again.
const STAND_BACK: Duration = Duration::from_millis(5);

/// Where keys go, and how.
pub struct Order {
    pub host: String,
    pub port: u16,
    /// The database they come from.
    pub source: usize,
    /// And the one they go to, as the target reads it.
    pub database: i64,
    pub timeout: Duration,
    pub copy: bool,
    pub replace: bool,
    /// The words of AUTH after its name.
    pub credentials: Vec<Vec<u8>>,
}

/// A key on its way.
pub struct Parcel {
    key: Box<[u8]>,
    value: Value,
    deadline: Option<Timestamp>,
    /// Touched by whoever changes the key.
    mark: Arc<WatchMark>,
}

impl Parcel {
    /// A key as it is now, watched from now on. None if it is not there. Its shard is locked.
    pub fn pack(db: &mut Db<'_>, key: Key<'_>) -> Option<Parcel> {
        let entry = db.get(key)?;
        let (value, deadline) = (entry.value().to_value(), entry.deadline());
        let mark = Arc::<WatchMark>::default();
        let database = db.index();
        db.shard_mut(key.hash)
            .watched
            .add(database, key.bytes, mark.clone());
        Some(Parcel {
            key: key.bytes.into(),
            value,
            deadline,
            mark,
        })
    }

    /// The request that makes the key at the target. None if it has expired by now.
    fn request(&self, replace: bool) -> Option<Vec<u8>> {
        let mut ttl_ms = 0;
        if let Some(deadline) = self.deadline {
            ttl_ms = deadline.millis() - server::now().millis();
            if ttl_ms < 0 {
                return None;
            }
            // 0 would be no deadline at all.
            ttl_ms = ttl_ms.max(1);
        }
        let payload = rdb::dump(self.value.look(), Dialect::Valkey);
        let ttl = ttl_ms.to_string();
        let mut words: Vec<&[u8]> = vec![b"RESTORE", &self.key, ttl.as_bytes(), &payload];
        if replace {
            words.push(b"REPLACE");
        }
        Some(encode(&words))
    }
}

/// A migration that goes on in the background.
#[derive(Default)]
pub struct Migration {
    outcome: Mutex<Option<Result<(), Error>>>,
}

impl Migration {
    /// What came of it, once it is over.
    pub fn take_outcome(&self) -> Option<Result<(), Error>> {
        self.outcome.lock().take()
    }
}

/// How many migrations go on.
#[derive(Default)]
pub struct Migrations {
    running: AtomicUsize,
}

impl Migrations {
    /// Whether another one may begin now.
    pub fn has_room(&self) -> bool {
        // Relaxed: a bound that several may pass at once by as many as there are workers.
        self.running.load(Ordering::Relaxed) < MAX_RUNNING
    }

    /// Sends keys in the background; the client is woken when that is over.
    ///
    /// # Errors
    /// The system has no thread to spare. The keys are watched no longer then.
    pub fn start(
        server: &Arc<Server>,
        client: &Arc<Client>,
        order: Order,
        parcels: Vec<Parcel>,
    ) -> io::Result<Arc<Migration>> {
        let migration = Arc::<Migration>::default();
        let (ours, server, client) = (migration.clone(), server.clone(), client.clone());
        server.migrations.running.fetch_add(1, Ordering::Relaxed);
        let cargo = Cargo {
            server: server.clone(),
            order,
            parcels,
            changed: Vec::new(),
        };
        let work = move || {
            let outcome = cargo.deliver();
            *ours.outcome.lock() = Some(outcome);
            server.migrations.running.fetch_sub(1, Ordering::Relaxed);
            client.wake();
        };
        let thread = thread::Builder::new().name("migration".into());
        thread.spawn(work).map(|_| migration)
    }
}

/// The keys of one migration that are still to be sent. Dropped, it watches them no longer.
struct Cargo {
    server: Arc<Server>,
    order: Order,
    parcels: Vec<Parcel>,
    /// Sent, and to be sent once more, as somebody changed them meanwhile.
    changed: Vec<Parcel>,
}

impl Cargo {
    /// Sends everything.
    ///
    /// # Errors
    /// What the target or the connection to it objected to. The keys concerned are still here.
    fn deliver(mut self) -> Result<(), Error> {
        let mut target = Target::connect(&self.order)?;
        target.introduce(&self.order)?;
        let mut refused = Ok(());
        let mut replace = self.order.replace;
        for _ in 0..ROUNDS {
            while !self.parcels.is_empty() {
                let count = self.parcels.len().min(BATCH);
                let batch: Vec<Parcel> = self.parcels.drain(..count).collect();
                let sent = target.send(&batch, replace);
                let (taken, left) = Receipts::split(batch, &sent.accepted);
                self.forget(&left);
                if let Some(error) = sent.refusal {
                    refused = refused.and(Err(error));
                }
                let gone = self.settle(taken)?;
                sent.failure?;
                target.delete(&gone)?;
            }
            if self.changed.is_empty() {
                return refused;
            }
            self.parcels = std::mem::take(&mut self.changed);
            // What is at the target under these names came from here.
            replace = true;
        }
        Err(Error::from_static(
            "TRYAGAIN The keys keep changing while they are moved; they are still here.",
        ))
    }

    /// Deletes what the target has taken and nobody changed meanwhile; what was changed is packed anew. Returns the keys
    /// that are not here any more.
    ///
    /// # Errors
    /// This server has become a replica, which deletes nothing of its own.
    fn settle(&mut self, taken: Vec<Parcel>) -> Result<Vec<Box<[u8]>>, Error> {
        if self.order.copy || self.server.replication.is_replica() {
            self.forget(&taken);
            return match self.order.copy {
                true => Ok(Vec::new()),
                false => Err(Error::READ_ONLY),
            };
        }
        let mut db = Db::new(&self.server.keyspace, self.order.source, server::now());
        lock(&mut db, &taken);
        let (mut gone, mut deleted) = (Vec::new(), vec![Box::from(&b"DEL"[..])]);
        for parcel in &taken {
            let key = Key::new(&parcel.key);
            if db.peek(key).is_none() {
                gone.push(parcel.key.clone());
            } else if parcel.mark.is_touched() {
                self.changed.extend(Parcel::pack(&mut db, key));
            } else if db.delete(key) {
                db.changed(key, EventClass::Generic, "del");
                deleted.push(parcel.key.clone());
            }
        }
        db.settle_met();
        let words = deleted.iter().map(|word| &**word);
        db.collect_effects((deleted.len() > 1).then_some(words));
        release(&self.server, &mut db);
        self.forget(&taken);
        Ok(gone)
    }

    /// Watches keys no longer. Nothing is locked.
    fn forget(&self, parcels: &[Parcel]) {
        for parcel in parcels {
            forget_watch(&self.server, self.order.source, &parcel.key, &parcel.mark);
        }
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        self.forget(&self.parcels);
        self.forget(&self.changed);
    }
}

/// Locks the shards of keys, however long that takes.
fn lock(db: &mut Db<'_>, parcels: &[Parcel]) {
    let hashes = || parcels.iter().map(|parcel| Key::new(&parcel.key).hash);
    while let Err(Held) = db.try_lock_each(hashes()) {
        thread::sleep(STAND_BACK);
    }
}

/// What came of sending some keys.
struct Receipts {
    /// For each key whether it is at the target now.
    accepted: Vec<bool>,
    /// The last thing that the target objected to.
    refusal: Option<Error>,
    /// The connection did not last.
    failure: Result<(), Error>,
}

impl Receipts {
    /// The keys that are at the target, and the others.
    fn split(batch: Vec<Parcel>, accepted: &[bool]) -> (Vec<Parcel>, Vec<Parcel>) {
        let mut accepted = accepted.iter().copied().chain(std::iter::repeat(false));
        batch
            .into_iter()
            .partition(|_| accepted.next().unwrap_or(false))
    }
}

/// The connection to the other server.
struct Target {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

const CONNECTING: Error = Error::from_static("IOERR error or timeout connecting to the client");
const WRITING: Error = Error::from_static("IOERR error or timeout writing to target instance");
const READING: Error = Error::from_static("IOERR error or timeout reading to target instance");

impl Target {
    fn connect(order: &Order) -> Result<Target, Error> {
        let addresses = (order.host.as_str(), order.port).to_socket_addrs();
        let mut failure = CONNECTING;
        for address in addresses.map_err(|_| CONNECTING)? {
            match TcpStream::connect_timeout(&address, order.timeout) {
                Ok(stream) => return Target::over(stream, order).map_err(|_| WRITING),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => failure = CONNECTING,
                // The reference server finds out when it writes.
                Err(_) => failure = WRITING,
            }
        }
        Err(failure)
    }

    fn over(stream: TcpStream, order: &Order) -> io::Result<Target> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(order.timeout))?;
        stream.set_write_timeout(Some(order.timeout))?;
        Ok(Target {
            input: BufReader::new(stream.try_clone()?),
            output: stream,
        })
    }

    /// Says who this is and which database the keys are for.
    fn introduce(&mut self, order: &Order) -> Result<(), Error> {
        let mut requests = Vec::new();
        if !order.credentials.is_empty() {
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(order.credentials.iter().map(Vec::as_slice));
            requests.push(encode(&words));
        }
        let database = order.database.to_string();
        requests.push(encode(&[b"SELECT", database.as_bytes()]));
        self.write(&requests.concat())?;
        let replies: Vec<Vec<u8>> = requests
            .iter()
            .map(|_| self.reply())
            .collect::<Result<_, _>>()?;
        replies.iter().try_for_each(|reply| check(reply))
    }

    /// Sends keys and reads what the target says of each.
    fn send(&mut self, parcels: &[Parcel], replace: bool) -> Receipts {
        let mut receipts = Receipts {
            accepted: Vec::new(),
            refusal: None,
            failure: Ok(()),
        };
        let mut asked = Vec::with_capacity(parcels.len());
        let mut buffer = Vec::new();
        for parcel in parcels {
            let request = parcel.request(replace);
            asked.push(request.is_some());
            buffer.extend(request.unwrap_or_default());
            if buffer.len() >= WRITE_BYTES {
                receipts.failure = self.write(&buffer);
                buffer.clear();
            }
            if receipts.failure.is_err() {
                return receipts;
            }
        }
        receipts.failure = self.write(&buffer);
        for asked in asked {
            if receipts.failure.is_err() {
                break;
            }
            if !asked {
                receipts.accepted.push(false);
                continue;
            }
            match self.reply() {
                Ok(reply) => {
                    let objection = check(&reply).err();
                    receipts.accepted.push(objection.is_none());
                    receipts.refusal = objection.or(receipts.refusal);
                }
                Err(failure) => receipts.failure = Err(failure),
            }
        }
        receipts
    }

    /// Deletes keys that were sent and are gone where they came from.
    fn delete(&mut self, keys: &[Box<[u8]>]) -> Result<(), Error> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(keys.iter().map(|key| &**key));
        self.write(&encode(&words))?;
        check(&self.reply()?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(|_| WRITING)
    }

    /// One reply, which is a line.
    fn reply(&mut self) -> Result<Vec<u8>, Error> {
        let mut line = Vec::new();
        let mut limited = io::Read::take(&mut self.input, MAX_REPLY);
        let read = limited.read_until(b'\n', &mut line);
        match read {
            Ok(_) if line.ends_with(b"\n") => Ok(line.trim_ascii_end().to_vec()),
            Ok(_) | Err(_) => Err(READING),
        }
    }
}

/// Whether the target is content.
fn check(reply: &[u8]) -> Result<(), Error> {
    match reply.strip_prefix(b"-") {
        None => Ok(()),
        Some(text) => Err(Error::general(
            [b"Target instance replied with error: ", text].concat(),
        )),
    }
}

/// A request as the protocol has it.
fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request
}
