//! What has become of each source record of the messages being processed, over all branches of the pipeline.

use super::counts::Counts;

/// Something that happened to a record.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Used = 1,
    Late = 2,
    Dropped = 4,
    Dead = 8,
    /// A dead letter was written: no second one.
    Lettered = 16,
    /// It is in the errors stream of its source: not a second time.
    Streamed = 32,
    /// A row of it waits for the barrier: what becomes of it is counted then.
    Held = 64,
}

/// The fates of a run of messages, by index. No fate at all: it was filtered.
#[derive(Debug, Default)]
pub(crate) struct Fates(Vec<u8>);

impl Fates {
    /// Begins a run of `records` messages.
    pub(crate) fn reset(&mut self, records: usize) {
        self.0.clear();
        self.0.resize(records, 0);
    }

    /// Notes what happened to record `i`, and says whether it had happened before.
    pub(crate) fn mark(&mut self, i: u32, fate: Fate) -> bool {
        let Some(fates) = self.0.get_mut(i as usize) else { return false };
        let before = *fates & fate as u8 != 0;
        *fates |= fate as u8;
        before
    }

    /// The fates of these records so far, which are held from here on.
    pub(crate) fn hold(&mut self, records: impl Iterator<Item = usize>) -> Fates {
        let hold = |record: usize| {
            let fates = self.0.get_mut(record)?;
            Some(std::mem::replace(fates, *fates | Fate::Held as u8))
        };
        Fates(records.filter_map(hold).collect())
    }

    /// Counts each record once, but for those that are held.
    pub(crate) fn count(&self) -> Counts {
        let mut counts = Counts { records_in: self.0.len() as u64, ..Counts::default() };
        for fates in &self.0 {
            let has = |fate: Fate| fates & fate as u8 != 0;
            if has(Fate::Held) {
                counts.records_in -= 1;
            } else if has(Fate::Dead) {
                counts.dead += 1;
            } else if has(Fate::Dropped) {
                counts.dropped += 1;
            } else if has(Fate::Late) {
                counts.late += 1;
            } else if has(Fate::Used) {
                counts.used += 1;
            } else {
                counts.filtered += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_record_is_counted_once_and_trouble_first() {
        use Fate::*;
        let mut fates = Fates::default();
        let runs: [&[Fate]; 7] = [
            &[],
            &[Used],
            &[Late, Lettered, Used],
            &[Late],
            &[Dropped, Late, Used],
            &[Dead, Lettered, Dropped],
            &[Used, Dead],
        ];
        fates.reset(runs.len());
        for (i, run) in runs.iter().enumerate() {
            for fate in *run {
                assert!(!fates.mark(i as u32, *fate));
                assert!(fates.mark(i as u32, *fate));
            }
        }
        let counts =
            Counts { records_in: 7, filtered: 1, used: 1, late: 2, dropped: 1, dead: 2, ..Counts::default() };
        assert_eq!(fates.count(), counts);
        fates.reset(2);
        assert_eq!(fates.count(), Counts { records_in: 2, filtered: 2, ..Counts::default() });
        fates.mark(0, Fate::Used);
        let held = fates.hold([0].into_iter());
        assert_eq!(fates.count(), Counts { records_in: 1, filtered: 1, ..Counts::default() });
        assert_eq!(held.count(), Counts { records_in: 1, used: 1, ..Counts::default() });
    }
}
