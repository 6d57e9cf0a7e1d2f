//! The system's limit of open descriptors, which bounds how many clients there can be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    config::{Config, Settings},
    log,
};

/// Descriptors for listening sockets, files and the like.
const RESERVED: u64 = 32;
/// What a worker's event loop takes.
const PER_WORKER: u64 = 4;

/// Raises the limit to what `maxclients` needs, or lowers `maxclients` to what there is, and says so.
///
/// # Errors
/// The limit leaves room for no client at all; the line to log.
pub fn prepare(config: &Config) -> Result<(), String> {
    let settings = config.settings();
    let reserved = reserved(settings.io_threads);
    let wanted = u64::from(settings.maxclients) + reserved;
    let Err(available) = raise(wanted) else {
        return Ok(());
    };
    if available <= reserved {
        return Err(format!(
            "Your current 'ulimit -n' of {available} is not enough for the server to start. Please increase your \
             open file limit to at least {wanted}. Exiting."
        ));
    }
    log::warning(format!(
        "You requested maxclients of {} requiring at least {wanted} max file descriptors.",
        settings.maxclients
    ));
    let fitting = (available - reserved) as u32;
    config.change(|settings| settings.maxclients = fitting);
    log::warning(format!(
        "Current maximum open files is {available}. maxclients has been reduced to {fitting} to compensate for low \
         ulimit. If you need higher maxclients increase 'ulimit -n'."
    ));
    Ok(())
}

/// Raises the limit to what `maxclients` needs, while the server runs.
///
/// # Errors
/// The system does not allow that many; why.
pub fn allow(settings: &Settings) -> Result<(), String> {
    let reserved = reserved(settings.io_threads);
    raise(u64::from(settings.maxclients) + reserved).map_err(|available| {
        format!(
            "The operating system is not able to handle the specified number of clients, try with {}",
            available.saturating_sub(reserved)
        )
    })
}

fn reserved(workers: u32) -> u64 {
    RESERVED + PER_WORKER * u64::from(workers)
}

/// Raises the limit to `wanted` if it is lower, or as far as that is allowed; then how many there are.
fn raise(wanted: u64) -> Result<(), u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // No number stands for no limit.
    let (Some(current), highest) = (current, maximum.unwrap_or(u64::MAX)) else {
        return Ok(());
    };
    if current >= wanted {
        return Ok(());
    }
    // A privileged process may raise the higher limit as well.
    let attempts = [(wanted, highest.max(wanted)), (highest, highest)];
    for (limit, maximum) in attempts {
        let limits = Rlimit {
            current: Some(limit),
            maximum: Some(maximum),
        };
        if limit > current && setrlimit(Resource::Nofile, limits).is_ok() {
            return if limit >= wanted { Ok(()) } else { Err(limit) };
        }
    }
    Err(current)
}
