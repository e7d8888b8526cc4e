//! A case as text: what happens, and what came out.
//!
//! ```text
//! case NAME tumbling|hopping|cumulative|session size=60000 every=20000 offset=0 gap=0 lateness=5000
//! event PARTITION KEY TIME VALUE
//! watermark TIME                     no event before that instant comes any more; and a barrier
//! ours row|late|refused …            where Onceflow answers otherwise than Flink: all that it answers
//! row KEY START END COUNT SUM        Flink's answer: a row that it emitted, in the order in which it did
//! late KEY TIME VALUE                an event that it called late
//! ```
//!
//! Times are milliseconds since the epoch. Behind the last step everything closes.

use std::fmt::{Display, Formatter, Result};

/// What happens to one window.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub windows: Windows,
    /// Milliseconds.
    pub lateness: i64,
    pub steps: Vec<Step>,
    pub flink: Answer,
    /// Empty where ours is Flink's.
    pub ours: Answer,
}

/// All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    Tumbling { size: i64, offset: i64 },
    Hopping { size: i64, every: i64, offset: i64 },
    Cumulative { size: i64, every: i64, offset: i64 },
    Session { gap: i64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Event { partition: i32, event: Event },
    Watermark(i64),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    pub key: String,
    pub time: i64,
    pub value: i64,
}

/// What a window has come to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub key: String,
    pub start: i64,
    pub end: i64,
    pub count: i64,
    pub sum: i64,
}

/// What came out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// In the order in which they were emitted.
    pub rows: Vec<Row>,
    pub late: Vec<Event>,
    /// Dead letters for another reason: that, the key, and what tells them apart. Flink has none.
    pub refused: Vec<String>,
}

/// The cases of a file.
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["case", name, kind, sizes @ ..] = &words[..] {
            cases.push(Case::new(name, kind, sizes));
            continue;
        }
        let case = cases.last_mut().expect("a case comes first");
        match &words[..] {
            ["event", partition, event @ ..] => {
                let partition = partition.parse().expect("a partition");
                case.steps.push(Step::Event { partition, event: Event::of(event) });
            }
            ["watermark", time] => case.steps.push(Step::Watermark(number(time))),
            ["ours", answer @ ..] => case.ours.add(answer),
            answer => case.flink.add(answer),
        }
    }
    cases
}

fn number(word: &str) -> i64 {
    word.parse().unwrap_or_else(|_| panic!("`{word}` is no number"))
}

impl Case {
    fn new(name: &str, kind: &str, sizes: &[&str]) -> Case {
        let size = |wanted: &str| {
            let sizes = sizes.iter().map(|size| size.split_once('=').expect("NAME=MS"));
            sizes.into_iter().find(|(name, _)| *name == wanted).map_or(0, |(_, ms)| number(ms))
        };
        let (all, every, offset) = (size("size"), size("every"), size("offset"));
        let windows = match kind {
            "tumbling" => Windows::Tumbling { size: all, offset },
            "hopping" => Windows::Hopping { size: all, every, offset },
            "cumulative" => Windows::Cumulative { size: all, every, offset },
            "session" => Windows::Session { gap: size("gap") },
            _ => panic!("no windows are `{kind}`"),
        };
        let lateness = size("lateness");
        let [flink, ours] = [Answer::default(), Answer::default()];
        Case { name: name.to_owned(), windows, lateness, steps: vec![], flink, ours }
    }
}

impl Event {
    fn of(words: &[&str]) -> Event {
        let [key, time, value] = words else { panic!("{words:?} is no event") };
        Event { key: (*key).to_owned(), time: number(time), value: number(value) }
    }
}

impl Row {
    /// Whether it says what an earlier row of the same key has said, better. A session that has grown has taken all that it overlaps.
    fn replaces(&self, earlier: &Row, windows: Windows) -> bool {
        let same_window = match windows {
            Windows::Session { .. } => self.start <= earlier.start && earlier.end <= self.end,
            _ => (self.start, self.end) == (earlier.start, earlier.end),
        };
        self.key == earlier.key && same_window
    }
}

impl Answer {
    fn add(&mut self, words: &[&str]) {
        match words {
            ["row", key, numbers @ ..] => {
                let numbers: Vec<i64> = numbers.iter().map(|word| number(word)).collect();
                let [start, end, count, sum] = numbers[..] else { panic!("{words:?} is no row") };
                self.rows.push(Row { key: (*key).to_owned(), start, end, count, sum });
            }
            ["late", event @ ..] => self.late.push(Event::of(event)),
            ["refused", letter @ ..] => self.refused.push(letter.join(" ")),
            _ => panic!("{words:?} is no answer"),
        }
    }

    /// Without the rows that a later one replaces.
    pub fn last(&self, windows: Windows) -> Answer {
        let is_last = |(place, row): &(usize, &Row)| {
            !self.rows[place + 1..].iter().any(|later| later.replaces(row, windows))
        };
        let rows = self.rows.iter().enumerate().filter(is_last).map(|(_, row)| row.clone());
        Answer { rows: rows.collect(), ..self.clone() }
    }

    /// A line for each thing that came out, in an order of its own.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.to_string().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "case {} ", self.name)?;
        match self.windows {
            Windows::Tumbling { size, offset } => write!(f, "tumbling size={size} offset={offset}")?,
            Windows::Hopping { size, every, offset } => {
                write!(f, "hopping size={size} every={every} offset={offset}")?;
            }
            Windows::Cumulative { size, every, offset } => {
                write!(f, "cumulative size={size} every={every} offset={offset}")?;
            }
            Windows::Session { gap } => write!(f, "session gap={gap}")?,
        }
        writeln!(f, " lateness={}", self.lateness)?;
        for step in &self.steps {
            match step {
                Step::Event { partition, event } => writeln!(f, "event {partition} {event}")?,
                Step::Watermark(time) => writeln!(f, "watermark {time}")?,
            }
        }
        self.ours.to_string().lines().try_for_each(|line| writeln!(f, "ours {line}"))?;
        self.flink.fmt(f)
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {} {}", self.key, self.time, self.value)
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        for Row { key, start, end, count, sum } in &self.rows {
            writeln!(f, "row {key} {start} {end} {count} {sum}")?;
        }
        self.late.iter().try_for_each(|event| writeln!(f, "late {event}"))?;
        self.refused.iter().try_for_each(|letter| writeln!(f, "refused {letter}"))
    }
}
