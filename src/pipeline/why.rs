//! Why a window has not fired: what it waits for, who holds that back, and how long it will take.

use serde::{Deserialize, Serialize};

use super::lookup::OfKey;
use super::view::{PartitionProgress, Progress, StepProgress};

/// What the next window of a step waits for. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The windowed step.
    pub step: String,
    /// The end of its next window that has something to emit; none: no window is open.
    pub next_end_ms: Option<i64>,
    /// The watermark at which that fires.
    pub fires_at_ms: Option<i64>,
    /// The watermark of what the step reads; none while nothing is known.
    pub watermark_ms: Option<i64>,
    /// The partition that the watermark is of, or that has had no record yet. None where all are idle, or an earlier step decides.
    pub held_by: Option<PartitionProgress>,
    /// The earlier windowed step whose closed windows the watermark follows.
    pub follows: Option<String>,
    /// Milliseconds until the window fires, if events go on as they did lately.
    pub fires_in_ms: Option<i64>,
    /// How fast the watermark has gone lately: milliseconds of event time in a millisecond.
    pub watermark_speed: Option<f64>,
    /// What there is of the key that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<OfKey>,
}

impl Why {
    /// Milliseconds until the watermark comes to an instant, if events go on as they did lately; 0 if it has.
    pub fn reached_in_ms(&self, at_ms: i64) -> Option<i64> {
        let missing = at_ms.saturating_sub(self.watermark_ms?);
        if missing <= 0 {
            return Some(0);
        }
        self.watermark_speed.filter(|speed| *speed > 0.0).map(|speed| (missing as f64 / speed) as i64)
    }
}

/// What each windowed step waits for.
pub fn why(progress: &Progress) -> Vec<Why> {
    progress.steps.iter().map(|step| of_step(step, progress)).collect()
}

fn of_step(step: &StepProgress, progress: &Progress) -> Why {
    let mut why = Why {
        step: step.name.clone(),
        next_end_ms: step.next_end_ms,
        fires_at_ms: step.fires_at_ms,
        watermark_speed: progress.watermark_speed,
        ..Why::default()
    };
    let of_sources = || progress.partitions.iter().filter(|at| step.sources.contains(&at.source));
    let counts: Vec<&PartitionProgress> = of_sources().filter(|at| !at.idle).collect();
    match counts.iter().min_by_key(|at| at.watermark_ms) {
        Some(slowest) => {
            why.watermark_ms = slowest.watermark_ms;
            why.held_by = Some((*slowest).clone());
        }
        // If all are idle, time stands where it stood.
        None => why.watermark_ms = of_sources().filter_map(|at| at.watermark_ms).min(),
    }
    let known = step.sources.is_empty() || why.watermark_ms.is_some();
    let earlier = progress.steps.iter().filter(|earlier| step.steps.contains(&earlier.name));
    if let (true, Some(slowest)) = (known, earlier.min_by_key(|earlier| earlier.purged_ms))
        && why.watermark_ms.is_none_or(|own| slowest.purged_ms.is_none_or(|purged| purged < own))
    {
        (why.watermark_ms, why.held_by) = (slowest.purged_ms, None);
        why.follows = Some(slowest.name.clone());
    }
    why.fires_in_ms = why.fires_at_ms.and_then(|at| why.reached_in_ms(at));
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32, watermark_ms: Option<i64>, idle: bool) -> PartitionProgress {
        PartitionProgress {
            source: "s".to_owned(),
            topic: "t".to_owned(),
            partition: number,
            next_offset: 1,
            lag_records: None,
            watermark_ms,
            watermark_since_ms: Some(5),
            idle,
        }
    }

    fn step(name: &str, sources: &[&str], steps: &[&str], purged_ms: Option<i64>) -> StepProgress {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        StepProgress {
            name: name.to_owned(),
            fired_ms: purged_ms,
            purged_ms,
            next_end_ms: Some(100),
            fires_at_ms: Some(150),
            sources: owned(sources),
            steps: owned(steps),
        }
    }

    fn holder(why: &Why) -> Option<i32> {
        why.held_by.as_ref().map(|at| at.partition)
    }

    #[test]
    fn the_slowest_partition_that_counts_holds_windows_back() {
        let mut progress = Progress {
            partitions: vec![
                partition(0, Some(90), false),
                partition(1, Some(60), true),
                partition(2, Some(70), false),
            ],
            steps: vec![step("a", &["s"], &[], Some(40)), step("b", &[], &["a"], None)],
            watermark_speed: Some(2.0),
            ..Progress::default()
        };
        let told = why(&progress);
        assert_eq!(
            (told[0].watermark_ms, holder(&told[0]), told[0].fires_in_ms),
            (Some(70), Some(2), Some(40))
        );
        assert_eq!(
            (told[1].watermark_ms, told[1].follows.as_deref(), holder(&told[1])),
            (Some(40), Some("a"), None)
        );
        progress.partitions.push(partition(3, None, false));
        let told = why(&progress);
        assert_eq!((told[0].watermark_ms, holder(&told[0]), told[0].fires_in_ms), (None, Some(3), None));
        progress.partitions.iter_mut().for_each(|at| at.idle = true);
        let told = why(&progress);
        assert_eq!((told[0].watermark_ms, holder(&told[0])), (Some(60), None));
    }
}
