//! What a pipeline must be allowed to do: exactly that, nothing more.
//!
//! `Describe` is never listed: Kafka's authorizers include it in `Read` and `Write`. A transactional producer needs no
//! `IdempotentWrite` on the cluster.

use onceflow_engine::plan::{Kafka, Source};

use crate::kafka::{Operation, Permission, Resource, quoted};
use crate::pipeline::Context;

/// The permissions of one pipeline on its own cluster. A pattern of topics needs `Read` on those that it finds, which are not known here.
pub fn needed(context: &Context) -> Vec<Permission> {
    use Operation::{Create, DescribeConfigs, Read, Write};
    let plan = &context.plan;
    let topic = |name: &String| Resource::Topic(name.clone());
    let own_cluster = plan.sources.iter().filter(|source| source.kafka.is_none());
    let sources = own_cluster.flat_map(|source| &source.topics).map(|name| (topic(name), Read));
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
        // `transaction.max.timeout.ms` is the brokers'.
        (Resource::Cluster, DescribeConfigs),
    ];
    Permission::gather(sources.chain(outputs).chain(control).chain(own))
}

/// What a source needs on a cluster of its own. Topics that a pattern finds are not known before it is there.
pub fn needed_by(context: &Context, source: &Source) -> Vec<Permission> {
    let topics = source.topics.iter().map(|name| (Resource::Topic(name.clone()), Operation::Read));
    let group = (Resource::Group(context.group_id.clone()), Operation::Read);
    Permission::gather(topics.chain([group]))
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
                "--operation DescribeConfigs --cluster",
            ]
        );
        assert_eq!(default_principal(&context.plan.kafka), "User:onceflow");
    }
}
