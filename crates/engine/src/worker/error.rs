//! Why a worker stops.

use arrow::error::ArrowError;
use onceflow_protocol::ErrorKind;

use crate::state::StateError;

/// Why a worker cannot go on. Whatever it had done of the epoch must not be committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WorkerError {
    /// What the caller must do.
    pub kind: ErrorKind,
    /// What happened, for people: it names the record or the file.
    pub message: String,
}

impl WorkerError {
    pub(crate) fn data(message: String) -> WorkerError {
        WorkerError { kind: ErrorKind::Data, message }
    }

    pub(crate) fn bug(message: impl Into<String>) -> WorkerError {
        WorkerError { kind: ErrorKind::Bug, message: message.into() }
    }
}

impl From<StateError> for WorkerError {
    fn from(error: StateError) -> WorkerError {
        let kind = match &error {
            StateError::Damaged(_) => ErrorKind::Data,
            StateError::Cold(_) => ErrorKind::EpochFailed,
            StateError::TooLarge(_) => ErrorKind::Config,
            StateError::Bug(_) => ErrorKind::Bug,
        };
        WorkerError { kind, message: error.to_string() }
    }
}

/// Arrow only fails where columns are not what the plan says: what a record can cause is caught before.
impl From<ArrowError> for WorkerError {
    fn from(error: ArrowError) -> WorkerError {
        WorkerError::bug(error.to_string())
    }
}
