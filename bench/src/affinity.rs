//! Pins threads to cores, so that server and client do not take each other's time.

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Result;

/// The cores this process may use, in ascending order.
pub(crate) fn allowed_cores() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect())
}

/// Restricts the calling thread, and what it starts from now on, to `cores`. An empty list changes nothing.
pub(crate) fn pin(cores: &[usize]) -> Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            return Err(format!("there is no core {core}").into());
        }
        set.set(core);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| format!("cannot use cores {cores:?}: {error}").into())
}

/// Runs `work` with the calling thread restricted to `cores`, and lifts the restriction afterwards.
///
/// A child process started inside inherits the restriction and keeps it.
pub(crate) fn pinned<T>(cores: &[usize], work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    pin(cores)?;
    let outcome = work();
    sched_setaffinity(None, &before)?;
    outcome
}

/// Lowers the calling thread's priority: what shares its core runs first whenever it wants to.
pub(crate) fn give_way() -> Result<()> {
    const LOWEST: i32 = 19;
    Ok(setpriority_process(None, LOWEST)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_scope_uses_its_core_and_gives_the_others_back() {
        let all = allowed_cores().unwrap();
        let one = pinned(&all[..1], allowed_cores).unwrap();
        assert_eq!(one, all[..1]);
        assert_eq!(allowed_cores().unwrap(), all);
    }
}
