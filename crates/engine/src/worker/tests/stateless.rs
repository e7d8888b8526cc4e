use onceflow_protocol::ErrorKind;

use super::run::{Run, Written};
use super::*;
use crate::operators::counts::Counts;
use crate::worker::TopicLimits;

/// `amount > 0`, then the amount of each part.
fn split() -> Step {
    step("split", vec![Stream::Source(0)], orders_schema()).filtered(positive_amount()).selected(vec![
        ("user", ident("user"), DataType::Utf8),
        ("each", ident("amount") / ident("parts"), DataType::Int64),
    ])
}

fn splitting(source: OnError, in_step: OnError) -> Plan {
    let split = Step { on_error: in_step, ..split() };
    let schema = split.output_schema.clone();
    plan(
        vec![orders("orders", source)],
        vec![split],
        vec![sink("all", Stream::Step(0), schema, Key::Text(0))],
    )
}

fn mixed() -> Vec<OwnedMessage> {
    vec![
        order(10, 1000, r#"{"user":"a","amount":10,"parts":2}"#),
        order(11, 1001, r#"{"user":"b","amount":0,"parts":2}"#),
        order(13, 1002, r#"{"user":null,"amount":null}"#),
        order(14, 1003, r#"{"user":"c","amount":10,"parts":0}"#),
        order(15, 1004, r#"no json"#),
        order(16, 1005, r#"{"user":null,"amount":9,"parts":3}"#),
    ]
}

#[test]
fn rows_are_filtered_projected_and_written() {
    let mut run = Run::new(splitting(OnError::DeadLetter, OnError::DeadLetter), 1);
    run.process(0, mixed()).unwrap();
    assert_eq!(run.values(), [r#"{"user":"a","each":5}"#, r#"{"user":null,"each":3}"#]);
    let written: Vec<_> = run
        .written
        .iter()
        .filter(|record| !record.dead)
        .map(|record| (record.key.as_deref(), record.timestamp))
        .collect();
    assert_eq!(written, [(Some("a"), 1000), (None, 1005)]);
    let counts = Counts { records_in: 6, used: 2, filtered: 2, dead: 2, out: 2, ..Counts::default() };
    assert_eq!(run.counts(), counts);

    let dead = run.dead();
    assert_eq!(dead.len(), 2);
    let decode = dead.iter().find(|letter| letter.header("onceflow.offset") == Some("15")).unwrap();
    assert_eq!(decode.value.as_deref(), Some("no json"));
    assert_eq!(decode.key.as_deref(), Some("k15"));
    assert_eq!((decode.header("h"), decode.header("onceflow.step")), (Some("1"), Some("orders")));
    assert_eq!(
        (decode.header("onceflow.topic"), decode.header("onceflow.partition")),
        (Some("in"), Some("0"))
    );
    assert_eq!((decode.header("onceflow.reason"), decode.timestamp), (Some("decode"), 1004));
    let evaluate = dead.iter().find(|letter| letter.header("onceflow.offset") == Some("14")).unwrap();
    assert_eq!(
        (evaluate.header("onceflow.reason"), evaluate.header("onceflow.step")),
        (Some("evaluate"), Some("split"))
    );
    assert!(evaluate.header("onceflow.error").unwrap().to_lowercase().contains("divide by zero"));
}

#[test]
fn dropped_records_are_counted() {
    let mut run = Run::new(splitting(OnError::Drop, OnError::Drop), 1);
    run.process(0, mixed()).unwrap();
    assert_eq!(run.dead().len(), 0);
    let counts = Counts { records_in: 6, used: 2, filtered: 2, dropped: 2, out: 2, ..Counts::default() };
    assert_eq!(run.counts(), counts);
    let counts = run.workers[0].counts();
    assert_eq!(counts.sources[0].dropped.iter().sum::<u64>(), 1);
    assert_eq!((counts.steps[0].rows_in, counts.steps[0].filtered, counts.steps[0].rows_out), (5, 2, 2));
}

#[test]
fn failing_names_the_record() {
    let error = Run::new(splitting(OnError::Fail, OnError::Fail), 1).process(0, mixed()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Data);
    assert!(
        error.message.starts_with("source orders: topic in, partition 0, offset 15: not JSON"),
        "{error}"
    );
    let error = Run::new(splitting(OnError::Drop, OnError::Fail), 1).process(0, mixed()).unwrap_err();
    assert!(error.message.starts_with("step split: topic in, partition 0, offset 14: "), "{error}");
}

#[test]
fn a_record_that_fails_in_two_branches_is_dead_lettered_once() {
    let mut plan = splitting(OnError::DeadLetter, OnError::DeadLetter);
    plan.steps.push(Step { name: "again".into(), ..split() });
    plan.sinks.push(sink("raw", Stream::Source(0), orders_schema(), Key::Incoming));
    let mut run = Run::new(plan, 1);
    run.process(0, mixed()).unwrap();
    assert_eq!(run.dead().len(), 2);
    // What reaches any sink is used; trouble in one branch counts before success in another.
    let counts = Counts { records_in: 6, used: 4, dead: 2, out: 7, ..Counts::default() };
    assert_eq!(run.counts(), counts);
    let raw = run.written.iter().find(|record| record.key.as_deref() == Some("k11")).unwrap();
    assert_eq!(raw.value.as_deref(), Some(r#"{"user":"b","amount":0,"parts":2}"#));
    assert_eq!(raw.header("h"), Some("1"));
}

#[test]
fn what_a_topic_would_refuse_follows_on_error() {
    let mut run = Run::new(splitting(OnError::DeadLetter, OnError::DeadLetter), 1);
    run.workers[0].set_limits(0, TopicLimits { max_record_bytes: 30, timestamps: 2..=2000, partitions: 1 });
    let long = format!(r#"{{"user":"{}","amount":1,"parts":1}}"#, "x".repeat(30));
    run.process(
        0,
        vec![
            order(0, 1, r#"{"user":"a","amount":1,"parts":1}"#),
            order(1, 2001, r#"{"user":"b","amount":1,"parts":1}"#),
            order(2, 2000, r#"{"user":"c","amount":1,"parts":1}"#),
            order(3, 5, &long),
        ],
    )
    .unwrap();
    assert_eq!(run.values(), [r#"{"user":"c","each":1}"#]);
    let dead = run.dead();
    assert!(dead.iter().all(|letter| letter.header("onceflow.reason") == Some("refused")));
    let timestamps: Vec<_> = dead.iter().map(|letter| letter.timestamp).collect();
    assert_eq!(timestamps, [1, 2001, 5]);

    // A letter that is itself too large goes without what is large.
    let mut letter = |limit: usize| {
        run.workers[0].set_limits(1, TopicLimits { max_record_bytes: limit, ..TopicLimits::default() });
        let headers = vec![("h".to_owned(), Some(vec![b'1'; 100]))];
        run.process(0, vec![OwnedMessage { headers, ..order(4, 1, &long) }])
            .map(|()| run.dead().pop().unwrap().clone())
    };
    let whole = letter(1000).unwrap();
    let size = |letter: &Written| {
        let header = |(name, value): &(String, String)| name.len() + value.len() + 10;
        letter.key.as_ref().map_or(0, String::len)
            + letter.value.as_ref().map_or(0, String::len)
            + letter.headers.iter().map(header).sum::<usize>()
    };
    assert_eq!(letter(size(&whole)).unwrap().value, Some(long.clone()));
    let cut = letter(size(&whole) - 1).unwrap();
    assert_eq!((cut.value.as_ref(), cut.key.as_deref()), (None, Some("k4")));
    assert_eq!(cut.header("onceflow.omitted"), Some(&*format!("value ({})", long.len())));
    let bare = letter(size(&cut) - 1).unwrap();
    assert_eq!((bare.value.as_ref(), bare.key.as_ref()), (None, None));
    assert_eq!(bare.header("onceflow.offset"), Some("4"));
    // Where not even its provenance fits, nothing may be lost silently.
    assert_eq!(letter(100).unwrap_err().kind, ErrorKind::Data);
}

#[test]
fn sinks_route_by_their_condition() {
    let mut plan = splitting(OnError::DeadLetter, OnError::DeadLetter);
    let schema = plan.steps[0].output_schema.clone();
    plan.sinks[0].filter = Some(expr(ident("each").gt(lit(3i64)), &schema, DataType::Boolean));
    plan.sinks[0].key = Key::Json(vec![1, 0]);
    let mut run = Run::new(plan, 1);
    run.process(0, mixed()).unwrap();
    assert_eq!(run.values(), [r#"{"user":"a","each":5}"#]);
    let written = run.written.iter().find(|record| !record.dead).unwrap();
    assert_eq!(written.key.as_deref(), Some(r#"{"each":5,"user":"a"}"#));
    // The other one passed the step's `where`, but no sink took it.
    let counts = Counts { records_in: 6, used: 1, filtered: 3, dead: 2, out: 1, ..Counts::default() };
    assert_eq!(run.counts(), counts);
}

#[test]
fn a_union_takes_its_inputs_columns_by_name() {
    let other = schema(&[("amount", DataType::Int64), ("user", DataType::Utf8), ("parts", DataType::Int64)]);
    let turned = step("turned", vec![Stream::Source(0)], orders_schema()).selected(vec![
        ("amount", ident("amount"), DataType::Int64),
        ("user", ident("user"), DataType::Utf8),
        ("parts", ident("parts"), DataType::Int64),
    ]);
    assert_eq!(turned.output_schema, other);
    let union = step("union", vec![Stream::Source(1), Stream::Step(0)], orders_schema());
    let mut run = Run::new(
        plan(
            vec![orders("a", OnError::Fail), orders("b", OnError::Fail)],
            vec![turned, union],
            vec![sink("all", Stream::Step(1), orders_schema(), Key::Text(0))],
        ),
        1,
    );
    run.process_source(0, 0, vec![order(0, 1, r#"{"user":"first","amount":1,"parts":2}"#)]).unwrap();
    run.process_source(1, 0, vec![order(0, 1, r#"{"user":"second","amount":3,"parts":4}"#)]).unwrap();
    let expected = [r#"{"user":"first","amount":1,"parts":2}"#, r#"{"user":"second","amount":3,"parts":4}"#];
    assert_eq!(run.values(), expected);
}

#[test]
fn tombstones_keep_their_place_and_pass_everything() {
    let mut plan = splitting(OnError::DeadLetter, OnError::DeadLetter);
    let schema = plan.steps[0].output_schema.clone();
    plan.sources[0].tombstones = Tombstones::Pass;
    plan.sinks[0] = sink("all", Stream::Step(0), schema.clone(), Key::Incoming);
    plan.sinks[0].headers = Headers::Forward;
    plan.sinks[0].filter = Some(expr(ident("each").gt(lit(3i64)), &schema, DataType::Boolean));
    plan.sinks.push(sink("raw", Stream::Source(0), orders_schema(), Key::Incoming));
    plan.sinks[1].topic = SinkTopic::One(1);
    let null = |offset, timestamp| OwnedMessage { value: None, ..order(offset, timestamp, "") };
    let mut run = Run::new(plan, 1);
    run.process(
        0,
        vec![
            null(0, 1),
            order(1, 2, r#"{"user":"a","amount":10,"parts":1}"#),
            null(2, 3),
            null(3, 4),
            order(4, 5, r#"{"user":"b","amount":20,"parts":1}"#),
            order(5, 6, "no json"),
            null(6, -1),
        ],
    )
    .unwrap();
    let keys = |topic: usize| -> Vec<_> {
        let written = run.written.iter().filter(|record| !record.dead && record.topic == topic);
        written
            .map(|record| (record.key.as_deref().unwrap(), record.value.is_some(), record.timestamp))
            .collect()
    };
    let expected = [("k0", false, 1), ("k1", true, 2), ("k2", false, 3), ("k3", false, 4), ("k4", true, 5)];
    assert_eq!(keys(0), expected);
    assert_eq!(keys(1), expected);
    assert!(run.written.iter().all(|record| record.header("h") == Some("1")));
    // The one without a timestamp would be refused by both topics, and has one letter.
    let reasons: Vec<_> = run.dead().iter().map(|letter| letter.header("onceflow.reason").unwrap()).collect();
    assert_eq!(reasons, ["decode", "refused"]);
    let counts = Counts { records_in: 7, used: 5, dead: 2, out: 10, ..Counts::default() };
    assert_eq!(run.counts(), counts);
}
