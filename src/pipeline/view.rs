//! How a pipeline is doing, as the API shows it: written by the driver at barriers and commits, by the keeper where it measures, read by
//! whoever asks.

use std::sync::{Mutex, MutexGuard};

use onceflow_protocol::{Counts, Decision, Frontiers, Position};
use serde::{Deserialize, Serialize};

use super::context::wall_clock_ms;

/// What is known of a pipeline beside its state. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// When the pipeline was started in this process.
    pub started_ms: i64,
    /// Since when it runs without a failure; none while it does not.
    pub running_since_ms: Option<i64>,
    /// Who took it over.
    pub fenced_by: Option<String>,
    /// Runs given up since it was started.
    pub restarts: u64,
    /// Why the newest of them was.
    pub last_failure: Option<LastFailure>,
    /// The newest committed epoch.
    pub epoch: Option<u64>,
    /// When it was committed, if that was in this process.
    pub committed_ms: Option<i64>,
    /// Records that wait in the sources, when last measured; none before.
    pub lag_records: Option<i64>,
    /// The smallest watermark of the partitions that count; none while one of them has had no record.
    pub watermark_ms: Option<i64>,
    /// That one, as `topic-number`: it holds all windows back.
    pub held_back_by: Option<String>,
    /// How fast the watermark has gone lately: milliseconds of event time in a millisecond.
    pub watermark_speed: Option<f64>,
    /// What became of the records, over the life of the pipeline, up to the newest commit.
    pub counts: Counts,
    /// Source partitions.
    pub partitions: Vec<PartitionProgress>,
    /// Windowed steps.
    pub steps: Vec<StepProgress>,
}

/// A failure that was answered with a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When.
    pub at_ms: i64,
    /// What kind of error.
    pub kind: String,
    /// What happened.
    pub reason: String,
}

/// A source partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionProgress {
    /// Its source.
    pub source: String,
    /// Topic.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// The offset to read next, as of the newest barrier.
    pub next_offset: i64,
    /// Records behind that, when last measured.
    pub lag_records: Option<i64>,
    /// Its watermark.
    pub watermark_ms: Option<i64>,
    /// Since when the watermark has stood there.
    pub watermark_since_ms: Option<i64>,
    /// Whether it is at its end and silent, so that it holds nobody back.
    pub idle: bool,
}

/// A windowed step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Its name.
    pub name: String,
    /// Windows that end at or before this have fired; none before the first.
    pub fired_ms: Option<i64>,
    /// Windows that end at or before this are closed.
    pub purged_ms: Option<i64>,
    /// The end of the next window that has something to emit.
    pub next_end_ms: Option<i64>,
    /// The watermark at which it fires.
    pub fires_at_ms: Option<i64>,
    /// Sources that its time depends on.
    pub sources: Vec<String>,
    /// Earlier windowed steps that its time depends on.
    pub steps: Vec<String>,
}

/// What is open of a windowed step.
pub struct OpenStep<'n> {
    /// Its name.
    pub name: &'n str,
    /// The end of the next window that has something to emit.
    pub next_end_ms: Option<i64>,
    /// The watermark at which it fires.
    pub fires_at_ms: Option<i64>,
    /// Sources that its time depends on.
    pub sources: Vec<String>,
    /// Earlier windowed steps that its time depends on.
    pub steps: Vec<String>,
}

/// Time over which the watermark's speed is measured, milliseconds: at least, and at most.
const SPEED_OVER_MS: (i64, i64) = (5_000, 60_000);

/// A [`Progress`] that several threads share.
#[derive(Debug)]
pub struct View {
    progress: Mutex<Progress>,
    /// When the watermark was where: its speed is measured from there.
    watermark_then: Mutex<Option<(i64, i64)>>,
}

impl View {
    /// For a pipeline that is being started.
    pub fn new() -> View {
        let progress = Progress { started_ms: wall_clock_ms(), ..Progress::default() };
        View { progress: Mutex::new(progress), watermark_then: Mutex::new(None) }
    }

    /// How it is now.
    pub fn read(&self) -> Progress {
        self.lock().clone()
    }

    /// Everything that a run needs has started.
    pub fn running(&self) {
        self.lock().running_since_ms = Some(wall_clock_ms());
    }

    /// Another instance has taken over.
    pub fn fenced(&self, by: &str) {
        let mut progress = self.lock();
        progress.running_since_ms = None;
        progress.fenced_by = Some(by.to_owned());
    }

    /// A run was given up.
    pub fn failed(&self, kind: &str, reason: &str) {
        let mut progress = self.lock();
        progress.running_since_ms = None;
        progress.last_failure =
            Some(LastFailure { at_ms: wall_clock_ms(), kind: kind.to_owned(), reason: reason.to_owned() });
    }

    /// The pipeline is started again after a failure.
    pub fn restarts(&self) {
        self.lock().restarts += 1;
    }

    /// It has come to its end.
    pub fn ended(&self) {
        self.lock().running_since_ms = None;
    }

    /// A position as of a barrier; `index` is its place among the positions.
    pub fn at_barrier(&self, index: usize, position: &Position, idle: bool) {
        let mut progress = self.lock();
        let partition = progress.partition(index, position);
        partition.next_offset = position.next_offset.0;
        partition.stands_at(position.watermark.map(|watermark| watermark.0));
        partition.idle = idle;
    }

    /// Every worker has come to the barrier; this is the smallest watermark that counts, or this partition has none yet.
    pub fn watermark(&self, watermark_ms: Option<i64>, held_back_by: Option<&Position>) {
        let mut progress = self.lock();
        progress.watermark_ms = watermark_ms;
        if let Some(watermark_ms) = watermark_ms {
            let now = wall_clock_ms();
            let mut then = self.watermark_then.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (at, was) = *then.get_or_insert((now, watermark_ms));
            if now - at >= SPEED_OVER_MS.0 {
                progress.watermark_speed = Some((watermark_ms - was) as f64 / (now - at) as f64);
            }
            if now - at >= SPEED_OVER_MS.1 {
                *then = Some((now, watermark_ms));
            }
        }
        progress.held_back_by = held_back_by.map(|at| format!("{}-{}", at.topic, at.partition));
    }

    /// A decision is committed, or was found at the start (`now` is false then).
    pub fn committed(&self, decision: &Decision, now: bool) {
        let mut progress = self.lock();
        progress.epoch = Some(decision.epoch.0);
        progress.counts = decision.counts;
        if now {
            progress.committed_ms = Some(wall_clock_ms());
        }
        for (index, position) in decision.positions.iter().enumerate() {
            let partition = progress.partition(index, position);
            partition.next_offset = position.next_offset.0;
            partition.stands_at(position.watermark.map(|watermark| watermark.0));
        }
    }

    /// The windowed steps, with their names.
    pub fn steps<'n>(&self, steps: impl Iterator<Item = (&'n str, Frontiers)>) {
        let known = |instant: i64| (instant > Frontiers::START.fired).then_some(instant);
        let mut progress = self.lock();
        for (name, frontiers) in steps {
            let step = progress.step(name);
            (step.fired_ms, step.purged_ms) = (known(frontiers.fired), known(frontiers.purged));
        }
    }

    /// What is open of the windowed steps.
    pub fn open<'n>(&self, steps: impl Iterator<Item = OpenStep<'n>>) {
        let mut progress = self.lock();
        for OpenStep { name, next_end_ms, fires_at_ms, sources, steps } in steps {
            let step = progress.step(name);
            *step = StepProgress { next_end_ms, fires_at_ms, sources, steps, ..step.clone() };
        }
    }

    /// Records behind each of these positions; their sum.
    pub fn lag<'p>(&self, lags: impl Iterator<Item = (&'p Position, i64)>) -> i64 {
        let mut progress = self.lock();
        let mut sum = 0;
        for (index, (position, records)) in lags.enumerate() {
            progress.partition(index, position).lag_records = Some(records);
            sum += records;
        }
        progress.lag_records = Some(sum);
        sum
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Progress {
    /// The partition of a position, which is most often the one at `index`.
    fn partition(&mut self, index: usize, of: &Position) -> &mut PartitionProgress {
        let is = |known: &PartitionProgress| {
            (known.partition, &known.topic, &known.source) == (of.partition, &of.topic, &of.source)
        };
        let place = self.partitions.get(index).filter(|known| is(known)).map(|_| index);
        let place = place.or_else(|| self.partitions.iter().position(is)).unwrap_or_else(|| {
            self.partitions.push(PartitionProgress {
                source: of.source.clone(),
                topic: of.topic.clone(),
                partition: of.partition,
                next_offset: of.next_offset.0,
                lag_records: None,
                watermark_ms: None,
                watermark_since_ms: None,
                idle: false,
            });
            self.partitions.len() - 1
        });
        &mut self.partitions[place]
    }

    /// The windowed step of that name.
    fn step(&mut self, name: &str) -> &mut StepProgress {
        let place = self.steps.iter().position(|step| step.name == name).unwrap_or_else(|| {
            self.steps.push(StepProgress { name: name.to_owned(), ..StepProgress::default() });
            self.steps.len() - 1
        });
        &mut self.steps[place]
    }
}

impl PartitionProgress {
    fn stands_at(&mut self, watermark_ms: Option<i64>) {
        if self.watermark_ms != watermark_ms || self.watermark_since_ms.is_none() {
            self.watermark_since_ms = watermark_ms.map(|_| wall_clock_ms());
        }
        self.watermark_ms = watermark_ms;
    }
}

#[cfg(test)]
mod tests {
    use onceflow_protocol::{NextOffset, Watermark};

    use super::*;

    #[test]
    fn partitions_are_told_apart_and_lag_is_summed() {
        let view = View::new();
        let at = |source: &str, partition, next| Position {
            source: source.to_owned(),
            topic: "t".to_owned(),
            partition,
            next_offset: NextOffset(next),
            watermark: Some(Watermark(next * 10)),
            disorder: None,
        };
        let positions = [at("a", 0, 5), at("a", 1, 6), at("b", 0, 7)];
        for (index, position) in positions.iter().enumerate() {
            view.at_barrier(index, position, index == 1);
        }
        assert_eq!(view.lag(positions.iter().zip([1, 2, 4])), 7);
        assert_eq!(view.read().lag_records, Some(7));
        // Whatever place it is said to have.
        view.at_barrier(2, &at("a", 0, 9), false);
        let progress = view.read();
        let told: Vec<_> =
            progress.partitions.iter().map(|at| (at.next_offset, at.watermark_ms, at.idle)).collect();
        assert_eq!(told, [(9, Some(90), false), (6, Some(60), true), (7, Some(70), false)]);
        view.steps([("w", Frontiers::START), ("v", Frontiers { fired: 60, purged: 50 })].into_iter());
        let steps = view.read().steps;
        assert_eq!((steps[0].fired_ms, steps[1].fired_ms, steps[1].purged_ms), (None, Some(60), Some(50)));
    }
}
