//! A delay that follows the disorder, beside fixed ones, on a stream whose disorder changes. `docs/sources.md` shows the table that
//! `cargo test -p onceflow-protocol --test percentile -- --nocapture` prints.

use onceflow_protocol::{Delay, NextOffset, PartitionClock};

/// Numbers that look random and are the same every time (Marsaglia, "Xorshift RNGs", 2003).
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A record a millisecond. One of ten is late by a time that is distributed exponentially: its mean is 20 ms at first, grows to 200 ms in the
/// course of the stream, and is ten times as long in bursts, which make up a fifth of it.
fn stream() -> Vec<i64> {
    const RECORDS: i64 = 2_000_000;
    let mut random = Random(88_172_645_463_325_252);
    let time = |now: i64| {
        let drift = 20.0 + 180.0 * now as f64 / RECORDS as f64;
        let mean = if now / 100_000 % 5 == 4 { 10.0 * drift } else { drift };
        let late = if random.next() < 0.1 { -(1.0 - random.next()).ln() * mean } else { 0.0 };
        100_000 + now - late as i64
    };
    (0..RECORDS).map(time).collect()
}

/// How many of a hundred records came behind the watermark, and how far that was behind on average, milliseconds.
fn measure(times: &[i64], delay: Delay) -> (f64, f64) {
    let mut clock = PartitionClock::new(NextOffset(0), None, delay, None);
    let (mut late, mut waited, mut newest) = (0, 0, i64::MIN);
    for (batch, times) in times.chunks(500).enumerate() {
        let watermark = clock.watermark().map_or(i64::MIN, |watermark| watermark.0);
        late += times.iter().filter(|time| **time < watermark).count();
        newest = times.iter().copied().fold(newest, i64::max);
        clock.observe(times);
        clock.advance(NextOffset(500 * (batch as i64 + 1)), Some(newest)).unwrap();
        waited += newest - clock.watermark().unwrap().0;
    }
    (100.0 * late as f64 / times.len() as f64, waited as f64 / (times.len() / 500) as f64)
}

#[test]
fn a_delay_that_follows_the_disorder_is_late_as_seldom_as_asked_and_waits_no_longer_than_needed() {
    let times = stream();
    println!("| watermark | late records | mean wait |\n| --- | ---: | ---: |");
    let row = |name: &str, delay: Delay| {
        let (late, waited) = measure(&times, delay);
        println!("| `{name}` | {late:.2} % | {waited:.0} ms |");
        (late, waited)
    };
    let percentile = |cover_ppm| Delay::Percentile { cover_ppm, min_ms: 0, max_ms: 60_000 };
    row("{ delay: 100ms }", Delay::Fixed(100));
    let second = row("{ delay: 1s }", Delay::Fixed(1_000));
    let long = row("{ delay: 10s }", Delay::Fixed(10_000));
    let followed = row("{ percentile: 99, max: 1m }", percentile(990_000));
    let closely = row("{ percentile: 99.9, max: 1m }", percentile(999_000));
    // Where a burst begins, the first of its records are late.
    assert!(followed.0 < 2.0 && closely.0 < 0.5, "{followed:?} {closely:?}");
    assert!(followed.1 < second.1 && closely.1 < long.1 / 2.0, "{followed:?} {closely:?}");
}
