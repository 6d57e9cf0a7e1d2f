//! memcached's text protocol over the same keys.

use crate::{
    net::connection::{Protocol, Then, Turn},
    runtime::Worker,
    session::Session,
};

/// A memcached connection.
pub struct Memcache {
    session: Session,
}

impl Memcache {
    pub fn new(session: Session) -> Memcache {
        Memcache { session }
    }
}

impl Protocol for Memcache {
    fn session(&self) -> &Session {
        &self.session
    }

    fn process(&mut self, _worker: &mut Worker, input: &[u8]) -> Turn {
        Turn {
            consumed: input.len(),
            then: Then::Close,
        }
    }

    fn write_later(&mut self, _worker: &mut Worker) -> bool {
        true
    }
}
