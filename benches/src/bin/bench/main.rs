//! `bench HERE BINARIES PEERS BOOTSTRAP OUT [--quick | --case NAME… | --rounds N]`: measures Onceflow beside its peers and the limit.
//!
//! CPU time of the whole process (not the broker's) per record, as the slope between two sizes of input, so that starting up cancels out.
//! All contenders of a case take turns, round by round. What they wrote is compared with a fold of the input first: a wrong answer ends the
//! measurement. Tables go to standard output and to `OUT/figures.md`, pictures to `OUT/*.svg`.

mod answers;
mod cases;
mod contenders;
mod measure;
mod report;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use onceflow_benches::workload::Workload;

use self::cases::{Case, Contender, cases};
use self::contenders::{Bench, Run};
use self::measure::Cost;
use self::report::Figures;

/// Orders in the two inputs.
const SIZES: [i64; 2] = [2_000_000, 8_000_000];
/// How often a peer may run until its answer is right.
const PEER_ATTEMPTS: usize = 3;
const QUICK_SIZES: [i64; 2] = [1_000_000, 4_000_000];

struct Options {
    cases: Vec<Case>,
    sizes: [i64; 2],
    rounds: usize,
    quick: bool,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [here, binaries, peers, bootstrap, out, rest @ ..] = arguments.as_slice() else {
        bail!("usage: bench HERE BINARIES PEERS BOOTSTRAP OUT [--quick] [--case NAME]… [--rounds N]");
    };
    let options = options(rest)?;
    let out = PathBuf::from(out);
    let bench = Bench {
        here: here.into(),
        binaries: binaries.into(),
        peers: peers.into(),
        work: out.join("work"),
        bootstrap: bootstrap.clone(),
    };
    fs::create_dir_all(&bench.work)?;
    let mut loaded = HashSet::new();
    let mut text = String::new();
    if options.quick {
        text.push_str("**A quick run: two rounds of one case. Indicative only.**\n\n");
    }
    for case in &options.cases {
        let figures = measure_case(&bench, case, &options, &mut loaded)?;
        let table = report::table(case, &figures);
        println!("{table}");
        text.push_str(&table);
        text.push('\n');
        let bars: Vec<_> = figures
            .iter()
            .map(|figures| (figures.contender.name().to_owned(), report::spread(&figures.cpu).0))
            .collect();
        let picture = report::bars(&format!("{}: CPU per record", case.name), "µs", &bars);
        fs::write(out.join(case.name).with_extension("svg"), picture)?;
        // What was measured so far outlives whatever happens to the rest.
        fs::write(out.join("figures.md"), &text)?;
    }
    eprintln!("bench: {} has the tables and the pictures", out.display());
    Ok(())
}

fn options(rest: &[String]) -> Result<Options> {
    let all = cases();
    let mut options = Options { cases: vec![], sizes: SIZES, rounds: 5, quick: false };
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--quick" => {
                let quick = [Contender::Loop, Contender::Decode, Contender::Onceflow, Contender::FlinkHeap];
                options.cases = vec![Case { contenders: quick.to_vec(), ..all[0].clone() }];
                (options.sizes, options.rounds, options.quick) = (QUICK_SIZES, 2, true);
            }
            "--case" => {
                let name = words.next().context("--case NAME")?;
                let known: Vec<_> = all.iter().map(|case| case.name).collect();
                let case = all.iter().find(|case| case.name == name);
                options
                    .cases
                    .push(case.with_context(|| format!("no case {name}; there are {known:?}"))?.clone());
            }
            "--rounds" => options.rounds = words.next().context("--rounds N")?.parse()?,
            other => bail!("{other}: --quick, --case NAME or --rounds N"),
        }
    }
    if options.cases.is_empty() {
        options.cases = all;
    }
    Ok(options)
}

fn measure_case(
    bench: &Bench,
    case: &Case,
    options: &Options,
    loaded: &mut HashSet<Workload>,
) -> Result<Vec<Figures>> {
    let inputs = options.sizes.map(|orders| case.workload(orders));
    for workload in inputs {
        if loaded.insert(workload) {
            load(bench, workload)?;
        }
    }
    let none = |contender: &Contender| Figures {
        contender: *contender,
        cpu: vec![],
        small_cpu: vec![],
        rate: vec![],
        rss: vec![],
    };
    let mut all: Vec<Figures> = case.contenders.iter().map(none).collect();
    for round in 1..=options.rounds {
        for figures in &mut all {
            eprintln!(
                "bench: {}, round {round} of {}: {}",
                case.name,
                options.rounds,
                figures.contender.name()
            );
            let [small, large] = [
                run(bench, case, figures.contender, inputs[0], round)?,
                run(bench, case, figures.contender, inputs[1], round)?,
            ];
            let more = (inputs[1].orders - inputs[0].orders) as f64;
            figures.cpu.push((large.cpu_s - small.cpu_s) * 1e6 / more);
            figures.small_cpu.push(small.cpu_s);
            figures.rate.push(more / (large.wall_s - small.wall_s));
            figures.rss.push(large.peak_rss as f64);
        }
    }
    Ok(all)
}

fn input(workload: Workload) -> String {
    format!("orders-{}-{}-{}", workload.orders, workload.users, workload.padding)
}

fn load(bench: &Bench, workload: Workload) -> Result<()> {
    let topic = input(workload);
    eprintln!("bench: loading {topic}");
    bench.create_topic(&topic)?;
    let Workload { orders, users, padding } = workload;
    let mut command = Command::new(bench.binaries.join("load"));
    command.args([&bench.bootstrap, &topic]).args([
        orders.to_string(),
        users.to_string(),
        padding.to_string(),
    ]);
    measure::run(&mut command, &bench.work.join("load.log")).map(drop)
}

/// A run whose answer is right. A peer whose answer is not runs again: Flink was seen to close its first window before it had read from every
/// partition. Ours may not be wrong once.
fn run(bench: &Bench, case: &Case, contender: Contender, workload: Workload, round: usize) -> Result<Cost> {
    let attempts = if contender == Contender::Onceflow { 1 } else { PEER_ATTEMPTS };
    let mut attempt = 1;
    loop {
        let name =
            format!("{}-{contender:?}-{}-{round}-{attempt}", case.name, workload.orders).to_lowercase();
        match run_once(bench, case, contender, workload, &name) {
            Err(error) if attempt < attempts => eprintln!("bench: {error:#}: this run counts for nothing"),
            result => return result,
        }
        attempt += 1;
    }
}

fn run_once(
    bench: &Bench,
    case: &Case,
    contender: Contender,
    workload: Workload,
    output: &str,
) -> Result<Cost> {
    let dir: &Path = &bench.work.join(output);
    fs::create_dir_all(dir)?;
    if contender.answers() {
        bench.create_topic(output)?;
    }
    let run = Run { case, input: &input(workload), orders: workload.orders, output, dir };
    let cost = measure::run(&mut bench.command(contender, &run)?, &dir.with_extension("log"))?;
    if contender.answers() {
        answers::check(&bench.bootstrap, output, contender, case, workload)
            .with_context(|| format!("the answer of {} in {output} is not right", contender.name()))?;
    }
    fs::remove_dir_all(dir)?;
    Ok(cost)
}
