//! What is measured: a job, its input, and how it is set up.

use onceflow_benches::workload::Workload;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Count and sum by user in windows of a minute.
    Tumbling,
    /// The same in windows of ten minutes, one every minute.
    Hopping,
    /// Every order, rewritten.
    Stateless,
    /// Count and sum by user in windows that stay open while something is measured: a day's, unless said otherwise.
    Day,
}

impl Job {
    /// As it is called in files and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Job::Tumbling => "tumbling",
            Job::Hopping => "hopping",
            Job::Stateless => "stateless",
            Job::Day => "day",
        }
    }

    /// Length of a window and distance of their beginnings, milliseconds.
    pub fn window_ms(self) -> Option<(i64, i64)> {
        match self {
            Job::Tumbling => Some((60_000, 60_000)),
            Job::Hopping => Some((600_000, 60_000)),
            Job::Stateless => None,
            Job::Day => Some((86_400_000, 86_400_000)),
        }
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// librdkafka's batch call, and nothing done with the records.
    Loop,
    /// The same, with four fields of each record decoded by serde_json.
    Decode,
    /// The same as the first, with each record written as it is.
    Copy,
    /// Onceflow.
    Onceflow,
    /// Flink's DataStream API, state on the heap.
    FlinkHeap,
    /// Flink SQL, state in RocksDB, incremental checkpoints.
    FlinkRocksdb,
    /// Flink's DataStream API, state in RocksDB, incremental checkpoints.
    FlinkStreamRocksdb,
    /// Kafka Streams, exactly once.
    Streams,
}

impl Contender {
    /// As it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Contender::Loop => "bare loop",
            Contender::Decode => "bare loop, decoding",
            Contender::Copy => "bare loop, copying",
            Contender::Onceflow => "Onceflow",
            Contender::FlinkHeap => "Flink DataStream, heap",
            Contender::FlinkRocksdb => "Flink SQL, RocksDB",
            Contender::FlinkStreamRocksdb => "Flink DataStream, RocksDB",
            Contender::Streams => "Kafka Streams",
        }
    }

    /// Whether it is Flink.
    pub fn is_flink(self) -> bool {
        matches!(self, Contender::FlinkHeap | Contender::FlinkRocksdb | Contender::FlinkStreamRocksdb)
    }

    /// Whether it needs a topic to write to.
    pub fn writes(self) -> bool {
        !matches!(self, Contender::Loop | Contender::Decode)
    }

    /// Whether what it writes are answers, which can be compared.
    pub fn answers(self) -> bool {
        self.writes() && self != Contender::Copy
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Case {
    /// As it is called in tables and on the command line.
    pub name: &'static str,
    /// What is computed.
    pub job: Job,
    /// Distinct users.
    pub users: u32,
    /// Bytes by which each record is longer than 139.
    pub padding: usize,
    /// Between checkpoints (commits), milliseconds.
    pub interval_ms: u64,
    /// Worker threads.
    pub parallelism: usize,
    /// How long producers wait for a batch to fill, milliseconds.
    pub linger_ms: u32,
    /// What those that run on Java may use of it for objects, GiB.
    pub heap_gib: u32,
    /// Who takes part.
    pub contenders: Vec<Contender>,
}

impl Case {
    /// The input with so many orders.
    pub fn workload(&self, orders: i64) -> Workload {
        Workload { orders, users: self.users, padding: self.padding }
    }
}

/// What the others change something of, and what a quick run measures.
pub fn base() -> Case {
    use Contender::{Decode, FlinkHeap, FlinkRocksdb, Loop, Onceflow, Streams};
    Case {
        name: "tumbling",
        job: Job::Tumbling,
        users: 100_000,
        padding: 0,
        interval_ms: 1_000,
        parallelism: 1,
        linger_ms: 20,
        heap_gib: 4,
        contenders: vec![Loop, Decode, Onceflow, FlinkHeap, FlinkRocksdb, Streams],
    }
}

/// All whose figure is the slope between two sizes.
pub fn cases() -> Vec<Case> {
    use Contender::{Copy, FlinkHeap, Loop, Onceflow, Streams};
    let base = base();
    let few = Case { contenders: vec![Loop, Onceflow, FlinkHeap], ..base.clone() };
    vec![
        base.clone(),
        Case { name: "tumbling-2-workers", parallelism: 2, ..base.clone() },
        Case { name: "hopping", job: Job::Hopping, ..few.clone() },
        Case {
            name: "stateless",
            job: Job::Stateless,
            contenders: vec![Loop, Copy, Onceflow, FlinkHeap, Streams],
            ..base
        },
        Case { name: "1k-users", users: 1_000, ..few.clone() },
        Case { name: "1m-users", users: 1_000_000, ..few.clone() },
        Case { name: "10m-users", users: 10_000_000, ..few.clone() },
        Case { name: "1-kb-records", padding: 885, ..few.clone() },
        Case { name: "every-100-ms", interval_ms: 100, ..few.clone() },
        Case { name: "every-10-s", interval_ms: 10_000, ..few },
    ]
}
