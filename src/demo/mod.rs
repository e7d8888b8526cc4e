//! `onceflow demo`: a pipeline under load that is killed again and again, and the proof that nothing is lost or doubled.
//!
//! ```text
//! generator ─▶ orders ─▶ `onceflow run` (a child process, killed with -9) ─▶ totals, dead letters
//!                 │                                                            │
//!                 └──────────▶ fold, less the late ones ══ must equal ══ read_committed reader
//! ```
//!
//! Guarantee: exit code 0 means that every statement of the proof holds. The fold, the readers and the generator share no code with the
//! engine. Topics, pipeline and directories are fresh in every run, named after it, and removed when the proof holds; after a failure
//! they stay, and the demo says where.

mod fold;
mod generator;
mod progress;
mod proof;
mod victim;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};

use crate::kafka::plain::{Follower, Plain};
use generator::Generator;
use progress::{Progress, grouped};
use proof::Counts;
use victim::Victim;

/// How the demo runs.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example: onceflow demo --bootstrap localhost:9092 --records 500000")]
pub struct DemoArgs {
    /// The Kafka to use; topics of its own are created there and removed again
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092", env = "KAFKA_BOOTSTRAP_SERVERS")]
    pub bootstrap: String,
    /// How many orders to write
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    pub records: u64,
    /// How many orders to write per second
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    pub rate: u64,
    /// How often to kill the pipeline
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..))]
    pub kills: u64,
    /// How many partitions the topic of the orders gets
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// The same seed writes the same orders
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// The pipeline's checkpoint interval, as in `pipeline.yaml`.
const INTERVAL: Duration = Duration::from_millis(200);
/// An armed pipeline that has not died by its own hand after this long without progress is killed from outside.
const STUCK: Duration = Duration::from_secs(5);

/// One run: where everything of it is.
pub struct Run {
    kafka: Plain,
    bootstrap: String,
    pipeline: String,
    orders: String,
    totals: String,
    dead_letter: String,
    control: String,
    dir: PathBuf,
}

/// Runs the demo; the exit code is 0 only if every statement of the proof holds.
pub fn run(args: &DemoArgs) -> Result<ExitCode> {
    let run = Run::create(args)?;
    let judged = run.perform(args);
    if matches!(judged, Ok(true)) {
        run.remove();
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "The pipeline's log and checkpoints stay in {}, its topics begin with {}.",
        run.dir.display(),
        run.pipeline
    );
    judged.map(|_| ExitCode::FAILURE)
}

impl Run {
    fn create(args: &DemoArgs) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        let pipeline = format!("demo-{}-{}", now.as_secs(), std::process::id());
        let dir = std::env::temp_dir().join(format!("onceflow-{pipeline}"));
        std::fs::create_dir(&dir).with_context(|| format!("creating {}", dir.display()))?;
        std::fs::write(dir.join("pipeline.yaml"), include_str!("pipeline.yaml"))?;
        let topic = |suffix: &str| format!("{pipeline}.{suffix}");
        let run = Self {
            kafka: Plain::new(&args.bootstrap),
            bootstrap: args.bootstrap.clone(),
            orders: topic("orders"),
            totals: topic("totals"),
            dead_letter: topic("dead-letter"),
            control: format!("onceflow.{pipeline}.control"),
            pipeline,
            dir,
        };
        let created = run.kafka.create_topics(&[
            (&run.orders, args.partitions),
            (&run.totals, args.partitions),
            (&run.dead_letter, 1),
        ]);
        if created.is_err() {
            run.remove_directory();
        }
        created.map(|()| run)
    }

    /// What `pipeline.yaml` refers to.
    fn variables(&self) -> [(&'static str, String); 7] {
        let backend = if cfg!(feature = "rocksdb") { "rocksdb" } else { "memory" };
        [
            ("DEMO_PIPELINE", self.pipeline.clone()),
            ("DEMO_BOOTSTRAP", self.bootstrap.clone()),
            ("DEMO_ORDERS", self.orders.clone()),
            ("DEMO_TOTALS", self.totals.clone()),
            ("DEMO_DEAD_LETTER", self.dead_letter.clone()),
            ("DEMO_DIR", self.dir.display().to_string()),
            ("DEMO_BACKEND", backend.to_owned()),
        ]
    }

    /// Everything from the first order to the last statement: whether all of them hold.
    fn perform(&self, args: &DemoArgs) -> Result<bool> {
        let mut progress = Progress::new();
        progress.say(&format!(
            "onceflow demo: {} orders at {} a second, a checkpoint every {} ms, and kill -9, {} times",
            grouped(args.records),
            grouped(args.rate),
            INTERVAL.as_millis(),
            args.kills
        ));
        let mut orders = Orders::start(self, args)?;
        let mut decided = Decided { follower: self.kafka.follow(&self.control)?, counts: Counts::default() };
        for kill in 1..=args.kills {
            let how = self.one_death(args, kill, &mut orders, &mut decided, &mut progress)?;
            let at = grouped(decided.counts.read);
            progress.say(&format!("  death {kill} of {}, {at} orders committed: {how}", args.kills));
        }
        let written = orders.finish(|sent| {
            progress.show(|| format!("{} of {} orders written", grouped(sent), grouped(args.records)));
        })?;
        progress.say("  all orders written; the last start works through the rest and closes every window");
        self.finish(args, &mut decided, &mut progress)?;
        progress.show(|| "reading everything back …".to_owned());
        let statements = proof::prove(self, written)?;
        progress.say("The proof, by readers that share no code with the pipeline:");
        for statement in &statements {
            let sign = if statement.holds { "✓" } else { "✗" };
            progress.say(&format!("  {sign} {:<8}{}", statement.about, statement.text));
        }
        let holds = statements.iter().all(|statement| statement.holds);
        progress.say(if holds { "Nothing lost, nothing doubled." } else { "The proof FAILED." });
        Ok(holds)
    }

    /// Starts the pipeline and sees it die, from outside or at a kill point; says how.
    fn one_death(
        &self,
        args: &DemoArgs,
        kill: u64,
        orders: &mut Orders,
        decided: &mut Decided,
        progress: &mut Progress,
    ) -> Result<&'static str> {
        // Every other death happens exactly between a snapshot and its commit, about half-way through its share of the orders.
        let share = Duration::from_secs_f64(args.records as f64 / args.rate as f64 / (args.kills + 1) as f64);
        let checkpoints = (share.as_millis() / INTERVAL.as_millis() / 2).clamp(1, 20);
        let (point, how) = match kill % 4 {
            0 => (Some("after-decision"), "by itself, the decision sent but not committed"),
            2 => (Some("after-snapshot"), "by itself, between snapshot and commit"),
            _ => (None, "kill -9"),
        };
        let point = point.map(|name| format!("{name}:{checkpoints}"));
        let mut victim = Victim::start(self, &[], point.as_deref())?;
        let goal = args.records * kill / (args.kills + 1);
        let before = decided.counts.read;
        let mut moved = (Instant::now(), before);
        loop {
            std::thread::sleep(Duration::from_millis(10));
            decided.follow()?;
            let read = decided.counts.read;
            progress.show(|| {
                let percent = 100 * read / args.records;
                let (sent, read) = (grouped(orders.sent()), grouped(read));
                format!(
                    "{percent:>3} %  {sent} written, {read} committed, {} of {} deaths",
                    kill - 1,
                    args.kills
                )
            });
            orders.must_not_have_failed()?;
            if read != moved.1 {
                moved = (Instant::now(), read);
            }
            if point.is_none() {
                victim.must_run(self)?;
                // A pipeline that has caught up with everything written makes no progress to wait for.
                if (read >= goal && read > before) || (orders.all_sent() && moved.0.elapsed() > STUCK) {
                    victim.kill()?;
                    return Ok(how);
                }
            } else if let Some(status) = victim.ended()? {
                if std::os::unix::process::ExitStatusExt::signal(&status) != Some(9) {
                    bail!("the pipeline ended by itself ({status}); its log ends with\n{}", self.log_end());
                }
                return Ok(how);
            } else if orders.all_sent() && moved.0.elapsed() > STUCK {
                victim.kill()?;
                return Ok("kill -9, with nothing left to do");
            }
        }
    }

    /// Runs the pipeline to the end of its input.
    fn finish(&self, args: &DemoArgs, decided: &mut Decided, progress: &mut Progress) -> Result<()> {
        let mut victim = Victim::start(self, &["--until-end"], None)?;
        let mut moved = (Instant::now(), decided.counts.read);
        loop {
            std::thread::sleep(Duration::from_millis(10));
            decided.follow()?;
            let read = decided.counts.read;
            progress.show(|| format!("{} of {} orders committed", grouped(read), grouped(args.records)));
            match victim.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => victim.must_run(self)?,
                None => {}
            }
            if read != moved.1 {
                moved = (Instant::now(), read);
            }
            if moved.0.elapsed() > Duration::from_secs(120) {
                bail!("the pipeline does not come to its end; its log ends with\n{}", self.log_end());
            }
        }
    }

    /// The last lines of the pipeline's log.
    fn log_end(&self) -> String {
        let bytes = std::fs::read(self.dir.join("pipeline.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    fn remove(&self) {
        // Leftovers of a successful run are untidy, no failure.
        let _ = self.kafka.delete_topics(&[&self.orders, &self.totals, &self.dead_letter, &self.control]);
        self.remove_directory();
    }

    fn remove_directory(&self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The newest decision's counts, as they arrive.
struct Decided {
    follower: Follower,
    counts: Counts,
}

impl Decided {
    fn follow(&mut self) -> Result<()> {
        self.follower.drain(|record| self.counts = Counts::of(record).unwrap_or(self.counts))
    }
}

/// The thread that writes the orders.
struct Orders {
    thread: Option<JoinHandle<Result<u64>>>,
    sent: Arc<AtomicU64>,
    records: u64,
}

impl Orders {
    fn start(run: &Run, args: &DemoArgs) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
        // Event time starts two hours ago, so that nothing lies in the future.
        let base_ms = now.as_millis() as i64 - 2 * 3_600_000;
        let mut generator = Generator::new(args.seed, args.records, base_ms);
        let producer = run.kafka.producer(&run.orders)?;
        let sent = Arc::new(AtomicU64::new(0));
        let (counter, rate) = (Arc::clone(&sent), args.rate);
        let write = move || -> Result<u64> {
            let start = Instant::now();
            let mut count = 0;
            while let Some(order) = generator.next() {
                producer.send(order.key, order.value, order.timestamp)?;
                count += 1;
                if count % 256 == 0 {
                    counter.store(count, Ordering::Relaxed);
                    let due = Duration::from_secs_f64(count as f64 / rate as f64);
                    std::thread::sleep(due.saturating_sub(start.elapsed()));
                }
            }
            producer.flush()?;
            counter.store(count, Ordering::Relaxed);
            Ok(count)
        };
        let thread = std::thread::Builder::new().name("orders".into()).spawn(write)?;
        Ok(Self { thread: Some(thread), sent, records: args.records })
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn all_sent(&self) -> bool {
        self.sent() == self.records
    }

    /// The thread's error, if it has given up.
    fn must_not_have_failed(&mut self) -> Result<()> {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) && !self.all_sent() {
            self.join()?;
            bail!("not all orders were written");
        }
        Ok(())
    }

    /// Waits until all orders are written, and returns how many.
    fn finish(mut self, mut meanwhile: impl FnMut(u64)) -> Result<u64> {
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            meanwhile(self.sent());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.join()
    }

    fn join(&mut self) -> Result<u64> {
        let thread = self.thread.take().context("the orders have failed before")?;
        thread.join().map_err(|_| anyhow!("the thread that writes the orders panicked"))?
    }
}
