//! Catching up: an hour of event time lies there when the job starts. Wall time, start included, is what counts here; one round, since
//! nothing is subtracted and the runs are long.

use std::collections::HashSet;
use std::fmt::Write as _;

use anyhow::Result;
use onceflow_benches::workload::{ORDERS_A_SECOND, Workload};

use crate::cases::{Case, Contender, base};
use crate::contenders::Bench;
use crate::measure::Cost;
use crate::report::{bars, spread};
use crate::runs;

/// Orders of an hour of event time.
pub const HOUR: i64 = 3_600 * ORDERS_A_SECOND;
/// The job, and who does it.
pub fn case() -> Case {
    use Contender::{FlinkHeap, FlinkRocksdb, Onceflow, Streams};
    Case {
        name: "backlog",
        parallelism: 2,
        contenders: vec![Onceflow, FlinkHeap, FlinkRocksdb, Streams],
        ..base()
    }
}

/// Loads the input, unless others have, measures, and deletes it again: it is large. The table, and the picture.
///
/// # Errors
/// A wrong answer, or a contender that cannot be run.
pub fn measure(
    bench: &Bench,
    case: &Case,
    orders: i64,
    rounds: usize,
    loaded: &mut HashSet<Workload>,
) -> Result<(String, String)> {
    let workload = case.workload(orders);
    if loaded.insert(workload) {
        runs::load(bench, workload)?;
    }
    let mut all: Vec<(Contender, Vec<Cost>)> = case.contenders.iter().map(|who| (*who, vec![])).collect();
    for round in 1..=rounds {
        for (contender, costs) in &mut all {
            eprintln!("bench: {}, round {round} of {rounds}: {}", case.name, contender.name());
            costs.push(runs::run(bench, case, *contender, workload, round)?);
        }
    }
    bench.delete_topic(&runs::input(workload))?;
    loaded.remove(&workload);
    Ok(table(case, orders, &all))
}

fn table(case: &Case, orders: i64, all: &[(Contender, Vec<Cost>)]) -> (String, String) {
    let event_time_s = orders as f64 / ORDERS_A_SECOND as f64;
    let mut text = format!(
        "### {}\n\n{:.0} minutes of event time, {:.1} million orders, {} users, {} windows of a minute, a checkpoint every {} ms, \
         parallelism {}\n\n\
         | | seconds | faster than real time | CPU s | peak RSS, MiB |\n| --- | ---: | ---: | ---: | ---: |\n",
        case.name,
        event_time_s / 60.0,
        orders as f64 / 1e6,
        case.users,
        case.job.name(),
        case.interval_ms,
        case.parallelism
    );
    let mut rows = vec![];
    for (contender, costs) in all {
        let middle = |figure: fn(&Cost) -> f64| spread(&costs.iter().map(figure).collect::<Vec<_>>()).0;
        let wall_s = middle(|cost| cost.wall_s);
        let _ = writeln!(
            text,
            "| {} | {wall_s:.1} | {:.0} × | {:.1} | {:.0} |",
            contender.name(),
            event_time_s / wall_s,
            middle(|cost| cost.cpu_s),
            middle(|cost| cost.peak_rss as f64) / f64::from(1 << 20)
        );
        rows.push((contender.name().to_owned(), wall_s));
    }
    (text, bars("an hour's backlog: time to catch up", "s", &rows))
}
