//! Which partitions are heard from: whose leader is connected and answers, as the client's own statistics tell.
//!
//! A partition that brings nothing says "there is nothing" only as long as its leader answers. Without that, a broker that is away
//! or hangs would look like silence, the partition would count as idle, and what waits on it would become late.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Longest time between two looks.
const MOST_BETWEEN: Duration = Duration::from_secs(1);
/// Shortest time between two looks.
const LEAST_BETWEEN: Duration = Duration::from_millis(100);

/// The partitions of one consumer, and when each was last heard from.
pub(super) struct Leaders {
    began: Instant,
    patience: Duration,
    partitions: HashMap<(Arc<str>, i32), Arc<Heard>>,
}

/// When a partition's leader last answered. Fetches at a partition's end are answered every 100 ms.
pub(super) struct Heard {
    began: Instant,
    patience: Duration,
    /// Milliseconds since `began`.
    last_ms: AtomicU64,
}

impl Heard {
    /// Whether the leader has answered lately.
    pub fn lately(&self) -> bool {
        self.at(self.began.elapsed())
    }

    fn at(&self, now: Duration) -> bool {
        now.saturating_sub(Duration::from_millis(self.last_ms.load(Relaxed))) <= self.patience
    }
}

impl Leaders {
    /// Watches partitions of which one may stop counting after `idle_after`.
    pub fn new(idle_after: Duration) -> Leaders {
        // Less than what silence takes to count, and as long as that allows: whoever serves the client may be held up.
        let patience = (3 * interval(idle_after)).max(idle_after / 2);
        Leaders { began: Instant::now(), patience, partitions: HashMap::new() }
    }

    /// A partition to watch, as if it had been heard from now.
    pub fn watch(&mut self, topic: Arc<str>, partition: i32) -> Arc<Heard> {
        let heard = Heard { began: self.began, patience: self.patience, last_ms: AtomicU64::new(0) };
        Arc::clone(self.partitions.entry((topic, partition)).or_insert_with(|| Arc::new(heard)))
    }

    /// Takes in librdkafka's statistics (JSON, see its STATISTICS.md).
    pub fn note(&self, statistics: &str) {
        self.note_at(statistics, self.began.elapsed());
    }

    fn note_at(&self, statistics: &str, now: Duration) {
        let Ok(statistics) = serde_json::from_str::<Statistics>(statistics) else {
            // No partition counts as heard from any more, and none goes idle: better than the opposite.
            return tracing::warn!("librdkafka's statistics cannot be read: no partition can become idle");
        };
        for ((topic, partition), heard) in &self.partitions {
            let leader = statistics.topics.get(topic.as_ref());
            let leader = leader.and_then(|topic| topic.partitions.get(&partition.to_string()));
            let Some(leader) = leader else { continue };
            // The group's coordinator has an entry, and a connection, of its own.
            let here = statistics.brokers.values().filter(|broker| broker.nodeid == leader.leader);
            if let Some(silent) = here.filter_map(Broker::silent).min() {
                heard.last_ms.fetch_max(now.saturating_sub(silent).as_millis() as u64, Relaxed);
            }
        }
    }
}

/// How often to look, so that a leader's silence is noticed before a partition's counts.
pub(super) fn interval(idle_after: Duration) -> Duration {
    (idle_after / 4).clamp(LEAST_BETWEEN, MOST_BETWEEN)
}

#[derive(Deserialize)]
struct Statistics {
    brokers: HashMap<String, Broker>,
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Broker {
    nodeid: i32,
    state: String,
    /// Microseconds since something came from it; -1: nothing yet on this connection.
    rxidle: i64,
}

impl Broker {
    /// For how long nothing has come from it, if it is connected.
    fn silent(&self) -> Option<Duration> {
        let silent = u64::try_from(self.rxidle).ok()?;
        (self.state == "UP").then(|| Duration::from_micros(silent))
    }
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    leader: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What librdkafka 2.12 says, less what is not read here.
    fn statistics(state: &str, rxidle: i64) -> String {
        format!(
            r#"{{"name":"rdkafka#consumer-1","brokers":{{
                 "a:9092/1":{{"nodeid":1,"state":"{state}","rxidle":{rxidle},"toppars":{{}}}},
                 "b:9092/2":{{"nodeid":2,"state":"UP","rxidle":90000}},
                 "GroupCoordinator":{{"nodeid":1,"state":"UP","rxidle":-1}}}},
               "topics":{{"t":{{"topic":"t","partitions":{{
                 "0":{{"partition":0,"broker":1,"leader":1}},
                 "1":{{"partition":1,"broker":2,"leader":2}},
                 "-1":{{"partition":-1,"broker":-1,"leader":-1}}}}}}}}}}"#
        )
    }

    #[test]
    fn a_partition_is_heard_from_while_its_leader_answers() {
        let mut leaders = Leaders::new(Duration::from_secs(8));
        let topic: Arc<str> = Arc::from("t");
        let watched = [0, 1, 7].map(|partition| leaders.watch(Arc::clone(&topic), partition));
        let seconds = Duration::from_secs;
        let heard = |at: u64| [0, 1, 2].map(|i: usize| watched[i].at(seconds(at)));
        assert_eq!((heard(4), heard(5)), ([true; 3], [false; 3]), "nothing is known");
        leaders.note_at(&statistics("UP", 900_000), seconds(5));
        assert_eq!((heard(8), heard(9)), ([true, true, false], [false, false, false]));
        for (state, rxidle) in [("UP", 5_000_000), ("UP", -1), ("DOWN", 0), ("TRY_CONNECT", 0)] {
            leaders.note_at(&statistics(state, rxidle), seconds(9));
            assert_eq!(heard(9), [false, true, false], "{state} {rxidle}");
        }
        leaders.note_at("[]", seconds(20));
        assert_eq!(heard(20), [false; 3]);
    }

    #[test]
    fn silence_is_noticed_before_it_counts() {
        for idle_after in [500, 1_000, 30_000, 3_600_000].map(Duration::from_millis) {
            let patience = Leaders::new(idle_after).patience;
            assert!(patience + interval(idle_after) <= idle_after, "{idle_after:?}");
        }
    }
}
