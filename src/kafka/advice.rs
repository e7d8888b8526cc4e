//! What to do about an error, where it says so little that people would have to guess: which property to look at, which ACL to grant.
//!
//! librdkafka tells refused certificates apart from broken connections in words only, and the words are OpenSSL's. They are read here
//! and nowhere else; the tests against a real broker notice if they change.

use super::errors::Code;
use super::permissions::{Operation, Resource};

/// The code that says what happened. A certificate that one side refuses arrives as trouble with the connection, which would be tried
/// again for ever; but it is refused authentication, as a wrong password is.
pub(super) fn telling_code(code: Code, message: &str) -> Code {
    let of_connection = matches!(code, Code::SSL | Code::BrokerTransportFailure);
    match of_connection && (refuses_theirs(message) || refuses_ours(message)) {
        true => Code::Authentication,
        false => code,
    }
}

/// We do not trust the broker.
fn refuses_theirs(message: &str) -> bool {
    message.contains("certificate verify failed")
}

/// The broker does not trust us: a TLS alert, which only the other side sends.
fn refuses_ours(message: &str) -> bool {
    message.contains("alert") && (message.contains("certificate") || message.contains("unknown ca"))
}

/// Which property to look at.
pub(super) fn property(code: Code, message: &str) -> Option<&'static str> {
    match code {
        Code::Authentication if refuses_theirs(message) => Some(
            "`ssl.ca.location` in `kafka.properties` must name the authority that signed the brokers' certificates, and these \
             must be made out to the hosts by which the brokers are reached",
        ),
        Code::Authentication if refuses_ours(message) => Some(
            "the brokers want a certificate of a client that they trust: `ssl.certificate.location` and `ssl.key.location` in \
             `kafka.properties`",
        ),
        Code::Authentication if message.contains("not valid in current SASL state") => {
            Some("the brokers want no SASL at this port: check `security.protocol` in `kafka.properties`")
        }
        Code::Authentication if message.contains("mechanism handshake failed") => {
            Some("`sasl.mechanism` in `kafka.properties` must be one that the brokers offer")
        }
        Code::UnsupportedSASLMechanism => {
            Some("`sasl.mechanism` in `kafka.properties` must be one that the brokers offer")
        }
        Code::Authentication | Code::SaslAuthenticationFailed => {
            Some("check `sasl.username` and `sasl.password` in `kafka.properties`, and `sasl.mechanism`")
        }
        Code::IllegalSASLState => Some("check `security.protocol` in `kafka.properties`"),
        Code::InvalidTransactionTimeout => Some(
            "lower `checkpoint.timeout`, `checkpoint.interval` or `checkpoint.tolerable_failures`, or raise the brokers' \
             `transaction.max.timeout.ms`",
        ),
        // What a port sounds like that speaks another protocol than we do.
        Code::BrokerTransportFailure | Code::SSL | Code::OperationTimedOut
            if message.contains("ApiVersion") || message.contains("SSL handshake failed") =>
        {
            Some(
                "check that `security.protocol` in `kafka.properties` is what the brokers speak at this port",
            )
        }
        _ => None,
    }
}

/// Which ACL to grant, if it is about a resource of this kind that the broker refused.
pub(super) fn permission(code: Code, operation: Operation, resource: &Resource) -> Option<String> {
    let refused = match resource {
        Resource::Topic(_) | Resource::TopicPrefix(_) => code == Code::TopicAuthorizationFailed,
        Resource::Group(_) => code == Code::GroupAuthorizationFailed,
        Resource::TransactionalId(_) => code == Code::TransactionalIdAuthorizationFailed,
        Resource::Cluster => code == Code::ClusterAuthorizationFailed,
    };
    refused.then(|| format!("{operation} on {resource} is not granted; {HOW_TO_GRANT}"))
}

/// Where to find out what is needed.
pub const HOW_TO_GRANT: &str = "`onceflow validate --print-acls FILE` prints what the pipeline needs";

#[cfg(test)]
mod tests {
    use onceflow_protocol::ErrorKind;

    use super::super::errors::KafkaError;
    use super::*;

    fn error(code: Code, message: &str) -> KafkaError {
        KafkaError::from_code("talk to Kafka", code, message)
    }

    // As librdkafka 2.12 with OpenSSL 3 says it.
    const UNTRUSTED: &str = "ssl://b:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
                             certificate could not be verified (after 3ms in state SSL_HANDSHAKE)";
    const ALERT: &str = "ssl://b:1/bootstrap: Receive failed: error:0A000412:SSL routines::sslv3 alert bad certificate: SSL alert \
                         number 42 (after 6ms in state APIVERSION_QUERY)";
    const RESTART: &str =
        "ssl://b:1/bootstrap: SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?";

    #[test]
    fn refused_certificates_are_refused_authentication() {
        for (code, message, property) in [
            (Code::SSL, UNTRUSTED, "ssl.ca.location"),
            (Code::BrokerTransportFailure, ALERT, "ssl.certificate.location"),
            (
                Code::SSL,
                "ssl://b:1: SSL handshake failed: ssl/tls alert certificate required",
                "ssl.key.location",
            ),
            (
                Code::SSL,
                "ssl://b:1: SSL handshake failed: tlsv1 alert unknown ca",
                "ssl.certificate.location",
            ),
        ] {
            let error = error(code, message);
            assert_eq!((error.kind, error.code), (ErrorKind::Config, Some(Code::Authentication)), "{error}");
            assert!(error.to_string().contains(&format!("`{property}`")), "{error}");
        }
        for message in
            [RESTART, "ssl://b:1: SSL handshake failed: SSL transport error: Connection reset by peer"]
        {
            let error = error(Code::SSL, message);
            assert_eq!((error.kind, error.code), (ErrorKind::Retry, Some(Code::SSL)), "{error}");
        }
    }

    #[test]
    fn trouble_names_the_property() {
        let scram = "sasl_ssl://b:1: SASL authentication error: Authentication failed during authentication due to invalid credentials";
        assert!(error(Code::Authentication, scram).to_string().contains("`sasl.password`"));
        let mechanism = "sasl_ssl://b:1: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism";
        assert!(error(Code::Authentication, mechanism).to_string().contains("; `sasl.mechanism`"));
        let state = "sasl_plaintext://b:1: SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state";
        assert!(error(Code::Authentication, state).to_string().contains("`security.protocol`"));
        let protocol =
            "b:1: ApiVersionRequest failed: Local: Timed out: probably due to broker version < 0.10";
        assert!(error(Code::OperationTimedOut, protocol).to_string().contains("`security.protocol`"));
        assert_eq!(error(Code::OperationTimedOut, "no answer").advice, None);
    }

    #[test]
    fn refused_operations_name_what_to_grant() {
        let topic = Resource::Topic("orders".to_owned());
        let refused = error(Code::TopicAuthorizationFailed, "").needing(Operation::Read, &topic);
        let said = refused.to_string();
        assert!(
            said.contains("Read on topic orders is not granted; `onceflow validate --print-acls"),
            "{said}"
        );
        // Somebody else's trouble.
        let group = Resource::Group("g".to_owned());
        assert_eq!(error(Code::TopicAuthorizationFailed, "").needing(Operation::Read, &group).advice, None);
        assert_eq!(error(Code::OperationTimedOut, "").needing(Operation::Read, &topic).advice, None);
    }
}
