//! What a command shows while it waits: one line that changes, on a terminal only.

use std::io::{IsTerminal, Write, stderr};

/// The line. It is gone when this is dropped.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Progress {
        Progress { terminal: stderr().is_terminal() }
    }

    /// Says what is being done now.
    pub fn show(&self, what: &str) {
        if self.terminal {
            let mut out = stderr().lock();
            // That nobody reads it is no reason to stop.
            let _ = write!(out, "\r\x1b[K{what} …").and_then(|()| out.flush());
        }
    }

    /// Takes the line away, before something is printed that stays.
    pub fn clear(&self) {
        if self.terminal {
            let mut out = stderr().lock();
            let _ = write!(out, "\r\x1b[K").and_then(|()| out.flush());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
