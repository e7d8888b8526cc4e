//! From librdkafka's error codes to what the caller must do.
//!
//! Guarantee: every code that librdkafka can return stands in [`TABLE`] exactly once (a test walks it), and
//! no other place of the program decides what a code means. A code that a newer broker sends and this
//! librdkafka does not know counts as [`Code::Unknown`], which fails the epoch: recovery is always safe.
//!
//! The table gives a code's own meaning; three flags of librdkafka's errors correct it ([`classify`]): what
//! is fatal or demands an abort cannot be repeated with this client, and what is retriable can be.
//! [`ErrorKind::OutcomeUnknown`] is in no table: it does not depend on the code but on the call, and only the
//! commit sets it.
//!
//! Fatal errors arrive as `_FATAL` with the cause hidden behind a second call; the client looks it up before
//! it asks this table. A broker that timed out our own transaction looks exactly like a second instance
//! (`_FENCED`): the kind is the same, and the newest claim tells the two apart.

use std::fmt;

use onceflow_protocol::ErrorKind;

use super::advice;
use super::permissions::{Operation, Resource};
pub use rdkafka_sys::RDKafkaErrorCode as Code;

/// An error of this layer.
#[derive(Clone, Debug, thiserror::Error)]
pub struct KafkaError {
    /// What the caller must do.
    pub kind: ErrorKind,
    /// What we were doing, with topic, partition and offset where they matter.
    pub what: String,
    /// librdkafka's code, where there is one.
    pub code: Option<Code>,
    /// What librdkafka or the broker said about it.
    pub message: String,
    /// What to do about it, where more is known than that.
    pub advice: Option<String>,
}

/// The result of this layer's calls.
pub type Result<T> = std::result::Result<T, KafkaError>;

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.message)?;
        if let Some(code) = self.code {
            write!(f, " ({code:?})")?;
        }
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl KafkaError {
    /// An error that librdkafka returned as a bare code.
    pub(super) fn from_code(what: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self::from_flags(what, code, Flags::default(), message)
    }

    /// An error that librdkafka returned with flags.
    pub(super) fn from_flags(
        what: impl Into<String>,
        code: Code,
        flags: Flags,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        let message = if message.is_empty() { describe(code) } else { message };
        let code = advice::telling_code(code, &message);
        let advice = advice::property(code, &message).map(str::to_owned);
        Self { kind: classify(code, flags), what: what.into(), code: Some(code), message, advice }
    }

    /// A mistake in settings, topics or permissions that this layer found itself.
    pub(crate) fn config(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::without_code(ErrorKind::Config, what, message)
    }

    /// A broken invariant of this layer.
    pub fn bug(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::without_code(ErrorKind::Bug, what, message)
    }

    fn without_code(kind: ErrorKind, what: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, what: what.into(), code: None, message: message.into(), advice: None }
    }

    /// Nothing was wrong but the deadline passed.
    pub(super) fn timed_out(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Retry,
            what: what.into(),
            code: Some(Code::OperationTimedOut),
            message: message.into(),
            advice: None,
        }
    }

    /// Says what to grant, if that is what the broker refused.
    pub(super) fn needing(self, operation: Operation, resource: &Resource) -> Self {
        let missing = self.code.and_then(|code| advice::permission(code, operation, resource));
        Self { advice: missing.or(self.advice), ..self }
    }

    /// Whether the broker refused it for want of an ACL.
    pub fn is_unauthorized(&self) -> bool {
        let codes = [
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::TransactionalIdAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
        ];
        self.code.is_some_and(|code| codes.contains(&code))
    }

    /// Lets pass, with a line in the log, what librdkafka repairs by itself.
    pub(super) fn unless_repaired(self) -> Result<()> {
        if self.kind == ErrorKind::Retry {
            tracing::debug!(error = %self, "the Kafka client will try again");
            return Ok(());
        }
        Err(self)
    }

    /// The same error with another consequence, where the call and not the code decides.
    pub(super) fn with_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }
}

/// What librdkafka says about an error besides its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// The client instance is unusable.
    pub fatal: bool,
    /// The same call may be repeated.
    pub retriable: bool,
    /// The current transaction cannot be committed any more.
    pub requires_abort: bool,
}

/// What the caller must do about a code that came with these flags.
pub(super) fn classify(code: Code, flags: Flags) -> ErrorKind {
    let hopeless = flags.fatal || flags.requires_abort;
    match kind_of(code) {
        ErrorKind::Retry if hopeless => ErrorKind::EpochFailed,
        ErrorKind::EpochFailed if flags.retriable && !hopeless => ErrorKind::Retry,
        kind => kind,
    }
}

/// The meaning of a bare code.
pub(super) fn kind_of(code: Code) -> ErrorKind {
    TABLE.iter().find(|(_, codes)| codes.contains(&code)).map_or(ErrorKind::EpochFailed, |(kind, _)| *kind)
}

/// librdkafka's own words for a code.
pub(super) fn describe(code: Code) -> String {
    let text = code.to_string();
    match text.split_once(" (").and_then(|(_, rest)| rest.strip_suffix(')')) {
        Some(description) => description.to_owned(),
        None => text,
    }
}

/// A code as a number, as it comes from structures that a broker filled.
pub(super) fn code_of(number: i32) -> Code {
    rdkafka_sys::RDKafkaRespErr::try_from(number).map_or(Code::Unknown, Code::from)
}

use ErrorKind::{Bug, Config, Data, EpochFailed, Fenced, Retry};

/// The one table. Codes that librdkafka only uses inside itself are classed as `Bug`: seeing one means that
/// we use the library wrongly.
const TABLE: &[(ErrorKind, &[Code])] = &[
    (
        // The client repairs these by itself, or the same call may be made again.
        Retry,
        &[
            Code::BrokerTransportFailure,
            Code::Resolve,
            Code::AllBrokersDown,
            Code::OperationTimedOut,
            Code::QueueFull,
            Code::ISRInsufficient,
            Code::NodeUpdate,
            // Also what a broker that restarts looks like in the middle of a handshake; a refused certificate is `Authentication` by now.
            Code::SSL,
            Code::WaitingForCoordinator,
            Code::InProgress,
            Code::PreviousInProgress,
            Code::TimedOutQueue,
            Code::WaitCache,
            Code::Interrupted,
            Code::Partial,
            Code::Retry,
            Code::Outdated,
            Code::UnknownBroker,
            Code::DestroyBroker,
            Code::PartitionEOF,
            Code::Noop,
            Code::LeaderNotAvailable,
            Code::NotLeaderForPartition,
            Code::RequestTimedOut,
            Code::BrokerNotAvailable,
            Code::ReplicaNotAvailable,
            Code::StaleControllerEpoch,
            Code::NetworkException,
            Code::CoordinatorLoadInProgress,
            Code::CoordinatorNotAvailable,
            Code::NotCoordinator,
            Code::NotEnoughReplicas,
            Code::NotEnoughReplicasAfterAppend,
            Code::RebalanceInProgress,
            Code::NotController,
            Code::ConcurrentTransactions,
            Code::OperationNotAttempted,
            Code::KafkaStorageError,
            Code::ReassignmentInProgress,
            Code::FetchSessionIdNotFound,
            Code::InvalidFetchSessionEpoch,
            Code::ListenerNotFound,
            Code::FencedLeaderEpoch,
            Code::UnknownLeaderEpoch,
            Code::StaleBrokerEpoch,
            Code::OffsetNotAvailable,
            Code::MemberIdRequired,
            Code::PreferredLeaderNotAvailable,
            Code::EligibleLeadersNotAvailable,
            Code::ElectionNotNeeded,
            Code::NoReassignmentInProgress,
            Code::UnstableOffsetCommit,
            Code::ThrottlingQuotaExceeded,
            Code::UnknownSubscriptionId,
            Code::TelemetryTooLarge,
            Code::RebootstrapRequired,
        ],
    ),
    (
        // This client, or this transaction, is lost.
        EpochFailed,
        &[
            Code::BadMessage,
            Code::BadCompression,
            Code::BrokerDestroy,
            Code::Fail,
            Code::CriticalSystemResource,
            Code::MessageTimedOut,
            Code::FileSystem,
            Code::Conflict,
            Code::State,
            Code::Underflow,
            Code::PurgeQueue,
            Code::PurgeInflight,
            Code::Fatal,
            Code::Inconsistent,
            Code::GaplessGuarantee,
            Code::PollExceeded,
            Code::Application,
            Code::AssignmentLost,
            // Another record of the same batch was refused, and has its own report.
            Code::InvalidDifferentRecord,
            Code::Unknown,
            Code::InvalidMessage,
            Code::IllegalGeneration,
            Code::UnknownMemberId,
            Code::InvalidRequest,
            Code::OutOfOrderSequenceNumber,
            Code::DuplicateSequenceNumber,
            Code::InvalidTransactionalState,
            Code::InvalidProducerIdMapping,
            Code::TransactionCoordinatorFenced,
            Code::UnknownProducerId,
            Code::FencedInstanceId,
            Code::FencedMemberEpoch,
            Code::UnreleasedInstanceId,
            Code::StaleMemberEpoch,
            // The topic was deleted or recreated, or a broker that is just back does not know it yet: the next start asks for
            // every topic, compares its id, and says what is wrong.
            Code::UnknownTopicId,
            Code::UnknownTopicOrPartition,
            Code::UnknownTopic,
            Code::UnknownPartition,
        ],
    ),
    (Fenced, &[Code::Fenced, Code::InvalidProducerEpoch, Code::ProducerFenced]),
    (
        Config,
        &[
            Code::InvalidArgument,
            Code::UnknownGroup,
            Code::UnknownProtocol,
            Code::NotImplemented,
            Code::Authentication,
            Code::UnsupportedFeature,
            Code::NotConfigured,
            Code::InvalidTopic,
            Code::InvalidRequiredAcks,
            Code::InconsistentGroupProtocol,
            Code::InvalidGroupId,
            Code::InvalidSessionTimeout,
            Code::TopicAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::UnsupportedSASLMechanism,
            Code::IllegalSASLState,
            Code::UnsupportedVersion,
            Code::TopicAlreadyExists,
            Code::InvalidPartitions,
            Code::InvalidReplicationFactor,
            Code::InvalidReplicaAssignment,
            Code::InvalidConfig,
            Code::UnsupportedForMessageFormat,
            Code::PolicyViolation,
            Code::InvalidTransactionTimeout,
            Code::TransactionalIdAuthorizationFailed,
            Code::SecurityDisabled,
            Code::LogDirNotFound,
            Code::SaslAuthenticationFailed,
            Code::DelegationTokenAuthDisabled,
            Code::DelegationTokenNotFound,
            Code::DelegationTokenOwnerMismatch,
            Code::DelegationTokenRequestNotAllowed,
            Code::DelegationTokenAuthorizationFailed,
            Code::DelegationTokenExpired,
            Code::InvalidPrincipalType,
            Code::NonEmptyGroup,
            Code::GroupIdNotFound,
            Code::TopicDeletionDisabled,
            Code::UnsupportedCompressionType,
            Code::GroupMaxSizeReached,
            Code::GroupSubscribedToTopic,
            Code::ResourceNotFound,
            Code::DuplicateResource,
            Code::UnacceptableCredential,
            Code::InconsistentVoterSet,
            Code::InvalidUpdateVersion,
            Code::FeatureUpdateFailed,
            Code::PrincipalDeserializationFailure,
            Code::UnsupportedAssignor,
        ],
    ),
    (
        // The record, or the position, would be refused again.
        Data,
        &[
            Code::NoOffset,
            Code::AutoOffsetReset,
            Code::LogTruncation,
            Code::OffsetOutOfRange,
            Code::InvalidMessageSize,
            Code::MessageSizeTooLarge,
            Code::OffsetMetadataTooLarge,
            Code::MessageBatchTooLarge,
            Code::InvalidCommitOffsetSize,
            Code::InvalidTimestamp,
            Code::InvalidRecord,
        ],
    ),
    (
        Bug,
        &[
            Code::ExistingSubscription,
            Code::AssignPartitions,
            Code::RevokePartitions,
            Code::KeySerialization,
            Code::ValueSerialization,
            Code::KeyDeserialization,
            Code::ValueDeserialization,
            Code::ReadOnly,
            Code::NoEnt,
            Code::InvalidType,
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes that are bounds of the C enumeration, or success.
    const NOT_ERRORS: &[Code] = &[Code::Begin, Code::End, Code::EndAll, Code::NoError];

    #[test]
    fn every_code_of_librdkafka_is_in_the_table_once() {
        let known: Vec<Code> = (-250..1000)
            .filter_map(|number| rdkafka_sys::RDKafkaRespErr::try_from(number).ok())
            .map(Code::from)
            .filter(|code| !NOT_ERRORS.contains(code))
            .collect();
        assert!(known.len() > 150, "the walk found only {} codes", known.len());
        for code in &known {
            let places = TABLE.iter().flat_map(|(_, codes)| codes.iter()).filter(|c| *c == code).count();
            assert_eq!(places, 1, "{code:?} stands {places} times in the table");
        }
        let listed = TABLE.iter().map(|(_, codes)| codes.len()).sum::<usize>();
        assert_eq!(listed, known.len(), "the table names codes that librdkafka does not have");
    }

    #[test]
    fn no_code_alone_makes_an_outcome_unknown() {
        assert!(TABLE.iter().all(|(kind, _)| *kind != ErrorKind::OutcomeUnknown));
    }

    #[test]
    fn the_codes_that_decide_over_a_pipeline() {
        for (code, kind) in [
            (Code::Fenced, Fenced),
            (Code::InvalidProducerEpoch, Fenced),
            (Code::ProducerFenced, Fenced),
            (Code::MessageSizeTooLarge, Data),
            (Code::InvalidTimestamp, Data),
            (Code::InvalidRecord, Data),
            (Code::OffsetOutOfRange, Data),
            (Code::AutoOffsetReset, Data),
            (Code::SaslAuthenticationFailed, Config),
            (Code::TopicAuthorizationFailed, Config),
            (Code::UnknownTopicOrPartition, EpochFailed),
            (Code::ConcurrentTransactions, Retry),
            (Code::QueueFull, Retry),
            (Code::MessageTimedOut, EpochFailed),
        ] {
            assert_eq!(kind_of(code), kind, "{code:?}");
        }
    }

    #[test]
    fn flags_correct_the_table() {
        let fatal = Flags { fatal: true, ..Flags::default() };
        let abort = Flags { requires_abort: true, ..Flags::default() };
        let retriable = Flags { retriable: true, ..Flags::default() };
        let retriable_abort = Flags { retriable: true, requires_abort: true, fatal: false };
        for (code, flags, kind) in [
            (Code::OperationTimedOut, Flags::default(), Retry),
            (Code::OperationTimedOut, abort, EpochFailed),
            (Code::OperationTimedOut, fatal, EpochFailed),
            (Code::State, retriable, Retry),
            (Code::State, retriable_abort, EpochFailed),
            (Code::Fenced, fatal, Fenced),
            (Code::InvalidProducerEpoch, abort, Fenced),
            (Code::MessageSizeTooLarge, abort, Data),
            (Code::TransactionalIdAuthorizationFailed, fatal, Config),
        ] {
            assert_eq!(classify(code, flags), kind, "{code:?} with {flags:?}");
        }
    }

    #[test]
    fn a_code_unknown_to_librdkafka_fails_the_epoch() {
        assert_eq!(code_of(31_999), Code::Unknown);
        assert_eq!(kind_of(code_of(31_999)), EpochFailed);
        assert_eq!(code_of(-191), Code::PartitionEOF);
    }

    #[test]
    fn an_error_says_what_was_tried_and_why_it_failed() {
        let error = KafkaError::from_code("commit epoch 7", Code::OperationTimedOut, "");
        assert_eq!(error.to_string(), "commit epoch 7: Local: Timed out (OperationTimedOut)");
    }
}
