//! Records made to do harm, by the thousand in every test run and by the million in `make hostile`: no panic, each accounted for, memory
//! bounded.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::orders::{BASE, Orders};
use onceflow_integration_tests::rng::Rng;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{NewRecord, Producer, each_committed_value};

const PARTITIONS: i32 = 4;

/// How long ten million records may take, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What the daemon may hold at its peak: the pipeline's budget of 64 MiB for state, and 128 MiB for its producer's queue, 64 MiB of
/// fetched records, and the clients, batches and columns around them.
const PEAK: u64 = 768 << 20;

/// Pieces that parsers and decoders trip over.
const PIECES: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\"",
    b"\\",
    b"\0",
    b"\n",
    b"\\u0000",
    b"\\ud800",
    b"\\udfff\\ud800",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xef\xbb\xbf",
    b"null",
    b"true",
    b"-",
    b"-0",
    b"1e999",
    b"1e-999",
    b"0.1e1",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"99999999999999999999999999999999999999999",
    b"0.00000000000000000000000000000000000000001",
    b"NaN",
    b"Infinity",
    b"00",
    b"0x1",
    b"\"amount\":",
    b"\"user_id\":",
    b"\"ts\":",
    b"\"weight\":",
    b"\"customer\":{\"address\":{\"country\":",
    b"\"customer\":null,",
    b"/**/",
    b" ",
    b"\xe2\x80\xa8",
    b"\xf0\x9f\xa6\x80",
];

/// Orders, and what becomes of them in hostile hands. The same for the same seed.
struct Hostile<O> {
    orders: O,
    rng: Rng,
    /// The value before, to splice with.
    last: Vec<u8>,
}

impl<O: Iterator<Item = NewRecord>> Iterator for Hostile<O> {
    type Item = NewRecord;

    fn next(&mut self) -> Option<NewRecord> {
        let mut record = self.orders.next()?;
        let rng = &mut self.rng;
        let mut value = record.value.take().unwrap_or_default();
        let before = std::mem::replace(&mut self.last, value.clone());
        // A fifth stays as it was: good records must come through among the bad ones.
        for _ in 0..rng.below(5) {
            mutate(&mut value, &before, rng);
        }
        record.value = match rng.below(10_000) {
            0..100 => None,
            100..200 => Some(vec![]),
            200..300 => Some((0..rng.below(200)).map(|_| rng.bits() as u8).collect()),
            300..303 => Some([b"{\"user_id\":".repeat(3_000), b"}".repeat(3_000)].concat()),
            303..306 => Some(b"[".repeat(20_000)),
            306..309 => Some([b"{\"user_id\":\"".as_slice(), &b"\\u0041".repeat(30_000), b"\"}"].concat()),
            _ => Some(value),
        };
        record.key = match rng.below(8) {
            0 => None,
            1 => Some(vec![]),
            2 => Some((0..rng.below(40)).map(|_| rng.bits() as u8).collect()),
            _ => record.key,
        };
        record.timestamp = match rng.below(1_000) {
            0 => 0,
            1 => 1,
            2 => BASE - 7_200_000,
            _ => record.timestamp,
        };
        match rng.below(20) {
            0 => record.headers.clear(),
            1 => record.headers.push(("onceflow.reason".into(), Some(b"forged".to_vec()))),
            2 => record.headers.push((String::new(), None)),
            _ => {}
        }
        Some(record)
    }
}

fn mutate(value: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.below(value.len() as u64 + 1) as usize;
    let length = (rng.below(24) as usize).min(value.len() - at);
    match rng.below(7) {
        0 => drop(value.drain(at..at + length)),
        1 => value.truncate(at),
        2 => {
            let piece = PIECES[rng.below(PIECES.len() as u64) as usize];
            value.splice(at..at, piece.iter().copied());
        }
        3 => {
            let piece = PIECES[rng.below(PIECES.len() as u64) as usize];
            value.splice(at..at + length, piece.iter().copied());
        }
        4 => value.extend_from_within(at..at + length),
        5 => {
            let from = rng.below(other.len() as u64 + 1) as usize;
            value.truncate(at);
            value.extend_from_slice(&other[from..]);
        }
        _ => {
            if let Some(byte) = value.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
    }
}

/// The windowed pipeline of the tests over Kafka's timestamps: one year 9999 in a record would make everything after it late.
fn write(scenario: &Scenario) -> PathBuf {
    let settings =
        Settings { parallelism: 2, memory: "64MiB", window: Window::TUMBLING, ..Settings::default() };
    let text = std::fs::read_to_string(scenario.write_windowed(&settings)).unwrap();
    let of_column = "    event_time: { column: ts, unit: ms }\n";
    assert!(text.contains(of_column));
    scenario.write("hostile.yaml", &text.replace(of_column, ""))
}

fn endure(name: &str, records: u64) {
    let scenario = Scenario::new(name);
    scenario.create_topics(PARTITIONS);
    let file = write(&scenario);
    let orders =
        Orders { records, partitions: PARTITIONS, broken_one_in: 0, late_one_in: 0, ..Orders::default() };
    let producer = Producer::new(scenario.kafka, &scenario.input());
    for record in (Hostile { orders: orders.generate(), rng: Rng::new(99), last: vec![] }) {
        producer.send(&record);
    }
    producer.flush();
    eprintln!("{records} hostile records are written");

    let mut daemon = Daemon::start(&scenario, &file, &["--until-end"], &[]);
    let (mut peak, began) = (0, Instant::now());
    let status = loop {
        peak = daemon.peak_memory().unwrap_or(peak);
        if let Some(status) = daemon.poll() {
            break status;
        }
        assert!(began.elapsed() < PATIENCE, "{}", daemon.log_end());
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(0), "{}", daemon.log_end());
    let log = daemon.log();
    assert!(!log.contains("panicked") && !log.contains("broken invariant"), "{}", daemon.log_end());

    let decision = scenario.decisions().pop().expect("no decision");
    let count = |name: &str| decision["counts"][name].as_u64().unwrap();
    let [read, used, filtered, late] = ["in", "used", "filtered", "late"].map(count);
    let [dead, dropped, out] = ["dead", "dropped", "out"].map(count);
    eprintln!("counts: {}; peak memory {} MiB", decision["counts"], peak >> 20);
    assert_eq!(read, records);
    assert_eq!(read, used + filtered + late + dead + dropped);
    assert_eq!(dropped, 0);
    // All fates occur, or the records were not hostile enough, or too much so.
    assert!(
        [used, filtered, late, dead].iter().all(|count| count * 2_000 > records),
        "{}",
        decision["counts"]
    );
    assert_eq!(each_committed_value(scenario.kafka, &scenario.dead_letter(), |_| ()), dead + late);
    let mut in_windows = 0;
    let rows = each_committed_value(scenario.kafka, &scenario.output(), |value| {
        let row: serde_json::Value = serde_json::from_slice(value).unwrap();
        in_windows += row["orders"].as_u64().unwrap();
    });
    assert_eq!((rows, in_windows), (out, used));
    assert!(peak > 0 && peak < PEAK, "{} MiB at the peak", peak >> 20);
}

#[test]
fn hostile_records_are_accounted_for() {
    endure("hostile", 60_000);
}

/// Takes minutes and some 15 GB of disk.
#[test]
#[ignore = "make hostile"]
fn ten_million_hostile_records_are_accounted_for() {
    endure("hostile-millions", 10_000_000);
}
