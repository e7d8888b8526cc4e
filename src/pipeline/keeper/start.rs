//! The start's questions to Kafka and to the checkpoint storage.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use onceflow_engine::plan::{OutputTopic, Start};
use onceflow_protocol::coordinator::{ControlRecord, Event, Failure, Fate, SeenClaim, Traces};
use onceflow_protocol::{Claim, ClaimId, Decision, Epoch, ErrorKind, FORMAT_VERSION, NextOffset, Position};

use super::super::change::match_steps;
use super::super::context::{Context, Ends, SHARD, SINKS};
use super::topology::{SourceTopic, existing};
use super::{CALL, Done, Keeper, Trouble, config};
use crate::connect;
use crate::kafka::{self, Admin, ControlReader, ControlTopic, Creation, Isolation, NewTopic, Reader, Until};
use crate::storage::{FileName, StorageErrorKind};

impl Keeper {
    /// The control topic, and what else must be right with the cluster before anyone is fenced.
    pub(super) fn ensure_control_topic(&mut self) -> Done {
        let topic = ControlTopic { name: self.context.control_topic.clone(), shards: SHARD as i32 + 1 };
        let plan = self.context.plan.clone();
        let needed = self.context.transaction_timeout();
        self.check_permissions()?;
        // Before anything is created: a mistake in a topic's name leaves nothing behind.
        self.source_topics()?;
        let admin = self.admin(SINKS)?;
        for output in &plan.output_topics {
            ensure_output(admin, output)?;
        }
        let granted = match admin.transaction_max_timeout(CALL) {
            // Not everybody may ask. Then the producer is refused when it is initialised.
            Err(error) if error.is_unauthorized() => None,
            answer => Some(answer?),
        };
        if let Some(granted) = granted.filter(|granted| needed > *granted) {
            return Err(config(format!(
                "a transaction may have to stay open for {} ms (checkpoint.interval + checkpoint.timeout × (1 + \
                 tolerable_failures) + 30 s), but the brokers' transaction.max.timeout.ms is {}",
                needed.as_millis(),
                granted.as_millis()
            )));
        }
        let ensured = topic.ensure(admin, CALL)?;
        if ensured.created {
            tracing::info!(topic = topic.name, "created the control topic");
        }
        self.driver.event(Event::ControlTopicReady);
        Ok(())
    }

    /// What the pipeline may not do with its topics: all of it at once, and before anyone is fenced.
    fn check_permissions(&mut self) -> Done {
        let context = self.context.clone();
        let mut needed = vec![(SINKS, connect::needed(&context))];
        for (number, source) in context.plan.sources.iter().enumerate() {
            if source.kafka.is_some() {
                needed.push((context.cluster_of(number), connect::needed_by(&context, source)));
            }
        }
        let mut missing = vec![];
        for (cluster, permissions) in needed {
            let admin = self.admin(cluster)?;
            for permission in permissions {
                missing.extend(connect::missing(&permission, admin, CALL)?);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
        Err(config(format!("these ACLs are not granted: {}; {}", missing.join("; "), kafka::HOW_TO_GRANT)))
    }

    /// The newest committed claim and decision, as they are now.
    pub(super) fn read_newest(&mut self) -> Done {
        let reader = self.control_reader(Isolation::Committed)?;
        let enough = |newest: &kafka::Newest| {
            newest.get(Decision::KEY.as_bytes()).is_some() && newest.get(Claim::KEY.as_bytes()).is_some()
        };
        let newest = reader.newest(Until::End, &enough, self.deadline())?;
        let claim = newest.get(Claim::KEY.as_bytes()).map(parse_claim).transpose()?;
        let decision = newest.get(Decision::KEY.as_bytes()).map(parse_decision).transpose()?;
        self.driver.event(Event::Newest { claim: claim.map(Box::new), decision: decision.map(Box::new) });
        Ok(())
    }

    /// Everything that stands in the way of restoring this decision, without touching anything.
    pub(super) fn check_restorable(&mut self, decision: &Decision, savepoint: Option<&str>) -> Done {
        let result = self.why_not_restorable(decision, savepoint)?;
        self.driver.event(Event::Checked(result.map_or(Ok(()), Err)));
        Ok(())
    }

    fn why_not_restorable(&mut self, decision: &Decision, savepoint: Option<&str>) -> Done<Option<String>> {
        let topics = self.source_topics()?;
        for known in &decision.topics {
            let now = topics.iter().find(|topic| known.is_of(self.source_name(topic.source), &topic.topic));
            if now.is_some_and(|topic| known.was_replaced_by(topic.id())) {
                return Ok(Some(format!(
                    "topic `{}` is not the one that was consumed: it was deleted and created anew",
                    known.topic
                )));
            }
        }
        let askers = self.askers()?;
        for position in &decision.positions {
            let is_it = |topic: &&SourceTopic| {
                topic.topic == position.topic && self.source_name(topic.source) == position.source
            };
            let Some(topic) = topics.iter().find(is_it) else { continue };
            let (name, partition, next) = (&position.topic, position.partition, position.next_offset);
            if partition >= topic.description.partitions {
                return Ok(Some(format!(
                    "{name}-{partition} was consumed up to offset {next}, but `{name}` has only {} partitions",
                    topic.description.partitions
                )));
            }
            let reader = &askers[self.context.cluster_of(topic.source)];
            let bounds = reader.beginning_and_stable_end(name, partition, CALL)?;
            if next.0 < bounds.low {
                return Ok(Some(format!(
                    "{name}-{partition} must be read from offset {next}, but begins at {}: {} records fell out of \
                     retention before they were consumed",
                    bounds.low,
                    bounds.low - next.0
                )));
            }
            if next.0 > bounds.end {
                return Ok(Some(format!(
                    "{name}-{partition} must be read from offset {next}, but ends at {}: it lost its end",
                    bounds.end
                )));
            }
        }
        let mut storage = self.storage()?;
        let mut way_out = "; an older one may be whole: see `onceflow savepoint from-checkpoint --help`";
        if let Some(savepoint) = savepoint {
            storage = storage.savepoint(savepoint)?;
            way_out = "";
        }
        let manifest = match &decision.manifest {
            None => None,
            Some(reference) => match self.read_manifest(&storage, reference) {
                Err(Trouble::Refused(reason)) => return Ok(Some(format!("{reason}{way_out}"))),
                Err(failed) => return Err(failed),
                Ok(manifest) => {
                    for file in manifest.files(&reference.file) {
                        let name = FileName::parse(&file)?;
                        if storage.length(&name)?.is_none() {
                            let path = storage.path(&name);
                            return Ok(Some(format!("{} is missing{way_out}", path.display())));
                        }
                    }
                    Some(manifest)
                }
            },
        };
        let matched = match_steps(&self.context.plan, decision, manifest.as_ref());
        Ok(matched.err().map(|problems| problems.join("\n")))
    }

    /// The files that may turn out to be orphans; what appears after this may be a successor's.
    pub(super) fn list_files(&mut self) -> Done {
        let storage = self.storage()?;
        if let Err(error) = self.context.history.read(&storage) {
            tracing::warn!(%error, "the history of checkpoints cannot be read");
        }
        // These are no orphans, whatever happens.
        let stay = [FileName::confirmed(), FileName::history()];
        let files = storage.list()?.into_iter().filter(|name| !stay.contains(name));
        let files = files.map(|name| name.as_str().to_string()).collect();
        self.driver.event(Event::Listed(files));
        Ok(())
    }

    /// The newest decision before our claim, the claim, and what follows it.
    pub(super) fn read_until_claim(&mut self, claim: &ClaimId) -> Done {
        let reader = self.control_reader(Isolation::Committed)?;
        let is_ours = |record: &kafka::ControlRecord| {
            record.key == Claim::KEY.as_bytes()
                && parse_claim(record).is_ok_and(|other| other.claim == *claim)
        };
        let enough = |newest: &kafka::Newest| newest.get(Decision::KEY.as_bytes()).is_some();
        let deadline = self.deadline();
        let newest = reader.newest(Until::Record(&is_ours), &enough, deadline)?;
        let mut records = vec![];
        if let Some(decision) = newest.get(Decision::KEY.as_bytes()) {
            records.push(ControlRecord::Decision(Box::new(parse_decision(decision)?)));
        }
        if let Some(own) = newest.get(Claim::KEY.as_bytes()) {
            records.push(ControlRecord::Claim(parse_claim(own)?));
        }
        let mut later = vec![];
        reader.scan(newest.end, Until::End, deadline, &mut |record| later.push(record))?;
        for record in &later {
            records.extend(parse(record)?);
        }
        self.driver.event(Event::ControlRead(records));
        Ok(())
    }

    /// What else would be there if this pipeline had run before.
    pub(super) fn read_traces(&mut self) -> Done {
        let storage = self.storage()?;
        let noted = match storage.read(&FileName::confirmed()) {
            Ok(bytes) => Some(confirmed(&bytes).ok_or_else(|| {
                let path = storage.path(&FileName::confirmed());
                Trouble::Refused(format!("{} is damaged: it names no epoch", path.display()))
            })?),
            Err(error) if error.kind() == StorageErrorKind::Missing => None,
            Err(error) => return Err(error.into()),
        };
        let partitions = self.source_partitions()?;
        let mut group_offsets = false;
        for (cluster, reader) in self.askers()?.iter().enumerate() {
            let here = partitions.iter().filter(|(source, ..)| self.context.cluster_of(*source) == cluster);
            let asked: Vec<_> = here.map(|(_, topic, partition)| (topic.as_str(), *partition)).collect();
            if !asked.is_empty() {
                group_offsets |=
                    reader.committed(&asked, CALL)?.iter().any(|(_, _, offset)| offset.is_some());
            }
        }
        let (confirmed, requests) = noted.unzip();
        let requests = requests.unwrap_or_default();
        self.driver.event(Event::Traces(Traces { confirmed, requests, group_offsets }));
        Ok(())
    }

    /// Start offsets of the partitions that have no position yet. `start:` is for sources and named topics that were never read; a
    /// partition that is new to its topic, and a topic that a pattern finds later, are read from the beginning: nobody chose to
    /// leave out what was written before they were found.
    pub(super) fn resolve_start(&mut self, known: &[Position]) -> Done {
        let topics = self.source_topics()?;
        let mut let_go: Vec<(String, String)> = vec![];
        for at in known {
            if self.reads(&at.source, &at.topic).is_none() {
                let_go.push((at.source.clone(), at.topic.clone()));
            } else if self.is_away(at, &topics) {
                tracing::warn!(
                    topic = at.topic,
                    partition = at.partition,
                    "is not there any more; its position is kept"
                );
            }
        }
        let positioned: BTreeSet<_> =
            known.iter().map(|at| (&*at.source, &*at.topic, at.partition)).collect();
        let askers = self.askers()?;
        let mut positions = vec![];
        for SourceTopic { source, topic, description } in &topics {
            let reader = &askers[self.context.cluster_of(*source)];
            let plan = &self.context.plan.sources[*source];
            let same_source = |at: &&Position| at.source == plan.name;
            let named = plan.topics.contains(topic);
            let was_read = known.iter().filter(same_source).any(|at| !named || at.topic == *topic);
            let start = if was_read { Start::Earliest } else { plan.start };
            let (source, topic) = (self.source_name(*source), topic.as_str());
            for partition in 0..description.partitions {
                if positioned.contains(&(source, topic, partition)) {
                    continue;
                }
                let next_offset = NextOffset(start_offset(reader, start, topic, partition)?);
                let (source, topic) = (source.to_owned(), topic.to_owned());
                positions.push(Position {
                    source,
                    topic,
                    partition,
                    next_offset,
                    watermark: None,
                    disorder: None,
                });
            }
        }
        self.topics = self.identities(&topics);
        let topics = self.topics.clone();
        self.driver.event(Event::StartResolved { let_go, positions, topics });
        Ok(())
    }

    /// The claims that are there, whatever became of their transactions.
    pub(super) fn list_claims(&mut self) -> Done {
        let claims = self.all_claims(self.deadline())?;
        self.driver.event(Event::ClaimsListed(claims.into_iter().map(|(_, claim)| claim.claim).collect()));
        Ok(())
    }

    /// The same, and what became of those that follow the newest known one.
    pub(super) fn look_for_claims(&mut self, known: &[ClaimId]) -> Done {
        let deadline = self.deadline();
        let claims = self.all_claims(deadline)?;
        let newest = claims.iter().rposition(|(_, claim)| known.contains(&claim.claim));
        let (before, after_known) = claims.split_at(newest.map_or(0, |at| at + 1));
        let before = before.iter().map(|(_, claim)| claim.claim.clone()).collect();
        let mut after = vec![];
        if !after_known.is_empty() {
            let committed = self.control_reader(Isolation::Committed)?;
            for (offset, claim) in after_known {
                let fate = match committed.fate(*offset, deadline)? {
                    kafka::Fate::Undecided => Fate::Open,
                    kafka::Fate::Committed => Fate::Committed,
                    kafka::Fate::AbortedOrReplaced => Fate::Aborted,
                };
                after.push(SeenClaim { instance: format!("{} on {}", claim.instance, claim.host), fate });
            }
        }
        self.driver.event(Event::ClaimsSeen { before, after });
        Ok(())
    }

    /// Every claim in the control topic with its offset, oldest first.
    fn all_claims(&self, deadline: Instant) -> Done<Vec<(i64, Claim)>> {
        let mut records = vec![];
        let reader = self.control_reader(Isolation::Uncommitted)?;
        reader.scan(0, Until::End, deadline, &mut |record| {
            if record.key == Claim::KEY.as_bytes() {
                records.push(record);
            }
        })?;
        records.iter().map(|record| Ok((record.offset, parse_claim(record)?))).collect()
    }

    /// The ends at which a bounded run stops; nothing for an unbounded one.
    pub(super) fn ends(&mut self) -> Done<Ends> {
        let partitions = self.source_partitions()?;
        self.context.ends(|| {
            let askers = self.askers()?;
            let mut ends = Ends::new();
            for (source, topic, partition) in partitions {
                let reader = &askers[self.context.cluster_of(source)];
                let end = reader.beginning_and_stable_end(&topic, partition, CALL)?.end;
                ends.insert((source, topic, partition), NextOffset(end));
            }
            Ok(ends)
        })
    }

    fn source_name(&self, source: usize) -> &str {
        &self.context.plan.sources[source].name
    }

    fn control_reader(&self, isolation: Isolation) -> Done<ControlReader> {
        control_reader(&self.context, isolation)
    }

    /// Longer than a transaction: an older instance's may have to time out before the control partition moves on.
    fn deadline(&self) -> Instant {
        Instant::now() + self.context.transaction_timeout() + Duration::from_secs(30)
    }
}

/// A reader of the pipeline's control topic.
pub(super) fn control_reader(context: &Context, isolation: Isolation) -> Done<ControlReader> {
    let (connection, group) = (&context.connections[SINKS], &context.group_id);
    Ok(ControlReader::open(connection, group, &context.control_topic, SHARD as i32, isolation)?)
}

/// Where `start` is in a partition.
fn start_offset(reader: &Reader, start: Start, topic: &str, partition: i32) -> Done<i64> {
    // The end before the look-up: what arrives in between is read, whatever its timestamp.
    let bounds = reader.beginning_and_stable_end(topic, partition, CALL)?;
    Ok(match start {
        Start::Earliest => bounds.low,
        Start::Latest => bounds.end,
        Start::Timestamp(ms) => reader.first_at_or_after(topic, partition, ms, CALL)?.unwrap_or(bounds.end),
    })
}

/// A topic that is missing is created, where the pipeline says how.
fn ensure_output(admin: &Admin, output: &OutputTopic) -> Done {
    let name = output.name.as_str();
    let Some(create) = &output.create else {
        return match existing(admin, name)? {
            Some(_) => Ok(()),
            None => Err(config(format!(
                "topic `{name}`, which the pipeline writes to, does not exist: create it, or let its sink say how \
                 (`create: {{ partitions: … }}`)"
            ))),
        };
    };
    if admin.describe_topic(name, CALL)?.is_some() {
        return Ok(());
    }
    let settings: Vec<_> = create.config.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let topic = NewTopic {
        name,
        partitions: create.partitions,
        replication: create.replication_factor,
        config: &settings,
    };
    if admin.create_topic(&topic, CALL)? == Creation::Created {
        tracing::info!(topic = name, "created an output topic");
    }
    // Brokers hear of a new topic one after the other.
    let deadline = Instant::now() + CALL;
    while existing(admin, name)?.is_none() {
        if Instant::now() >= deadline {
            let message = format!("topic `{name}` was created, but no broker knows it yet");
            return Err(Trouble::Failed(Failure { kind: ErrorKind::Retry, message }));
        }
    }
    Ok(())
}

/// Epoch and applied requests of the `confirmed` object.
fn confirmed(bytes: &[u8]) -> Option<(Epoch, Vec<String>)> {
    let content: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let requests = content.get("requests").and_then(serde_json::Value::as_array);
    let requests = requests.into_iter().flatten().filter_map(|id| Some(id.as_str()?.to_owned()));
    Some((content.get("epoch")?.as_u64().map(Epoch)?, requests.collect()))
}

fn parse(record: &kafka::ControlRecord) -> Done<Option<ControlRecord>> {
    Ok(match record.key.as_slice() {
        key if key == Claim::KEY.as_bytes() => Some(ControlRecord::Claim(parse_claim(record)?)),
        key if key == Decision::KEY.as_bytes() => {
            Some(ControlRecord::Decision(Box::new(parse_decision(record)?)))
        }
        _ => None,
    })
}

fn parse_claim(record: &kafka::ControlRecord) -> Done<Claim> {
    let claim: Claim = parse_json("claim", record)?;
    check_version("claim", claim.version, record)?;
    Ok(claim)
}

pub(super) fn parse_decision(record: &kafka::ControlRecord) -> Done<Decision> {
    let decision: Decision = parse_json("decision", record)?;
    check_version("decision", decision.version, record)?;
    decision.check().map_err(|what| {
        Trouble::Refused(format!(
            "the decision at offset {} of the control topic is damaged: {what}",
            record.offset
        ))
    })?;
    Ok(decision)
}

fn parse_json<T: serde::de::DeserializeOwned>(what: &str, record: &kafka::ControlRecord) -> Done<T> {
    serde_json::from_slice(&record.value).map_err(|error| {
        Trouble::Refused(format!(
            "the {what} at offset {} of the control topic cannot be read: {error}",
            record.offset
        ))
    })
}

fn check_version(what: &str, version: u32, record: &kafka::ControlRecord) -> Done {
    if version == FORMAT_VERSION {
        return Ok(());
    }
    Err(Trouble::Refused(format!(
        "the {what} at offset {} of the control topic has format {version}; this program knows format {FORMAT_VERSION}",
        record.offset
    )))
}
