//! The judge: sees every commit at the moment it is decided, and compares it with what it knows by itself from the input.
//!
//! What must hold, after every commit: the decision comes from the newest claim; epochs follow each other; positions and counts
//! are those of the records that were taken in; every result is the fold of exactly the records behind the positions, comes once, and
//! none is missing that the frontiers say has fired; only records whose windows were all purged are late, and of those within
//! the allowed disorder only such of partitions that had been idle. Where the pipeline deduplicates, exactly those records go on that are the first
//! of their key in their epoch, and not within the limit of one that went on before.
//!
//! A request of the command line is applied once. One that goes back to a savepoint takes the reference back to what it was when the
//! savepoint's decision was committed; one that discards a step's state empties that step's windows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use onceflow_protocol::coordinator::Emit;
use onceflow_protocol::{ClaimId, Counts, Decision, Frontiers};

use crate::fold::FoldState;
use crate::kafka::{Cluster, SOURCES, Value};
use crate::row::{DELAY, Input, NO_WINDOW, Row, STEPS, Shape};
use crate::storage::Storage;

/// What is known of a source partition.
#[derive(Clone, Debug, Default)]
struct Partition {
    next: i64,
    newest: Option<i64>,
    /// It was idle, rightly, at some barrier.
    was_idle: bool,
}

/// Time, count and sum.
type Event = (i64, i64, i64);

/// A record that may be a duplicate: key, time, partition, offset and value.
type Candidate = (u8, i64, usize, i64, i64);

/// The reference as it was at one commit.
#[derive(Clone, Debug, Default)]
struct Reference {
    partitions: Vec<Partition>,
    frontiers: Vec<Frontiers>,
    /// What each window that is not purged holds.
    open: FoldState,
    /// Groups of them that have changed since they were last emitted, if ever.
    owed: BTreeSet<(usize, i64, u8)>,
    /// Of steps with sessions or totals, what is in none that is over, by step and key, ascending.
    events: BTreeMap<(usize, u8), Vec<Event>>,
    /// Of steps with totals, the keys that had something since the last commit.
    touched: BTreeSet<(usize, u8)>,
    /// Records since the last commit that may be duplicates.
    candidates: BTreeSet<Candidate>,
    /// Keys and times of records that went on.
    kept: BTreeSet<(u8, i64)>,
    late: BTreeSet<(usize, i64)>,
    counts: Counts,
}

/// The reference, as far as commits have got.
#[derive(Debug)]
pub struct Judge {
    shape: Shape,
    begun: bool,
    newest_claim: Option<ClaimId>,
    last: Option<Decision>,
    now: Reference,
    /// By attempt, what it was at each commit, if savepoints are made.
    then: Option<BTreeMap<String, Reference>>,
    /// Ids of all requests that any decision applied.
    applied: BTreeSet<String>,
    /// A bounded run ended, which fires windows whose time had not come: records may be late for it.
    bounded: bool,
    /// Commits with a decision.
    pub commits: u64,
}

type Verdict<T = ()> = Result<T, String>;

impl Judge {
    /// A judge of a pipeline over so many source partitions, of which savepoints may be made.
    pub fn new(shape: Shape, sources: usize, savepoints: bool) -> Judge {
        let now = Reference {
            partitions: vec![Partition::default(); sources],
            frontiers: vec![Frontiers::START; shape.steps()],
            ..Reference::default()
        };
        Judge {
            shape,
            begun: false,
            newest_claim: None,
            last: None,
            now,
            then: savepoints.then(BTreeMap::new),
            applied: BTreeSet::new(),
            bounded: false,
            commits: 0,
        }
    }

    /// The newest decision.
    pub fn last(&self) -> Option<&Decision> {
        self.last.as_ref()
    }

    /// A fold was restored: it must be what the records behind the newest decision make it.
    pub fn restored(&self, decision: &Decision, state: &FoldState) -> Verdict {
        if self.last.as_ref().is_some_and(|last| last.attempt == decision.attempt) && *state != self.now.open
        {
            return Err(format!(
                "epoch {} was restored as {state:?}, but it is {:?}",
                decision.epoch, self.now.open
            ));
        }
        Ok(())
    }

    /// Workers begin to read: the first time of all, this is where the pipeline starts.
    pub fn starts_at(&mut self, positions: impl Iterator<Item = i64>) {
        if !self.begun {
            self.begun = true;
            for (partition, position) in self.now.partitions.iter_mut().zip(positions) {
                partition.next = position;
            }
        }
    }

    /// A partition was reported idle, and that was right.
    pub fn idle(&mut self, partition: usize) {
        self.now.partitions[partition].was_idle = true;
    }

    /// A partition is new: time may have passed it by.
    pub fn added(&mut self, partition: usize) {
        self.now.partitions[partition].was_idle = true;
    }

    /// A run ends at the end of its input.
    pub fn bounded(&mut self) {
        self.bounded = true;
    }

    /// A transaction was committed.
    pub fn committed(&mut self, values: &[Value], cluster: &Cluster, storage: &Storage) -> Verdict {
        let mut rows = vec![];
        let mut decision = None;
        for value in values {
            match value {
                Value::Claim(claim) => self.newest_claim = Some(claim.claim.clone()),
                Value::Decision(made) if decision.is_some() => {
                    return Err(format!(
                        "two decisions in one transaction, the second of epoch {}",
                        made.epoch
                    ));
                }
                Value::Decision(made) => decision = Some(made.clone()),
                Value::Row(row) => rows.push(*row),
                Value::Input(_) => return Err("an input record in a transaction of ours".into()),
            }
        }
        match decision {
            Some(decision) => self.decided(&decision, rows, cluster, storage),
            None if rows.is_empty() => Ok(()),
            None => Err(format!("{} records were committed without a decision", rows.len())),
        }
    }

    fn decided(
        &mut self,
        decision: &Decision,
        rows: Vec<Row>,
        cluster: &Cluster,
        storage: &Storage,
    ) -> Verdict {
        self.commits += 1;
        if self.newest_claim.as_ref() != Some(&decision.claim) {
            return Err(format!("epoch {} was committed by a fenced instance", decision.epoch));
        }
        let went_back = self.requested(decision, storage)?;
        if let Some(last) = &self.last
            && decision.epoch != last.epoch.next()
            && !(went_back && decision.epoch > last.epoch)
        {
            return Err(format!("epoch {} was committed after epoch {}", decision.epoch, last.epoch));
        }
        let starts: Vec<i64> = decision.positions.iter().map(|at| at.next_offset.0).collect();
        self.starts_at(starts.into_iter());
        let frontiers = self.frontiers_of(decision, storage)?;
        self.nothing_is_forgotten(decision, &frontiers)?;
        let late = self.take_in(decision, &rows, cluster)?;
        self.go_on(&rows)?;
        self.results(&rows, &frontiers)?;
        self.nothing_is_missing(&frontiers)?;
        self.now.counts.late += late;
        self.now.counts.out += rows.iter().filter(|row| !matches!(row, Row::Late { .. })).count() as u64;
        let Counts { read, used, late, out, .. } = decision.counts;
        let expected = &self.now.counts;
        if (read, used, late, out) != (expected.read, expected.used, expected.late, expected.out) {
            return Err(format!(
                "the decision of epoch {} counts {:?}, but it is {expected:?}",
                decision.epoch, decision.counts
            ));
        }
        self.now.open.retain(|(step, end, _), _| *end > frontiers[*step].purged);
        self.now.frontiers = frontiers;
        self.last = Some(decision.clone());
        if let Some(then) = &mut self.then {
            then.insert(decision.attempt.clone(), self.now.clone());
        }
        Ok(())
    }

    /// What a decision applies of the command line: each request once, and none is forgotten. Whether it goes back to a savepoint.
    fn requested(&mut self, decision: &Decision, storage: &Storage) -> Verdict<bool> {
        let before = self.last.as_ref().map_or(&[][..], |last| &last.requests);
        let Some(new) = decision.requests.strip_prefix(before) else {
            return Err(format!("epoch {} forgets {before:?}: {:?}", decision.epoch, decision.requests));
        };
        let mut went_back = false;
        for id in new {
            if !self.applied.insert(id.clone()) {
                return Err(format!("{id} was applied twice"));
            }
            if let Some(name) = id.strip_prefix("savepoint:").and_then(|id| id.split(':').next()) {
                let attempt = storage.savepoints.get(name).map(|savepoint| &savepoint.decision.attempt);
                let then = self.then.as_ref().and_then(|then| then.get(attempt?));
                let Some(mut then) = then.cloned() else {
                    return Err(format!("epoch {} goes back to an unknown savepoint, {id}", decision.epoch));
                };
                for (then, now) in then.partitions.iter_mut().zip(&self.now.partitions) {
                    then.was_idle |= now.was_idle;
                }
                (self.now, went_back) = (then, true);
            }
        }
        for id in new {
            if let Some(step) = id.strip_prefix("discard-state:").and_then(|id| id.split(':').next()) {
                self.now.open.retain(|(of, ..), _| STEPS[*of] != step);
                self.now.owed.retain(|(of, ..)| STEPS[*of] != step);
                self.now.events.retain(|(of, _), _| STEPS[*of] != step);
                self.now.kept.retain(|_| STEPS[0] != step);
            }
        }
        Ok(went_back)
    }

    /// A savepoint was made of this decision, which must have been committed.
    pub fn savepoint(&self, decision: &Decision) -> Verdict {
        match self.then.as_ref().is_some_and(|then| then.contains_key(&decision.attempt)) {
            true => Ok(()),
            false => Err(format!("a savepoint of epoch {}, which was never committed", decision.epoch)),
        }
    }

    fn frontiers_of(&self, decision: &Decision, storage: &Storage) -> Verdict<Vec<Frontiers>> {
        let Some(reference) = &decision.manifest else { return Ok(self.now.frontiers.clone()) };
        let file = storage.read(&reference.file);
        let manifest = file.and_then(|file| file.manifest.clone());
        let Some(manifest) = manifest else {
            return Err(format!("{} was decided, but is not in the storage", reference.file));
        };
        if let Some(missing) =
            manifest.files(&reference.file).iter().find(|file| storage.read(file).is_none())
        {
            return Err(format!("{} was decided, but {missing} is not in the storage", reference.file));
        }
        for (now, before) in manifest.frontiers.iter().zip(&self.now.frontiers) {
            let once = !self.shape.updates && now.fired != now.purged;
            if now.purged < before.purged || now.fired < before.fired || now.fired < now.purged || once {
                return Err(format!("frontiers went from {before:?} to {now:?}"));
            }
        }
        Ok(manifest.frontiers.clone())
    }

    /// The records between the last positions and these. How many were late.
    fn take_in(&mut self, decision: &Decision, rows: &[Row], cluster: &Cluster) -> Verdict<u64> {
        let mut late = BTreeSet::new();
        for row in rows {
            if let Row::Late { partition, offset } = *row
                && (self.now.late.contains(&(partition, offset)) || !late.insert((partition, offset)))
            {
                return Err(format!("record {partition}:{offset} is in the dead letter topic twice"));
            }
        }
        let count = late.len() as u64;
        self.now.late.extend(&late);
        for at in &decision.positions {
            let partition = at.partition as usize;
            let (from, to) = (self.now.partitions[partition].next, at.next_offset.0);
            if to < from {
                return Err(format!("partition {partition} went back from {from} to {to}"));
            }
            if to as usize > cluster.log(SOURCES + partition).stable_end() {
                return Err(format!("partition {partition} was read beyond its stable end, to {to}"));
            }
            for (offset, value) in cluster.committed(SOURCES + partition, from as usize) {
                let Value::Input(input) = value else { continue };
                if offset as i64 >= to {
                    break;
                }
                let was_late = late.remove(&(partition, offset as i64));
                self.record(partition, offset, input, was_late)?;
            }
            let known = &mut self.now.partitions[partition];
            known.next = to;
            if at.watermark.map(|watermark| watermark.0) != known.newest.map(|newest| newest - DELAY) {
                return Err(format!(
                    "partition {partition} has watermark {:?}, its newest record is of {:?}",
                    at.watermark, known.newest
                ));
            }
        }
        match late.first() {
            None => Ok(count),
            Some((partition, offset)) => Err(format!(
                "record {partition}:{offset} is in the dead letter topic, but not behind the positions"
            )),
        }
    }

    fn record(&mut self, partition: usize, offset: usize, input: &Input, was_late: bool) -> Verdict {
        self.now.counts.read += 1;
        let known = &mut self.now.partitions[partition];
        known.newest = known.newest.max(Some(input.ts));
        let purged = self.now.frontiers[0].purged;
        let ends: Vec<i64> = self.shape.ends(input.ts).filter(|end| *end > purged).collect();
        if was_late != ends.is_empty() {
            let word = if was_late { "late" } else { "not late" };
            return Err(format!(
                "record {partition}:{offset} of {} was {word} at frontier {purged}",
                input.ts
            ));
        }
        if was_late {
            if input.in_bound && !known.was_idle && !self.bounded {
                return Err(format!(
                    "record {partition}:{offset} of {} is late at frontier {purged}, though within the delay of a partition that never was idle",
                    input.ts
                ));
            }
            return Ok(());
        }
        if self.shape.deduplicates {
            self.now.candidates.insert((input.key, input.ts, partition, offset as i64, input.value));
            return Ok(());
        }
        self.now.counts.used += 1;
        if self.shape.gap(0).is_some() {
            self.event(0, input.key, (input.ts, 1, input.value));
            return Ok(());
        }
        for end in ends {
            let group = self.now.open.entry((0, end, input.key)).or_default();
            *group = (group.0 + 1, group.1 + input.value);
            self.now.owed.insert((0, end, input.key));
        }
        Ok(())
    }

    /// Of the records that may be duplicates, those went on that are none.
    fn go_on(&mut self, rows: &[Row]) -> Verdict {
        let went_on = |row: &Row| match row {
            Row::Kept { partition, offset } => Some((*partition, *offset)),
            Row::Result { .. } | Row::Late { .. } => None,
        };
        let mut went_on: Vec<(usize, i64)> = rows.iter().filter_map(went_on).collect();
        for (key, ts, partition, offset, value) in std::mem::take(&mut self.now.candidates) {
            let near = (key, ts - self.shape.size)..=(key, ts + self.shape.size);
            let before = self.now.kept.range(near).next().copied();
            let at =
                went_on.iter().position(|row| *row == (partition, offset)).map(|at| went_on.swap_remove(at));
            match (before, at) {
                (Some((_, before)), Some(_)) => {
                    return Err(format!(
                        "record {partition}:{offset} of key {key} at {ts} went on, though one at {before} had"
                    ));
                }
                (None, None) => {
                    return Err(format!(
                        "record {partition}:{offset} of key {key} at {ts} did not go on, and is no duplicate"
                    ));
                }
                (Some(_), None) => {}
                (None, Some(_)) => {
                    self.now.kept.insert((key, ts));
                    let second = self.shape.second_end(ts + 1);
                    // Where everything fired ahead of time, at the end of a bounded run, it is late for the second step.
                    let is_late = second.is_some_and(|end| end <= self.now.frontiers[1].purged);
                    let counts = &mut self.now.counts;
                    *(if is_late { &mut counts.late } else { &mut counts.used }) += 1;
                    self.pass_on(key, ts + 1, (1, value));
                }
            }
        }
        match went_on.first() {
            None => Ok(()),
            Some((partition, offset)) => {
                Err(format!("record {partition}:{offset} went on, but is not behind the positions, or twice"))
            }
        }
    }

    /// Something of a step with sessions or totals.
    fn event(&mut self, step: usize, key: u8, event: Event) {
        let events = self.now.events.entry((step, key)).or_default();
        events.insert(events.partition_point(|(ts, ..)| *ts <= event.0), event);
        self.now.touched.insert((step, key));
    }

    /// The sessions of a step that are over when the panes up to a frontier are settled: a key and a range of its events each, the last of
    /// a key first.
    fn sessions_over(&self, step: usize, fired: i64) -> Vec<(u8, Range<usize>)> {
        let mut over = vec![];
        let Some(gap) = self.shape.gap(step) else { return over };
        for ((_, key), events) in self.now.events.range((step, 0)..=(step, u8::MAX)) {
            let mut end = events.len();
            while let Some((last, ..)) = events[..end].last() {
                let begins = |pair: &[Event]| pair[1].0 - pair[0].0 > gap;
                let start = events[..end].windows(2).rposition(begins).map_or(0, |before| before + 1);
                if self.shape.settled(step, gap, *last) <= fired {
                    over.push((*key, start..end));
                }
                end = start;
            }
        }
        over
    }

    /// What a step with sessions or totals owes at frontiers, and what it forgets.
    fn sessions(&mut self, step: usize, frontiers: Frontiers) {
        let Some(gap) = self.shape.gap(step) else { return };
        let running = self.shape.emit_of(step) == Emit::Running;
        let over = self.sessions_over(step, frontiers.fired);
        let touched: Vec<u8> =
            self.now.touched.range((step, 0)..=(step, u8::MAX)).map(|(_, key)| *key).collect();
        for key in touched.into_iter().filter(|_| running) {
            // What it adds up to since it was last silent for too long.
            let events = self.now.events.get(&(step, key)).map(Vec::as_slice).unwrap_or_default();
            let newest = events.chunk_by(|a, b| b.0 - a.0 <= gap).next_back().unwrap_or_default().to_vec();
            self.owe((step, NO_WINDOW, key), &newest);
        }
        for (key, range) in over {
            let Some(events) = self.now.events.get_mut(&(step, key)) else { continue };
            let session: Vec<Event> = events.drain(range).collect();
            if let (Some((last, ..)), false) = (session.last(), running) {
                self.owe((step, last + gap, key), &session);
            }
        }
    }

    fn owe(&mut self, window: (usize, i64, u8), events: &[Event]) {
        let sums = events.iter().fold((0, 0), |(count, sum), event| (count + event.1, sum + event.2));
        self.now.open.insert(window, sums);
        self.now.owed.insert(window);
    }

    fn results(&mut self, rows: &[Row], frontiers: &[Frontiers]) -> Verdict {
        for (step, at) in frontiers.iter().enumerate() {
            self.sessions(step, *at);
            if self.shape.early && step == 0 {
                // Whatever has come early, a window that fires is emitted whole.
                let before = self.now.frontiers[0].fired;
                let fires = |(of, end, _): &&(usize, i64, u8)| *of == 0 && *end > before && *end <= at.fired;
                self.now.owed.extend(self.now.open.keys().filter(fires).copied());
            }
            for row in rows {
                let Row::Result { step: of, key, end, count, sum } = *row else { continue };
                if of != step {
                    continue;
                }
                let is_early = self.shape.early && step == 0 && end > self.now.frontiers[0].fired;
                if !self.now.owed.remove(&(step, end, key)) && !is_early {
                    return Err(format!("{row:?}: it was emitted before, or has no records"));
                }
                match self.now.open.get(&(step, end, key)) {
                    None => return Err(format!("{row:?}: its window is closed")),
                    Some(expected) if *expected != (count, sum) => {
                        return Err(format!(
                            "{row:?}: the records behind the positions make it {expected:?}"
                        ));
                    }
                    Some(_) => {}
                }
                if step == 0 {
                    self.pass_on(key, end, (count, sum));
                }
            }
        }
        self.now.touched.clear();
        Ok(())
    }

    /// A result of the first step goes to the second. A bounded run fires the second step's windows before all results of the first have
    /// come: those are late there.
    fn pass_on(&mut self, key: u8, end: i64, (count, sum): (i64, i64)) {
        let Some(second) = self.shape.second_end(end) else { return };
        let purged = self.now.frontiers[1].purged;
        if let Some(gap) = self.shape.gap(1) {
            let ts = end - 1;
            if self.shape.settled(1, gap, ts) > purged {
                self.event(1, key, (ts, count, sum));
            }
        } else if second > purged {
            let group = self.now.open.entry((1, second, key)).or_default();
            *group = (group.0 + count, group.1 + sum);
            self.now.owed.insert((1, second, key));
        }
    }

    /// Totals are kept until time has passed them, whatever else comes to an end.
    fn nothing_is_forgotten(&self, decision: &Decision, frontiers: &[Frontiers]) -> Verdict {
        let mut reached = decision.positions.iter().filter_map(|at| at.watermark.map(|at| at.0)).max();
        for (step, (now, before)) in frontiers.iter().zip(&self.now.frontiers).enumerate() {
            let is_ahead = reached.is_none_or(|reached| now.purged > reached);
            if self.shape.emit_of(step) == Emit::Running && now != before && is_ahead {
                return Err(format!("totals were forgotten up to {now:?}, at watermark {reached:?}"));
            }
            // Its windows may have closed ahead of time, at the end of a bounded run: nothing older comes out of it then.
            reached = reached.max(Some(now.purged));
        }
        Ok(())
    }

    fn nothing_is_missing(&self, frontiers: &[Frontiers]) -> Verdict {
        for (step, frontiers) in frontiers.iter().enumerate() {
            let missing = self.now.owed.range((step, i64::MIN, 0)..=(step, frontiers.fired, u8::MAX)).next();
            if let Some(group) = missing {
                let values = self.now.open.get(group);
                return Err(format!("{group:?} with {values:?} has fired, but nobody emitted it as it is"));
            }
        }
        Ok(())
    }

    /// A file is deleted: never one that the newest decision needs.
    pub fn deleted(&self, name: &str, storage: &Storage) -> Verdict {
        let Some(reference) = self.last.as_ref().and_then(|last| last.manifest.as_ref()) else {
            return Ok(());
        };
        let manifest = storage.read(&reference.file).and_then(|file| file.manifest.clone());
        match manifest.is_none_or(|manifest| manifest.files(&reference.file).iter().any(|file| file == name))
        {
            true => Err(format!("{name} was deleted, but the newest decision needs it")),
            false => Ok(()),
        }
    }

    /// How far it has got, for a reader.
    pub fn state(&self) -> String {
        let next: Vec<i64> = self.now.partitions.iter().map(|partition| partition.next).collect();
        format!(
            "committed up to {next:?}, frontiers {:?}, open windows {:?}",
            self.now.frontiers, self.now.open
        )
    }

    /// Everything up to `ends` was taken in, and no window that ends at or before `fired` is left.
    pub fn is_complete(&self, ends: &[i64], fired: i64) -> bool {
        let taken = self.now.partitions.iter().zip(ends).all(|(known, end)| known.next >= *end);
        let emitted = self.now.owed.iter().all(|(_, end, _)| *end > fired);
        taken && emitted && self.sessions_over(0, fired).is_empty()
    }
}
