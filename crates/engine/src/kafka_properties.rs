//! Which of librdkafka's properties a pipeline may not set, and why.
//!
//! `kafka.properties` is handed to librdkafka verbatim, with two exceptions that this table knows: properties
//! on which the exactly-once guarantee rests ([`refusal`]), and names that only the Java client has
//! ([`java_only`]). Both are pure data, so that the compiler can report them with a position before anything
//! is connected. Aliases are listed beside their canonical names: librdkafka lets the last writer win, and an
//! alias would slip past a table of canonical names.

/// Refused properties: the names that mean the same, and the reason shown to the user.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "the brokers are named by `bootstrap_servers`, beside `properties`",
    ),
    (&["enable.idempotence"], "always on: without it a retried request could write a record twice"),
    (
        &["enable.gapless.guarantee"],
        "a failed record fails its whole transaction already; the property would only hide which one failed",
    ),
    (
        &["transactional.id"],
        "derived from the pipeline's identity, because it is what fences an older instance; see `kafka.ids`",
    ),
    (
        &["transaction.timeout.ms"],
        "computed from `checkpoint.interval`, `checkpoint.timeout` and `checkpoint.tolerable_failures`",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "a record is retried for as long as its transaction may live, which `checkpoint` decides",
    ),
    (
        &["message.max.bytes"],
        "follows from the `max.message.bytes` of the topics that are written, which is read at start-up",
    ),
    (&["acks", "request.required.acks"], "always `all`: a commit must not outlive the records it commits"),
    (
        &["partitioner", "partitioner_cb"],
        "always `murmur2_random`, so that keys land where other Kafka clients put them",
    ),
    (
        &["delivery.report.only.error", "dr_cb", "dr_msg_cb"],
        "delivery failures are watched by the daemon itself",
    ),
    (&["group.id"], "derived from the pipeline's identity; see `kafka.ids`"),
    (
        &["group.instance.id", "group.protocol", "group.remote.assignor", "partition.assignment.strategy"],
        "partitions are assigned by the daemon, not by a consumer group",
    ),
    (
        &["enable.auto.commit", "auto.commit.enable", "auto.commit.interval.ms"],
        "positions become visible with the output, inside its transaction, and never on their own",
    ),
    (
        &[
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "positions are stored in the checkpoint",
    ),
    (
        &["auto.offset.reset"],
        "always `error`: a reset would skip or repeat records silently; where to begin is the source's `start`",
    ),
    (&["isolation.level"], "always `read_committed`: records of aborted transactions must not be processed"),
    (
        &["enable.partition.eof"],
        "always on: idleness and `--until-end` rest on knowing the end of a partition",
    ),
    (
        &["allow.auto.create.topics"],
        "always off: a mistyped topic must be an error; a sink's `create` makes topics on purpose",
    ),
    (
        &["statistics.interval.ms"],
        "nothing reads librdkafka's statistics; the daemon's own metrics are under `/metrics`",
    ),
    (&["test.mock.num.brokers"], "librdkafka's mock cluster keeps no transactions"),
];

/// Names that the Java client has and librdkafka has not, with what to write instead.
const JAVA_ONLY: &[(&str, &str)] = &[
    ("sasl.jaas.config", "librdkafka takes `sasl.username` and `sasl.password` instead"),
    (
        "sasl.client.callback.handler.class",
        "callbacks are Java classes; for OAuth use `sasl.oauthbearer.method: oidc`",
    ),
    (
        "sasl.login.callback.handler.class",
        "callbacks are Java classes; for OAuth use `sasl.oauthbearer.method: oidc`",
    ),
    ("sasl.login.class", "login classes are Java classes; librdkafka needs none"),
    ("ssl.truststore.location", "use `ssl.ca.location` with a PEM file of the trusted certificates"),
    ("ssl.truststore.password", "a PEM file of certificates (`ssl.ca.location`) needs no password"),
    ("ssl.truststore.type", "use `ssl.ca.location` with a PEM file of the trusted certificates"),
    ("ssl.truststore.certificates", "use `ssl.ca.pem`"),
    (
        "ssl.keystore.type",
        "use `ssl.certificate.location` and `ssl.key.location` (PEM), or `ssl.keystore.location` (PKCS#12)",
    ),
    ("ssl.keystore.certificate.chain", "use `ssl.certificate.pem`"),
    ("ssl.keystore.key", "use `ssl.key.pem`"),
    ("ssl.protocol", "librdkafka negotiates the protocol itself"),
    (
        "ssl.enabled.protocols",
        "librdkafka negotiates the protocol itself; restrict it with `ssl.cipher.suites`",
    ),
    ("ssl.trustmanager.algorithm", "librdkafka verifies through OpenSSL; leave it out"),
    ("ssl.keymanager.algorithm", "librdkafka uses OpenSSL; leave it out"),
    ("ssl.provider", "use `ssl.providers` (OpenSSL 3)"),
    ("ssl.secure.random.implementation", "librdkafka uses OpenSSL; leave it out"),
    ("key.serializer", "formats are declared on the sink"),
    ("value.serializer", "formats are declared on the sink"),
    ("key.deserializer", "formats are declared on the source"),
    ("value.deserializer", "formats are declared on the source"),
    ("partitioner.class", "keys are always placed as the Java client's default partitioner places them"),
    ("interceptor.classes", "interceptors are Java classes; leave it out"),
    ("metric.reporters", "reporters are Java classes; the daemon serves `/metrics`"),
    ("buffer.memory", "use `queue.buffering.max.kbytes`"),
    ("max.block.ms", "a full send queue holds back the sources; leave it out"),
    ("max.request.size", "the limits of the topics are read at start-up; leave it out"),
    ("max.poll.records", "batches are sized by the daemon; leave it out"),
    ("fetch.max.wait.ms", "use `fetch.wait.max.ms`"),
    ("default.api.timeout.ms", "time limits of calls follow from `checkpoint.timeout`; leave it out"),
];

/// Why a property may not be set by a pipeline, or `None` if librdkafka is to decide.
pub fn refusal(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason)
}

/// What to write instead of a property that only the Java client knows, or `None` if it is not such a name.
pub fn java_only(name: &str) -> Option<&'static str> {
    JAVA_ONLY.iter().find(|(java, _)| *java == name).map(|(_, hint)| *hint)
}

/// Every refused name, for "did you mean" and for tests that hold the table against librdkafka's own.
pub fn refused_names() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().flat_map(|(names, _)| names.iter().copied())
}

/// Every name that only the Java client has.
pub fn java_only_names() -> impl Iterator<Item = &'static str> {
    JAVA_ONLY.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_the_guarantee_needs_is_refused() {
        for name in [
            "enable.idempotence",
            "transactional.id",
            "group.id",
            "enable.auto.commit",
            "auto.offset.reset",
            "acks",
            "request.required.acks",
            "isolation.level",
            "partitioner",
        ] {
            assert!(refusal(name).is_some(), "{name}");
        }
        for name in ["security.protocol", "sasl.password", "linger.ms", "compression.type", "client.id"] {
            assert_eq!(refusal(name), None, "{name}");
            assert_eq!(java_only(name), None, "{name}");
        }
    }

    #[test]
    fn java_names_lead_to_librdkafkas() {
        assert!(java_only("sasl.jaas.config").is_some_and(|hint| hint.contains("sasl.username")));
        assert!(java_only("ssl.truststore.location").is_some_and(|hint| hint.contains("ssl.ca.location")));
    }

    #[test]
    fn no_name_is_listed_twice() {
        let mut seen = BTreeSet::new();
        for name in refused_names().chain(java_only_names()) {
            assert!(seen.insert(name), "{name} is listed twice");
        }
    }
}
