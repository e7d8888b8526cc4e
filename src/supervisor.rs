//! The supervisor: the one owner of running pipelines. Signals, reloads and the API ask it; nobody else starts or stops a pipeline.
//!
//! Every pipeline has a fate of its own: one that fails leaves the others running, and the process unready. What has ended stays on the
//! list, with its outcome, until a reload finds that its file is gone.
//!
//! A **reload** reads everything again and changes nothing if there is a mistake in any of it. Otherwise what is new is started, what is
//! gone is stopped with a final checkpoint, what says something else than before is stopped so and started anew, and what failed is
//! started again. What runs unchanged is not touched, and what was stopped on purpose stays stopped.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crossbeam_channel::{Sender, unbounded};
use onceflow_engine::plan::Plan;
use onceflow_protocol::ErrorKind;
use onceflow_protocol::coordinator::{Failure, Outcome, Requests};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::http::model::Overview;
use crate::inputs::{Inputs, Loaded, Mistakes, Pipeline};
use crate::metrics::Metrics;
use crate::pipeline::{
    Answer, CheckpointRecord, Context, Driver, History, NoAnswer, OfKey, PipelineStatus, Request, Savepoint,
    Search, Status, Statuses, View, said,
};
use crate::service_manager;
use crate::settings::Settings;

/// How long a question about a key may take: while windows fire it waits for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the daemon runs its pipelines.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// Stop at the offsets that are the sources' ends now.
    pub until_end: bool,
    /// What the command line asks of a start, once; of the only pipeline.
    pub requests: Requests,
}

/// How a pipeline is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StopMode {
    /// With a final checkpoint.
    #[default]
    Checkpoint,
    /// After all windows were closed and committed, whatever may still come for them.
    Drain,
    /// At once: what was read since the last checkpoint will be read again.
    Now,
}

/// There is no pipeline of that name.
#[derive(Debug, thiserror::Error)]
#[error("there is no pipeline `{0}`")]
pub struct Unknown(pub String);

/// What a reload did, by names of pipelines.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    /// New, or failed before.
    pub started: Vec<String>,
    /// Stopped, and started anew from what their files say now.
    pub restarted: Vec<String>,
    /// Stopped, as their files are gone.
    pub removed: Vec<String>,
    /// Not touched.
    pub unchanged: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Every mistake in settings and pipeline files, for people.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// The daemon is about to end.
    #[error("the daemon is stopping")]
    Stopping,
}

/// Runs the pipelines of the process. Clones share them.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    inputs: Inputs,
    settings: Settings,
    mode: Mode,
    /// Whether the process goes on without a running pipeline: in a directory there may be one again.
    stays: bool,
    metrics: Metrics,
    statuses: Statuses,
    table: Mutex<Table>,
    /// Held by the reload under way: a second one waits.
    reload: tokio::sync::Mutex<()>,
    /// Tells that something in the table has changed.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Table {
    pipelines: BTreeMap<String, Supervised>,
    /// The process is about to end: nothing is started any more.
    closing: bool,
    /// A reload has stopped what it is going to start.
    reloading: bool,
}

/// A pipeline that was started.
struct Supervised {
    file: PathBuf,
    plan: Arc<Plan>,
    requests: Sender<Request>,
    /// Dropped by its driver at the end.
    context: Weak<Context>,
    /// How it is doing, or was when it ended.
    view: Arc<View>,
    /// Its checkpoints.
    history: Arc<History>,
    /// Set once it has ended.
    outcome: watch::Receiver<Option<Outcome>>,
    /// Held by who asks about a key: workers look for one at a time.
    question: Arc<tokio::sync::Mutex<()>>,
}

impl Supervised {
    fn outcome(&self) -> Option<Outcome> {
        self.outcome.borrow().clone()
    }

    fn ask(&self, request: Request) {
        // One that has ended needs no asking.
        let _ = self.requests.send(request);
    }

    fn failed(&self) -> bool {
        matches!(*self.outcome.borrow(), Some(Outcome::Failed(_) | Outcome::Refused(_)))
    }
}

impl Supervisor {
    /// Starts what was loaded from `inputs`.
    ///
    /// # Errors
    /// If the process lacks threads.
    pub fn start(inputs: Inputs, loaded: Loaded, mode: Mode, metrics: Metrics) -> anyhow::Result<Supervisor> {
        let Loaded { settings, pipelines, directory } = loaded;
        let supervisor = Supervisor {
            shared: Arc::new(Shared {
                inputs,
                settings,
                stays: directory && !mode.until_end,
                mode,
                metrics,
                statuses: Statuses::default(),
                table: Mutex::default(),
                reload: tokio::sync::Mutex::default(),
                changes: watch::Sender::new(()),
            }),
        };
        for pipeline in pipelines {
            supervisor.start_pipeline(pipeline)?;
        }
        Ok(supervisor)
    }

    /// How every pipeline is.
    pub fn list(&self) -> Vec<PipelineStatus> {
        self.shared.statuses.all()
    }

    /// A number for each pipeline that has not ended, which is another one as long as its driver gets on.
    pub fn pulses(&self) -> BTreeMap<String, u64> {
        let table = self.table();
        let alive = table.pipelines.iter().filter(|(_, supervised)| supervised.outcome.borrow().is_none());
        let pulse = |(name, supervised): (&String, &Supervised)| {
            supervised.context.upgrade().map(|context| (name.clone(), context.pulse.load(Relaxed)))
        };
        alive.filter_map(pulse).collect()
    }

    /// Asks every pipeline to stop with a final checkpoint, and starts none any more. Does not wait.
    pub fn close(&self) {
        let mut table = self.table();
        table.closing = true;
        table.pipelines.values().for_each(|supervised| supervised.ask(Request::Stop));
        drop(table);
        self.shared.changes.send_replace(());
    }

    /// Waits until nothing runs that should: all pipelines have ended and, where they come from a directory, the process is closing.
    /// How they ended.
    pub async fn over(&self) -> Vec<Outcome> {
        let mut changes = self.shared.changes.subscribe();
        loop {
            if let Some(outcomes) = self.outcomes() {
                return outcomes;
            }
            // The sender lives as long as this.
            let _ = changes.changed().await;
        }
    }

    fn outcomes(&self) -> Option<Vec<Outcome>> {
        let table = self.table();
        if table.reloading || (self.shared.stays && !table.closing) {
            return None;
        }
        table.pipelines.values().map(Supervised::outcome).collect()
    }

    /// Reads settings and pipelines again, and runs what they say now. Waits until what had to be stopped has ended; a caller who does
    /// not wait so long leaves nothing half done.
    ///
    /// # Errors
    /// If there is a mistake, or the process is closing; then nothing has changed.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        let supervisor = self.clone();
        let done = tokio::spawn(async move { supervisor.read_and_change().await }).await;
        // It does not come back only where the runtime is going down.
        done.unwrap_or(Err(ReloadError::Stopping))
    }

    async fn read_and_change(&self) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.shared.reload.lock().await;
        service_manager::reloading();
        let done = self.read_and_change_now().await;
        if !self.table().closing {
            service_manager::ready();
        }
        done
    }

    async fn read_and_change_now(&self) -> Result<Reloaded, ReloadError> {
        let inputs = self.shared.inputs.clone();
        let loaded = tokio::task::spawn_blocking(move || inputs.load()).await;
        let loaded = loaded.unwrap_or_else(|error| Err(format!("reading failed: {error}").into()));
        self.shared.metrics.reloaded(loaded.is_ok());
        match loaded {
            Ok(loaded) => {
                self.warn_of_what_stays(&loaded.settings);
                self.change_to(loaded.pipelines).await
            }
            Err(mistakes) => {
                tracing::error!("reload refused, nothing is changed:\n{}", mistakes.to_string().trim_end());
                Err(ReloadError::Mistakes(mistakes))
            }
        }
    }

    fn warn_of_what_stays(&self, now: &Settings) {
        let started = &self.shared.settings;
        for (setting, changed) in [
            ("namespace", now.namespace != started.namespace),
            ("http", now.http != started.http),
            ("log", now.log != started.log),
        ] {
            if changed {
                tracing::warn!(
                    setting,
                    "this setting has changed; a reload leaves it, a restart of the daemon takes it"
                );
            }
        }
    }

    async fn change_to(&self, pipelines: Vec<Pipeline>) -> Result<Reloaded, ReloadError> {
        let mut done = Reloaded::default();
        let mut starting: Vec<Pipeline> = vec![];
        {
            let mut table = self.table();
            if table.closing {
                return Err(ReloadError::Stopping);
            }
            let gone =
                table.pipelines.keys().filter(|name| !pipelines.iter().any(|p| p.plan.pipeline == **name));
            done.removed = gone.cloned().collect();
            for pipeline in pipelines {
                let name = pipeline.plan.pipeline.clone();
                match table.pipelines.get_mut(&name) {
                    None => done.started.push(name),
                    Some(known) if known.plan.fingerprint != pipeline.plan.fingerprint => {
                        done.restarted.push(name)
                    }
                    Some(known) if known.failed() => done.started.push(name),
                    Some(known) => {
                        known.file = pipeline.file;
                        done.unchanged.push(name);
                        continue;
                    }
                }
                starting.push(pipeline);
            }
            for name in done.removed.iter().chain(&done.restarted) {
                table.pipelines[name].ask(Request::Stop);
            }
            table.reloading = true;
        }
        tracing::info!(
            started = ?done.started,
            restarted = ?done.restarted,
            removed = ?done.removed,
            unchanged = done.unchanged.len(),
            "reloading"
        );
        for name in done.removed.iter().chain(&done.restarted) {
            self.end_of(name).await;
        }
        for name in &done.removed {
            self.table().pipelines.remove(name);
            self.shared.statuses.remove(name);
            self.shared.metrics.remove(name);
        }
        for pipeline in starting {
            let name = pipeline.plan.pipeline.clone();
            if let Err(error) = self.start_pipeline(pipeline) {
                tracing::error!(pipeline = name, reason = %error, "cannot be started");
            }
        }
        self.table().reloading = false;
        self.shared.changes.send_replace(());
        Ok(done)
    }

    /// How a pipeline ended, once it has; `None` if there is none of that name.
    async fn end_of(&self, pipeline: &str) -> Option<Outcome> {
        let mut outcome = self.table().pipelines.get(pipeline)?.outcome.clone();
        let ended = outcome.wait_for(Option::is_some).await.ok()?;
        ended.clone()
    }

    /// Starts a pipeline in place of an earlier one of its name, which has ended.
    fn start_pipeline(&self, pipeline: Pipeline) -> anyhow::Result<()> {
        let shared = &self.shared;
        let Pipeline { file, plan } = pipeline;
        let name = plan.pipeline.clone();
        let mut table = self.table();
        if table.closing {
            return Ok(());
        }
        let metrics = Arc::new(shared.metrics.pipeline(&name)?);
        let status = || Status::new(&name, shared.statuses.clone(), metrics.clone());
        let (status, fate) = (status(), status());
        let (requests, inbox) = unbounded();
        let (ended, outcome) = watch::channel(None);
        let (namespace, until_end) = (&shared.settings.namespace, shared.mode.until_end);
        let mut running = Weak::new();
        let once = shared.mode.requests.clone();
        let (mut view, mut history) = (Arc::new(View::new()), Arc::default());
        match Context::new(plan.clone(), namespace, until_end, once, metrics.clone()) {
            Ok(context) => {
                let context = Arc::new(context);
                running = Arc::downgrade(&context);
                (view, history) = (context.view.clone(), context.history.clone());
                let (driver, name) = (Driver::new(context, status, inbox), name.clone());
                let changes = shared.changes.clone();
                std::thread::Builder::new().name(format!("driver-{name}")).spawn(move || {
                    ended.send_replace(Some(watch_over(&name, &fate, move || driver.run())));
                    changes.send_replace(());
                })?;
            }
            Err(error) => {
                let end = Outcome::Failed(Failure { kind: error.kind, message: error.to_string() });
                tracing::error!(pipeline = name, reason = %error, "cannot be started");
                status.ended(&end);
                ended.send_replace(Some(end));
            }
        }
        let question = Arc::default();
        let supervised =
            Supervised { file, plan, requests, context: running, view, history, outcome, question };
        table.pipelines.insert(name, supervised);
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.shared.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What the API asks.
impl Supervisor {
    /// What a pipeline does, as it was started.
    pub fn plan(&self, pipeline: &str) -> Option<Arc<Plan>> {
        self.table().pipelines.get(pipeline).map(|supervised| supervised.plan.clone())
    }

    /// How a pipeline is doing.
    pub fn overview(&self, pipeline: &str) -> Option<Overview> {
        let status = self.list().into_iter().find(|status| status.name == pipeline)?;
        self.overview_of(status)
    }

    /// How each of them is doing.
    pub fn overviews(&self) -> Vec<Overview> {
        self.list().into_iter().filter_map(|status| self.overview_of(status)).collect()
    }

    fn overview_of(&self, status: PipelineStatus) -> Option<Overview> {
        let table = self.table();
        let Supervised { file, view, history, .. } = table.pipelines.get(&status.name)?;
        let last_checkpoint = history.newest(1).pop();
        Some(Overview::new(status, file.display().to_string(), view.read(), last_checkpoint))
    }

    /// The newest checkpoints of a pipeline, newest first.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub fn checkpoints(&self, pipeline: &str, limit: usize) -> Result<Vec<CheckpointRecord>, Unknown> {
        let table = self.table();
        let supervised = table.pipelines.get(pipeline).ok_or_else(|| Unknown(pipeline.to_string()))?;
        Ok(supervised.history.newest(limit))
    }

    /// Takes a checkpoint of a pipeline, and waits until it has come out.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub async fn checkpoint(&self, pipeline: &str) -> Result<Answer, Unknown> {
        let (waiter, answer) = oneshot::channel();
        self.ask(pipeline, Request::Checkpoint(waiter))?;
        // One that has ended drops whom it was asked by.
        Ok(answer.await.unwrap_or(Answer::NotRunning))
    }

    /// What the windowed steps of a pipeline have of the key that a text names.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub async fn find(
        &self,
        pipeline: &str,
        key: &str,
    ) -> Result<Result<Vec<(String, OfKey)>, NoAnswer>, Unknown> {
        let (plan, requests, question) = {
            let table = self.table();
            let known = table.pipelines.get(pipeline).ok_or_else(|| Unknown(pipeline.to_owned()))?;
            (known.plan.clone(), known.requests.clone(), known.question.clone())
        };
        let found = async {
            let _one_at_a_time = question.lock().await;
            let (search, request) = Search::new(plan, key)?;
            // One that has ended drops what it is asked.
            let _ = requests.send(request);
            search.found().await
        };
        Ok(tokio::time::timeout(PATIENCE, found).await.unwrap_or(Err(NoAnswer::Busy)))
    }

    /// The daemon's namespace.
    pub fn namespace(&self) -> &str {
        &self.shared.settings.namespace
    }

    /// Takes a checkpoint of a pipeline and keeps a copy of it: the copy, or why there is none.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub async fn savepoint(
        &self,
        pipeline: &str,
        name: String,
    ) -> Result<Result<Savepoint, String>, Unknown> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.ask(pipeline, Request::Savepoint { name, reply })?;
        let gone = |_| Err("the pipeline does not run, or failed before the savepoint was made".to_owned());
        Ok(answer.await.unwrap_or_else(gone))
    }

    /// Asks something of a pipeline; one that has ended does not hear it.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub fn ask(&self, pipeline: &str, request: Request) -> Result<(), Unknown> {
        match self.table().pipelines.get(pipeline) {
            Some(supervised) => {
                supervised.ask(request);
                Ok(())
            }
            None => Err(Unknown(pipeline.to_string())),
        }
    }

    /// Stops a pipeline and waits until it has ended; one that has ended already says how.
    ///
    /// # Errors
    /// If there is no such pipeline.
    pub async fn stop(&self, pipeline: &str, mode: StopMode) -> Result<Outcome, Unknown> {
        tracing::info!(pipeline, ?mode, "stopping, as asked");
        self.ask(pipeline, mode.into())?;
        self.end_of(pipeline).await.ok_or_else(|| Unknown(pipeline.to_string()))
    }
}

impl From<StopMode> for Request {
    fn from(mode: StopMode) -> Request {
        match mode {
            StopMode::Checkpoint => Request::Stop,
            StopMode::Drain => Request::Drain,
            StopMode::Now => Request::Abandon,
        }
    }
}

/// Runs a pipeline. A broken invariant, at which its driver panics, ends this pipeline alone, and leaves word in the log and in the
/// probes.
fn watch_over(pipeline: &str, status: &Status, run: impl FnOnce() -> Outcome) -> Outcome {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let message = format!("a broken invariant stopped the pipeline: {}", said(panic.as_ref()));
        tracing::error!(pipeline, reason = message, "failed; this is a bug of Onceflow");
        let outcome = Outcome::Failed(Failure { kind: ErrorKind::Bug, message });
        status.ended(&outcome);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use onceflow_protocol::coordinator::Phase;

    use super::*;

    #[test]
    fn a_broken_invariant_poisons_one_pipeline() {
        let (metrics, statuses) = (Metrics::new().unwrap(), Statuses::default());
        let status = |name| Status::new(name, statuses.clone(), Arc::new(metrics.pipeline(name).unwrap()));
        let (sound, broken) = (status("sound"), status("broken"));
        for status in [&sound, &broken] {
            status.entered(Phase::Running, None);
        }
        let outcome = watch_over("broken", &broken, || panic!("illegal transition"));
        assert!(
            matches!(&outcome, Outcome::Failed(failure) if failure.kind == ErrorKind::Bug),
            "{outcome:?}"
        );
        assert_eq!(watch_over("sound", &sound, || Outcome::Done), Outcome::Done);
        let all = statuses.all();
        assert_eq!((all[0].state, all[0].ready), ("running", true));
        assert_eq!((all[1].state, all[1].ready), ("failed", false));
        assert!(all[1].detail.ends_with("illegal transition"), "{}", all[1].detail);
    }

    /// A directory of pipelines whose broker is not there: they start, and wait for it.
    struct Fixture {
        dir: tempfile::TempDir,
        metrics: Metrics,
        supervisor: Supervisor,
    }

    impl Fixture {
        fn new(pipelines: &[&str]) -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("settings"), "").unwrap();
            pipelines.iter().for_each(|name| write(&dir, name, ""));
            let inputs =
                Inputs { named: vec![dir.path().to_owned()], config: Some(dir.path().join("settings")) };
            let loaded = inputs.load().unwrap_or_else(|mistakes| panic!("{mistakes}"));
            let metrics = Metrics::new().unwrap();
            let supervisor = Supervisor::start(inputs, loaded, Mode::default(), metrics.clone()).unwrap();
            Fixture { dir, metrics, supervisor }
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> =
                self.supervisor.list().into_iter().map(|status| status.name).collect();
            names.sort();
            names
        }

        fn fingerprint(&self, pipeline: &str) -> u64 {
            self.supervisor.plan(pipeline).unwrap().fingerprint
        }

        fn last_reload(&self) -> String {
            let text = self.metrics.encode().unwrap();
            let line = text.lines().find(|line| line.starts_with("onceflow_config_last_reload_successful "));
            line.unwrap().rsplit(' ').next().unwrap().to_owned()
        }
    }

    fn write(dir: &tempfile::TempDir, name: &str, more: &str) {
        let storage = dir.path().join("storage");
        let text = format!(
            "pipeline: {name}\nkafka: {{ bootstrap_servers: \"127.0.0.1:9\" }}\n\
             checkpoint: {{ storage: \"file://{}\" }}\n\
             sources: {{ in: {{ topics: [a], format: json, schema: {{ x: bigint }} }} }}\n\
             sinks: {{ out: {{ from: in, topic: b, format: json }} }}\n{more}",
            storage.display()
        );
        std::fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(300), future).await.unwrap() })
    }

    #[test]
    fn a_reload_changes_what_changed_and_nothing_else() {
        block_on(async {
            let fixture = Fixture::new(&["a", "b", "c"]);
            let before = [fixture.fingerprint("a"), fixture.fingerprint("b")];
            write(&fixture.dir, "b", "parallelism: 2\n");
            write(&fixture.dir, "d", "");
            std::fs::remove_file(fixture.dir.path().join("c.yaml")).unwrap();
            let done = fixture.supervisor.reload().await.unwrap();
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let expected = Reloaded {
                started: names(&["d"]),
                restarted: names(&["b"]),
                removed: names(&["c"]),
                unchanged: names(&["a"]),
            };
            assert_eq!(done, expected);
            assert_eq!(fixture.names(), ["a", "b", "d"]);
            assert_eq!(fixture.fingerprint("a"), before[0]);
            assert_ne!(fixture.fingerprint("b"), before[1]);
            assert!(!fixture.metrics.encode().unwrap().contains("pipeline=\"c\""));
            fixture.supervisor.close();
            assert_eq!(fixture.supervisor.over().await, vec![Outcome::Done; 3]);
        });
    }

    #[test]
    fn one_mistake_anywhere_and_nothing_changes() {
        block_on(async {
            let fixture = Fixture::new(&["a", "b"]);
            assert_eq!(fixture.last_reload(), "1");
            write(&fixture.dir, "b", "parallelism: 2\n");
            write(&fixture.dir, "c", "paralelism: 2\n");
            let mistakes = fixture.supervisor.reload().await.unwrap_err().to_string();
            assert!(mistakes.contains("c.yaml:6:1:"), "{mistakes}");
            assert_eq!((fixture.names(), fixture.last_reload()), (vec!["a".into(), "b".into()], "0".into()));
            assert_eq!(fixture.supervisor.plan("b").unwrap().parallelism, 1);
            std::fs::remove_file(fixture.dir.path().join("c.yaml")).unwrap();
            assert_eq!(fixture.supervisor.reload().await.unwrap().restarted, ["b"]);
            assert_eq!(fixture.last_reload(), "1");
            fixture.supervisor.close();
            assert!(matches!(fixture.supervisor.reload().await, Err(ReloadError::Stopping)));
            fixture.supervisor.over().await;
        });
    }

    #[test]
    fn what_was_stopped_stays_and_what_failed_is_started_again() {
        block_on(async {
            let fixture = Fixture::new(&["stopped"]);
            write(&fixture.dir, "failed", "");
            let broken = fixture.dir.path().join("failed.yaml");
            let good = std::fs::read_to_string(&broken).unwrap();
            std::fs::write(
                &broken,
                good.replacen(
                    "\" }\n",
                    "\", properties: { security.protocol: ssl, ssl.ca.location: /nowhere.pem } }\n",
                    1,
                ),
            )
            .unwrap();
            let supervisor = &fixture.supervisor;
            assert_eq!(supervisor.reload().await.unwrap().started, ["failed"]);
            assert!(matches!(supervisor.end_of("failed").await, Some(Outcome::Failed(_))));
            assert_eq!(supervisor.stop("stopped", StopMode::Checkpoint).await.unwrap(), Outcome::Done);
            assert!(supervisor.stop("absent", StopMode::Now).await.is_err());
            assert_eq!(supervisor.reload().await.unwrap().unchanged, ["stopped"]);
            assert_eq!(supervisor.list().len(), 2, "what has ended stays on the list");
            std::fs::write(&broken, good).unwrap();
            assert_eq!(supervisor.reload().await.unwrap().restarted, ["failed"]);
            supervisor.close();
            assert_eq!(supervisor.over().await, [Outcome::Done, Outcome::Done]);
        });
    }
}
