//! What Onceflow says of its checkpoints: from its API while it runs, from the file beside the snapshots afterwards.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;

/// A checkpoint; durations are microseconds.
#[derive(Clone, Debug, Deserialize)]
pub struct Checkpoint {
    /// `completed`, or not.
    pub status: String,
    /// Milliseconds since 1970.
    pub started_ms: i64,
    /// From there to the end of its transaction.
    pub duration_us: u64,
    /// Until every worker stood at the barrier, which it comes to after the batch in hand.
    pub alignment_us: u64,
    /// Workers stood still, and windows fired.
    pub firing_us: u64,
    /// Workers stood still, and what had changed was copied out.
    pub sync_us: u64,
    /// Records read in the epoch.
    pub records_in: u64,
    /// Bytes that it added to the storage.
    pub written_bytes: Option<u64>,
    /// Bytes that a restore of it reads.
    pub full_bytes: Option<u64>,
}

/// Those that the process of a run left behind, oldest first; its `storage` is a directory for each namespace, pipeline and shard.
///
/// # Errors
/// If what is there cannot be read.
pub fn left_behind(storage: &Path) -> Result<Option<Vec<Checkpoint>>> {
    let mut dir = storage.to_owned();
    for _ in ["namespace", "pipeline", "shard"] {
        // A pipeline without state need not keep anything.
        let Some(below) = fs::read_dir(&dir).ok().and_then(|mut entries| entries.next()) else {
            return Ok(None);
        };
        dir = below?.path();
    }
    let Ok(text) = fs::read_to_string(dir.join("history.jsonl")) else { return Ok(None) };
    Ok(Some(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?))
}

/// Shares of the time from the first to the last of these checkpoints: of copying out, and of firing.
pub fn pauses(checkpoints: &[Checkpoint]) -> Option<(f64, f64)> {
    let ([first, .., last], more) = (checkpoints, checkpoints.get(1..)?) else { return None };
    let end = |one: &Checkpoint| one.started_ms as f64 + one.duration_us as f64 / 1e3;
    let micros = (end(last) - end(first)) * 1e3;
    let share = |part: fn(&Checkpoint) -> u64| more.iter().map(part).sum::<u64>() as f64 / micros;
    Some((share(|one| one.sync_us), share(|one| one.firing_us)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_share_of_the_time_between_ends() {
        let at = |started_ms| Checkpoint {
            status: "completed".to_owned(),
            started_ms,
            duration_us: 50_000,
            alignment_us: 0,
            firing_us: 30_000,
            sync_us: 10_000,
            records_in: 0,
            written_bytes: None,
            full_bytes: None,
        };
        assert_eq!(pauses(&[at(0), at(1000), at(2000)]), Some((0.01, 0.03)));
        assert_eq!(pauses(&[at(0)]), None);
    }
}
