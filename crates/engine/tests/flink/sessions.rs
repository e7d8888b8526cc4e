//! Which events Onceflow and Flink judge alike in session windows: see docs/flink.md for those that they do not, and for why.

use std::collections::HashMap;

use onceflow_protocol::WindowSpec;

/// The sessions of a stream so far, all times in milliseconds.
pub struct Sessions {
    gap: i64,
    /// Length of a slice, which is settled as a whole.
    slice: i64,
    lateness: i64,
    /// What ends at or before this is closed.
    frontier: i64,
    /// First event, and last event and gap, by key.
    of_key: HashMap<String, Vec<(i64, i64)>>,
}

impl Sessions {
    pub fn new(gap: i64, lateness: i64) -> Sessions {
        let slice = WindowSpec::session(gap).expect("a gap").every_ms();
        Sessions { gap, slice, lateness, frontier: i64::MIN, of_key: HashMap::new() }
    }

    pub fn watermark(&mut self, watermark: i64) {
        self.frontier = self.frontier.max(watermark - self.lateness);
    }

    /// Adds an event, unless it is one of those that are not judged alike.
    pub fn add(&mut self, key: &str, time: i64) -> bool {
        let Sessions { gap, slice, frontier, .. } = *self;
        let sessions = self.of_key.entry(key.to_owned()).or_default();
        let touches = |(start, end): &(i64, i64)| *start <= time + gap && time <= *end;
        let (touched, rest): (Vec<_>, Vec<_>) = sessions.iter().copied().partition(touches);
        // Flink has closed it; ours may still be waiting for the rest of its slice.
        if touched.iter().any(|(_, end)| *end <= frontier) {
            return false;
        }
        let late_in_flink = touched.is_empty() && time + gap <= frontier;
        let late_in_ours = time - time.rem_euclid(slice) + slice + gap <= frontier;
        if late_in_flink != late_in_ours {
            return false;
        }
        if !late_in_ours {
            let start = touched.iter().map(|(start, _)| *start).min();
            let end = touched.iter().map(|(_, end)| *end).max();
            let grown = (
                start.map_or(time, |start| start.min(time)),
                end.map_or(time + gap, |end| end.max(time + gap)),
            );
            *sessions = rest;
            sessions.push(grown);
        }
        true
    }
}
