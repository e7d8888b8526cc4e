//! The keeper thread of the simulation: storage, start questions, restores. Whatever takes several steps can be torn apart between them.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use onceflow_engine::state::cold::{MemoryColdStore, MemoryRuns, Run};
use onceflow_engine::state::extents::LiveExtents;
use onceflow_protocol::coordinator::{
    Effect, Event, Failure, KeptSnapshot, Restored, Savepoint, SnapshotDraft, Traces,
};
use onceflow_protocol::planted::{Planted, is_planted};
use onceflow_protocol::{
    ClaimId, Decision, Delay, Epoch, ErrorKind, Frontiers, ManifestRef, NextOffset, PartitionClock, Position,
};

use crate::engine::EngineTask;
use crate::fold::{Fold, FoldState};
use crate::hazard::Hazard;
use crate::messages::{Mail, Outbox, ToKeeper, ToWorker};
use crate::outside::Outside;
use crate::questions;
use crate::row::{DELAY, STEPS};
use crate::segments;
use crate::storage::{self, Content, File, Manifest};
use crate::task::{Frozen, Task};
use crate::worker::{Assigned, WorkerThread, failed};

/// Patience for the own claim to appear, milliseconds.
const CLAIM_PATIENCE_MS: u64 = 60_000;

/// The keeper of one run.
pub struct Keeper {
    process: u64,
    run: u64,
    workers: usize,
    /// The ends of a bounded run.
    ends: Option<Vec<i64>>,
    /// Messages to it.
    pub inbox: VecDeque<ToKeeper>,
    /// The decision of the failed run before, if its commit's outcome was unknown: for the planted fault.
    unknown: Option<String>,
    job: Option<Job>,
    frozen: Vec<Option<Frozen>>,
    tasks: Vec<Task>,
    frontiers: Vec<Frontiers>,
    /// The files of the snapshots that were kept when the run began.
    named: Vec<String>,
    live: LiveExtents,
    cold: Arc<MemoryColdStore>,
    cold_frozen: MemoryRuns,
    cold_files: BTreeMap<Run, String>,
    /// How many partitions the run reads, until it has said that there are more.
    reads: Option<usize>,
}

/// Something that takes several steps.
enum Job {
    Await {
        claim: ClaimId,
        deadline_ms: u64,
    },
    Write {
        draft: Box<SnapshotDraft>,
        until_ms: u64,
        unsynced: Vec<(String, File)>,
        written: Vec<String>,
        manifest: Rc<Manifest>,
    },
    Delete(Vec<String>),
    /// Copying a snapshot into a savepoint.
    Save {
        name: String,
        savepoint: Box<storage::Savepoint>,
        left: Vec<String>,
    },
    /// Copying a savepoint back.
    Import {
        unsynced: Vec<(String, File)>,
        written: Vec<String>,
        manifest: ManifestRef,
    },
}

impl Keeper {
    /// The keeper of run `run` of a process.
    pub fn new(
        process: u64,
        run: u64,
        workers: usize,
        ends: Option<Vec<i64>>,
        unknown: Option<String>,
    ) -> Keeper {
        Keeper {
            process,
            run,
            workers,
            ends,
            inbox: VecDeque::new(),
            unknown,
            job: None,
            frozen: (0..workers).map(|_| None).collect(),
            tasks: vec![],
            frontiers: vec![],
            named: vec![],
            live: LiveExtents::default(),
            cold: Arc::new(MemoryColdStore::default()),
            cold_frozen: MemoryRuns::new(),
            cold_files: BTreeMap::new(),
            reads: None,
        }
    }

    /// Files that it is about to delete.
    pub fn deletes(&self) -> impl Iterator<Item = &String> {
        let now = match &self.job {
            Some(Job::Delete(files)) => files.as_slice(),
            _ => &[],
        };
        let later = self.inbox.iter().flat_map(|message| match message {
            ToKeeper::Effect(Effect::DeleteFiles(files)) => files.as_slice(),
            _ => &[],
        });
        now.iter().chain(later)
    }

    /// Does one thing; whether there was any. `alive` are the run's workers.
    pub fn step(
        &mut self,
        outside: &mut Outside,
        out: &mut Outbox,
        generations: &mut u64,
        alive: &[WorkerThread],
    ) -> bool {
        if let Some(job) = self.job.take() {
            return self.go_on(job, outside, out, alive);
        }
        match self.inbox.pop_front() {
            None => self.look_for_partitions(outside, out),
            Some(ToKeeper::Frozen(worker, frozen)) => {
                self.frozen[worker] = Some(frozen);
                true
            }
            Some(ToKeeper::Effect(effect)) => {
                self.perform(effect, outside, out, generations);
                true
            }
        }
    }

    /// Now and then, as the daemon does: what was added since the start is found by another one.
    fn look_for_partitions(&mut self, outside: &mut Outside, out: &mut Outbox) -> bool {
        let more = self.ends.is_none() && self.reads.is_some_and(|reads| outside.partitions > reads);
        if !more || !outside.rng.chance(50) {
            return false;
        }
        self.reads = None;
        outside.say(self.process, || "sees an added partition".into());
        out.push_back(Mail::Driver(Event::SourcesChanged));
        true
    }

    fn perform(&mut self, effect: Effect, outside: &mut Outside, out: &mut Outbox, generations: &mut u64) {
        let is_question = !matches!(
            effect,
            Effect::WriteSnapshot(_)
                | Effect::Confirm(_)
                | Effect::DeleteFiles(_)
                | Effect::MakeSavepoint { .. }
        );
        if is_question && outside.strikes(Hazard::CallFails) {
            outside.coverage.row("retriable failure");
            let message = format!("{effect:?}").chars().take(30).collect::<String>();
            return out.push_back(Mail::failed(ErrorKind::Retry, message));
        }
        let answer = match effect {
            Effect::EnsureControlTopic => Event::ControlTopicReady,
            Effect::ListClaims => Event::ClaimsListed(
                outside.cluster.all_claims().map(|(claim, _)| claim.claim.clone()).collect(),
            ),
            Effect::ReadNewest => questions::newest(outside),
            Effect::ReadSavepoint(name) => questions::savepoint(&name, outside),
            Effect::CheckRestorable { decision, savepoint } => {
                Event::Checked(questions::restorable(&decision, savepoint.as_deref(), outside))
            }
            Effect::ImportSavepoint { savepoint, epoch, attempt, keeps } => {
                match self.import(savepoint, epoch, &attempt, keeps, outside) {
                    None => return,
                    Some(answer) => answer,
                }
            }
            Effect::ListFiles => Event::Listed(outside.storage.list()),
            Effect::ReadUntilClaim(claim) => {
                self.job = Some(Job::Await { claim, deadline_ms: outside.now_ms + CLAIM_PATIENCE_MS });
                return;
            }
            Effect::ReadTraces => {
                let (confirmed, requests) = outside.storage.confirmed.clone().unzip();
                let (requests, group_offsets) = (requests.unwrap_or_default(), outside.group_offsets);
                Event::Traces(Traces { confirmed, requests, group_offsets })
            }
            Effect::ResolveStart(known) => questions::resolve(&known, outside),
            Effect::Restore(decision) => match self.restore(&decision, outside, generations) {
                Ok(restored) => restored,
                Err(event) => event,
            },
            Effect::StartWorkers(positions) => {
                outside.judge.starts_at(positions.iter().map(|at| at.next_offset.0));
                self.reads = Some(positions.len());
                let workers = self.start_workers(&positions, outside);
                out.push_back(Mail::Workers(workers));
                if is_planted(Planted::OrphansWithoutList) {
                    let files = outside.storage.list().into_iter().filter(|file| !self.named.contains(file));
                    self.job = Some(Job::Delete(files.collect()));
                }
                Event::WorkersStarted
            }
            Effect::SnapshotCold(_) => {
                self.cold_frozen = self.cold.snapshot();
                Event::ColdSnapshotTaken
            }
            Effect::WriteSnapshot(draft) => return self.write(draft, outside, out, *generations),
            Effect::LookForClaims(known) => questions::look(&known, outside),
            Effect::Confirm(decision) => {
                // As in the daemon, at most now and then; a later one makes up for it.
                if outside.rng.chance(700) {
                    outside.storage.confirmed = Some((decision.epoch, decision.requests));
                    outside.group_offsets = true;
                }
                return;
            }
            Effect::DeleteFiles(files) => {
                self.job = Some(Job::Delete(files));
                return;
            }
            Effect::MakeSavepoint { name, decision } => return self.save(name, *decision, outside),
            other => Event::Failed(Failure {
                kind: ErrorKind::Bug,
                message: format!("{other:?} is not the keeper's to do"),
            }),
        };
        out.push_back(Mail::Driver(answer));
    }

    fn go_on(&mut self, job: Job, outside: &mut Outside, out: &mut Outbox, alive: &[WorkerThread]) -> bool {
        match job {
            Job::Await { claim, deadline_ms } => {
                if let Some(records) = questions::until_claim(&claim, self.unknown.as_deref(), outside) {
                    out.push_back(Mail::Driver(Event::ControlRead(records)));
                    return true;
                }
                if outside.now_ms >= deadline_ms {
                    let message = "the claim did not appear".to_owned();
                    out.push_back(Mail::failed(ErrorKind::Retry, message));
                    return true;
                }
                self.job = Some(Job::Await { claim, deadline_ms });
                false
            }
            Job::Delete(mut files) => {
                if let Some(file) = files.pop() {
                    outside.say(self.process, || format!("deletes {file}"));
                    outside.delete(&file);
                }
                if !files.is_empty() {
                    self.job = Some(Job::Delete(files));
                }
                true
            }
            Job::Save { name, mut savepoint, mut left } => {
                match left.pop() {
                    Some(file) => {
                        // Another instance may have retired it: then there is no savepoint.
                        let Some(copy) = outside.storage.read(&file).cloned() else { return true };
                        savepoint.files.insert(file, copy);
                        self.job = Some(Job::Save { name, savepoint, left });
                    }
                    None => {
                        if let Err(violation) = outside.judge.savepoint(&savepoint.decision) {
                            outside.violates(violation);
                        }
                        outside.say(self.process, || {
                            format!("makes savepoint {name} of epoch {}", savepoint.decision.epoch)
                        });
                        outside.coverage.row("savepoint made");
                        outside.storage.savepoints.insert(name, *savepoint);
                    }
                }
                true
            }
            Job::Import { mut unsynced, mut written, manifest } => {
                if outside.now_ms < outside.storage_full_until_ms || outside.strikes(Hazard::StorageFails) {
                    let message = "the storage refuses".to_owned();
                    out.push_back(Mail::failed(ErrorKind::Retry, message));
                    return true;
                }
                if let Some((name, mut file)) = unsynced.pop() {
                    file.unsynced_by = Some(self.process);
                    outside.storage.write(name.clone(), file);
                    written.push(name);
                    self.job = Some(Job::Import { unsynced, written, manifest });
                    return true;
                }
                for name in &written {
                    outside.storage.sync(name);
                }
                out.push_back(Mail::Driver(Event::Imported(Some(manifest))));
                true
            }
            Job::Write { until_ms, .. } if outside.now_ms < until_ms => {
                self.job = Some(job);
                false
            }
            Job::Write { draft, until_ms, mut unsynced, mut written, manifest } => {
                if outside.now_ms < outside.storage_full_until_ms || outside.strikes(Hazard::StorageFails) {
                    out.push_back(Mail::Driver(Event::SnapshotFailed("the storage refuses".into())));
                    return true;
                }
                // One file after the other: visible first, durable a step later.
                if let Some((name, mut file)) = unsynced.pop() {
                    if is_planted(Planted::NextEpochInSnapshot) && matches!(file.content, Content::Fold(_)) {
                        file.content = Content::Fold(Rc::new(alive.iter().map(fold_of).collect()));
                    }
                    file.unsynced_by = Some(self.process);
                    outside.storage.write(name.clone(), file);
                    written.push(name);
                    if is_planted(Planted::DurableBeforeFsync) && unsynced.is_empty() {
                        self.durable(&draft, &manifest, outside, out);
                        return true;
                    }
                    self.job = Some(Job::Write { draft, until_ms, unsynced, written, manifest });
                    return true;
                }
                for name in &written {
                    outside.storage.sync(name);
                }
                self.durable(&draft, &manifest, outside, out);
                true
            }
        }
    }

    /// Begins to write a snapshot; what is frozen stays until it is durable.
    fn write(
        &mut self,
        draft: Box<SnapshotDraft>,
        outside: &mut Outside,
        out: &mut Outbox,
        generations: u64,
    ) {
        let file_name = format!("s/{}-{}", draft.epoch, draft.attempt);
        let mut manifest = Manifest {
            epoch: draft.epoch.0,
            frontiers: draft.frontiers.clone(),
            workers: self.workers,
            live: LiveExtents::default(),
            cold: vec![],
            next_generation: generations + 1,
            kept: draft.kept.clone(),
        };
        let frozen: Vec<&Frozen> = self.frozen.iter().flatten().collect();
        if frozen.len() != self.workers {
            let message = "a snapshot without every worker's changes".to_owned();
            return out.push_back(Mail::failed(ErrorKind::Bug, message));
        }
        let mut unsynced = vec![];
        let content = if outside.config.plans.is_none() {
            Content::Fold(Rc::new(frozen.iter().map(|frozen| fold_frozen(frozen)).collect()))
        } else {
            let (bytes, live, runs) = segments::write(&file_name, &self.live, &frozen);
            manifest.live = live;
            for run in runs {
                let name = self.cold_files.entry(run).or_insert_with(|| {
                    format!("c/{}.{}-{}-{}-{}", self.process, self.run, run.step, run.pane, run.generation)
                });
                manifest.cold.push((name.clone(), run));
                let Some(rows) = self.cold_frozen.get(&run) else {
                    let message = format!("{run:?} is not in the cold store");
                    return out.push_back(Mail::failed(ErrorKind::Bug, message));
                };
                if outside.storage.read(name).is_none_or(|file| file.unsynced_by.is_some()) {
                    let content = Content::Cold(rows.clone());
                    unsynced.push((
                        name.clone(),
                        File { manifest: None, content, unsynced_by: None, torn: false },
                    ));
                }
            }
            Content::Segment(Rc::new(bytes))
        };
        let manifest = Rc::new(manifest);
        let file = File { manifest: Some(manifest.clone()), content, unsynced_by: None, torn: false };
        // Written last, so taken last.
        unsynced.insert(0, (file_name, file));
        let slow = if outside.strikes(Hazard::StorageSlow) { outside.rng.below(800) } else { 0 };
        if outside.strikes(Hazard::StorageFull) {
            outside.storage_full_until_ms = outside.now_ms + outside.rng.below(4000);
        }
        self.job =
            Some(Job::Write { draft, until_ms: outside.now_ms + slow, unsynced, written: vec![], manifest });
    }

    fn durable(
        &mut self,
        draft: &SnapshotDraft,
        manifest: &Rc<Manifest>,
        outside: &mut Outside,
        out: &mut Outbox,
    ) {
        let file = format!("s/{}-{}", draft.epoch, draft.attempt);
        self.live = manifest.live.clone();
        self.frozen.fill_with(|| None);
        for id in self.live.mostly_dead() {
            if usize::from(id.worker) < self.workers {
                out.push_back(Mail::Worker(usize::from(id.worker), ToWorker::Rewrite(id.step, id.pane)));
            }
        }
        outside.say(self.process, || format!("{file} is durable"));
        let files = manifest.files(&file);
        let hash = draft.attempt.clone();
        out.push_back(Mail::Driver(Event::Durable { manifest: ManifestRef { file, hash }, files }));
    }

    fn save(&mut self, name: String, decision: Decision, outside: &Outside) {
        let reference = decision.manifest.as_ref();
        let manifest = reference.and_then(|reference| {
            let file = outside.storage.read(&reference.file)?;
            Some((reference, file.manifest.clone()?))
        });
        let left = match (reference, manifest) {
            (None, _) => vec![],
            (Some(_), Some((reference, manifest))) => manifest.files(&reference.file),
            // Retired by another instance.
            (Some(_), None) => return,
        };
        let savepoint = Box::new(storage::Savepoint { decision, files: BTreeMap::new() });
        self.job = Some(Job::Save { name, savepoint, left });
    }

    /// Begins to copy a savepoint back under new names. An answer, if there is nothing to copy.
    fn import(
        &mut self,
        savepoint: Savepoint,
        epoch: Epoch,
        attempt: &str,
        keeps: Option<ManifestRef>,
        outside: &Outside,
    ) -> Option<Event> {
        let found = outside.storage.savepoints.get(&savepoint.name);
        let copied = found.ok_or_else(|| "it is gone".to_owned()).and_then(|found| {
            let Some((own, manifest)) = found.manifest()? else { return Ok(None) };
            let in_place = is_planted(Planted::SavepointInPlace);
            let rename = |name: &str| if in_place { name.to_owned() } else { format!("{name}+{attempt}") };
            let file = if in_place {
                savepoint.decision.manifest.as_ref().map(|manifest| manifest.file.clone()).unwrap_or_default()
            } else {
                format!("s/{epoch}-{attempt}")
            };
            let read = |reference: &ManifestRef| outside.storage.read(&reference.file)?.manifest.clone();
            let mut kept = vec![];
            if let Some((reference, manifest)) = keeps.as_ref().and_then(|keeps| Some((keeps, read(keeps)?)))
            {
                kept.clone_from(&manifest.kept);
                kept.push(KeptSnapshot {
                    epoch: Epoch(manifest.epoch),
                    manifest: reference.clone(),
                    files: manifest.files(&reference.file),
                });
            }
            let named: Vec<_> = manifest.live.files().map(str::to_owned).collect();
            let named = named.into_iter().chain(manifest.cold.iter().map(|(name, _)| name.clone()));
            let mut unsynced: Vec<_> =
                named.filter_map(|name| Some((rename(&name), found.files.get(&name)?.clone()))).collect();
            let renamed = Manifest {
                epoch: epoch.0,
                live: manifest.live.renamed(rename),
                cold: manifest.cold.iter().map(|(name, run)| (rename(name), *run)).collect(),
                kept,
                ..(*manifest).clone()
            };
            unsynced.insert(0, (file.clone(), File { manifest: Some(Rc::new(renamed)), ..own.clone() }));
            let manifest = ManifestRef { file, hash: attempt.to_owned() };
            Ok(Some(Job::Import { unsynced, written: vec![], manifest }))
        });
        match copied {
            Ok(Some(job)) => {
                self.job = Some(job);
                None
            }
            Ok(None) => Some(Event::Imported(None)),
            Err(reason) => Some(Event::Refused(reason)),
        }
    }

    fn restore(
        &mut self,
        decision: &Decision,
        outside: &mut Outside,
        generations: &mut u64,
    ) -> Result<Event, Event> {
        let shape = outside.config.shape;
        let mut frontiers = vec![Frontiers::START; shape.steps()];
        let mut kept: Vec<KeptSnapshot> = vec![];
        let mut snapshot = None;
        if let Some(reference) = &decision.manifest {
            let refused = || Event::Refused(format!("{} is missing or damaged", reference.file));
            let file = outside.storage.read(&reference.file).cloned().ok_or_else(refused)?;
            let manifest = file.manifest.clone().ok_or_else(refused)?;
            if !is_planted(Planted::FrontierNotRestored) {
                frontiers = manifest.frontiers.clone();
            }
            kept = manifest.kept.clone();
            kept.push(KeptSnapshot {
                epoch: Epoch(manifest.epoch),
                manifest: reference.clone(),
                files: manifest.files(&reference.file),
            });
            outside.coverage.row("restored a snapshot");
            if manifest.workers != self.workers {
                outside.coverage.row("restored at another parallelism");
            }
            *generations = (*generations).max(manifest.next_generation);
            snapshot = Some((file, manifest));
        }
        self.tasks = match outside.config.plans.clone() {
            None => self.restore_fold(decision, &snapshot, &frontiers, outside),
            Some(plans) => {
                let keeps = |step: u32| keeps(decision, step as usize);
                self.restore_engine(&snapshot, keeps, &frontiers, plans.of(&shape), outside)?
            }
        };
        self.frontiers = frontiers.clone();
        self.named = kept.iter().flat_map(|kept| kept.files.clone()).collect();
        Ok(Event::Restored(Box::new(Restored { frontiers, kept })))
    }

    fn restore_fold(
        &mut self,
        decision: &Decision,
        snapshot: &Option<(File, Rc<Manifest>)>,
        frontiers: &[Frontiers],
        outside: &mut Outside,
    ) -> Vec<Task> {
        let new = |index| Fold::new(outside.config.shape, index, self.workers, frontiers);
        let mut folds: Vec<Fold> = (0..self.workers).map(new).collect();
        if let Some((File { content: Content::Fold(states), .. }, _)) = snapshot {
            for (worker, state) in states.iter().enumerate() {
                let mut state = state.clone();
                state.retain(|(step, ..), _| keeps(decision, *step));
                folds[worker % self.workers].absorb(&state);
            }
        }
        let mut whole = Fold::new(outside.config.shape, 0, 1, frontiers);
        folds.iter().for_each(|fold| whole.absorb(&fold.state));
        if let Err(violation) = outside.judge.restored(decision, &whole.state) {
            outside.violates(violation);
        }
        folds.into_iter().map(|fold| Task::Fold(Box::new(fold), Default::default())).collect()
    }

    fn restore_engine(
        &mut self,
        snapshot: &Option<(File, Rc<Manifest>)>,
        keeps: impl Fn(u32) -> bool,
        frontiers: &[Frontiers],
        plan: Arc<onceflow_engine::plan::Plan>,
        outside: &mut Outside,
    ) -> Result<Vec<Task>, Event> {
        let mut runs = MemoryRuns::new();
        let cold = snapshot.iter().flat_map(|(_, manifest)| &manifest.cold);
        for (name, run) in cold.filter(|(_, run)| keeps(run.step)) {
            let Some(File { content: Content::Cold(rows), .. }) = outside.storage.read(name) else {
                return Err(Event::Refused(format!("{name} is missing or damaged")));
            };
            runs.insert(*run, rows.clone());
            self.cold_files.insert(*run, name.clone());
        }
        self.cold = Arc::new(MemoryColdStore::restored(runs));
        let mut tasks = vec![];
        for index in 0..self.workers {
            tasks.push(
                EngineTask::new(plan.clone(), index, self.workers, frontiers, self.cold.clone())
                    .map_err(failed)?,
            );
        }
        if let Some((_, manifest)) = snapshot {
            self.live = manifest.live.clone();
            self.live.retain_steps(&keeps);
            segments::load(manifest, &self.live, keeps, &outside.storage, &mut tasks)?;
        }
        Ok(tasks.into_iter().map(|task| Task::Engine(Box::new(task))).collect())
    }

    fn start_workers(&mut self, positions: &[Position], outside: &Outside) -> Vec<WorkerThread> {
        let mut shares: Vec<Vec<Assigned>> = (0..self.workers).map(|_| vec![]).collect();
        for (index, position) in positions.iter().enumerate() {
            let clock = PartitionClock::new(
                position.next_offset,
                position.watermark,
                Delay::Fixed(DELAY),
                outside.config.idle_after_ms,
            );
            // A partition that came after the ends were taken is at its end.
            let end = self
                .ends
                .as_ref()
                .map(|ends| ends.get(index).copied().map_or(position.next_offset, NextOffset));
            shares[index % self.workers].push(Assigned {
                index,
                clock,
                end,
                polled_ms: outside.now_ms,
                stalled_until_ms: 0,
                at_end_since_ms: None,
            });
        }
        let tasks = self.tasks.drain(..).zip(shares).enumerate();
        tasks
            .map(|(index, (task, share))| {
                WorkerThread::new(index, self.workers, task, share, self.frontiers.clone())
            })
            .collect()
    }
}

/// Whether the state of a step is to be restored.
fn keeps(decision: &Decision, step: usize) -> bool {
    !decision.discarded.iter().any(|discarded| discarded == STEPS[step])
}

fn fold_frozen(frozen: &Frozen) -> FoldState {
    match frozen {
        Frozen::Fold(state) => state.clone(),
        Frozen::Engine(_) => FoldState::new(),
    }
}

fn fold_of(worker: &WorkerThread) -> FoldState {
    match &worker.task {
        Task::Fold(fold, _) => fold.state.clone(),
        Task::Engine(_) => FoldState::new(),
    }
}
