//! Pipelines built by hand, so that they test the worker and nothing before it.

mod run;
mod stateless;
mod windowed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_expr::{Expr as Sql, ident, lit};
use datafusion_physical_expr::planner::logical2physical;
use onceflow_protocol::WindowSpec;

use crate::expr::Expr;
use crate::message::OwnedMessage;
use crate::plan::*;

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let field = |(name, data_type): &(&str, DataType)| Field::new(*name, data_type.clone(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

fn orders_schema() -> SchemaRef {
    schema(&[("user", DataType::Utf8), ("amount", DataType::Int64), ("parts", DataType::Int64)])
}

/// Records `{"user", "amount", "parts"}`, their event time that of the Kafka record.
fn orders(name: &str, on_error: OnError) -> Source {
    let schema = orders_schema();
    let column = |field: &Arc<Field>| Column {
        name: field.name().clone(),
        path: vec![field.name().clone()],
        place: 0,
        data_type: field.data_type().clone(),
        not_null: false,
    };
    Source { on_error, ..Source::json(name, schema.fields().iter().map(column).collect()) }
}

fn expr(sql: Sql, schema: &Schema, data_type: DataType) -> Expr {
    Expr::new(logical2physical(&sql, schema), data_type, "")
}

/// A step that passes everything through.
fn step(name: &str, inputs: Vec<Stream>, input: SchemaRef) -> Step {
    Step {
        name: name.into(),
        was: None,
        inputs,
        input_schema: input.clone(),
        filter: None,
        project: None,
        unnest: None,
        removed: vec![],
        projected_schema: input.clone(),
        window: None,
        output_schema: input,
        on_error: OnError::DeadLetter,
    }
}

impl Step {
    fn filtered(mut self, condition: Sql) -> Step {
        self.filter = Some(expr(condition, &self.input_schema, DataType::Boolean));
        self
    }

    fn selected(mut self, columns: Vec<(&str, Sql, DataType)>) -> Step {
        let schema = schema(
            &columns.iter().map(|(name, _, data_type)| (*name, data_type.clone())).collect::<Vec<_>>(),
        );
        let columns = columns.into_iter().map(|(_, sql, data_type)| expr(sql, &self.input_schema, data_type));
        self.project = Some(columns.collect());
        self.projected_schema = schema.clone();
        self.output_schema = schema;
        self
    }

    /// `count(*)` as `n` and `sum(of)` as `total`, by `by`.
    fn windowed(mut self, by: &[&str], of: &str, size_ms: i64, every_ms: i64, late: Late) -> Step {
        let input = self.projected_schema.clone();
        let data_type = |name: &str| input.field_with_name(name).unwrap().data_type().clone();
        let mut columns: Vec<_> = by.iter().map(|name| (*name, data_type(name))).collect();
        columns.extend([("window_start", timestamp()), ("window_end", timestamp())]);
        columns.extend([("n", DataType::Int64), ("total", DataType::Int64)]);
        self.output_schema = schema(&columns);
        self.window = Some(Window {
            spec: WindowSpec::hopping(size_ms, every_ms).unwrap(),
            group_by: by
                .iter()
                .map(|name| Group {
                    name: (*name).into(),
                    expr: expr(ident(*name), &input, data_type(name)),
                    data_type: data_type(name),
                })
                .collect(),
            aggregates: vec![
                Aggregate {
                    name: "n".into(),
                    identity: String::new(),
                    sql: String::new(),
                    function: AggregateFunction::Count,
                    argument: None,
                    argument_type: DataType::Null,
                    result_type: DataType::Int64,
                },
                Aggregate {
                    name: "total".into(),
                    identity: String::new(),
                    sql: String::new(),
                    function: AggregateFunction::Sum,
                    argument: Some(expr(ident(of), &input, DataType::Int64)),
                    argument_type: DataType::Int64,
                    result_type: DataType::Int64,
                },
            ],
            having: None,
            lateness_ms: 0,
            emits: Emits::Final,
            late,
            identity: String::new(),
            above: String::new(),
        });
        self
    }

    fn having(mut self, condition: Sql) -> Step {
        let having = expr(condition, &self.output_schema, DataType::Boolean);
        self.window.as_mut().unwrap().having = Some(having);
        self
    }
}

fn sink(name: &str, input: Stream, schema: SchemaRef, key: Key) -> Sink {
    Sink {
        name: name.into(),
        input,
        topic: SinkTopic::One(0),
        filter: None,
        key,
        headers: if matches!(input, Stream::Source(_)) { Headers::Forward } else { Headers::None },
        timestamp: SinkTimestamp::EventTime,
        partition: None,
        input_schema: schema.clone(),
        schema,
        value: SinkValue::Json(JsonFormat { timestamps: Timestamps::EpochMs, ..JsonFormat::DEFAULT }),
        on_error: OnError::DeadLetter,
    }
}

/// Output topic 0 is `out`, 1 the dead letter topic.
fn plan(sources: Vec<Source>, steps: Vec<Step>, sinks: Vec<Sink>) -> Plan {
    Plan {
        pipeline: "test".into(),
        fingerprint: 0,
        secrets: Default::default(),
        kafka: Kafka { bootstrap_servers: String::new(), properties: BTreeMap::new(), ids: Ids::default() },
        sources,
        steps,
        sinks,
        dead_letter: Some(1),
        output_topics: ["out", "dead"].map(|name| OutputTopic { name: name.into(), create: None }).into(),
        parallelism: 1,
        checkpoint: Checkpoint {
            interval: Duration::ZERO,
            max_records: 1,
            max_bytes: 1,
            timeout: Duration::ZERO,
            min_pause: Duration::ZERO,
            tolerable_failures: 0,
            storage: "".into(),
            retained: 1,
        },
        restart: Restart::None,
        state: State { backend: Backend::Memory, dir: "".into(), memory_bytes: 0 },
        tests: vec![],
    }
}

fn order(offset: i64, timestamp: i64, value: &str) -> OwnedMessage {
    OwnedMessage {
        offset,
        timestamp,
        key: Some(format!("k{offset}").into()),
        value: Some(value.into()),
        headers: vec![("h".into(), Some(b"1".to_vec()))],
    }
}

fn positive_amount() -> Sql {
    ident("amount").gt(lit(0i64))
}
