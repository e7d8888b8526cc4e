//! The topics and partitions of the sources, as their clusters have them: at a start, and later whether anything was added.
//!
//! A run reads the partitions that its start found. What is added later is found by looking now and then; the run then ends with a
//! checkpoint, and the next one's start finds it ([`Event::SourcesChanged`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceflow_engine::plan::Source;
use onceflow_protocol::coordinator::Event;
use onceflow_protocol::{Position, TopicIdentity};

use super::super::context::SINKS;
use super::{CALL, Done, Keeper, Trouble, config};
use crate::kafka::{Admin, Isolation, KafkaError, Reader, TopicDescription};

/// How often, and after which pause, a topic is asked for that seems not to exist.
const ASK: u32 = 3;
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A topic that a source reads.
pub(super) struct SourceTopic {
    /// Number of the source.
    pub source: usize,
    /// Its name.
    pub topic: String,
    /// What it is now.
    pub description: TopicDescription,
}

impl SourceTopic {
    /// The topic's id; nothing where it is unknown.
    pub fn id(&self) -> &str {
        self.description.id.as_deref().unwrap_or_default()
    }
}

impl Keeper {
    /// Every topic that a source reads: those that it names, which must be there, and those that match its patterns.
    pub(super) fn source_topics(&mut self) -> Done<Vec<SourceTopic>> {
        let context = self.context.clone();
        let mut topics: Vec<SourceTopic> = vec![];
        for (number, source) in context.plan.sources.iter().enumerate() {
            let cluster = context.cluster_of(number);
            for topic in &source.topics {
                let Some(description) = existing(self.admin(cluster)?, topic)? else {
                    return Err(config(format!("topic `{topic}`, which the pipeline reads, does not exist")));
                };
                topics.push(SourceTopic { source: number, topic: topic.clone(), description });
            }
            for topic in self.matching(number, CALL)? {
                let twice = |other: &&SourceTopic| {
                    context.cluster_of(other.source) == cluster && other.topic == topic
                };
                if let Some(other) = topics.iter().find(twice) {
                    let (first, second) = (&context.plan.sources[other.source].name, &source.name);
                    return Err(config(format!(
                        "topic `{topic}` is read by the sources `{first}` and `{second}`: a pattern of one of them must leave it out"
                    )));
                }
                // One that was deleted a moment ago is none.
                if let Some(description) = existing(self.admin(cluster)?, &topic)? {
                    topics.push(SourceTopic { source: number, topic, description });
                }
            }
        }
        Ok(topics)
    }

    /// The topics that match a source's patterns and are not named by it, in order.
    fn matching(&mut self, number: usize, timeout: Duration) -> Result<Vec<String>, Trouble> {
        let context = self.context.clone();
        let (source, cluster) = (&context.plan.sources[number], context.cluster_of(number));
        if source.patterns.is_empty() {
            return Ok(vec![]);
        }
        let is_new = |topic: &String| {
            let own = cluster == SINKS && *topic == context.control_topic;
            !own && !source.topics.contains(topic) && source.reads(topic)
        };
        let mut topics: Vec<String> =
            self.admin(cluster)?.topic_names(timeout)?.into_iter().filter(is_new).collect();
        topics.sort();
        Ok(topics)
    }

    /// (source, topic, partition) of all that is to be read.
    pub(super) fn source_partitions(&mut self) -> Done<Vec<(usize, String, i32)>> {
        let topics = self.source_topics()?.into_iter();
        let partitions = topics.flat_map(|SourceTopic { source, topic, description }| {
            (0..description.partitions).map(move |partition| (source, topic.clone(), partition))
        });
        Ok(partitions.collect())
    }

    /// The number of the source of that name, if it reads the topic, which need not be there.
    pub(super) fn reads(&self, source: &str, topic: &str) -> Option<usize> {
        let sources = &self.context.plan.sources;
        sources.iter().position(|of: &Source| of.name == source && of.reads(topic))
    }

    /// What tells a source's topics from others of the same names.
    pub(super) fn identities(&self, topics: &[SourceTopic]) -> Vec<TopicIdentity> {
        let sources = &self.context.plan.sources;
        let identity = |topic: &SourceTopic| TopicIdentity {
            source: sources[topic.source].name.clone(),
            topic: topic.topic.clone(),
            id: topic.id().to_owned(),
        };
        topics.iter().map(identity).collect()
    }

    /// A consumer without partitions on the cluster of each source, in their order; one for each cluster.
    pub(super) fn askers(&self) -> Done<Vec<Reader>> {
        let context = &self.context;
        let open = |connection| Reader::idle(connection, &context.group_id, Isolation::Committed);
        Ok(context.connections.iter().map(open).collect::<Result<_, KafkaError>>()?)
    }

    /// Looks whether the topics that are read are still the same ones, and whether there is more to read: one after the other until the
    /// deadline, and on from there the next time.
    pub(super) fn look_at_topics(&mut self, deadline: Instant) -> Done {
        let (topics, sources) = (self.topics.len(), self.context.plan.sources.len());
        for _ in 0..topics + sources {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let turn = self.look_next % (topics + sources);
            self.look_next = turn + 1;
            let added = match turn.checked_sub(topics) {
                None => self.look_at_topic(self.topics[turn].clone(), left)?,
                Some(source) => self.look_for_topics(source, left),
            };
            // A bounded run ends where the partitions ended that it began with.
            if added && !self.told_of_changes && !self.context.settings.until_end {
                self.told_of_changes = true;
                self.driver.event(Event::SourcesChanged);
            }
        }
        Ok(())
    }

    /// Whether a topic that is read has partitions that are not. What is not answered in time is seen the next time.
    fn look_at_topic(&mut self, known: TopicIdentity, limit: Duration) -> Done<bool> {
        let Some(source) = self.reads(&known.source, &known.topic) else { return Ok(false) };
        let cluster = self.context.cluster_of(source);
        let Ok(Some(now)) = self.admin(cluster)?.describe_topic(&known.topic, limit) else {
            return Ok(false);
        };
        if now.id.as_deref().is_some_and(|id| known.was_replaced_by(id)) {
            return Err(Trouble::Refused(format!(
                "topic `{}` was deleted and created anew while it was read",
                known.topic
            )));
        }
        let is_read = |partition| self.assigned.contains(&(source, known.topic.clone(), partition));
        Ok(!(0..now.partitions).all(is_read))
    }

    /// Whether topics match a source's patterns that are not read.
    fn look_for_topics(&mut self, source: usize, limit: Duration) -> bool {
        let Ok(topics) = self.matching(source, limit) else { return false };
        let assigned: BTreeSet<&String> =
            self.assigned.iter().filter(|(of, ..)| *of == source).map(|(_, topic, _)| topic).collect();
        topics.iter().any(|topic| !assigned.contains(topic))
    }

    /// Whether a known position is of a topic that a source reads by a pattern and that is not there now: it keeps its position.
    pub(super) fn is_away(&self, position: &Position, topics: &[SourceTopic]) -> bool {
        let there = |source: usize| {
            topics.iter().any(|topic| topic.source == source && topic.topic == position.topic)
        };
        self.reads(&position.source, &position.topic).is_some_and(|source| !there(source))
    }
}

/// A topic as the cluster has it. A broker that has just come back, or has not heard of a new topic, says that there is none:
/// it is asked again before that is believed.
pub(super) fn existing(admin: &Admin, topic: &str) -> Done<Option<TopicDescription>> {
    for _ in 1..ASK {
        if let Some(description) = admin.describe_topic(topic, CALL)? {
            return Ok(Some(description));
        }
        std::thread::sleep(ASK_AGAIN);
    }
    Ok(admin.describe_topic(topic, CALL)?)
}
