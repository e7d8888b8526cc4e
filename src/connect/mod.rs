//! What `validate --connect` asks of the cluster and of this machine: everything that a start needs, each failing check with what to do
//! about it, all at once. Nothing is created, nobody is fenced.

mod permissions;
mod storage;

use std::fmt;
use std::time::Duration;

use onceflow_engine::plan::Kafka;
use onceflow_protocol::ErrorKind;
use serde::Serialize;

pub use permissions::{connect_arguments, default_principal, missing, needed, needed_by};

use crate::kafka::{Admin, Connection, ControlTopic, Isolation, KafkaError, Permission, Reader, Resource};
use crate::pipeline::{Context, SHARD, SINKS};

/// Time limit of one question to the brokers.
const CALL: Duration = Duration::from_secs(10);

/// What to do about brokers that did not answer this once.
const LATER: &str = "try again; if it stays so, look at the brokers";

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: "topic orders".
    pub what: String,
    /// How it is.
    pub result: Verdict,
    /// What was found, or what is wrong.
    pub detail: String,
    /// What to do about it; only where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it must be.
    Ok,
    /// Not as it must be.
    Failed,
    /// It could not be looked at.
    Skipped,
}

/// What is wrong, and what to do about it.
struct Wrong {
    detail: String,
    advice: String,
}

impl Wrong {
    fn new(detail: impl fmt::Display, advice: impl Into<String>) -> Wrong {
        Wrong { detail: detail.to_string(), advice: advice.into() }
    }
}

impl Check {
    fn of(what: impl Into<String>, found: Result<String, Wrong>) -> Check {
        let what = what.into();
        match found {
            Ok(detail) => Check { what, result: Verdict::Ok, detail, advice: None },
            Err(Wrong { detail, advice }) => {
                Check { what, result: Verdict::Failed, detail, advice: Some(advice) }
            }
        }
    }

    fn skipped(what: impl Into<String>, why: &str) -> Check {
        Check { what: what.into(), result: Verdict::Skipped, detail: why.to_owned(), advice: None }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.result {
            Verdict::Ok => "ok     ",
            Verdict::Failed => "FAILED ",
            Verdict::Skipped => "skipped",
        };
        write!(f, "  {mark} {}: {}", self.what, self.detail)?;
        match &self.advice {
            Some(advice) => write!(f, "\n          → {}", advice.replace('\n', "\n            ")),
            None => Ok(()),
        }
    }
}

/// Makes every check of one pipeline; `begins` hears what is looked at next.
pub fn check(context: &Context, begins: &mut dyn FnMut(&str)) -> Vec<Check> {
    begins("storage");
    let mut checks = storage::check(context);
    let plan = &context.plan;
    checks.extend(cluster(context, &plan.kafka, SINKS, "brokers", needed(context), begins));
    for (index, source) in plan.sources.iter().enumerate() {
        if let Some(kafka) = &source.kafka {
            let (place, what) = (context.cluster_of(index), format!("brokers of source {}", source.name));
            checks.extend(cluster(context, kafka, place, &what, needed_by(context, source), begins));
        }
    }
    checks
}

/// The checks of one cluster, `place` among the context's connections.
fn cluster(
    context: &Context,
    kafka: &Kafka,
    place: usize,
    name: &str,
    needed: Vec<Permission>,
    begins: &mut dyn FnMut(&str),
) -> Vec<Check> {
    begins(name);
    let connection = &context.connections[place];
    let (admin, mut checks) = match brokers(connection) {
        Ok((admin, detail)) => (admin, vec![Check::of(name, Ok(detail))]),
        Err(error) => {
            // Whom the brokers refuse, they refuse the next time, too; those that are away may come back.
            let (name, why) = match error.kind == ErrorKind::Config {
                true => (format!("access to the {name}"), "no broker lets us in"),
                false => (name.to_owned(), "no broker answers"),
            };
            let unasked =
                needed.iter().map(|permission| Check::skipped(permission.resource.to_string(), why));
            let failed = Check::of(name, Err(Wrong::new(error, advice(kafka))));
            return [failed].into_iter().chain(unasked).collect();
        }
    };
    let cluster = Cluster { context, kafka, connection, admin, principal: default_principal(kafka) };
    for permission in needed {
        let what = permission.resource.to_string();
        begins(&what);
        checks.push(match &permission.resource {
            Resource::Topic(topic) if *topic == context.control_topic => {
                Check::of(format!("control {what}"), cluster.control_topic(&permission))
            }
            Resource::Topic(topic) => Check::of(what, cluster.topic(topic, &permission)),
            Resource::TopicPrefix(_) => Check::skipped(
                what,
                "which of them there are is seen at a start; --print-acls says what they need",
            ),
            Resource::Cluster => Check::skipped(what, "nothing is needed there"),
            Resource::Group(_) => Check::of(what, cluster.group(&permission)),
            Resource::TransactionalId(_) => Check::skipped(
                what,
                "using it would fence a running instance; --print-acls says what it needs",
            ),
        });
    }
    if place == SINKS {
        begins("transaction limit");
        checks.push(cluster.transaction_limit());
    }
    checks
}

fn brokers(connection: &Connection) -> Result<(Admin, String), KafkaError> {
    let admin = Admin::open(connection)?;
    let cluster = admin.cluster_id(CALL)?;
    let brokers = admin.brokers(CALL)?;
    Ok((admin, format!("{brokers} in cluster {cluster}")))
}

fn advice(kafka: &Kafka) -> String {
    let servers = &kafka.bootstrap_servers;
    format!(
        "check kafka.bootstrap_servers ({servers}), the network between, and security.protocol and SASL in kafka.properties"
    )
}

struct Cluster<'c> {
    context: &'c Context,
    kafka: &'c Kafka,
    connection: &'c Connection,
    admin: Admin,
    principal: String,
}

impl Cluster<'_> {
    /// A topic that is read or written.
    fn topic(&self, topic: &str, permission: &Permission) -> Result<String, Wrong> {
        let found =
            self.admin.describe_topic(topic, CALL).map_err(|error| self.refused(error, permission))?;
        let output = self.context.plan.output_topics.iter().find(|output| output.name == topic);
        let Some(found) = found else {
            if output.is_some_and(|output| output.create.is_some()) {
                return Ok("does not exist yet; the first start creates it".to_owned());
            }
            let connect = connect_arguments(self.kafka);
            return Err(Wrong::new(
                "does not exist, or may not be seen",
                format!("kafka-topics {connect} --create --topic {topic} --partitions 4"),
            ));
        };
        self.allowed(permission)?;
        let limit = match output {
            None => String::new(),
            Some(_) => {
                let limits = self.admin.topic_limits(topic, CALL);
                let limits = limits.map_err(|error| self.refused(error, permission))?;
                format!(", records up to {} bytes", limits.max_message_bytes)
            }
        };
        Ok(format!("{} partitions{limit}; {}", found.partitions, listed(permission)))
    }

    fn control_topic(&self, permission: &Permission) -> Result<String, Wrong> {
        let control = ControlTopic { name: self.context.control_topic.clone(), shards: SHARD as i32 + 1 };
        match control.inspect(&self.admin, CALL) {
            Ok(Some(_)) => {
                self.allowed(permission)?;
                Ok(format!("keeps decisions; {}", listed(permission)))
            }
            Ok(None) => {
                let tried = control.try_to_create(&self.admin, CALL);
                tried.map_err(|error| self.refused(error, permission))?;
                Ok("does not exist yet; the first start creates it".to_owned())
            }
            Err(error) if error.code.is_some() => Err(self.refused(error, permission)),
            Err(error) => Err(Wrong::new(
                error,
                format!(
                    "kafka-configs {} --alter --topic {} --add-config cleanup.policy=compact,unclean.leader.election.enable=false",
                    connect_arguments(self.kafka),
                    control.name
                ),
            )),
        }
    }

    fn transaction_limit(&self) -> Check {
        let what = "transaction limit";
        let needed = self.context.transaction_timeout();
        match self.admin.transaction_max_timeout(CALL) {
            Ok(granted) => Check::of(what, Self::within(needed, granted)),
            Err(error) if error.is_unauthorized() => {
                let why = "only who may DescribeConfigs of the cluster is told transaction.max.timeout.ms; a start finds out";
                Check::skipped(what, why)
            }
            Err(error) => Check::of(what, Err(Wrong::new(error, LATER))),
        }
    }

    fn within(needed: Duration, granted: Duration) -> Result<String, Wrong> {
        if needed > granted {
            return Err(Wrong::new(
                format!(
                    "a transaction may stay open for {} ms, the brokers' transaction.max.timeout.ms is {}",
                    needed.as_millis(),
                    granted.as_millis()
                ),
                "lower checkpoint.timeout, checkpoint.interval or checkpoint.tolerable_failures (interval + timeout × \
                 (1 + tolerable_failures) + 30 s), or raise transaction.max.timeout.ms on every broker",
            ));
        }
        Ok(format!("{} ms needed, {} ms granted", needed.as_millis(), granted.as_millis()))
    }

    /// The group is never joined; its offsets are written for lag tools, and are a trace of earlier runs.
    fn group(&self, permission: &Permission) -> Result<String, Wrong> {
        let context = self.context;
        let sources = context.plan.sources.iter().enumerate();
        let ours = sources
            .filter(|(i, _)| std::ptr::eq(&context.connections[context.cluster_of(*i)], self.connection));
        let topics = ours.flat_map(|(_, source)| &source.topics);
        let partitions: Vec<_> = topics.map(|topic| (topic.as_str(), 0)).collect();
        let read = Reader::idle(self.connection, &context.group_id, Isolation::Committed)
            .and_then(|reader| reader.committed(&partitions, CALL));
        let committed = read.map_err(|error| self.refused(error, permission))?;
        Ok(match committed.iter().any(|(_, _, offset)| offset.is_some()) {
            true => "has offsets of an earlier run".to_owned(),
            false => "has no offsets yet".to_owned(),
        })
    }

    /// Whether all of the permission is granted, where brokers tell.
    fn allowed(&self, permission: &Permission) -> Result<(), Wrong> {
        match missing(permission, &self.admin, CALL).map_err(|error| self.refused(error, permission))? {
            None => Ok(()),
            Some(missing) => {
                Err(Wrong::new(format!("not allowed: {}", listed(&missing)), self.grant(&missing)))
            }
        }
    }

    /// A question that the brokers refused to answer, or did not.
    fn refused(&self, error: KafkaError, permission: &Permission) -> Wrong {
        let advice = match error.kind {
            ErrorKind::Retry => LATER.to_owned(),
            _ => self.grant(permission),
        };
        Wrong::new(error, advice)
    }

    fn grant(&self, permission: &Permission) -> String {
        permission.kafka_acls(&connect_arguments(self.kafka), &self.principal)
    }
}

fn listed(permission: &Permission) -> String {
    permission.operations.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
