//! Every section of a pipeline file.

use super::Form::{
    Any, Duration, Either, List, ListOrNone, Map, Matching, Number, OneOrMore, Section as Of, SignedDuration,
    Size, Sql, Text, Words,
};
use super::{Key, Section};

const TOPIC: &str = "^[a-zA-Z0-9._-]{1,249}$";
/// A topic, or a regular expression, which begins with `^`.
const TOPICS: &str = r"^(\^.*|[a-zA-Z0-9._-]{1,249})$";
/// One character.
const CHARACTER: &str = "^.$";

/// A pipeline file.
pub static PIPELINE: Section = Section {
    id: "pipeline",
    what: "a pipeline",
    one_of: &[],
    keys: &[
        Key::new(
            "pipeline",
            Matching("^[a-z0-9-]{1,100}$"),
            "The pipeline's name: group, transactional id and control topic are named after it. A renamed pipeline is a new one.",
        )
        .required(),
        Key::new("kafka", Of(&KAFKA), "How to reach the cluster. What is missing comes from the daemon's defaults."),
        Key::new("sources", Map(&Of(&SOURCE)), "What is read, by name.").required(),
        Key::new("steps", Map(&Of(&STEP)), "What is done with it, by name. `from` makes the graph."),
        Key::new("sinks", Map(&Of(&SINK)), "What is written, by name.").required(),
        Key::new("dead_letter", Of(&DEAD_LETTER), "Where records go that cannot be used."),
        Key::new("parallelism", Number(1, 256), "Worker threads.").default("1"),
        Key::new("checkpoint", Of(&CHECKPOINT), "When a checkpoint is taken, and where it is kept."),
        Key::new("restart", Either(&[Of(&EXPONENTIAL), Of(&FIXED), Of(&FAILURE_RATE), Of(&NO_RESTART)]), "What happens after a failure that may go away by itself."),
        Key::new("state", Of(&STATE), "Where the state of open windows lives."),
        Key::new("tests", Map(&Of(&TEST)), "The pipeline's own tests, by name: `onceflow test` runs them."),
    ],
};

/// What the daemon's settings may say for all pipelines.
pub static DEFAULTS: Section = Section {
    id: "defaults",
    what: "`defaults`",
    one_of: &[],
    keys: &[
        Key::new("kafka", Of(&KAFKA), "The cluster. A pipeline's properties are added, one by one."),
        Key::new("checkpoint", Of(&CHECKPOINT), "When a checkpoint is taken, and where it is kept."),
        Key::new(
            "restart",
            Either(&[Of(&EXPONENTIAL), Of(&FIXED), Of(&FAILURE_RATE), Of(&NO_RESTART)]),
            "What happens after a failure that may go away by itself.",
        ),
        Key::new("state", Of(&STATE), "Where the state of open windows lives."),
    ],
};

static KAFKA: Section = Section {
    id: "kafka",
    what: "`kafka`",
    one_of: &[],
    keys: &[
        Key::new("bootstrap_servers", Text, "`host:port` of one broker or several, with commas between."),
        Key::new(
            "properties",
            Map(&Text),
            "Properties of librdkafka by their own names, security included. Those that the guarantee needs are refused.",
        ),
        Key::new(
            "ids",
            Of(&IDS),
            "Names in place of those made from namespace and pipeline, for prefix ACLs.",
        ),
    ],
};

/// A cluster of its own, which a source can have.
static SOURCE_KAFKA: Section = Section {
    id: "source_kafka",
    what: "`kafka`",
    one_of: &[&["bootstrap_servers"]],
    keys: &[
        Key::new("bootstrap_servers", Text, "`host:port` of one broker or several, with commas between."),
        Key::new(
            "properties",
            Map(&Text),
            "Properties of librdkafka for this cluster; the pipeline's are not used for it.",
        ),
    ],
};

static IDS: Section = Section {
    id: "ids",
    what: "`ids`",
    one_of: &[],
    keys: &[
        Key::new("group_id", Text, "The consumer group, which only names the offsets for lag tools.")
            .default("{namespace}.{pipeline}"),
        Key::new("transactional_id", Text, "What transactional ids begin with; a shard's number follows.")
            .default("{namespace}.{pipeline}"),
        Key::new("control_topic", Matching(TOPIC), "The topic of claims and decisions.")
            .default("{namespace}.{pipeline}.control"),
    ],
};

static SOURCE: Section = Section {
    id: "source",
    what: "a source",
    one_of: &[],
    keys: &[
        Key::new("kafka", Of(&SOURCE_KAFKA), "The cluster to read from.").default("the pipeline's"),
        Key::new(
            "topics",
            List(&Matching(TOPICS)),
            "Topics to read, by name or by a regular expression that begins with `^`.",
        )
        .required(),
        Key::new(
            "start",
            Either(&[Words(&["earliest", "latest"]), Of(&START)]),
            "Where to begin, only where there is no checkpoint.",
        )
        .default("earliest"),
        Key::new(
            "format",
            Either(&[Words(&["json", "csv", "raw"]), Of(&SOURCE_FORMAT)]),
            "How a record's value is written.",
        )
        .required(),
        Key::new(
            "schema",
            Map(&Either(&[Text, Of(&COLUMN)])),
            "Columns and their SQL types: `user_id: varchar not null`.",
        )
        .required(),
        Key::new("event_time", Of(&EVENT_TIME), "What a record's event time is.")
            .default("the Kafka record's timestamp"),
        Key::new("watermark", Of(&WATERMARK), "How far time has got, for windows."),
        Key::new(
            "unknown_fields",
            Words(&["ignore", "keep", "error"]),
            "What happens to members that the schema does not name; `keep` writes them again.",
        )
        .default("ignore"),
        Key::new(
            "tombstones",
            Words(&["error", "skip", "pass"]),
            "What happens to a record without a value; `pass` writes it to every sink of the source.",
        )
        .default("error"),
        Key::new(
            "on_error",
            Words(&["fail", "drop", "dead_letter", "stream"]),
            "What happens to a record that cannot be decoded, evaluated or encoded.",
        )
        .default("fail"),
        Key::new("was", Text, "Its name before, where that has changed: its positions go on."),
    ],
};

static START: Section = Section {
    id: "start",
    what: "`start`",
    one_of: &[],
    keys: &[Key::new(
        "timestamp",
        Text,
        "The first record with this Kafka timestamp or a later one: `2026-01-01T00:00:00Z`.",
    )
    .required()],
};

static SOURCE_FORMAT: Section = Section {
    id: "source_format",
    what: "`format`",
    one_of: &[],
    keys: &[
        Key::new("type", Words(&["json", "csv", "raw"]), "The format's name.").required(),
        Key::new("delimiter", Matching(CHARACTER), "CSV: the character between fields.").default("a comma"),
        Key::new("quote", Matching(CHARACTER), "CSV: the character around fields.").default("a double quote"),
        Key::new("null_text", Text, "CSV: the text of a field that is NULL.").default("nothing"),
    ],
};

static COLUMN: Section = Section {
    id: "column",
    what: "a column",
    one_of: &[],
    keys: &[
        Key::new("type", Text, "Its SQL type, perhaps with `not null`.").required(),
        Key::new("path", Text, "Members of nested objects, with dots between: `customer.address.country`.")
            .default("the column's name"),
    ],
};

static EVENT_TIME: Section = Section {
    id: "event_time",
    what: "`event_time`",
    one_of: &[],
    keys: &[
        Key::new("column", Text, "A column of integers or timestamps.").required(),
        Key::new("unit", Words(&["s", "ms", "us", "ns"]), "What an integer counts since 1970."),
        Key::new(
            "max_ahead",
            Duration,
            "How far it may be ahead of the Kafka record's timestamp; more is an error of the record.",
        ),
    ],
};

static WATERMARK: Section = Section {
    id: "watermark",
    what: "`watermark`",
    one_of: &[],
    keys: &[
        Key::new("delay", Duration, "How far records may be out of order.").default("0s"),
        Key::new("ascending", Words(&["true"]), "Event times never go back within a partition: no delay."),
        Key::new(
            "percentile",
            Matching(r"^[5-9][0-9](\.[0-9]{1,4})?$"),
            "In place of `delay`: it follows how far records are out of order, so that so many of a hundred are in time.",
        )
        .needs(&["max"]),
        Key::new("min", Duration, "The shortest delay of a `percentile`.").default("0s").needs(&["percentile"]),
        Key::new("max", Duration, "The longest delay of a `percentile`, and its delay until enough records are seen.")
            .needs(&["percentile"]),
        Key::new(
            "max_drift",
            Duration,
            "How far a partition may be ahead of the others of its source before it waits for them.",
        )
        .default("any")
        .needs(&["idle_after"]),
        Key::new(
            "idle_after",
            Duration,
            "After how long without records a partition no longer holds the others back.",
        )
        .default("never"),
    ],
};

static STEP: Section = Section {
    id: "step",
    what: "a step",
    one_of: &[],
    keys: &[
        Key::new(
            "from",
            OneOrMore(&Text),
            "A source or an earlier step; several are a union of what agrees by name and type.",
        )
        .required(),
        Key::new("where", Sql, "Keeps the rows for which this is true."),
        Key::new("select", Map(&Sql), "Replaces all columns by these."),
        Key::new("set", Map(&Sql), "Adds columns or replaces them, and keeps the rest."),
        Key::new("unset", OneOrMore(&Text), "Removes columns, and keeps the rest."),
        Key::new(
            "unnest",
            Either(&[Sql, Map(&Sql)]),
            "A row for each element of a list: `items`, or `{ item: items }`, which names the column that an element goes to.",
        ),
        Key::new(
            "window",
            Of(&WINDOW),
            "Collects rows by event time, `[start, end)`, aligned to 1970 in UTC.",
        )
        .needs(&["group_by", "aggregate"]),
        Key::new(
            "group_by",
            Either(&[Text, List(&Text), Map(&Sql)]),
            "Groups of a `window`, or with a `ttl`: columns, or names with expressions.",
        )
        .needs(&["aggregate"]),
        Key::new("aggregate", Map(&Sql), "What is computed for each group: `total: sum(amount)`.")
            .needs(&["group_by"]),
        Key::new("having", Sql, "Keeps the results for which this is true.").needs(&["group_by"]),
        Key::new(
            "ttl",
            Duration,
            "In the place of a `window`: totals that go on, of each group until it has had no row for so long.",
        )
        .needs(&["group_by", "aggregate"]),
        Key::new(
            "deduplicate",
            Of(&DEDUPLICATE),
            "Lets one of all rows with the same key go on that are close to each other in event time.",
        ),
        Key::new(
            "allowed_lateness",
            Duration,
            "How long after its end a window still takes rows; how much older than the watermark a row may be that is deduplicated.",
        )
        .default("0s"),
        Key::new(
            "emit",
            Either(&[Words(&["final", "updates"]), Of(&EMIT)]),
            "When results are written: once, when the window closes; or at its end, and again whenever they have changed; or before its end, too.",
        )
            .default("final; with a `ttl` updates")
            .needs(&["group_by"]),
        Key::new(
            "late",
            Words(&["dead_letter", "drop", "stream"]),
            "What happens to rows whose windows are all closed, or that are too old to be deduplicated.",
        )
        .default("dead_letter, where the pipeline has one"),
        Key::new("was", Text, "Its name before, where that has changed: its open windows go on."),
    ],
};

static WINDOW: Section = Section {
    id: "window",
    what: "`window`",
    one_of: &[],
    keys: &[
        Key::new("tumbling", Duration, "One window after the other, each this long."),
        Key::new("hopping", Duration, "Windows of this length, a new one `every` so often.")
            .needs(&["every"]),
        Key::new(
            "cumulative",
            Duration,
            "Windows that begin together so often, and end one `every` after the other.",
        )
        .needs(&["every"]),
        Key::new(
            "every",
            Duration,
            "How often a hopping window begins, or a cumulative one ends; it divides the length.",
        ),
        Key::new(
            "session",
            Duration,
            "Windows of one group's events with no longer gap than this between them, each as long as its events go on.",
        ),
        Key::new("offset", SignedDuration, "Shifts all windows: with `8h` days begin at 08:00 UTC.")
            .default("0s"),
    ],
};

static EMIT: Section = Section {
    id: "emit",
    what: "`emit`",
    one_of: &[],
    keys: &[Key::new(
        "early",
        Duration,
        "As `updates`, and what has changed of a window that has not ended whenever event time has gone on by so much.",
    )
    .required()],
};

static DEDUPLICATE: Section = Section {
    id: "deduplicate",
    what: "`deduplicate`",
    one_of: &[],
    keys: &[
        Key::new(
            "key",
            Either(&[Text, List(&Text), Map(&Sql)]),
            "What rows have in common that are duplicates: columns, or names with expressions.",
        )
        .required(),
        Key::new(
            "within",
            Duration,
            "How far apart in event time duplicates are at most; for so long a row is remembered.",
        )
        .required(),
    ],
};

static SINK: Section = Section {
    id: "sink",
    what: "a sink",
    one_of: &[&["topic"], &["topic_from"]],
    keys: &[
        Key::new(
            "from",
            Text,
            "The source or step whose rows are written, or `STEP.late`, or `SOURCE.errors`.",
        )
        .required(),
        Key::new(
            "topic",
            Matching(TOPIC),
            "The topic; it must exist, unless `create` says how it is created.",
        ),
        Key::new("topic_from", Text, "A text column that names the topic.").needs(&["allowed_topics"]),
        Key::new("allowed_topics", List(&Matching(TOPIC)), "Every topic that the column may name.")
            .needs(&["topic_from"]),
        Key::new("create", Of(&CREATE), "How a topic is created that does not exist."),
        Key::new(
            "key",
            OneOrMore(&Text),
            "The record's key: one varchar column is its bytes, several are a JSON object.",
        )
        .default("the groups of a windowed step, else the incoming key"),
        Key::new(
            "key_format",
            Words(&["text", "json", "raw"]),
            "How the key is written; `raw` is as Kafka's serializers for Java do.",
        ),
        Key::new("where", Sql, "Writes only the rows for which this is true."),
        Key::new(
            "headers",
            Either(&[Words(&["forward", "none"]), Map(&Sql)]),
            "The record's headers: those of the source record, none, or names with expressions.",
        )
        .default("forward, where there is a source record"),
        Key::new("timestamp", Sql, "The record's timestamp, milliseconds or a timestamp.")
            .default("the event time, or a millisecond before the end of the window"),
        Key::new("partition", Sql, "The record's partition.").default("by the key"),
        Key::new(
            "format",
            Either(&[Words(&["json", "csv", "raw"]), Of(&FORMAT)]),
            "How a row is written; `raw` is its one column, or an errors record as it came.",
        )
        .required(),
    ],
};

static FORMAT: Section = Section {
    id: "format",
    what: "`format`",
    one_of: &[],
    keys: &[
        Key::new("type", Words(&["json", "csv", "raw"]), "The format's name.").required(),
        Key::new("timestamps", Words(&["rfc3339", "epoch_ms"]), "How timestamps are written.")
            .default("rfc3339"),
        Key::new("decimals", Words(&["number", "string"]), "How decimals are written.").default("number"),
        Key::new("delimiter", Matching(CHARACTER), "CSV: the character between fields.").default("a comma"),
        Key::new("quote", Matching(CHARACTER), "CSV: the character around fields.").default("a double quote"),
        Key::new("null_text", Text, "CSV: the text of a field that is NULL.").default("nothing"),
    ],
};

static DEAD_LETTER: Section = Section {
    id: "dead_letter",
    what: "`dead_letter`",
    one_of: &[],
    keys: &[
        Key::new(
            "topic",
            Matching(TOPIC),
            "The topic; it must exist, unless `create` says how it is created.",
        )
        .required(),
        Key::new("create", Of(&CREATE), "How it is created if it does not exist."),
    ],
};

static CREATE: Section = Section {
    id: "create",
    what: "`create`",
    one_of: &[],
    keys: &[
        Key::new("partitions", Number(1, 100_000), "Partitions.").default("the brokers'"),
        Key::new("replication_factor", Number(1, 32_767), "Replicas of each.").default("the brokers'"),
        Key::new("config", Map(&Text), "Settings of the topic that differ from the brokers'."),
    ],
};

static CHECKPOINT: Section = Section {
    id: "checkpoint",
    what: "`checkpoint`",
    one_of: &[],
    keys: &[
        Key::new("interval", Duration, "Time between checkpoints; results become readable with them.").default("1s"),
        Key::new("max_records", Number(1, u64::MAX), "Records after which one is taken earlier.").default("1000000"),
        Key::new("max_bytes", Size, "Bytes of output after which one is taken earlier.").default("64MiB"),
        Key::new("timeout", Duration, "How long one may take.").default("60s"),
        Key::new("min_pause", Duration, "Least time from the end of one to the next.").default("0s"),
        Key::new(
            "tolerable_failures",
            Number(0, 1000),
            "How often writing one snapshot may fail before everything since the last checkpoint is done again.",
        )
        .default("0"),
        Key::new(
            "storage",
            Matching("^file:///"),
            "The URL of a directory for snapshots.",
        )
        .default("file:///var/lib/onceflow/checkpoints"),
        Key::new("retained", Number(1, 1000), "Snapshots kept.").default("3"),
    ],
};

static EXPONENTIAL: Section = Section {
    id: "restart_exponential",
    what: "`restart`",
    one_of: &[],
    keys: &[
        Key::new("strategy", Words(&["exponential"]), "The pause doubles from failure to failure.")
            .default("exponential"),
        Key::new("initial", Duration, "The first pause.").default("1s"),
        Key::new("max", Duration, "The longest pause.").default("60s"),
    ],
};

static FIXED: Section = Section {
    id: "restart_fixed",
    what: "`restart`",
    one_of: &[&["strategy"]],
    keys: &[
        Key::new("strategy", Words(&["fixed"]), "So many starts in a row without a commit, and no more."),
        Key::new("attempts", Number(1, 1_000_000), "How many.").default("3"),
        Key::new("delay", Duration, "The pause before each.").default("10s"),
    ],
};

static FAILURE_RATE: Section = Section {
    id: "restart_failure_rate",
    what: "`restart`",
    one_of: &[&["strategy"]],
    keys: &[
        Key::new("strategy", Words(&["failure_rate"]), "It ends where failures come too often."),
        Key::new("failures", Number(1, 1_000_000), "How many are tolerated.").default("3"),
        Key::new("per", Duration, "Within which time.").default("10m"),
        Key::new("delay", Duration, "The pause before each start.").default("10s"),
    ],
};

static NO_RESTART: Section = Section {
    id: "restart_none",
    what: "`restart`",
    one_of: &[&["strategy"]],
    keys: &[Key::new("strategy", Words(&["none"]), "The first failure ends the pipeline.")],
};

static STATE: Section = Section {
    id: "state",
    what: "`state`",
    one_of: &[],
    keys: &[
        Key::new("backend", Words(&["rocksdb", "memory"]), "Where state goes that `memory` cannot hold.")
            .default("rocksdb"),
        Key::new(
            "dir",
            Text,
            "A working directory of this machine; its content is thrown away at every start.",
        )
        .default("/var/lib/onceflow/state"),
        Key::new("memory", Size, "The budget of state, held output and caches.").default("256MiB"),
    ],
};

static TEST: Section = Section {
    id: "test",
    what: "a test",
    one_of: &[],
    keys: &[
        Key::new(
            "input",
            List(&Either(&[Words(&["checkpoint", "crash", "end"]), Of(&HAPPENING), Of(&GIVEN)])),
            "What happens, in order: records, checkpoints (windows close), crashes, and the end of a bounded run.",
        )
        .required(),
        Key::new("output", Map(&ListOrNone(&Of(&WRITTEN))), "What sinks write, by name: these records and no others."),
        Key::new("dead_letters", ListOrNone(&Of(&LETTER)), "The dead letters: these and no others.").default("none"),
    ],
};

static HAPPENING: Section = Section {
    id: "happening",
    what: "what happens",
    one_of: &[&["wait"], &["watermark"]],
    keys: &[
        Key::new("wait", Duration, "So much time passes without records."),
        Key::new(
            "watermark",
            Text,
            "A checkpoint at which every source's watermark is this, whatever was read.",
        ),
    ],
};

static GIVEN: Section = Section {
    id: "given_record",
    what: "a record",
    one_of: &[],
    keys: &[
        Key::new("source", Text, "The source.").default("the only one"),
        Key::new("topic", Text, "The topic.").default("the source's first"),
        Key::new("partition", Number(0, i32::MAX as u64), "The partition.").default("0"),
        Key::new(
            "timestamp",
            Text,
            "The Kafka record's timestamp: `2026-01-01T00:00:00Z`, or milliseconds since 1970.",
        )
        .default("1"),
        Key::new("key", Any, "The record's key; a map is JSON.").default("null"),
        Key::new("value", Any, "The record's value; a map is JSON, a text is itself.").required(),
        Key::new("headers", Map(&Text), "The record's headers."),
    ],
};

static WRITTEN: Section = Section {
    id: "written_record",
    what: "a written record",
    one_of: &[],
    keys: &[
        Key::new("value", Any, "Its value; a map is compared as JSON, numbers by their worth.")
            .default("anything"),
        Key::new("key", Any, "Its key, in the same way.").default("anything"),
        Key::new("timestamp", Text, "Its timestamp.").default("anything"),
        Key::new("topic", Text, "Its topic.").default("anything"),
        Key::new("partition", Number(0, i32::MAX as u64), "Its partition, where the sink says one.")
            .default("anything"),
        Key::new("headers", Map(&Text), "Headers that it has among others."),
    ],
};

static LETTER: Section = Section {
    id: "expected_letter",
    what: "a dead letter",
    one_of: &[],
    keys: &[
        Key::new("value", Any, "Its value; a map is compared as JSON, numbers by their worth.")
            .default("anything"),
        Key::new("key", Any, "Its key, in the same way.").default("anything"),
        Key::new(
            "reason",
            Words(&["decode", "ahead", "tombstone", "evaluate", "late", "overflow", "encode", "refused"]),
            "Why it is one.",
        )
        .default("anything"),
        Key::new("step", Text, "The source, step or sink where it became one.").default("anything"),
    ],
};
