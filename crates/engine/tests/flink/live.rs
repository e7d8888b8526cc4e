//! With a real Flink, which `scripts/flink-diff` provides.

use std::path::Path;
use std::process::Command;

use crate::case::parse;
use crate::{DIFFERENCES, assert_same, generate};

/// Cases of each kind that are recorded.
const RECORDED_OF_A_KIND: u64 = 80;
/// Their seed.
const RECORDED_SEED: u64 = 1;

/// A variable that the script has set.
fn variable(name: &str) -> String {
    let value = std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: use scripts/flink-diff"));
    value.into_string().expect("text")
}

/// The same cases with Flink's answers.
fn ask_flink(cases: &str) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let [given, answered] = ["given", "answered"].map(|name| directory.path().join(name));
    std::fs::write(&given, cases).expect("a file");
    let mut java = Command::new("java");
    // Jobs this small are over before a better compiler has paid off.
    java.args(["-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    java.arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=error");
    // Flink unpacks libraries there.
    java.arg(format!("-Djava.io.tmpdir={}", directory.path().display()));
    // Flink's serializers look into these.
    for package in ["java.util", "java.lang", "java.time"] {
        java.arg(format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
    }
    java.arg("-cp").arg(variable("FLINK_CLASSPATH")).arg("FlinkAnswers").args([&given, &answered]);
    assert!(java.status().expect("java").success(), "Flink has failed");
    std::fs::read_to_string(answered).expect("Flink's answers")
}

fn generated(kind: &str, seed: u64, cases: u64) -> String {
    (0..cases).fold(String::new(), |text, number| format!("{text}{}\n", generate::case(kind, seed, number)))
}

#[test]
#[ignore = "runs Flink: scripts/flink-diff"]
fn live() {
    let [seed, cases] = ["SEED", "CASES"].map(|name| variable(name).parse::<u64>().expect("a number"));
    let of_a_kind = cases.div_ceil(generate::KINDS.len() as u64);
    for kind in generate::KINDS {
        eprintln!("flink-diff: {of_a_kind} cases with {kind} windows, seed {seed}");
        let cases = parse(&ask_flink(&generated(kind, seed, of_a_kind)));
        assert_eq!(cases.len() as u64, of_a_kind);
        assert_same(&cases);
        let (mut rows, mut late) = (0, 0);
        for case in &cases {
            rows += case.flink.last(case.windows).rows.len();
            late += case.flink.late.len();
        }
        eprintln!("flink-diff: {kind}: {rows} rows and {late} late events are the same");
    }
    let known = parse(DIFFERENCES);
    let answered = parse(&ask_flink(DIFFERENCES));
    for (known, answered) in known.iter().zip(&answered) {
        assert_eq!(known.flink, answered.flink, "Flink answers otherwise than is recorded: `{}`", known.name);
    }
    eprintln!("flink-diff: {} known differences are as recorded", known.len());
}

#[test]
#[ignore = "writes files: scripts/flink-diff record"]
fn record() {
    let directory = Path::new("tests/flink");
    for kind in generate::KINDS {
        eprintln!("flink-diff: recording {RECORDED_OF_A_KIND} cases with {kind} windows");
        let answered = ask_flink(&generated(kind, RECORDED_SEED, RECORDED_OF_A_KIND));
        std::fs::write(directory.join(format!("recorded/{kind}.txt")), answered).expect("a file");
    }
    eprintln!("flink-diff: recording the differences");
    std::fs::write(directory.join("differences.txt"), ask_flink(DIFFERENCES)).expect("a file");
}
