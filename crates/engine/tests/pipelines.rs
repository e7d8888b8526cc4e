//! Valid pipelines become the plans that they describe.

use std::time::Duration;

use arrow::datatypes::DataType;
use onceflow_engine::config::{self, Defaults};
use onceflow_engine::plan::explain::Explanation;
use onceflow_engine::plan::{
    EventTimeFrom, Headers, Key, OnError, Plan, Restart, SinkTopic, SinkValue, Stream, UnknownFields,
};
use onceflow_protocol::Delay;

const PER_USER: &str = include_str!("pipelines/orders-per-user.yaml");
const EXAMPLE_ROUTED: &str = include_str!("../../../config/examples/orders-routed.yaml");
const EXAMPLE_CLEAN: &str = include_str!("../../../config/examples/orders-clean.yaml");
const CLEAN: &str = include_str!("pipelines/orders-clean.yaml");

fn defaults() -> Defaults {
    config::read_defaults("onceflow.yaml", "kafka: { bootstrap_servers: \"broker:1234\" }", &|_: &str| None)
        .unwrap()
}

fn compile(text: &str) -> Plan {
    config::compile("test.yaml", text, &defaults(), &|_: &str| None)
        .unwrap_or_else(|found| panic!("\n{found}"))
}

fn names(schema: &arrow::datatypes::Schema) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| {
            let null = if field.is_nullable() { "" } else { " not null" };
            format!("{} {}{null}", field.name(), onceflow_engine::expr::sql_type(field.data_type()))
        })
        .collect()
}

#[test]
fn windows() {
    let plan = compile(PER_USER);
    assert_eq!(plan.pipeline, "orders-per-user");
    assert_eq!(plan.kafka.bootstrap_servers, "localhost:9092");
    assert_eq!(plan.parallelism, 2);
    assert_eq!(plan.checkpoint.interval, Duration::from_millis(200));
    assert_eq!(plan.checkpoint.max_records, 1_000_000);
    let topics: Vec<_> = plan.output_topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(topics, ["orders-per-user", "orders-hourly", "orders-per-user.dead-letter"]);
    assert_eq!(plan.dead_letter, Some(2));

    let orders = &plan.sources[0];
    assert_eq!(
        names(&orders.schema),
        [
            "user_id varchar not null",
            "country varchar",
            "amount decimal(12,2) not null",
            "ts bigint not null"
        ]
    );
    assert_eq!(orders.columns[1].path, ["customer", "address", "country"]);
    assert_eq!(orders.event_time, EventTimeFrom::Column { column: 3, multiplier: 1, divisor: 1 });
    assert_eq!((orders.delay, orders.idle_after), (Delay::Fixed(5000), Some(Duration::from_secs(30))));

    assert_eq!(
        plan.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(),
        ["paid", "per_user", "hourly"]
    );
    let per_user = &plan.steps[1];
    assert_eq!(per_user.inputs, [Stream::Step(0)]);
    assert_eq!(per_user.on_error, OnError::DeadLetter);
    assert_eq!(
        names(&per_user.output_schema),
        [
            "user_id varchar not null",
            "window_start timestamp not null",
            "window_end timestamp not null",
            "order_count bigint",
            "total_cents bigint",
            "mean decimal(38,6)",
            "biggest decimal(12,2)",
        ]
    );
    let window = per_user.window.as_ref().unwrap();
    assert_eq!(
        (window.spec.size_ms(), window.spec.every_ms(), window.lateness_ms),
        (60_000, 60_000, 600_000)
    );
    assert_eq!(
        window.identity,
        "window 60000 every 60000\n\
         group \"user_id\" varchar = \"user_id\"\n"
    );
    let identities: Vec<&str> =
        window.aggregates.iter().map(|aggregate| aggregate.identity.as_str()).collect();
    assert_eq!(
        identities,
        [
            "count(*) of *",
            "sum(\"cents\") of bigint",
            "avg(\"amount\") of decimal(12,2)",
            "max(\"amount\") of decimal(12,2)",
        ]
    );

    assert_eq!(plan.sinks[0].key, Key::Json(vec![0, 1]));
    // No key of its own: the groups, of which there are two.
    assert_eq!(plan.sinks[1].key, Key::Json(vec![0, 1]));
    assert!(matches!(plan.sinks[1].headers, Headers::None));
}

#[test]
fn no_windows() {
    let plan = compile(CLEAN);
    assert_eq!(plan.kafka.bootstrap_servers, "broker:1234");
    assert_eq!(names(&plan.sources[0].schema).len(), 4);
    let all = &plan.steps[0];
    assert_eq!(all.inputs, [Stream::Source(0), Stream::Source(1)]);
    // In the order of the first input; NULL where one of them may be.
    assert_eq!(
        names(&all.input_schema),
        ["email varchar", "country varchar", "at timestamp", "paid boolean"]
    );
    // One source drops what it cannot read, the other stops: their union stops.
    assert_eq!(all.on_error, OnError::Fail);
    assert_eq!(names(&plan.steps[1].output_schema), ["country varchar", "domain varchar", "at timestamp"]);
    assert_eq!(plan.sinks[0].key, Key::Incoming);
    assert_eq!(plan.sinks[0].on_error, OnError::Drop);
    assert!(matches!(plan.sinks[1].headers, Headers::Forward));
    assert_eq!(plan.sinks[2].key, Key::Text(0));
    assert_eq!(plan.dead_letter, None);
}

#[test]
fn what_is_unset_is_not_decoded_and_not_kept() {
    let plan = compile(EXAMPLE_CLEAN);
    let orders = &plan.sources[0];
    assert_eq!(names(&orders.schema), ["country varchar", " varchar not null"]);
    assert_eq!(orders.unknown_fields, UnknownFields::Keep);
    assert!(orders.declared.contains(&vec!["email".to_owned()]));
    assert_eq!(names(&plan.steps[0].output_schema), ["country varchar", " varchar not null"]);
    assert_eq!(plan.sinks[1].key, Key::Incoming);
}

#[test]
fn what_nobody_reads_is_not_kept() {
    let plan = compile(
        "pipeline: p
sources:
  s: { topics: [t], format: json, unknown_fields: keep, schema: { a: bigint, b: bigint } }
steps:
  changed: { from: s, set: { c: a + _partition }, unset: [x] }
  counted:
    from: changed
    window: { tumbling: 1s }
    group_by: [c, _key]
    aggregate: { n: count(*) }
    late: drop
sinks:
  out: { from: counted, topic: u, format: json }
",
    );
    assert_eq!(names(&plan.sources[0].schema), ["a bigint"]);
    assert_eq!(plan.sources[0].unknown_fields, UnknownFields::Ignore);
    let changed = &plan.steps[0];
    assert_eq!(names(&changed.input_schema), ["a bigint", "_partition int not null"]);
    assert_eq!(names(&changed.output_schema), ["c bigint"]);
    assert!(changed.removed.is_empty());
    assert_eq!(names(&plan.steps[1].projected_schema), ["c bigint", "_key varchar"]);
    assert_eq!(plan.sinks[0].key, Key::Json(vec![0, 1]));
}

#[test]
fn routes() {
    let plan = compile(EXAMPLE_ROUTED);
    let orders = &plan.sources[0];
    assert_eq!(orders.on_error, OnError::Stream);
    assert!(orders.reads("orders.web") && !orders.reads("orders") && !orders.reads("broken-orders"));
    let topics: Vec<_> = plan.output_topics.iter().map(|topic| topic.name.as_str()).collect();
    assert_eq!(topics, ["shipped.de", "shipped.fr", "shipped.nl", "broken-orders"]);
    let create =
        |topic: usize| plan.output_topics[topic].create.as_ref().and_then(|create| create.partitions);
    assert_eq!((create(0), create(2), create(3)), (Some(6), Some(6), Some(1)));
    let [by_country, broken] = &plan.sinks[..] else { panic!("{} sinks", plan.sinks.len()) };
    assert!(
        matches!(&by_country.topic, SinkTopic::Column { column: 3, allowed } if allowed.len() == 3),
        "{:?}",
        by_country.topic
    );
    assert_eq!((&by_country.key, &broken.key), (&Key::Raw(0), &Key::Incoming));
    assert_eq!((broken.input, &broken.value), (Stream::Errors(0), &SinkValue::Incoming));
    // What cannot be written there must not come back.
    assert_eq!(broken.on_error, OnError::Fail);
}

#[test]
fn columns_of_steps_without_select_follow_their_readers() {
    let plan = compile(
        "pipeline: p
sources:
  s: { topics: [t], format: json, schema: { a: bigint, b: bigint, c: bigint, d: bigint } }
steps:
  filtered: { from: s, where: a > 0 }
  counted: { from: filtered, window: { tumbling: 1s }, group_by: [c], aggregate: { n: count(*) }, late: drop }
sinks:
  out: { from: counted, topic: u, format: json }
",
    );
    assert_eq!(names(&plan.sources[0].schema), ["a bigint", "c bigint"]);
    assert_eq!(plan.sources[0].event_time, EventTimeFrom::Record);
    assert_eq!(plan.sinks[0].key, Key::Json(vec![0]));
    assert_eq!(plan.steps[1].window.as_ref().unwrap().group_by[0].data_type, DataType::Int64);
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let text = CLEAN.replace(
        "sources:",
        "kafka: { bootstrap_servers: 'a:1', properties: { sasl.password: '${PW}', client.id: x } }\nsources:",
    );
    let plan = config::compile("f", &text, &defaults(), &|_: &str| Some("hunter2".to_owned())).unwrap();
    assert_eq!(plan.kafka.properties["sasl.password"], "hunter2");
    let shown = format!("{plan:?}");
    assert!(shown.contains("***") && !shown.contains("hunter2"));
}

#[test]
fn restart_strategies_are_the_pipelines_then_the_daemons_then_the_built_in() {
    let seconds = Duration::from_secs;
    let fixed = |attempts, delay| Restart::Fixed { attempts, delay: seconds(delay) };
    let exponential = |initial, max| Restart::Exponential { initial: seconds(initial), max: seconds(max) };
    for (pipeline, daemon, expected) in [
        ("", "", exponential(1, 60)),
        ("restart: { initial: 2s }", "", exponential(2, 60)),
        ("restart: { initial: 2s }", "restart: { max: 5s }", exponential(2, 5)),
        ("", "restart: { strategy: none }", Restart::None),
        ("restart: { strategy: none }", "restart: { max: 5s }", Restart::None),
        ("restart: { max: 5s }", "restart: { strategy: none }", exponential(1, 5)),
        ("restart: { strategy: fixed, attempts: 7 }", "", fixed(7, 10)),
        ("restart: { strategy: fixed, attempts: 7 }", "restart: { strategy: fixed, delay: 2s }", fixed(7, 2)),
        ("restart: { strategy: fixed }", "restart: { strategy: failure_rate, delay: 2s }", fixed(3, 10)),
        (
            "restart: { strategy: failure_rate, failures: 4, per: 1m }",
            "",
            Restart::FailureRate { failures: 4, per: seconds(60), delay: seconds(10) },
        ),
    ] {
        let own = "pipeline: p\nsources: { in: { topics: [a], format: json, schema: { x: bigint } } }\n\
                   sinks: { out: { from: in, topic: b, format: json } }\n";
        let given = format!("kafka: {{ bootstrap_servers: \"k:1\" }}\n{daemon}\n");
        let defaults = config::read_defaults("d", &given, &|_: &str| None).unwrap();
        let plan = config::compile("p", &format!("{own}{pipeline}\n"), &defaults, &|_: &str| None)
            .unwrap_or_else(|found| panic!("{found}"));
        assert_eq!(plan.restart, expected, "{pipeline} over {daemon}");
    }
}

#[test]
fn plans_are_explained() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(std::path::absolute("tests/pipelines").unwrap());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (name, text) in [("orders-per-user", PER_USER), ("orders-clean", CLEAN)] {
            let explanation = Explanation::of(&compile(text));
            insta::assert_snapshot!(format!("{name}.txt"), explanation.to_string());
            insta::assert_snapshot!(format!("{name}.mermaid"), explanation.mermaid());
            insta::assert_snapshot!(
                format!("{name}.json"),
                serde_json::to_string_pretty(&explanation).unwrap()
            );
        }
    });
}

#[test]
fn the_pipeline_in_the_documentation_is_valid() {
    let page = include_str!("../../../docs/sources.md");
    let (_, block) = page.split_once("```yaml\n").unwrap();
    compile(block.split_once("```").unwrap().0);
}
