//! Columns on a terminal, and times as people read them.

use std::fmt;

use chrono::{DateTime, SecondsFormat};

use crate::pipeline::wall_clock_ms;

/// Rows under a heading, each column as wide as it must be.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading without rows.
    pub fn new<const N: usize>(heads: [&str; N]) -> Table {
        Table { rows: vec![heads.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// What is not known is a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// An instant, milliseconds since 1970, in UTC.
pub fn instant(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms);
    time.map_or_else(|| ms.to_string(), |time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// How long ago an instant was.
pub fn ago(ms: i64) -> String {
    format!("{} ago", lasting(wall_clock_ms() - ms))
}

/// A duration in milliseconds, in its two largest units.
pub fn lasting(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    match seconds {
        0 => format!("{} ms", ms.max(0)),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["A", "LONG", "C"]);
        table.row(["ä".to_owned(), "1".to_owned(), String::new()]);
        assert_eq!(table.to_string(), "A  LONG  C\nä  1\n");
    }

    #[test]
    fn times_for_people() {
        assert_eq!(instant(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(instant(i64::MIN), i64::MIN.to_string());
        let lasts = [-5, 999, 61_000, 3_660_000, 90_000_000].map(lasting);
        assert_eq!(lasts, ["0 ms", "999 ms", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
