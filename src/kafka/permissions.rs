//! What a principal must be allowed to do, in Kafka's terms.

use std::collections::BTreeMap;
use std::fmt;

/// An operation that Kafka's ACLs name. `Read`, `Write` and `Alter` include `Describe`; `Create` does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "Kafka's names")]
pub enum Operation {
    All,
    Read,
    Write,
    Create,
    Describe,
    DescribeConfigs,
}

impl Operation {
    /// From the number that brokers use; those that are of no concern here are `None`.
    pub(super) fn from_number(number: i32) -> Option<Operation> {
        match number {
            2 => Some(Operation::All),
            3 => Some(Operation::Read),
            4 => Some(Operation::Write),
            5 => Some(Operation::Create),
            8 => Some(Operation::Describe),
            10 => Some(Operation::DescribeConfigs),
            _ => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What an operation is done to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// A topic.
    Topic(String),
    /// All topics whose names begin so.
    TopicPrefix(String),
    /// A consumer group.
    Group(String),
    /// A transactional id.
    TransactionalId(String),
    /// The cluster.
    Cluster,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Resource::Topic(name) => write!(f, "topic {name}"),
            Resource::TopicPrefix(prefix) => write!(f, "topics {prefix}*"),
            Resource::Group(name) => write!(f, "consumer group {name}"),
            Resource::TransactionalId(name) => write!(f, "transactional id {name}"),
            Resource::Cluster => f.write_str("the cluster"),
        }
    }
}

/// Operations on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// On what.
    pub resource: Resource,
    /// What, in order, each once.
    pub operations: Vec<Operation>,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: Vec<String> = self.operations.iter().map(Operation::to_string).collect();
        write!(f, "{} on {}", operations.join(", "), self.resource)
    }
}

impl Permission {
    /// Several, with one entry for each resource.
    pub fn gather(wanted: impl IntoIterator<Item = (Resource, Operation)>) -> Vec<Permission> {
        let mut gathered = BTreeMap::<Resource, Vec<Operation>>::new();
        for (resource, operation) in wanted {
            gathered.entry(resource).or_default().push(operation);
        }
        let sorted = |(resource, mut operations): (Resource, Vec<Operation>)| {
            operations.sort();
            operations.dedup();
            Permission { resource, operations }
        };
        gathered.into_iter().map(sorted).collect()
    }

    /// Those of the operations that are not among `granted`.
    pub fn missing(&self, granted: &[Operation]) -> Vec<Operation> {
        let has = |operation: &Operation| granted.contains(operation) || granted.contains(&Operation::All);
        self.operations.iter().copied().filter(|operation| !has(operation)).collect()
    }

    /// The command that grants it. `connect` is how that command reaches the cluster.
    pub fn kafka_acls(&self, connect: &str, principal: &str) -> String {
        let operations: String =
            self.operations.iter().map(|operation| format!(" --operation {operation}")).collect();
        let resource = match &self.resource {
            Resource::Topic(name) => format!("--topic {}", quoted(name)),
            Resource::TopicPrefix(prefix) if prefix.is_empty() => "--topic '*'".to_owned(),
            Resource::TopicPrefix(prefix) => {
                format!("--resource-pattern-type prefixed --topic {}", quoted(prefix))
            }
            Resource::Group(name) => format!("--group {}", quoted(name)),
            Resource::TransactionalId(name) => format!("--transactional-id {}", quoted(name)),
            Resource::Cluster => "--cluster".to_owned(),
        };
        let principal = quoted(principal);
        format!("kafka-acls {connect} --add --allow-principal {principal}{operations} {resource}")
    }
}

/// A word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:/=,@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_for_a_shell() {
        let topic = || Resource::Topic("orders".to_owned());
        let wanted = [
            (topic(), Operation::Write),
            (Resource::Cluster, Operation::DescribeConfigs),
            (topic(), Operation::Read),
        ];
        let gathered = Permission::gather(wanted);
        assert_eq!(gathered.len(), 2);
        assert_eq!(
            gathered[0].kafka_acls("--bootstrap-server a:1,b:2", "User:CN=it's me"),
            r"kafka-acls --bootstrap-server a:1,b:2 --add --allow-principal 'User:CN=it'\''s me' --operation Read --operation Write --topic orders"
        );
        assert!(gathered[1].kafka_acls("x", "User:a").ends_with("--operation DescribeConfigs --cluster"));
        assert_eq!(gathered[0].missing(&[Operation::Write, Operation::Describe]), [Operation::Read]);
        assert_eq!(gathered[0].missing(&[Operation::All]), []);
    }
}
