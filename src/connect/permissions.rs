//! What a pipeline must be allowed to do: exactly that, nothing more.
//!
//! `Describe` is never listed: Kafka's authorizers include it in `Read` and `Write`. Nothing is needed on the cluster: a transactional
//! producer needs no `IdempotentWrite` there, and what cannot be asked of the brokers (`transaction.max.timeout.ms`) they say themselves
//! when the producer is initialised.

use std::time::Duration;

use onceflow_engine::plan::{Kafka, Source};

use crate::kafka::{Admin, KafkaError, Operation, Permission, Resource, quoted};
use crate::pipeline::Context;

/// The permissions of one pipeline on its own cluster.
pub fn needed(context: &Context) -> Vec<Permission> {
    use Operation::{Create, DescribeConfigs, Read, Write};
    let plan = &context.plan;
    let topic = |name: &String| Resource::Topic(name.clone());
    let own_cluster = plan.sources.iter().filter(|source| source.kafka.is_none());
    let sources = own_cluster.flat_map(read);
    // What a topic accepts is asked before it is written.
    let outputs = plan.output_topics.iter().flat_map(|output| {
        let create = output.create.is_some().then(|| (topic(&output.name), Create));
        [(topic(&output.name), Write), (topic(&output.name), DescribeConfigs)].into_iter().chain(create)
    });
    let control = [Read, Write, Create, DescribeConfigs];
    let control = control.map(|operation| (topic(&context.control_topic), operation));
    let own = [
        (Resource::Group(context.group_id.clone()), Read),
        (Resource::TransactionalId(context.transactional_id.clone()), Write),
    ];
    Permission::gather(sources.chain(outputs).chain(control).chain(own))
}

/// What a source needs on a cluster of its own.
pub fn needed_by(context: &Context, source: &Source) -> Vec<Permission> {
    let group = (Resource::Group(context.group_id.clone()), Operation::Read);
    Permission::gather(read(source).chain([group]))
}

/// The topics of a source. Which ones a pattern finds is not known here.
fn read(source: &Source) -> impl Iterator<Item = (Resource, Operation)> {
    let named = source.topics.iter().map(|name| Resource::Topic(name.clone()));
    let matching = source.patterns.iter().map(|of| Resource::TopicPrefix(literal_prefix(of.as_str())));
    named.chain(matching).map(|topics| (topics, Operation::Read))
}

/// What every topic that matches a pattern begins with: ACLs know prefixes, and no other patterns.
fn literal_prefix(pattern: &str) -> String {
    let mut prefix = String::new();
    let mut rest = pattern.strip_prefix('^').unwrap_or(pattern).chars().peekable();
    if pattern.contains('|') {
        return prefix;
    }
    while let Some(c) = rest.next() {
        let literal = match c {
            '\\' if rest.peek().is_some_and(|escaped| !escaped.is_ascii_alphanumeric()) => rest.next(),
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => Some(c),
            _ => None,
        };
        match literal {
            // A quantifier may do without it.
            Some(c) if !rest.peek().is_some_and(|next| "*?{".contains(*next)) => prefix.push(c),
            _ => break,
        }
    }
    prefix
}

/// What of a permission the brokers say is not granted. They tell of topics that are there, and not of groups and transactional ids; and
/// brokers before 2.3 tell nothing.
///
/// # Errors
/// `Retry` without an answer, `Config` where the brokers do not let us in.
pub fn missing(
    permission: &Permission,
    admin: &Admin,
    timeout: Duration,
) -> Result<Option<Permission>, KafkaError> {
    let Resource::Topic(topic) = &permission.resource else { return Ok(None) };
    let operations = match admin.operations(topic, timeout) {
        Ok(None) => vec![],
        Ok(Some(granted)) => {
            let mut missing = permission.missing(&granted);
            // The topic is there.
            missing.retain(|operation| *operation != Operation::Create);
            missing
        }
        Err(error) if error.is_unauthorized() => unseen(permission, topic, admin, timeout)?,
        Err(error) => return Err(error),
    };
    let missing = Permission { resource: permission.resource.clone(), operations };
    Ok(Some(missing).filter(|missing| !missing.operations.is_empty()))
}

/// The same for a topic that may not even be seen: whoever may read or write it could see it. Whether it could be created is not known.
fn unseen(
    permission: &Permission,
    topic: &str,
    admin: &Admin,
    timeout: Duration,
) -> Result<Vec<Operation>, KafkaError> {
    let configs = match admin.describe_configs(topic, timeout) {
        Err(error) if !error.is_unauthorized() => return Err(error),
        described => described.is_err(),
    };
    let is_missing = |operation: &Operation| match operation {
        Operation::Read | Operation::Write => true,
        Operation::DescribeConfigs => configs,
        _ => false,
    };
    Ok(permission.operations.iter().copied().filter(is_missing).collect())
}

/// How Kafka's own tools reach the cluster.
pub fn connect_arguments(kafka: &Kafka) -> String {
    format!("--bootstrap-server {}", quoted(&kafka.bootstrap_servers))
}

/// Whom the pipeline connects as, as far as its properties tell.
pub fn default_principal(kafka: &Kafka) -> String {
    let user =
        kafka.properties.get("sasl.username").or_else(|| kafka.properties.get("sasl.kerberos.principal"));
    format!("User:{}", user.map_or("onceflow", String::as_str))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use onceflow_engine::config::{Defaults, compile};
    use onceflow_protocol::coordinator::Requests;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn patterns_become_prefixes() {
        for (pattern, prefix) in [
            (r"^orders\..*", "orders."),
            (r"^orders\.(de|at)", ""),
            (r"^orders-[0-9]+", "orders-"),
            (r"^orders-?x", "orders"),
            (r"^a\d", "a"),
            (r"^.*", ""),
            ("^whole", "whole"),
        ] {
            assert_eq!(literal_prefix(pattern), prefix, "{pattern}");
        }
    }

    #[test]
    fn exactly_what_a_pipeline_does() {
        let text = include_str!("../../config/examples/orders-per-user.yaml");
        let plan = compile("f", text, &Defaults::default(), &|_: &str| None).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap().pipeline("p").unwrap());
        let context = Context::new(Arc::new(plan), "prod", false, Requests::default(), metrics).unwrap();
        let connect = connect_arguments(&context.plan.kafka);
        let commands: Vec<String> = needed(&context)
            .iter()
            .map(|permission| permission.kafka_acls(&connect, "User:me"))
            .map(|command| {
                command.replace(
                    "kafka-acls --bootstrap-server localhost:9092 --add --allow-principal User:me ",
                    "",
                )
            })
            .collect();
        assert_eq!(
            commands,
            [
                "--operation Read --topic orders",
                "--operation Write --operation DescribeConfigs --topic orders-per-user",
                "--operation Write --operation DescribeConfigs --topic orders-per-user.dead-letter",
                "--operation Read --operation Write --operation Create --operation DescribeConfigs --topic prod.orders-per-user.control",
                "--operation Read --group prod.orders-per-user",
                "--operation Write --transactional-id prod.orders-per-user.0",
            ]
        );
        assert_eq!(default_principal(&context.plan.kafka), "User:onceflow");
    }
}
