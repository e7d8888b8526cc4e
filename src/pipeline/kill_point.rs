//! Named points at which the process kills itself, armed by the environment: `ONCEFLOW_KILL_AT=after-snapshot:3` dies by SIGKILL
//! the third time that it gets there. They are in the shipped binary, so that what is tested is what runs.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms a point.
pub const VARIABLE: &str = "ONCEFLOW_KILL_AT";

/// A place between two steps of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// The claim is committed, nothing has been read yet.
    AfterClaim,
    /// The start offsets of a new pipeline are committed.
    AfterEpochZero,
    /// A savepoint's files are back among the checkpoints, nothing is decided.
    AfterImport,
    /// Workers are frozen, no byte of the snapshot is written.
    BeforeSnapshot,
    /// The snapshot is durable, the decision has not been sent.
    AfterSnapshot,
    /// The decision has been sent, the transaction is open.
    AfterDecision,
    /// The transaction is committed, and nobody but the producer knows.
    AfterCommit,
    /// The `confirmed` object is written.
    AfterConfirmed,
    /// Retired files are about to be deleted.
    BeforeRetire,
}

impl KillPoint {
    /// The name that arms it.
    pub fn name(self) -> &'static str {
        match self {
            KillPoint::AfterClaim => "after-claim",
            KillPoint::AfterEpochZero => "after-epoch-zero",
            KillPoint::AfterImport => "after-import",
            KillPoint::BeforeSnapshot => "before-snapshot",
            KillPoint::AfterSnapshot => "after-snapshot",
            KillPoint::AfterDecision => "after-decision",
            KillPoint::AfterCommit => "after-commit",
            KillPoint::AfterConfirmed => "after-confirmed",
            KillPoint::BeforeRetire => "before-retire",
        }
    }

    /// Dies here if this point is armed and its turn has come.
    pub fn pass(self) {
        let armed = ARMED.get_or_init(|| Armed::from_environment(std::env::var(VARIABLE).ok().as_deref()));
        if let Some(armed) = armed
            && armed.name == self.name()
            && armed.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            tracing::warn!(point = armed.name, "killing this process, as the environment asked");
            // SAFETY: kill and getpid have no preconditions; SIGKILL ends this process before kill returns.
            unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        }
    }
}

static ARMED: OnceLock<Option<Armed>> = OnceLock::new();

#[derive(Debug)]
struct Armed {
    name: String,
    left: AtomicU64,
}

impl Armed {
    fn from_environment(value: Option<&str>) -> Option<Armed> {
        let (name, times) = match value?.split_once(':') {
            Some((name, times)) => (name, times.parse().unwrap_or(1)),
            None => (value?, 1),
        };
        Some(Armed { name: name.to_string(), left: AtomicU64::new(times) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_a_point_and_a_turn() {
        let armed = Armed::from_environment(Some("after-commit:3")).unwrap();
        assert_eq!((armed.name.as_str(), armed.left.into_inner()), ("after-commit", 3));
        let armed = Armed::from_environment(Some("after-claim")).unwrap();
        assert_eq!(armed.left.into_inner(), 1);
        assert!(Armed::from_environment(None).is_none());
    }
}
