//! What a step keeps by key, and what goes out of it.

use arrow::datatypes::DataType;
use onceflow_protocol::WindowSpec;
use onceflow_protocol::coordinator::Emit;

use crate::expr::Expr;

/// Keyed event-time windows of a step, or totals that go on. Output: group columns, of windows `window_start` and `window_end` (timestamps in
/// ms, UTC), aggregates. Or a deduplication: its output are rows of its input, as they came.
#[derive(Debug)]
pub struct Window {
    /// Size and slide. Totals and deduplications have that of sessions whose gap is how long something is remembered.
    pub spec: WindowSpec,
    /// The step's group columns: names of the output and expressions over the projected schema.
    pub group_by: Vec<Group>,
    /// Aggregates in output order; those of sessions and totals begin with the first and the last event. A deduplication has the time of the row
    /// that was kept.
    pub aggregates: Vec<Aggregate>,
    /// `having`, over the output schema.
    pub having: Option<Expr>,
    /// `allowed_lateness`, milliseconds: so long after its end a window closes.
    pub lateness_ms: i64,
    /// What goes out, and when.
    pub emits: Emits,
    /// What happens to rows whose windows are all closed.
    pub late: Late,
    /// What the state depends on (sizes, groups with their types and expressions) in one canonical spelling, a line each: state that
    /// was written under another identity is not this step's. Aggregates have identities of their own.
    pub identity: String,
    /// What rows have to pass on their way from the sources, or the windows, that this step reads, and what becomes of them: every
    /// `where` and `select` in one canonical spelling. It may change, but then an open window holds rows of both kinds.
    pub above: String,
}

/// What a step with state emits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emits {
    /// The results of a window, when it closes.
    Final,
    /// The results of a window, when it fires, and those that have changed since at the end of their epoch.
    Updates {
        /// Whenever time has gone on by so much, what has changed of windows that have not fired is emitted as well; milliseconds.
        early_ms: Option<i64>,
    },
    /// What groups add up to, without windows: those that have changed, at the end of their epoch.
    Totals,
    /// Rows as they came in, but for those whose groups have had one within the gap.
    Rows,
}

impl Emits {
    /// How the protocol calls it.
    pub fn rule(self) -> Emit {
        match self {
            Emits::Final => Emit::Final,
            Emits::Updates { .. } => Emit::Updates,
            Emits::Totals | Emits::Rows => Emit::Running,
        }
    }

    /// How often results come before the end of their window, if they do; milliseconds of event time.
    pub fn early_ms(self) -> Option<i64> {
        match self {
            Emits::Updates { early_ms } => early_ms,
            Emits::Final | Emits::Totals | Emits::Rows => None,
        }
    }
}

impl Window {
    /// Whether its rows are rows of its input, without duplicates.
    pub fn deduplicates(&self) -> bool {
        self.emits == Emits::Rows
    }

    /// How many of its aggregates come first that nobody has asked for: when a row was kept, or the first and the last event.
    pub fn own_aggregates(&self) -> usize {
        match self.spec.session_gap_ms() {
            None => 0,
            Some(_) if self.deduplicates() => 1,
            Some(_) => 2,
        }
    }
}

/// One group column.
#[derive(Debug)]
pub struct Group {
    /// Name in the output.
    pub name: String,
    /// Over the step's projected rows.
    pub expr: Expr,
    /// One of the scalar types.
    pub data_type: DataType,
}

/// One aggregate of a windowed step.
#[derive(Debug)]
pub struct Aggregate {
    /// Name in the output.
    pub name: String,
    /// What its state depends on (the expression and its type), in one canonical spelling.
    pub identity: String,
    /// The call as it was written, in one canonical spelling.
    pub sql: String,
    /// Which function.
    pub function: AggregateFunction,
    /// Its argument over the step's projected rows; `None` for `count(*)`.
    pub argument: Option<Expr>,
    /// Type of the argument; `Null` for `count(*)`.
    pub argument_type: DataType,
    /// Type of the result.
    pub result_type: DataType,
}

/// The allow-list of aggregates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// Rows, or rows whose argument is not null. Int64.
    Count,
    /// Sum. Int64 for integers and Decimal128 for decimals (wider inside, see the state's documentation), Float64 for doubles.
    Sum,
    /// Smallest value, same type.
    Min,
    /// Largest value, same type.
    Max,
    /// Mean: Float64 for integers and doubles, a decimal with four more digits of scale for decimals.
    Avg,
    /// Whether all values are true. Boolean.
    BoolAnd,
    /// Whether a value is true. Boolean.
    BoolOr,
    /// Variance of all values. Float64.
    VarPop,
    /// Variance of a sample. Float64.
    VarSamp,
    /// Standard deviation of all values. Float64.
    StddevPop,
    /// Standard deviation of a sample. Float64.
    StddevSamp,
    /// The value of the first row by event time, same type.
    First,
    /// The value of the last row by event time, same type.
    Last,
    /// The values of the first rows by event time, a list.
    ArrayAgg {
        /// At most so many.
        limit: u32,
    },
    /// How many different values. Int64.
    CountDistinct {
        /// A group with more has no result.
        limit: u32,
    },
    /// About how many different values. Int64.
    ApproxDistinct,
    /// About the value that a part of the values does not exceed. Float64.
    ApproxPercentile {
        /// Which part, in millionths.
        millionths: u32,
    },
}

impl AggregateFunction {
    /// Whether the result depends on the order of rows.
    pub fn is_ordered(self) -> bool {
        use AggregateFunction::{ArrayAgg, First, Last};
        matches!(self, First | Last | ArrayAgg { .. })
    }
}

/// `late:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Late {
    /// Late rows are counted and dropped.
    Drop,
    /// Their source records go to the dead letter topic.
    DeadLetter,
    /// They go to the sinks that read [`Stream::Late`].
    Stream,
}
