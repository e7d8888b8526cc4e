//! What the caller of something that failed must do. Causes are for people and live in messages;
//! kinds are for code, and there are only as many of them as there are different reactions.

use std::fmt;

/// The consequence of an error for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing happened and nothing is broken: wait and repeat the same call, within the epoch's time limit.
    Retry,
    /// The current epoch cannot be completed: throw away clients, workers and in-memory state, and take the
    /// one recovery path, within the restart strategy.
    EpochFailed,
    /// The broker knows a newer producer epoch. Never answer by fencing: the newest claim tells whether the
    /// broker timed out our own transaction (start again) or another instance took over (stop, and name it).
    Fenced,
    /// The transaction may or may not have been committed: recover, and believe only the decision that is
    /// read back.
    OutcomeUnknown,
    /// A person must change a setting, a topic or a permission. Never restarted automatically.
    Config,
    /// A record or an offset is the cause and would be again after a restart. Never restarted automatically.
    Data,
    /// An invariant of ours is broken: stop this pipeline at once, before it writes anything wrong. Never
    /// restarted automatically.
    Bug,
}

impl ErrorKind {
    /// Whether a pipeline that ended with this kind may be started again without anyone's help. `Fenced`
    /// may, but only after the look at the newest claim that it demands.
    pub const fn restartable(self) -> bool {
        matches!(self, Self::Retry | Self::EpochFailed | Self::Fenced | Self::OutcomeUnknown)
    }

    /// The kind's name in logs, metrics and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::EpochFailed => "epoch_failed",
            Self::Fenced => "fenced",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Config => "config",
            Self::Data => "data",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
