//! A thin wrapper over Linux's epoll: level-triggered, tokens instead of pointers, waits for less than a millisecond if asked to.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
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
        let mut timeout = timeout.map(timespec);
        if let Some(exact) =
            timeout.filter(|timeout| timeout.tv_nsec % NANOSECONDS_PER_MILLISECOND != 0)
        {
            // epoll_wait knows milliseconds only; poll on the epoll descriptor itself is exact.
            let mut descriptor = [PollFd::new(&self.descriptor, PollFlags::IN)];
            match poll(&mut descriptor, Some(&exact)) {
                Ok(0) | Err(Errno::INTR) => return Ok(0),
                Ok(_) => timeout = Some(timespec(Duration::ZERO)),
                Err(error) => return Err(error.into()),
            }
        }
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

const NANOSECONDS_PER_MILLISECOND: i64 = 1_000_000;

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
