//! Logs: where they go and what a line looks like.
//!
//! Lines go to standard error, without any secret that is [known](crate::secrets), so that what a command prints can be piped. `RUST_LOG`, if set, replaces `log.level`, and may
//! set the level of single modules.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::secrets::MaskedLog;
use crate::settings::{Log, LogFormat, LogLevel};

/// Starts logging for the rest of the process. Called once.
///
/// # Errors
///
/// If `RUST_LOG` cannot be understood, or logging was started before.
pub fn start(log: Log) -> anyhow::Result<()> {
    let builder = EnvFilter::builder().with_default_directive(level(log.level).into());
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(directives) => builder.parse(directives)?,
        Err(_) => builder.parse("")?,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || MaskedLog { json: log.format == LogFormat::Json })
        .with_ansi(stderr().is_terminal());
    let started = match log.format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
