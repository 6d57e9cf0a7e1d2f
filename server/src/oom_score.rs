//! `oom-score-adj`: how early the kernel ends this process when the machine has no memory left.

use std::fs;

use parking_lot::Mutex;

use crate::{
    config::{OomScoreAdjust, Settings},
    log,
};

const PATH: &str = "/proc/self/oom_score_adj";
/// What the kernel takes.
const LIMIT: i32 = 1000;

/// See the [module](self).
#[derive(Default)]
pub struct OomScore {
    /// The process's adjustment before the server changed it.
    base: Mutex<Option<i32>>,
}

impl OomScore {
    /// Adjusts the process as the settings say for what it is now, or takes back what was adjusted.
    ///
    /// # Errors
    /// The kernel does not let it; the log says why.
    pub fn follow(&self, settings: &Settings, is_replica: bool) -> Result<(), String> {
        let mut base = self.base.lock();
        let [of_primary, of_replica, _] = settings.oom_score_adj_values;
        let wanted = if is_replica { of_replica } else { of_primary };
        let adjustment = match settings.oom_score_adj {
            OomScoreAdjust::No => match *base {
                Some(base) => base,
                None => return Ok(()),
            },
            OomScoreAdjust::Relative => read_base(&mut base)? + wanted,
            OomScoreAdjust::Absolute => {
                read_base(&mut base)?;
                wanted
            }
        };
        write(adjustment.clamp(-LIMIT, LIMIT))?;
        if settings.oom_score_adj == OomScoreAdjust::No {
            *base = None;
        }
        Ok(())
    }
}

fn read_base(base: &mut Option<i32>) -> Result<i32, String> {
    if let Some(base) = *base {
        return Ok(base);
    }
    let read = fs::read_to_string(PATH).ok();
    let read = read.and_then(|text| text.trim().parse().ok());
    let read = read.ok_or_else(|| refused("Unable to read oom_score_adj"))?;
    *base = Some(read);
    Ok(read)
}

fn write(adjustment: i32) -> Result<(), String> {
    fs::write(PATH, format!("{adjustment}\n"))
        .map_err(|error| refused(&format!("Unable to write oom_score_adj: {error}")))
}

fn refused(reason: &str) -> String {
    log::warning(reason);
    "Failed to apply new oom_score_adj configuration, check server logs.".to_owned()
}
