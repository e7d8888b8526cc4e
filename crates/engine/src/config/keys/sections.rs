//! Every section of a pipeline file.

use super::Form::{
    Duration, Either, List, Map, Matching, Number, OneOrMore, Section as Of, Size, Sql, Text, Words,
};
use super::{Key, Section};

const TOPIC: &str = "^[a-zA-Z0-9._-]{1,249}$";

/// A pipeline file.
pub static PIPELINE: Section = Section {
    what: "a pipeline",
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
        Key::new("restart", Of(&RESTART), "What happens after a failure that may go away by itself."),
        Key::new("state", Of(&STATE), "Where the state of open windows lives."),
    ],
};

static KAFKA: Section = Section {
    what: "`kafka`",
    keys: &[
        Key::new("bootstrap_servers", Text, "`host:port` of one broker or several, with commas between."),
        Key::new(
            "properties",
            Map(&Text),
            "Properties of librdkafka by their own names, security included. Those that the guarantee needs are refused.",
        ),
    ],
};

static SOURCE: Section = Section {
    what: "a source",
    keys: &[
        Key::new("topics", List(&Matching(TOPIC)), "Topics to read.").required(),
        Key::new("start", Words(&["earliest"]), "Where to begin, only where there is no checkpoint.")
            .default("earliest"),
        Key::new("format", Words(&["json"]), "How a record's value is written.").required(),
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
            Words(&["ignore"]),
            "What happens to members that the schema does not name.",
        )
        .default("ignore"),
        Key::new("tombstones", Words(&["error"]), "What happens to a record without a value.")
            .default("error"),
        Key::new(
            "on_error",
            Words(&["fail", "drop", "dead_letter"]),
            "What happens to a record that cannot be decoded, evaluated or encoded.",
        )
        .default("fail"),
    ],
};

static COLUMN: Section = Section {
    what: "a column",
    keys: &[
        Key::new("type", Text, "Its SQL type, perhaps with `not null`.").required(),
        Key::new("path", Text, "Members of nested objects, with dots between: `customer.address.country`.")
            .default("the column's name"),
    ],
};

static EVENT_TIME: Section = Section {
    what: "`event_time`",
    keys: &[
        Key::new("column", Text, "A column of integers or timestamps.").required(),
        Key::new("unit", Words(&["s", "ms", "us", "ns"]), "What an integer counts since 1970."),
    ],
};

static WATERMARK: Section = Section {
    what: "`watermark`",
    keys: &[
        Key::new("delay", Duration, "How far records may be out of order.").default("0s"),
        Key::new(
            "idle_after",
            Duration,
            "After how long without records a partition no longer holds the others back.",
        )
        .default("never"),
    ],
};

static STEP: Section = Section {
    what: "a step",
    keys: &[
        Key::new(
            "from",
            OneOrMore(&Text),
            "A source or an earlier step; several are a union of what agrees by name and type.",
        )
        .required(),
        Key::new("where", Sql, "Keeps the rows for which this is true."),
        Key::new("select", Map(&Sql), "Replaces all columns by these."),
        Key::new(
            "window",
            Of(&WINDOW),
            "Collects rows by event time, `[start, end)`, aligned to 1970 in UTC.",
        )
        .needs(&["group_by", "aggregate"]),
        Key::new(
            "group_by",
            Either(&[Text, List(&Text), Map(&Sql)]),
            "The window's groups: columns, or names with expressions.",
        )
        .needs(&["window"]),
        Key::new("aggregate", Map(&Sql), "What is computed for each group: `total: sum(amount)`.")
            .needs(&["window"]),
        Key::new("having", Sql, "Keeps the results for which this is true.").needs(&["window"]),
        Key::new("allowed_lateness", Duration, "How long after its end a window still takes rows.")
            .default("0s")
            .needs(&["window"]),
        Key::new("emit", Words(&["final"]), "When a window's results are written: once, when it closes.")
            .default("final")
            .needs(&["window"]),
        Key::new(
            "late",
            Words(&["dead_letter", "drop"]),
            "What happens to rows whose windows are all closed.",
        )
        .default("dead_letter, where the pipeline has one")
        .needs(&["window"]),
    ],
};

static WINDOW: Section = Section {
    what: "`window`",
    keys: &[
        Key::new("tumbling", Duration, "One window after the other, each this long."),
        Key::new("hopping", Duration, "Windows of this length, a new one `every` so often.")
            .needs(&["every"]),
        Key::new("every", Duration, "How often a hopping window begins; it divides the length.")
            .needs(&["hopping"]),
    ],
};

static SINK: Section = Section {
    what: "a sink",
    keys: &[
        Key::new("from", Text, "The source or step whose rows are written.").required(),
        Key::new("topic", Matching(TOPIC), "The topic; it must exist.").required(),
        Key::new(
            "key",
            OneOrMore(&Text),
            "The record's key: one varchar column is its bytes, several are a JSON object.",
        )
        .default("the groups of a windowed step, else the incoming key"),
        Key::new("where", Sql, "Writes only the rows for which this is true."),
        Key::new("format", Either(&[Words(&["json"]), Of(&FORMAT)]), "How a row is written.").required(),
    ],
};

static FORMAT: Section = Section {
    what: "`format`",
    keys: &[
        Key::new("type", Words(&["json"]), "The format's name.").required(),
        Key::new("timestamps", Words(&["rfc3339", "epoch_ms"]), "How timestamps are written.")
            .default("rfc3339"),
    ],
};

static DEAD_LETTER: Section = Section {
    what: "`dead_letter`",
    keys: &[Key::new("topic", Matching(TOPIC), "The topic; it must exist.").required()],
};

static CHECKPOINT: Section = Section {
    what: "`checkpoint`",
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

static RESTART: Section = Section {
    what: "`restart`",
    keys: &[
        Key::new("strategy", Words(&["exponential"]), "How pauses follow each other.").default("exponential"),
        Key::new("initial", Duration, "The first pause; it doubles from failure to failure.").default("1s"),
        Key::new("max", Duration, "The longest pause.").default("60s"),
    ],
};

static STATE: Section = Section {
    what: "`state`",
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
