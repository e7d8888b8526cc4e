//! What can go wrong with state, by what the caller must do.

use super::cold::ColdError;

/// Why an operation on state failed. None of these leaves a batch half applied that the caller may go on from: the epoch
/// is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Bytes that came from a file or from another worker are not what this version writes. Restarting does not help.
    #[error("damaged state: {0}")]
    Damaged(String),
    /// The cold store failed; a restart may help.
    #[error("cold state: {0}")]
    Cold(String),
    /// State of this step has outgrown what a table can number (2³² − 2 groups in a pane).
    #[error("too much state: {0}")]
    TooLarge(String),
    /// The plan let something through that it must not: a broken invariant.
    #[error("broken invariant: {0}")]
    Bug(String),
}

impl From<ColdError> for StateError {
    fn from(error: ColdError) -> StateError {
        match error {
            ColdError::Failed(message) => StateError::Cold(message),
            ColdError::Damaged(message) => StateError::Damaged(message),
        }
    }
}

impl StateError {
    pub(super) fn damaged(what: impl Into<String>) -> StateError {
        StateError::Damaged(what.into())
    }

    pub(super) fn bug(what: impl Into<String>) -> StateError {
        StateError::Bug(what.into())
    }
}
