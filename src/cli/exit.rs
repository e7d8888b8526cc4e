//! How a command ends the process.

use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use crate::daemon;

/// Ends the process without what C++ runs at a process's end: threads that were left behind in a call, or that are still closing their
/// store, would find RocksDB's locks destroyed, and abort instead.
pub fn leave(code: u8) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code.into()) }
}

/// The exit code of a command, or its error on standard error.
pub fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("onceflow: {error:#}");
        ExitCode::FAILURE
    })
}

/// Mistakes in files or settings: what is wrong, and the exit code for it.
pub fn refuse(mistakes: &impl Display) -> ExitCode {
    eprint!("{mistakes}");
    ExitCode::from(daemon::CONFIG)
}
