//! Work on shards whose locks are held for long, by a script that does not end: it is done once they are free.
//!
//! Those who clean up behind a client cannot be refused, and must not wait on a thread that serves others.

use parking_lot::Mutex;

use crate::server::Server;

type Job = Box<dyn FnOnce(&Server) + Send>;

/// What is still to be done.
#[derive(Default)]
pub struct Postponed(Mutex<Vec<Job>>);

impl Postponed {
    /// Keeps `job` for the next try. It postpones itself again if it still finds a lock held.
    #[cold]
    pub fn add(&self, job: impl FnOnce(&Server) + Send + 'static) {
        self.0.lock().push(Box::new(job));
    }

    /// Tries all again. Nothing is locked.
    pub fn retry(server: &Server) {
        let jobs = std::mem::take(&mut *server.postponed.0.lock());
        jobs.into_iter().for_each(|job| job(server));
    }
}
