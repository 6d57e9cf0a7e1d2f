//! A thin wrapper over Linux's epoll: level-triggered, tokens instead of pointers, waits with nanosecond precision.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::Result;

/// Readiness reports taken from the kernel per wait.
const EVENTS_PER_WAIT: usize = 128;

pub(crate) struct Epoll {
    descriptor: OwnedFd,
    events: Vec<epoll::Event>,
}

/// What a registered socket is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Interest {
    Read,
    Write,
    ReadAndWrite,
}

/// One ready socket.
#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Epoll {
    pub(crate) fn new() -> Result<Self> {
        let descriptor = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            descriptor,
            events: Vec::with_capacity(EVENTS_PER_WAIT),
        })
    }

    pub(crate) fn add(&self, source: impl AsFd, token: usize, interest: Interest) -> Result<()> {
        epoll::add(
            &self.descriptor,
            source,
            epoll::EventData::new_u64(token as u64),
            interest.flags(),
        )?;
        Ok(())
    }

    pub(crate) fn change(&self, source: impl AsFd, token: usize, interest: Interest) -> Result<()> {
        epoll::modify(
            &self.descriptor,
            source,
            epoll::EventData::new_u64(token as u64),
            interest.flags(),
        )?;
        Ok(())
    }

    /// Waits until something is ready or `timeout` has passed; the reports are then read with [`Epoll::ready`].
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        self.events.clear();
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        match epoll::wait(
            &self.descriptor,
            spare_capacity(&mut self.events),
            timeout.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => Ok(self.events.len()),
            Err(error) => Err(error.into()),
        }
    }

    /// The report at `index` of the last wait.
    pub(crate) fn ready(&self, index: usize) -> Ready {
        let event = self.events[index];
        let (data, flags) = (event.data, event.flags);
        let broken = epoll::EventFlags::ERR | epoll::EventFlags::HUP;
        Ready {
            token: data.u64() as usize,
            readable: flags.intersects(epoll::EventFlags::IN | broken),
            writable: flags.contains(epoll::EventFlags::OUT),
        }
    }
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::Write => epoll::EventFlags::OUT,
            Self::ReadAndWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}
