//! Restoring what a decision names, and starting workers on it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crossbeam_channel::unbounded;
use onceflow_engine::state::StateError;
use onceflow_engine::state::cold::{ColdStore, MemoryColdStore, Run};
use onceflow_engine::state::extents::Extent;
use onceflow_engine::state::rows::EncodedRows;
use onceflow_engine::state::segment::{SegmentError, read_extent, read_footer};
use onceflow_engine::state::window_state::Origin;
use onceflow_engine::worker::{StepStart, Worker, WorkerError};
use onceflow_protocol::coordinator::{Event, Failure, KeptSnapshot, Restored};
use onceflow_protocol::{Decision, ErrorKind, ManifestRef, PartitionClock, Position};

use super::super::change::{columns, match_steps};
use super::super::context::{SHARD, SINKS, monotonic_ns};
use super::super::drift::Drift;
use super::super::driver::spawn;
use super::super::manifest::{self, FORMAT_VERSION, Manifest, StepState};
use super::super::messages::{ToDriver, ToSink};
use super::super::worker::{Assigned, WorkerThread};
use super::{CALL, Done, Keeper, Trouble, bug, config};
use crate::kafka::{PartitionQueue, Reader};
use crate::state::{Cold, ColdSettings, OpenColdError, open_cold};
use crate::storage::{FileName, ShardStorage, StorageError};

impl Keeper {
    pub(super) fn read_manifest(&self, storage: &ShardStorage, reference: &ManifestRef) -> Done<Manifest> {
        read_manifest(storage, &self.context.plan.pipeline, reference)
    }

    /// Loads the decision's snapshot into new workers.
    pub(super) fn restore(&mut self, decision: &Decision) -> Done {
        self.cluster_ids.clear();
        for cluster in 0..self.admins.len() {
            let id = self.admin(cluster)?.cluster_id(CALL)?;
            self.cluster_ids.push(id);
        }
        let manifest = match &decision.manifest {
            Some(reference) => {
                let storage = self.storage()?;
                Some(self.read_manifest(&storage, reference)?)
            }
            None => None,
        };
        if let Some(manifest) = &manifest {
            self.check_clusters(manifest)?;
        }
        let matched = match_steps(&self.context.plan, decision, manifest.as_ref());
        let matched = matched.map_err(|problems| Trouble::Refused(problems.join("\n")))?;
        for note in &matched.notes {
            tracing::warn!(pipeline = self.context.plan.pipeline, "{note}");
        }
        (self.steps, self.next_step_id) = (matched.steps, matched.next_step_id);
        let named = manifest.as_ref().zip(decision.manifest.as_ref());
        let files = named.map_or(vec![], |(manifest, reference)| manifest.files(&reference.file));
        let mut manifest = manifest;
        let gone = manifest.as_mut().map_or(vec![], |manifest| drop_state(manifest, &matched.dropped));
        self.open_cold(manifest.as_ref())?;
        if let Some(cold) = &self.cold {
            for run in gone {
                let removed = cold.store().remove(run).map_err(StateError::from);
                removed.map_err(|error| worker_trouble(error.into(), "discarding cold runs"))?;
            }
        }
        self.make_workers()?;
        let frontiers = self.steps.iter().map(|step| step.frontiers).collect();
        let mut kept: Vec<KeptSnapshot> = vec![];
        if let (Some(manifest), Some(reference)) = (manifest, &decision.manifest) {
            self.context.restore_generation(manifest.next_generation);
            self.load_extents(&manifest)?;
            self.load_runs(&manifest)?;
            kept.extend(manifest.kept.into_iter().map(Into::into));
            kept.push(KeptSnapshot { epoch: manifest.epoch, manifest: reference.clone(), files });
            self.live = manifest.live;
            self.cold_snapshot = manifest.cold;
        }
        self.driver.event(Event::Restored(Box::new(Restored { frontiers, kept })));
        Ok(())
    }

    /// The ids of the clusters that sources have of their own, by source.
    pub(super) fn source_clusters(&self) -> BTreeMap<String, String> {
        let sources = self.context.plan.sources.iter().enumerate();
        let own = sources.filter(|(number, _)| self.context.cluster_of(*number) != SINKS);
        let id = |number| self.cluster_ids[self.context.cluster_of(number)].clone();
        own.map(|(number, source)| (source.name.clone(), id(number))).collect()
    }

    /// Positions mean nothing on another cluster. A source that moves to another cluster is a new source, with a name of its own.
    fn check_clusters(&self, manifest: &Manifest) -> Done {
        let here = &self.cluster_ids[SINKS];
        if manifest.cluster_id != *here {
            return Err(Trouble::Refused(format!(
                "the snapshot was taken on cluster `{}`, this is `{here}`",
                manifest.cluster_id
            )));
        }
        let now = self.source_clusters();
        for source in &self.context.plan.sources {
            if !manifest.positions.iter().any(|at| at.source == source.name) {
                continue;
            }
            let then = manifest.source_clusters.get(&source.name).unwrap_or(&manifest.cluster_id);
            let now = now.get(&source.name).unwrap_or(here);
            if then != now {
                return Err(Trouble::Refused(format!(
                    "source `{}` was read from cluster `{then}`, this is `{now}`",
                    source.name
                )));
            }
        }
        Ok(())
    }

    fn open_cold(&mut self, manifest: Option<&Manifest>) -> Done {
        let context = &self.context;
        let snapshot = manifest.and_then(|manifest| manifest.cold.clone()).unwrap_or_default();
        let settings = ColdSettings {
            state: &context.plan.state,
            namespace: &context.namespace,
            pipeline: &context.plan.pipeline,
            shard: SHARD,
            incarnation: &self.incarnation,
        };
        if context.windowed.is_empty() {
            return Ok(());
        }
        let Some(storage) = &self.storage else { return Err(bug("the checkpoint storage was not opened")) };
        self.cold = Some(open_cold(settings, storage, &snapshot).map_err(|error| match error {
            OpenColdError::Config(message) => config(message),
            OpenColdError::Storage(error) => error.into(),
        })?);
        Ok(())
    }

    fn make_workers(&mut self) -> Done {
        let workers = self.context.settings.workers;
        let cold: Arc<dyn ColdStore> = match &self.cold {
            Some(cold) => cold.store(),
            // A pipeline without windows has nothing that could get cold.
            None => Arc::new(MemoryColdStore::new()),
        };
        let windows = self.context.plan.steps.iter().filter_map(|step| step.window.as_ref());
        let start = |(state, window): (&StepState, _)| StepStart {
            state_id: state.id,
            frontiers: state.frontiers,
            columns: columns(state, window),
        };
        let starts: Vec<_> = self.steps.iter().zip(windows).map(start).collect();
        self.engines.clear();
        for index in 0..workers {
            let worker = Worker::new(self.context.plan.clone(), index, workers, &starts, cold.clone());
            let mut worker = worker.map_err(|error| worker_trouble(error, "making a worker"))?;
            worker.set_clock(monotonic_ns);
            self.engines.push(worker);
        }
        Ok(())
    }

    /// Every extent goes to the worker that wrote it; at another parallelism the tables of several are merged, and written whole
    /// at the next barrier, so that their old extents end. What does not fit into memory any more is evicted while it is read.
    fn load_extents(&mut self, manifest: &Manifest) -> Done {
        let storage = self.storage()?;
        let workers = self.context.settings.workers;
        let origin = if manifest.workers == workers { Origin::Own } else { Origin::Other };
        let mut files = BTreeMap::new();
        for (id, extents) in manifest.live.panes() {
            let window = self.window_of(id.step)?;
            let mut rows = extents.into_iter().map(|extent| read(&storage, &mut files, extent));
            let worker = &mut self.engines[usize::from(id.worker) % workers];
            let restored = worker.restore(window, id.pane, &mut rows, &[], origin);
            restored.map_err(|error| worker_trouble(error, &format!("step {}", self.steps[window].name)))?;
            if self.cold.as_ref().is_some_and(Cold::can_evict) {
                let context = &self.context;
                while worker.memory_bytes() > context.table_share {
                    let freed = worker.evict_one(&mut || context.next_generation());
                    if freed.map_err(|error| worker_trouble(error, "evicting"))? == 0 {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Cold runs stay where they are; which worker knows of them does not matter.
    fn load_runs(&mut self, manifest: &Manifest) -> Done {
        let mut panes = BTreeMap::<_, Vec<_>>::new();
        for run in &manifest.runs {
            panes.entry((run.step, run.pane)).or_default().push(*run);
        }
        for ((step, pane), runs) in panes {
            let window = self.window_of(step)?;
            let restored = self.engines[0].restore(window, pane, &mut std::iter::empty(), &runs, Origin::Own);
            restored.map_err(|error| worker_trouble(error, "cold runs"))?;
        }
        Ok(())
    }

    fn window_of(&self, state_id: u32) -> Done<usize> {
        let found = self.steps.iter().position(|step| step.id == state_id);
        found.ok_or_else(|| {
            Trouble::Refused(format!("the snapshot has state of an unknown step, number {state_id}"))
        })
    }

    /// Opens a consumer on each cluster that is read, at these positions; returns source and queue of each position whose topic is
    /// there, by the position's place.
    fn open_readers(&mut self, positions: &[Position]) -> Done<BTreeMap<usize, (usize, PartitionQueue)>> {
        let context = self.context.clone();
        let mut by_cluster: Vec<Vec<(usize, usize)>> = context.connections.iter().map(|_| vec![]).collect();
        for (index, position) in positions.iter().enumerate() {
            let Some(source) = self.reads(&position.source, &position.topic) else {
                return Err(bug(format!("a position of no source: {position:?}")));
            };
            if self.topics.iter().any(|topic| topic.is_of(&position.source, &position.topic)) {
                self.assigned.insert((source, position.topic.clone(), position.partition));
                by_cluster[context.cluster_of(source)].push((index, source));
            }
        }
        let mut queues = BTreeMap::new();
        for (connection, here) in context.connections.iter().zip(by_cluster) {
            let assignments: Vec<_> = here
                .iter()
                .map(|(index, _)| &positions[*index])
                .map(|at| (at.topic.as_str(), at.partition, at.next_offset.0))
                .collect();
            let idle_after =
                here.iter().filter_map(|(_, source)| context.plan.sources[*source].idle_after).min();
            let (reader, opened) = Reader::open(connection, &context.group_id, &assignments, idle_after)?;
            self.readers.push(reader);
            queues.extend(
                here.into_iter().zip(opened).map(|((index, source), queue)| (index, (source, queue))),
            );
        }
        Ok(queues)
    }

    /// Opens the consumers at these positions and lets the workers begin.
    pub(super) fn start_workers(&mut self, positions: &[Position]) -> Done {
        let ends = self.ends()?;
        let context = self.context.clone();
        let workers = context.settings.workers;
        let mut shares: Vec<Vec<Assigned>> = (0..workers).map(|_| vec![]).collect();
        let mut queues = self.open_readers(positions)?;
        let of_source = |index: usize| queues.get(&index).map(|(source, _)| *source);
        let drift = Arc::new(Drift::new((0..positions.len()).map(of_source)));
        for (index, position) in positions.iter().enumerate() {
            let Some((source, queue)) = queues.remove(&index) else { continue };
            let settings = &context.plan.sources[source];
            let idle_after_ms = settings.idle_after.map(|after| after.as_millis() as u64);
            let clock =
                PartitionClock::new(position.next_offset, position.watermark, settings.delay, idle_after_ms)
                    .with_disorder(position.disorder.clone());
            let end = ends.get(&(source, position.topic.clone(), position.partition)).copied();
            let end = end.or(context.settings.until_end.then_some(position.next_offset));
            shares[index % workers].push(Assigned { index, source, queue, clock, end, polled_ms: 0 });
        }
        let admin = self.admin(SINKS)?;
        let topics = context.plan.output_topics.iter();
        let limits = topics.map(|topic| admin.topic_limits(&topic.name, CALL));
        let limits: Vec<_> = limits.collect::<Result<_, _>>()?;
        let state_ids: Vec<_> = self.steps.iter().map(|step| step.id).collect();
        self.load.unfinished.store(self.assigned.len(), Relaxed);
        let (senders, inboxes): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
        self.sink.send(ToSink::Begin).map_err(|_| bug("the sink has gone before the workers came"))?;
        for (index, ((engine, partitions), inbox)) in
            self.engines.drain(..).zip(shares).zip(inboxes).enumerate()
        {
            let thread = WorkerThread {
                index,
                context: context.clone(),
                engine,
                partitions,
                inbox,
                peers: senders.clone(),
                sink: self.sink.clone(),
                keeper: self.own.clone(),
                driver: self.driver.clone(),
                load: self.load.clone(),
                drift: drift.clone(),
                limits: limits.clone(),
                state_ids: state_ids.clone(),
            };
            let driver = self.driver.clone();
            spawn(&format!("worker-{index}"), &driver, move || thread.run()).map_err(|error| {
                let message = format!("no thread could be started: {error}");
                Trouble::Failed(Failure { kind: ErrorKind::Retry, message })
            })?;
        }
        self.workers = senders.clone();
        self.driver.send(ToDriver::Workers(senders));
        self.driver.event(Event::WorkersStarted);
        Ok(())
    }
}

/// Reads a snapshot's manifest and checks that it is the one that was decided.
pub(super) fn read_manifest(
    storage: &ShardStorage,
    pipeline: &str,
    reference: &ManifestRef,
) -> Done<Manifest> {
    let name = FileName::parse(&reference.file)?;
    let path = storage.path(&name);
    let damaged = |what: String| Trouble::Refused(format!("{} is damaged: {what}", path.display()));
    let mut file = BufReader::new(storage.open_file(&name)?);
    let footer = read_footer(&mut file).map_err(|error| segment_trouble(&path, error))?;
    let hash = manifest::hash(&footer);
    if hash != reference.hash {
        return Err(damaged(format!("its manifest has the hash {hash}, but {} was decided", reference.hash)));
    }
    let manifest: Manifest = serde_json::from_slice(&footer)
        .map_err(|error| damaged(format!("its manifest cannot be read: {error}")))?;
    if manifest.format != FORMAT_VERSION {
        return Err(Trouble::Refused(format!(
            "{} has format {}; this program knows format {FORMAT_VERSION}",
            path.display(),
            manifest.format
        )));
    }
    if manifest.pipeline != *pipeline || manifest.shard != SHARD {
        return Err(damaged(format!("it belongs to pipeline `{}`", manifest.pipeline)));
    }
    Ok(manifest)
}

/// Takes out what nobody goes on from; the snapshot itself stays as it is, until the next one is confirmed. Runs that the cold store holds
/// beside others that are needed.
fn drop_state(manifest: &mut Manifest, dropped: &[u32]) -> Vec<Run> {
    manifest.live.retain_steps(|step| !dropped.contains(&step));
    let (gone, left): (Vec<Run>, Vec<Run>) =
        std::mem::take(&mut manifest.runs).into_iter().partition(|run| dropped.contains(&run.step));
    manifest.runs = left;
    if !gone.is_empty() && manifest.runs.is_empty() {
        // Nothing of the cold store is needed: it begins anew.
        manifest.cold = None;
        return vec![];
    }
    gone
}

/// Segment files that a restore keeps open.
const OPEN_FILES: usize = 64;

type Files = BTreeMap<String, BufReader<File>>;

fn read(storage: &ShardStorage, files: &mut Files, extent: &Extent) -> Result<EncodedRows, WorkerError> {
    let failed = |trouble: Trouble| match trouble {
        Trouble::Refused(message) => WorkerError { kind: ErrorKind::Data, message },
        Trouble::Failed(failure) => WorkerError { kind: failure.kind, message: failure.message },
    };
    let name = FileName::parse(&extent.file).map_err(|error| failed(error.into()))?;
    if files.len() >= OPEN_FILES {
        files.clear();
    }
    let file = match files.entry(extent.file.clone()) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(closed) => {
            closed.insert(BufReader::new(storage.open_file(&name).map_err(|error| failed(error.into()))?))
        }
    };
    read_extent(file, &extent.location).map_err(|error| failed(segment_trouble(&storage.path(&name), error)))
}

/// What is damaged on disk refuses the start.
fn worker_trouble(error: WorkerError, what: &str) -> Trouble {
    match error.kind {
        ErrorKind::Data => Trouble::Refused(format!("{what}: {}", error.message)),
        kind => Trouble::Failed(Failure { kind, message: format!("{what}: {}", error.message) }),
    }
}

fn segment_trouble(path: &Path, error: SegmentError) -> Trouble {
    match error {
        SegmentError::Io(source) if source.kind() != std::io::ErrorKind::UnexpectedEof => {
            StorageError::io(path, source).into()
        }
        other => Trouble::Refused(format!("{} is damaged: {other}", path.display())),
    }
}
