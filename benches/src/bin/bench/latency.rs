//! End-to-end latency at a fixed rate, under `read_committed`: from the instant at which an order is due to the one at which a reader has
//! its answer, on the job that answers every order at once.
//!
//! The producer keeps to a schedule that nothing delays: an order that is sent late, because producer, broker or contender stalled, counts
//! from when it was due (no coordinated omission). All of it is on one machine's monotonic clock. Before a round's figures count, every
//! order must have been answered once, and right.

use std::fs;
use std::ops::Range;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::cases::{Case, Contender, Job, base};
use crate::contenders::{Bench, Run};
use crate::latency_report::{Figures, curves, table};
use crate::measure::Running;
use crate::pacing::{Answer, Schedule, produce, read};

/// Waiting of every producer for its batches to fill, milliseconds.
const LINGER_MS: u32 = 5;
/// A contender has caught up with what piled up while it started when its answers are younger than that.
const CAUGHT_UP_MS: i64 = 1_000;
/// Time limit of its catching up, and of silence.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often it is looked whether a contender still runs.
const LOOK: Duration = Duration::from_millis(100);

/// How fast, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Orders a second.
    pub rate: u32,
    /// From when a contender has caught up with the orders since its start; does not count.
    pub warm_up: Duration,
    /// After that.
    pub measured: Duration,
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
            let one = one.with_context(|| format!("latency of {}", contender.name()))?;
            eprintln!("bench: {one}");
            figures.push(one);
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
    let (end, age_ms) = (AtomicI64::new(i64::MAX), AtomicI64::new(i64::MAX));
    let schedule = Schedule::now(pace.rate);
    let figures = thread::scope(|scope| {
        let producer = scope.spawn(|| produce(&bench.bootstrap, &input, case, schedule, &end));
        let reader = scope.spawn(|| read(&bench.bootstrap, output, schedule, &end, &age_ms));
        let watched = watch(&mut running, schedule, pace, &end, &age_ms);
        // Whatever went wrong: both threads must end.
        if watched.is_err() {
            end.store(0, Relaxed);
        }
        let written = producer.join().map_err(|_| anyhow!("the producer panicked"))?;
        let answers = reader.join().map_err(|_| anyhow!("the reader panicked"))?;
        let (written, answers) = (written?, answers?);
        let (measured, cpu_s, peak_rss) = watched?;
        check(case, schedule, &answers)?;
        let written_ms = written.into_iter().filter(|(id, _)| measured.contains(id)).map(|(_, ms)| ms);
        let written_ms = written_ms.collect();
        let (latencies_ms, rate) = arrivals(schedule, &answers, measured);
        anyhow::Ok(Figures::new(latencies_ms, written_ms, rate, cpu_s, peak_rss))
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
    age_ms: &AtomicI64,
) -> Result<(Range<i64>, f64, u64)> {
    while age_ms.load(Relaxed) > CAUGHT_UP_MS {
        if schedule.began.elapsed() > PATIENCE {
            bail!("not caught up with {} orders/s within {} s", pace.rate, PATIENCE.as_secs());
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
