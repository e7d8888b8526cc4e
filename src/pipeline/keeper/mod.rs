//! The keeper thread: owns the checkpoint storage, the cold store and the consumer. It answers the start's questions, restores,
//! writes snapshots, and notes what was committed.
//!
//! One thread does all of that because it happens in order: a start's steps follow each other, and a snapshot is written only
//! when the one before is committed. What it does for a checkpoint never waits for output.

mod foresight;
mod restore;
mod savepoint;
mod snapshot;
mod start;
mod topology;

pub use foresight::foresee;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use onceflow_engine::state::cold::ColdSnapshot;
use onceflow_engine::state::extents::LiveExtents;
use onceflow_engine::worker::Worker;
use onceflow_engine::worker::barrier::FrozenStep;
use onceflow_protocol::coordinator::{Effect, Event, Failure};
use onceflow_protocol::{Decision, ErrorKind, Position, TopicIdentity};

use super::context::{Context, open_storage};
use super::kill_point::KillPoint;
use super::load::Load;
use super::manifest::StepState;
use super::messages::{DriverSender, ToKeeper, ToSink, ToWorker};
use crate::kafka::{Admin, KafkaError, Reader};
use crate::state::{Cold, FrozenCold};
use crate::storage::{FileName, ShardStorage, StorageError, StorageErrorKind};

/// The consumer's main queue is served at least this often.
const SERVE: Duration = Duration::from_millis(100);
/// The `confirmed` object and the group's offsets are written at most this often.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// The lag is measured, and topics are looked at, at most this often and for this long.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const MEASURE_LIMIT: Duration = Duration::from_millis(500);
/// Time limit of one question to the brokers.
const CALL: Duration = Duration::from_secs(30);

/// State of the keeper thread.
pub struct Keeper {
    context: Arc<Context>,
    driver: DriverSender,
    load: Arc<Load>,
    inbox: Receiver<ToKeeper>,
    /// For the workers that it starts.
    own: Sender<ToKeeper>,
    sink: Sender<ToSink>,
    /// Random; names the cold store's files of this run.
    incarnation: String,
    storage: Option<ShardStorage>,
    /// By cluster, as [`Context::connections`]; made when first needed.
    admins: Vec<Option<Admin>>,
    /// By cluster; none before the workers begin.
    readers: Vec<Reader>,
    cold: Option<Cold>,
    frozen_cold: Option<FrozenCold>,
    /// Workers with their state, from a restore until they start.
    engines: Vec<Worker>,
    workers: Vec<Sender<ToWorker>>,
    /// The workers' changes at the barrier, by worker, until they are durable.
    frozen: Vec<Option<Vec<FrozenStep>>>,
    live: LiveExtents,
    steps: Vec<StepState>,
    next_step_id: u32,
    cold_snapshot: Option<ColdSnapshot>,
    /// By cluster.
    cluster_ids: Vec<String>,
    /// The source topics as they were at the start.
    topics: Vec<TopicIdentity>,
    /// (source, topic, partition) of all that this run reads.
    assigned: BTreeSet<(usize, String, i32)>,
    /// What is looked at next, of all that is looked at in turn.
    look_next: usize,
    /// It was said that there is more.
    told_of_changes: bool,
    /// Committed, but not noted yet.
    unconfirmed: Option<Box<Decision>>,
    confirmed_at: Option<Instant>,
    /// What was noted last.
    noted: Option<Box<Decision>>,
    measured_at: Option<Instant>,
    /// Bytes of the cold store that the metrics count.
    cold_bytes: i64,
}

/// Why an effect was not done.
enum Trouble {
    /// Someone has to look.
    Refused(String),
    /// The kind says what to do.
    Failed(Failure),
}

type Done<T = ()> = Result<T, Trouble>;

impl Keeper {
    /// A keeper for one run. `own` reaches it, `sink` the run's sink.
    pub fn new(
        context: Arc<Context>,
        driver: DriverSender,
        load: Arc<Load>,
        inbox: Receiver<ToKeeper>,
        own: Sender<ToKeeper>,
        sink: Sender<ToSink>,
    ) -> Keeper {
        let frozen = (0..context.settings.workers).map(|_| None).collect();
        let admins = context.connections.iter().map(|_| None).collect();
        Keeper {
            context,
            driver,
            load,
            inbox,
            own,
            sink,
            incarnation: format!("{:016x}", rand::random::<u64>()),
            storage: None,
            admins,
            readers: vec![],
            cold: None,
            frozen_cold: None,
            engines: vec![],
            workers: vec![],
            frozen,
            live: LiveExtents::default(),
            steps: vec![],
            next_step_id: 0,
            cold_snapshot: None,
            cluster_ids: vec![],
            topics: vec![],
            assigned: BTreeSet::new(),
            look_next: 0,
            told_of_changes: false,
            unconfirmed: None,
            confirmed_at: None,
            noted: None,
            measured_at: None,
            cold_bytes: 0,
        }
    }

    /// Runs until the run is over.
    pub fn run(mut self) {
        loop {
            let done = match self.inbox.recv_timeout(SERVE) {
                Ok(ToKeeper::Effect(effect)) => self.perform(effect),
                Ok(ToKeeper::Savepoint { name, decision, reply }) => {
                    self.make_savepoint(name, *decision, reply);
                    Ok(())
                }
                Ok(ToKeeper::Frozen { worker, frozen }) => {
                    self.frozen[worker] = Some(frozen);
                    Ok(())
                }
                Ok(ToKeeper::End) | Err(RecvTimeoutError::Disconnected) => return self.farewell(),
                Err(RecvTimeoutError::Timeout) => self.confirm_if_due().and_then(|()| self.measure_if_due()),
            };
            let served = self.readers.iter_mut().try_for_each(Reader::poll_main);
            if let Err(trouble) = done.and(served.map_err(Trouble::from)) {
                self.driver.event(match trouble {
                    Trouble::Refused(reason) => Event::Refused(reason),
                    Trouble::Failed(failure) => Event::Failed(failure),
                });
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Done {
        match effect {
            Effect::EnsureControlTopic => self.ensure_control_topic(),
            Effect::ListClaims => self.list_claims(),
            Effect::ReadNewest => self.read_newest(),
            Effect::ReadSavepoint(name) => self.read_savepoint(&name),
            Effect::CheckRestorable { decision, savepoint } => {
                self.check_restorable(&decision, savepoint.as_deref())
            }
            Effect::ListFiles => self.list_files(),
            Effect::ReadUntilClaim(claim) => self.read_until_claim(&claim),
            Effect::ReadTraces => self.read_traces(),
            Effect::ImportSavepoint { savepoint, epoch, attempt, keeps } => {
                self.import_savepoint(&savepoint, epoch, &attempt, keeps.as_ref())
            }
            Effect::ResolveStart(known) => self.resolve_start(&known),
            Effect::Restore(decision) => self.restore(&decision),
            Effect::StartWorkers(positions) => self.start_workers(&positions),
            Effect::SnapshotCold(_) => self.freeze_cold(),
            Effect::WriteSnapshot(draft) => self.write_snapshot(&draft),
            Effect::LookForClaims(known) => self.look_for_claims(&known),
            Effect::Confirm(decision) => {
                self.unconfirmed = Some(decision);
                self.confirm_if_due()?;
                self.measure_if_due()
            }
            Effect::DeleteFiles(files) => self.delete(&files),
            other => Err(bug(format!("{other:?} is not the keeper's to do"))),
        }
    }

    /// Deleting is housekeeping: what is left behind is an orphan that the next start drops.
    fn delete(&mut self, files: &[String]) -> Done {
        KillPoint::BeforeRetire.pass();
        let storage = self.storage()?;
        for file in files {
            if let Err(error) = FileName::parse(file).and_then(|name| storage.remove(&name)) {
                tracing::warn!(%error, "a retired file could not be deleted; the next start tries again");
            }
        }
        Ok(())
    }

    fn confirm_if_due(&mut self) -> Done {
        let due = self.confirmed_at.is_none_or(|at| at.elapsed() >= CONFIRM_EVERY);
        if due { self.confirm(None) } else { Ok(()) }
    }

    /// Notes the newest commit where it helps people and later starts; as far as that works, since the decision is what counts.
    fn confirm(&mut self, wait: Option<Duration>) -> Done {
        self.write_history();
        let Some(decision) = self.unconfirmed.take() else { return Ok(()) };
        self.confirmed_at = Some(Instant::now());
        let content = serde_json::json!({
            "version": 1, "epoch": decision.epoch, "attempt": decision.attempt, "requests": decision.requests,
        });
        let storage = self.storage()?;
        if let Err(error) = storage.replace(&FileName::confirmed(), content.to_string().as_bytes()) {
            tracing::warn!(%error, "the confirmed epoch could not be noted in the checkpoint storage");
        }
        KillPoint::AfterConfirmed.pass();
        for (cluster, reader) in self.readers.iter().enumerate() {
            let positions = decision.positions.iter();
            let here = positions.filter(|at| self.context.cluster_of_source(&at.source) == Some(cluster));
            let offsets: Vec<_> =
                here.map(|at| (at.topic.as_str(), at.partition, at.next_offset.0)).collect();
            if offsets.is_empty() {
                continue;
            }
            if let Err(error) = reader.commit_offsets(&offsets, wait) {
                tracing::warn!(%error, "the group's offsets, which only lag tools read, could not be committed");
            }
        }
        self.noted = Some(decision);
        Ok(())
    }

    /// What only people read must not fail anything.
    fn write_history(&mut self) {
        if let Some(Err(error)) = self.storage.as_ref().map(|storage| self.context.history.write(storage)) {
            tracing::debug!(%error, "the history of checkpoints could not be written");
        }
    }

    fn measure_cold(&mut self, bytes: u64) {
        self.context.metrics.state_bytes.add(bytes as i64 - self.cold_bytes);
        self.cold_bytes = bytes as i64;
    }

    /// The lag, for people, and whether the topics are still the same ones and all there is. Snapshots are written by this thread too:
    /// brokers that do not answer must not hold it up.
    fn measure_if_due(&mut self) -> Done {
        let due = self.measured_at.is_none_or(|at| at.elapsed() >= MEASURE_EVERY);
        if self.readers.is_empty() || !due {
            return Ok(());
        }
        self.measured_at = Some(Instant::now());
        if let Some(lag) = self.lag(Instant::now() + MEASURE_LIMIT) {
            self.context.metrics.source_lag_records.set(self.context.view.lag(lag.into_iter()));
        }
        self.look_at_topics(Instant::now() + MEASURE_LIMIT)
    }

    /// Records between the newest commit and the end of each partition that is read, as far as the brokers tell in time.
    fn lag(&self, deadline: Instant) -> Option<Vec<(&Position, i64)>> {
        let mut lag = vec![];
        for at in &self.noted.as_ref()?.positions {
            let Some(source) = self.reads(&at.source, &at.topic) else { continue };
            if !self.assigned.contains(&(source, at.topic.clone(), at.partition)) {
                continue;
            }
            let reader = self.readers.get(self.context.cluster_of(source))?;
            let left = deadline.saturating_duration_since(Instant::now());
            let bounds = reader.beginning_and_stable_end(&at.topic, at.partition, left).ok()?;
            lag.push((at, (bounds.end - at.next_offset.0).max(0)));
        }
        Some(lag)
    }

    fn farewell(mut self) {
        if let Err(Trouble::Refused(reason)) = self.confirm(Some(Duration::from_secs(3))) {
            tracing::warn!(reason, "the last commit could not be noted");
        }
        self.measure_cold(0);
    }

    fn storage(&mut self) -> Done<ShardStorage> {
        if let Some(storage) = &self.storage {
            return Ok(storage.clone());
        }
        let storage = open_storage(&self.context.plan, &self.context.namespace)?;
        Ok(self.storage.insert(storage).clone())
    }

    fn admin(&mut self, cluster: usize) -> Done<&Admin> {
        match &mut self.admins[cluster] {
            Some(admin) => Ok(admin),
            none => Ok(none.insert(Admin::open(&self.context.connections[cluster])?)),
        }
    }
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Trouble {
        Trouble::Failed(Failure { kind: error.kind, message: error.to_string() })
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Trouble {
        match error.kind() {
            StorageErrorKind::Full | StorageErrorKind::Io => {
                Trouble::Failed(Failure { kind: ErrorKind::Retry, message: error.to_string() })
            }
            _ => Trouble::Refused(error.to_string()),
        }
    }
}

fn bug(message: impl Into<String>) -> Trouble {
    Trouble::Failed(Failure { kind: ErrorKind::Bug, message: message.into() })
}

fn config(message: impl Into<String>) -> Trouble {
    Trouble::Failed(Failure { kind: ErrorKind::Config, message: message.into() })
}
