//! One scenario's run: its numbers, its words, and its end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, Instant};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::kafka::Kafka;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::rng::Rng;
use onceflow_integration_tests::scenario::Scenario;
use onceflow_integration_tests::topic::{Isolation, Live, read_all};
use onceflow_integration_tests::verify::{Verdict, verify};

/// How long the daemon may take to get back after a fault has ended: a start waits for its predecessor's transaction to time out,
/// and two such waits can follow each other.
pub const RECOVERY: Duration = Duration::from_secs(240);

/// A run of a scenario: few rounds, or, where `ONCEFLOW_CHAOS` is `long`, many.
pub struct Run {
    name: &'static str,
    began: Instant,
    long: bool,
    /// The scenario's own numbers: the same for the same `ONCEFLOW_CHAOS_SEED`.
    pub rng: Rng,
}

impl Run {
    /// Begins a scenario.
    pub fn begin(name: &'static str) -> Run {
        let seed =
            std::env::var("ONCEFLOW_CHAOS_SEED").ok().map(|seed| seed.parse().expect("a seed is a number"));
        let seed: u64 = seed.unwrap_or(1);
        let long = std::env::var("ONCEFLOW_CHAOS").is_ok_and(|length| length == "long");
        let salt = name.bytes().fold(0u64, |salt, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
        let run = Run { name, began: Instant::now(), long, rng: Rng::new(seed ^ salt << 32) };
        run.event(format_args!("begins with seed {seed}"));
        run
    }

    /// The number of rounds, or whatever differs between a short run and a long one.
    pub fn either<T>(&self, short: T, long: T) -> T {
        if self.long { long } else { short }
    }

    /// Says what happens.
    pub fn event(&self, what: impl Display) {
        eprintln!("chaos {:>6.1} s  {}: {what}", self.began.elapsed().as_secs_f64(), self.name);
    }

    /// A time up to `most_ms` milliseconds.
    pub fn moment(&mut self, most_ms: u64) -> Duration {
        Duration::from_millis(self.rng.below(most_ms + 1))
    }

    /// Topics on the brokers that all scenarios share, with 3,000 orders a second.
    pub fn under_load(self, orders: Orders) -> Stage {
        self.stage(Kafka::shared(), orders, 3_000)
    }

    /// Brokers of the scenario's own, to be hurt, with 1,500 orders a second. They live until the scenario has held: a failed one's logs
    /// stay until the process ends.
    pub fn on_own_brokers(self, nodes: usize, settings: &[&str], orders: Orders) -> Stage {
        Stage { own_brokers: true, ..self.stage(own_brokers(nodes, settings), orders, 1_500) }
    }

    fn stage(mut self, kafka: &'static Kafka, orders: Orders, per_second: u64) -> Stage {
        let scenario = Scenario::on(kafka, self.name);
        scenario.create_topics(4);
        let orders = Orders { seed: self.rng.bits(), ..orders };
        let live = Live::start(kafka, &scenario.input(), per_second, orders.endless());
        Stage { run: self, scenario, live, own_brokers: false }
    }

    /// The summary: what held, and what it went through.
    pub fn held(&self, scenario: &Scenario, verdict: &Verdict, what: impl Display) {
        let Verdict { input, rows, late, broken } = verdict;
        eprintln!(
            "chaos: {} held: {what}; {input} orders in, {rows} rows out, {late} late, {broken} broken, {} decisions, {} records in \
             aborted transactions; none lost, none doubled; {:.0} s",
            self.name,
            newest_epoch(scenario),
            hidden(scenario),
            self.began.elapsed().as_secs_f64(),
        );
    }

    /// The summary of a scenario whose outcome is a refusal or a stop.
    pub fn held_clearly(&self, what: impl Display) {
        eprintln!("chaos: {} held: {what}; {:.0} s", self.name, self.began.elapsed().as_secs_f64());
    }
}

/// A pipeline's surroundings: topics of its own, to which orders are written until the scenario settles.
pub struct Stage {
    /// The scenario's numbers and words.
    pub run: Run,
    /// Its topics and directories.
    pub scenario: Scenario,
    live: Live,
    own_brokers: bool,
}

impl Stage {
    /// Ends the load, waits until the daemon has committed everything, stops it, closes all windows by a bounded run, and compares.
    pub fn settle(self, file: &Path, mut daemon: Daemon) -> Settled {
        let Stage { run, scenario, live, own_brokers } = self;
        let restarts = restarts(&mut daemon);
        let sent = live.stop();
        run.event(format_args!("the load has ended after {sent} orders; waiting for the daemon"));
        drain(&scenario, &mut daemon);
        daemon.stop();
        Daemon::run_until_end(&scenario, file);
        let verdict = verify(&scenario, Window::TUMBLING);
        Settled { run, scenario, verdict, restarts, own_brokers }
    }
}

/// A scenario whose output equals the fold of its input.
pub struct Settled {
    run: Run,
    /// Its topics, to ask whether the faults ever bit.
    pub scenario: Scenario,
    verdict: Verdict,
    restarts: BTreeMap<&'static str, u64>,
    own_brokers: bool,
}

impl Settled {
    /// Says what it went through, and ends brokers of its own.
    pub fn held(self, what: impl Display) {
        let Settled { run, scenario, verdict, restarts, own_brokers } = self;
        run.held(&scenario, &verdict, format_args!("{what}, the last daemon's restarts {restarts:?}"));
        if own_brokers {
            end(scenario.kafka);
        }
    }
}

/// Brokers of a scenario's own, that live until they are ended, or the process does.
pub fn own_brokers(nodes: usize, settings: &[&str]) -> &'static Kafka {
    Box::leak(Box::new(Kafka::start_cluster(nodes, settings)))
}

/// Ends the brokers of a scenario that is over: that saves memory.
pub fn end(kafka: &Kafka) {
    (1..=kafka.nodes()).for_each(|node| kafka.kill(node));
}

/// Waits until `more` records were committed to the control topic, by whoever it was.
pub fn commits(scenario: &Scenario, daemon: &mut Daemon, more: i64) {
    let end = || scenario.kafka.end_offset(&scenario.control(), 0);
    let before = end().unwrap_or(0);
    daemon.within(RECOVERY, "to commit", |_| {
        std::thread::sleep(Duration::from_millis(20));
        // A decision and its marker are two.
        end().filter(|end| *end >= before + 2 * more)
    });
}

/// Waits until everything that was written is behind a decision.
pub fn drain(scenario: &Scenario, daemon: &mut Daemon) {
    daemon.within(RECOVERY, "to read everything", |_| {
        std::thread::sleep(Duration::from_millis(500));
        scenario.is_drained().then_some(())
    });
}

/// Why the daemon began anew, and how often, as its metrics say.
pub fn restarts(daemon: &mut Daemon) -> BTreeMap<&'static str, u64> {
    let kinds = ["retry", "epoch_failed", "fenced", "outcome_unknown"];
    // No such series means none; no answer, on a machine that is busy, means nothing.
    daemon.eventually_alive("to tell its metrics", |daemon| daemon.metric("onceflow_build_info", &[]));
    let count = |kind: &str| daemon.metric("onceflow_restarts_total", &[&format!("reason=\"{kind}\"")]);
    kinds.into_iter().filter_map(|kind| Some((kind, count(kind)? as u64))).filter(|(_, n)| *n > 0).collect()
}

/// The epoch of the newest decision: as many were committed.
fn newest_epoch(scenario: &Scenario) -> u64 {
    scenario.decisions().last().and_then(|decision| decision["epoch"].as_u64()).unwrap_or(0)
}

/// Long names and many open panes: far more than 8 MiB of groups, so that there is something to evict and to store all the time.
pub fn many_groups() -> Orders {
    Orders { users: 8_000, name_length: 160, step_ms: 5, ..Orders::default() }
}

/// Output and dead letters that only a reader without transactions sees: what the faults left behind.
pub fn hidden(scenario: &Scenario) -> usize {
    let of = |topic: &str| {
        let all = read_all(scenario.kafka, topic, Isolation::Uncommitted).len();
        all - scenario.committed(topic).len()
    };
    of(&scenario.output()) + of(&scenario.dead_letter())
}
