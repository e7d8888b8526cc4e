//! What the demo prints while it works: one line that changes on a terminal, a line every few seconds in a pipe.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The progress line.
pub struct Progress {
    terminal: bool,
    last: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Prints to standard output.
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), last: None, shown: false }
    }

    /// Shows the state of affairs, not more often than a reader can follow.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let every = if self.terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        let mut out = std::io::stdout().lock();
        // A closed pipe is no reason to stop half-way through a proof.
        let _ = match self.terminal {
            true => write!(out, "\r\x1b[K  {}", text()).and_then(|()| out.flush()),
            false => writeln!(out, "  {}", text()),
        };
        self.shown = self.terminal;
    }

    /// Prints a line that stays.
    pub fn say(&mut self, text: &str) {
        let mut out = std::io::stdout().lock();
        let clear = if self.shown { "\r\x1b[K" } else { "" };
        let _ = writeln!(out, "{clear}{text}");
        self.shown = false;
    }
}

/// A number with its thousands apart: 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
