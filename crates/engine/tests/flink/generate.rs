//! Random cases: streams in order and in disorder, bursts, late events, silent partitions, gaps and window ends to the millisecond,
//! the first days of 1970 and the last of 9999.

use onceflow_protocol::{EventTime, WindowSpec};

use crate::case::{Answer, Case, Event, Step, Windows};
use crate::sessions::Sessions;

pub const KINDS: [&str; 4] = ["tumbling", "hopping", "cumulative", "session"];

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014): a seed says the same next year.
struct Rng(u64);

impl Rng {
    /// From 0 to less than `bound`, which is positive.
    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.unsigned_abs()) as i64
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as i64) as usize]
    }

    /// A millisecond before, none, or one after.
    fn about(&mut self, instant: i64) -> i64 {
        instant + self.below(3) - 1
    }
}

/// A case under way, all times in milliseconds.
struct Maker {
    rng: Rng,
    windows: Windows,
    /// Distance between window ends, or the gap.
    unit: i64,
    /// Length of a window, or the gap.
    size: i64,
    lateness: i64,
    /// The latest event.
    front: i64,
    watermark: i64,
    /// How many partitions have events, from 0 on: the others are silent.
    awake: i64,
    /// Of session windows: leaves out what is not judged alike.
    sessions: Option<Sessions>,
    steps: Vec<Step>,
}

/// One of [`KINDS`], with events that both judge alike; the same for the same seed and number.
pub fn case(kind: &str, seed: u64, number: u64) -> Case {
    generate(kind, seed, number, true)
}

/// The same, with whatever events.
pub fn any_case(kind: &str, seed: u64, number: u64) -> Case {
    generate(kind, seed, number, false)
}

fn generate(kind: &str, seed: u64, number: u64, alike: bool) -> Case {
    let which = KINDS.iter().position(|known| *known == kind).expect("a kind of windows") as u64;
    let mut rng = Rng(seed);
    // Neighbouring seeds have nothing in common, nor have the numbers of one.
    rng.0 =
        (rng.below(i64::MAX) as u64).wrapping_add((number * 4 + which).wrapping_mul(0xd134_2543_de82_ef95));
    let (windows, unit, size) = windows(kind, &mut rng);
    let lateness = rng.one_of(&[0, 0, 0, 1, unit / 2, unit, 3 * unit]);
    let front = match rng.below(4) {
        0 => EventTime::MIN.ms(),
        1 => EventTime::MAX.ms() - 8 * unit,
        _ => 1_700_000_000_000 + rng.below(1_000_000_000),
    };
    let sessions = match windows {
        Windows::Session { gap } if alike => Some(Sessions::new(gap, lateness)),
        _ => None,
    };
    let mut maker = Maker {
        rng,
        windows,
        unit,
        size,
        lateness,
        front,
        watermark: front,
        awake: 3,
        sessions,
        steps: vec![],
    };
    let length = 8 + maker.rng.below(18);
    while (maker.steps.len() as i64) < length {
        maker.step();
    }
    let Maker { steps, .. } = maker;
    let name = format!("{kind}-{seed}-{number}");
    Case { name, windows, lateness, steps, flink: Answer::default(), ours: Answer::default() }
}

/// With the distance between window ends, and their length.
fn windows(kind: &str, rng: &mut Rng) -> (Windows, i64, i64) {
    if kind == "session" {
        let gap = rng.one_of(&[1, 7, 8, 80, 1_000, 10_007, 30_000, 1_800_000]);
        return (Windows::Session { gap }, gap, gap);
    }
    let every = rng.one_of(&[1, 7, 100, 1_000, 10_007, 60_000, 3_600_000, 86_400_000]);
    let size = every * if kind == "tumbling" { 1 } else { rng.one_of(&[1, 2, 2, 3, 4, 6]) };
    let period = if kind == "cumulative" { size } else { every };
    let offset = match rng.below(3) {
        0 => rng.below(period),
        1 => -rng.below(period),
        _ => 0,
    };
    let windows = match kind {
        "tumbling" => Windows::Tumbling { size, offset },
        "hopping" => Windows::Hopping { size, every, offset },
        _ => Windows::Cumulative { size, every, offset },
    };
    (windows, every, size)
}

impl Maker {
    fn step(&mut self) {
        let unit = self.unit;
        match self.rng.below(19) {
            0..=3 => {
                let time = self.front + self.rng.below(unit / 2 + 2);
                self.event(time);
            }
            4 => {
                let time = self.front + self.rng.below(unit + 1);
                (0..3 + self.rng.below(3)).for_each(|_| self.event(time));
            }
            5 | 6 => {
                let time = self.front - self.rng.below(2 * unit + 2);
                self.event(time);
            }
            7 => {
                let near = self.front - unit + self.rng.below(2 * unit);
                let time = self.rng.about(self.end_before(near));
                self.event(time);
            }
            8 => {
                let time = self.rng.about(self.front + unit);
                self.event(time);
            }
            9 => {
                let time = self.front + unit * (1 + self.rng.below(4));
                self.event(time);
            }
            10 | 11 => {
                let time = self.watermark - self.lateness - self.rng.below(2 * self.size + unit + 2);
                self.event(time);
            }
            12 | 13 => {
                // An event of a window that has just closed, or just not.
                let end = self.end_before(self.watermark - self.lateness);
                let instant = self.rng.one_of(&[end, end - self.size]);
                let time = self.rng.about(instant);
                self.event(time);
            }
            14 => self.awake = 1 + self.rng.below(3),
            _ => self.watermark(),
        }
    }

    fn event(&mut self, time: i64) {
        let time = time.clamp(EventTime::MIN.ms(), EventTime::MAX.ms());
        let key = self.rng.one_of(&["a", "a", "b", "c"]);
        let event = Event { key: key.to_owned(), time, value: self.rng.below(200) - 50 };
        let partition = self.rng.below(self.awake) as i32;
        if self.sessions.as_mut().is_none_or(|sessions| sessions.add(key, time)) {
            self.front = self.front.max(time);
            self.steps.push(Step::Event { partition, event });
        }
    }

    fn watermark(&mut self) {
        let unit = self.unit;
        let time = match self.rng.below(6) {
            0 | 1 => self.front - self.rng.below(2 * unit + 1),
            2 => self.rng.about(self.front),
            3 | 4 => {
                let near = self.front + self.rng.below(unit + 1);
                self.rng.about(self.end_before(near) + self.lateness)
            }
            // A promise that is less than the one before says nothing.
            _ => self.watermark - self.rng.below(2 * unit + 1),
        };
        self.watermark = self.watermark.max(time);
        self.sessions.iter_mut().for_each(|sessions| sessions.watermark(time));
        self.steps.push(Step::Watermark(time));
    }

    /// The last end of a window, or of a slice of sessions, at or before an instant.
    fn end_before(&self, instant: i64) -> i64 {
        let (every, offset) = match self.windows {
            Windows::Tumbling { size, offset } => (size, offset),
            Windows::Hopping { every, offset, .. } | Windows::Cumulative { every, offset, .. } => {
                (every, offset)
            }
            Windows::Session { gap } => (WindowSpec::session(gap).expect("a gap").every_ms(), 0),
        };
        instant - (instant - offset).rem_euclid(every)
    }
}
