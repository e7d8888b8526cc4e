//! End-to-end latency at a fixed rate, under `read_committed`: from the instant at which an order is due to the one at which a reader has
//! its answer, on the job that answers every order at once.
//!
//! The producer keeps to a schedule that nothing delays: an order that is sent late, because producer, broker or contender stalled, counts
//! from when it was due (no coordinated omission). All of it is on one machine's monotonic clock. Before a round's figures count, every
//! order must have been answered once, and right.

use std::fs;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicUsize};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message};

use crate::answers::{Cleaned, reader, user};
use crate::cases::{Case, Contender, Job, base};
use crate::contenders::{Bench, Run};
use crate::latency_report::{Figures, curves, table};
use crate::measure::Running;

/// Waiting of every producer for its batches to fill, milliseconds.
pub const LINGER_MS: u32 = 5;
/// A contender has answered its first order by then, and its last.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked whether a contender still runs.
const LOOK: Duration = Duration::from_millis(100);
/// How long the reader looks for answers that should not be there.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// How fast, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Orders a second.
    pub rate: u32,
    /// From the first answer on; does not count.
    pub warm_up: Duration,
    /// After that.
    pub measured: Duration,
}

/// When orders are due: evenly, from an instant on.
#[derive(Clone, Copy)]
struct Schedule {
    began: Instant,
    /// The same on the wall clock, milliseconds.
    began_ms: i64,
    rate: u32,
}

impl Schedule {
    fn due(&self, id: i64) -> Instant {
        self.began + Duration::from_nanos(id as u64 * 1_000_000_000 / u64::from(self.rate))
    }

    /// What the order says itself, milliseconds.
    fn time_ms(&self, id: i64) -> i64 {
        self.began_ms + id * 1000 / i64::from(self.rate)
    }

    /// Orders due before then.
    fn before(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.began);
        (since.as_nanos() * u128::from(self.rate)).div_ceil(1_000_000_000) as i64
    }
}

/// The answer to an order.
struct Answer {
    arrived: Instant,
    user: u32,
    cents: i64,
    time: i64,
}

/// The job, and who does it.
pub fn case() -> Case {
    use Contender::{FlinkHeap, Onceflow, Streams};
    Case {
        name: "latency",
        job: Job::Stateless,
        interval_ms: 100,
        linger_ms: LINGER_MS,
        contenders: vec![Onceflow, FlinkHeap, Streams],
        ..base()
    }
}

/// The table and the picture.
///
/// # Errors
/// A missing, wrong or doubled answer, or a contender that cannot be run.
pub fn measure(bench: &Bench, case: &Case, pace: Pace, rounds: usize) -> Result<(String, String)> {
    let mut all: Vec<(Contender, Vec<Figures>)> = case.contenders.iter().map(|who| (*who, vec![])).collect();
    for round in 1..=rounds {
        for (contender, figures) in &mut all {
            eprintln!("bench: {}, round {round} of {rounds}: {}", case.name, contender.name());
            let name = format!("{}-{contender:?}-{round}", case.name).to_lowercase();
            let one = measure_one(bench, case, *contender, pace, &name);
            figures.push(one.with_context(|| format!("latency of {}", contender.name()))?);
        }
    }
    Ok((table(case, pace, &all), curves(&all)))
}

fn measure_one(
    bench: &Bench,
    case: &Case,
    contender: Contender,
    pace: Pace,
    output: &str,
) -> Result<Figures> {
    let input = format!("{output}-orders");
    bench.create_topic(&input)?;
    bench.create_topic(output)?;
    let dir = bench.work.join(output);
    fs::create_dir_all(&dir)?;
    let run = Run { case, input: &input, orders: None, output, dir: &dir };
    let mut running = Running::start(&mut bench.command(contender, &run)?, &dir.with_extension("log"))?;
    // Orders before this one are sent; it is lowered once it is known where the measurement ends.
    let (end, answered) = (AtomicI64::new(i64::MAX), AtomicUsize::new(0));
    let schedule =
        Schedule { began: Instant::now(), began_ms: chrono::Utc::now().timestamp_millis(), rate: pace.rate };
    let figures = thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&bench.bootstrap, &input, case, schedule, &end));
        let reader = scope.spawn(|| read(&bench.bootstrap, output, &end, &answered));
        let watched = watch(&mut running, schedule, pace, &end, &answered);
        // Whatever went wrong: both threads must end.
        if watched.is_err() {
            end.store(0, Relaxed);
        }
        let late = producer.join().map_err(|_| anyhow!("the producer panicked"))?;
        let answers = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        let (late, answers) = (late?, answers?);
        let (measured, cpu_s, peak_rss) = watched?;
        check(case, schedule, &answers)?;
        let (latencies_ms, rate) = arrivals(schedule, &answers, measured);
        anyhow::Ok(Figures::new(latencies_ms, rate, late.as_secs_f64() * 1e3, cpu_s, peak_rss))
    })?;
    running.end()?;
    fs::remove_dir_all(&dir)?;
    bench.delete_topic(&input)?;
    bench.delete_topic(output)?;
    Ok(figures)
}

/// Sees to it that the measurement begins when the contender is warm and ends in time. The orders that count, CPU seconds that the contender
/// used meanwhile, and its peak memory.
fn watch(
    running: &mut Running,
    schedule: Schedule,
    pace: Pace,
    end: &AtomicI64,
    answered: &AtomicUsize,
) -> Result<(Range<i64>, f64, u64)> {
    while answered.load(Relaxed) == 0 {
        if schedule.began.elapsed() > PATIENCE {
            bail!("no answer within {} s", PATIENCE.as_secs());
        }
        sleep_until(Instant::now() + LOOK, running)?;
    }
    let from = Instant::now() + pace.warm_up;
    let until = from + pace.measured;
    let measured = schedule.before(from)..schedule.before(until);
    end.store(measured.end, Relaxed);
    sleep_until(from, running)?;
    let before = running.cpu_s()?;
    sleep_until(until, running)?;
    Ok((measured, running.cpu_s()? - before, running.peak_rss()?))
}

/// A contender that dies meanwhile ends the measurement.
fn sleep_until(instant: Instant, running: &mut Running) -> Result<()> {
    loop {
        running.check()?;
        let left = instant.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(LOOK));
    }
}

/// Sends the orders as they become due. By how much one was sent too late at most.
fn produce(
    bootstrap: &str,
    topic: &str,
    case: &Case,
    schedule: Schedule,
    end: &AtomicI64,
) -> Result<Duration> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("compression.type", "lz4")
        .set("linger.ms", LINGER_MS.to_string())
        .set("acks", "all")
        .create()?;
    let mut latest = Duration::ZERO;
    for mut order in case.workload(i64::MAX).orders() {
        let due = schedule.due(order.id);
        while due > Instant::now() {
            producer.poll(Duration::ZERO);
            thread::sleep(Duration::from_millis(1));
        }
        // Not before the order is due: only then it is known whether it counts.
        if order.id >= end.load(Relaxed) {
            break;
        }
        order.time = schedule.time_ms(order.id);
        let (user, value) = (order.user_name(), order.json(case.padding));
        producer
            .send(BaseRecord::to(topic).key(&user).payload(&value).timestamp(order.time))
            .map_err(|(error, _)| error)
            .context("the producer of orders")?;
        latest = latest.max(due.elapsed());
    }
    producer.flush(PATIENCE)?;
    Ok(latest)
}

/// Takes in the answers, each at the place of its order, until all are there.
fn read(
    bootstrap: &str,
    topic: &str,
    end: &AtomicI64,
    answered: &AtomicUsize,
) -> Result<Vec<Option<Answer>>> {
    let consumer = reader(bootstrap, topic, &[("fetch.wait.max.ms", "10"), ("fetch.queue.backoff.ms", "1")])?;
    let mut answers: Vec<Option<Answer>> = vec![];
    let (mut heard, mut count) = (Instant::now(), 0);
    loop {
        let wanted = end.load(Relaxed);
        let complete = i64::try_from(count)? >= wanted;
        match consumer.poll(Duration::from_millis(10)) {
            None if complete && heard.elapsed() > AFTERWARDS => return Ok(answers),
            None if heard.elapsed() > PATIENCE => bail!("{count} of {wanted} orders are answered"),
            None => {}
            Some(Err(error)) => return Err(error.into()),
            Some(Ok(message)) => {
                heard = Instant::now();
                let value = message.payload().unwrap_or_default();
                let row: Cleaned = serde_json::from_slice(value)?;
                let place = usize::try_from(row.order_id)?;
                if place >= answers.len() {
                    answers.resize_with(place + 1, || None);
                }
                let answer =
                    Answer { arrived: heard, user: user(row.user_id)?, cents: row.cents, time: row.ts };
                if answers[place].replace(answer).is_some() {
                    bail!("{} is there twice", String::from_utf8_lossy(value));
                }
                count += 1;
                answered.store(count, Relaxed);
            }
        }
    }
}

/// Whether each order that was sent has its one answer.
fn check(case: &Case, schedule: Schedule, answers: &[Option<Answer>]) -> Result<()> {
    for (answer, order) in answers.iter().zip(case.workload(i64::MAX).orders()) {
        let Some(answer) = answer else { bail!("order {} is not answered", order.id) };
        if (answer.user, answer.cents, answer.time) != (order.user, order.cents(), schedule.time_ms(order.id))
        {
            bail!("the answer to order {} is wrong", order.id);
        }
    }
    Ok(())
}

/// Of those that count: milliseconds from due to answered, and answers a second.
fn arrivals(schedule: Schedule, answers: &[Option<Answer>], measured: Range<i64>) -> (Vec<f64>, f64) {
    let arrived: Vec<(i64, Instant)> = (0..)
        .zip(answers)
        .filter(|(id, _)| measured.contains(id))
        .filter_map(|(id, answer)| answer.as_ref().map(|answer| (id, answer.arrived)))
        .collect();
    let latency = |(id, arrived): &(i64, Instant)| {
        arrived.saturating_duration_since(schedule.due(*id)).as_secs_f64() * 1e3
    };
    let (first, last) = (arrived.iter().map(|one| one.1).min(), arrived.iter().map(|one| one.1).max());
    let seconds = first.zip(last).map_or(f64::NAN, |(first, last)| (last - first).as_secs_f64());
    (arrived.iter().map(latency).collect(), arrived.len() as f64 / seconds)
}
