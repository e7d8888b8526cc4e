//! `bench HERE BINARIES PEERS BOOTSTRAP BROKER OUT [OPTION]…`: measures Onceflow beside its peers and the limit.
//!
//! CPU time of the whole process (not the broker's) per record, as the slope between two sizes of input, so that starting up cancels out.
//! All contenders of a case take turns, round by round. What they wrote is compared with a fold of the input first: a wrong answer ends the
//! measurement. Then latency at a fixed rate (`latency.rs`) and catching up (`backlog.rs`), with the same care. Tables go to standard output and to `OUT/figures.md`, pictures to `OUT/*.svg`.

mod answers;
mod api;
mod backlog;
mod cases;
mod checkpoints;
mod contenders;
mod crowd;
mod groups;
mod history;
mod latency;
mod latency_report;
mod measure;
mod options;
mod pacing;
mod recovery;
mod recovery_report;
mod report;
mod runs;
mod series;

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use onceflow_benches::workload::Workload;

use self::cases::{Case, Contender};
use self::contenders::Bench;
use self::options::{Options, Part, USAGE};
use self::report::Figures;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [here, binaries, peers, bootstrap, broker, out, rest @ ..] = arguments.as_slice() else {
        bail!("usage: bench HERE BINARIES PEERS BOOTSTRAP BROKER OUT {USAGE}");
    };
    let options = options::parse(rest)?;
    let out = PathBuf::from(out);
    let bench = Bench {
        here: here.into(),
        binaries: binaries.into(),
        peers: peers.into(),
        work: out.join("work"),
        bootstrap: bootstrap.clone(),
        broker: broker.parse().context("BROKER")?,
    };
    fs::create_dir_all(&bench.work)?;
    let mut loaded = HashSet::new();
    let mut measured = vec![];
    let mut text = String::new();
    if options.quick {
        text.push_str("**A quick run: two rounds of one case. Indicative only.**\n\n");
    }
    for part in &options.parts {
        let (name, table, picture) = match part {
            Part::Throughput(case) => {
                let figures = measure_case(&bench, case, &options, &mut loaded)?;
                let bars: Vec<_> = figures
                    .iter()
                    .map(|figures| (figures.contender.name().to_owned(), report::spread(&figures.cpu).0))
                    .collect();
                let picture = report::bars(&format!("{}: CPU per record", case.name), "µs", &bars);
                let table = report::table(case, &figures);
                measured.push((case.clone(), figures));
                (case.name, table, picture)
            }
            Part::Latency(case) => {
                let (table, picture) =
                    latency::measure(&bench, case, options.pace, options.rounds.unwrap_or(3))?;
                (case.name, table, picture)
            }
            Part::Backlog(case) => {
                let rounds = options.rounds.unwrap_or(1);
                let (table, picture) =
                    backlog::measure(&bench, case, options.backlog_orders, rounds, &mut loaded)?;
                (case.name, table, picture)
            }
            Part::Recovery(recovery) => {
                let recovery = recovery.with_users(options.users);
                let (table, picture) =
                    recovery::measure(&bench, &recovery, options.rounds.unwrap_or(recovery::ROUNDS))?;
                (recovery.case.name, table, picture)
            }
            Part::Checkpoints(case) => {
                let users = options.users.unwrap_or(checkpoints::USERS);
                let (table, picture) = checkpoints::measure(&bench, case, users, options.pace.measured)?;
                (case.name, table, picture)
            }
        };
        println!("{table}");
        text.push_str(&table);
        text.push('\n');
        fs::write(out.join(name).with_extension("svg"), picture)?;
        // What was measured so far outlives whatever happens to the rest.
        fs::write(out.join("figures.md"), &text)?;
    }
    for (name, picture) in series::pictures(&measured) {
        fs::write(out.join(name).with_extension("svg"), picture)?;
    }
    eprintln!("bench: {} has the tables and the pictures", out.display());
    Ok(())
}

fn measure_case(
    bench: &Bench,
    case: &Case,
    options: &Options,
    loaded: &mut HashSet<Workload>,
) -> Result<Vec<Figures>> {
    let rounds = options.rounds.unwrap_or(5);
    let inputs = options.sizes.map(|orders| case.workload(orders));
    for workload in inputs {
        if loaded.insert(workload) {
            runs::load(bench, workload)?;
        }
    }
    let none = |contender: &Contender| Figures {
        contender: *contender,
        cpu: vec![],
        broker: vec![],
        paused: vec![],
        small_cpu: vec![],
        rate: vec![],
        rss: vec![],
    };
    let mut all: Vec<Figures> = case.contenders.iter().map(none).collect();
    for round in 1..=rounds {
        for figures in &mut all {
            eprintln!("bench: {}, round {round} of {}: {}", case.name, rounds, figures.contender.name());
            let [small, large] = [
                runs::run(bench, case, figures.contender, inputs[0], round)?,
                runs::run(bench, case, figures.contender, inputs[1], round)?,
            ];
            let more = (inputs[1].orders - inputs[0].orders) as f64;
            figures.cpu.push((large.cpu_s - small.cpu_s) * 1e6 / more);
            figures.broker.push((large.broker_s - small.broker_s) * 1e6 / more);
            figures.small_cpu.push(small.cpu_s);
            figures.paused.extend(large.paused);
            figures.rate.push(more / (large.wall_s - small.wall_s));
            figures.rss.push(large.peak_rss as f64);
        }
    }
    Ok(all)
}
