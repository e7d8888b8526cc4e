//! Everything that instances share: time, chance, Kafka, the storage, the judge.

use onceflow_protocol::ClaimId;
use onceflow_protocol::planted::{Planted, is_planted};

use crate::coverage::Coverage;
use crate::engine::Plans;
use crate::hazard::{Hazard, Hazards};
use crate::judge::Judge;
use crate::kafka::{Cluster, Produce, Refusal, Request};
use crate::rng::Rng;
use crate::row::Shape;
use crate::storage::Storage;

/// What a seed draws once.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pipeline.
    pub shape: Shape,
    /// Source partitions, when all have been added.
    pub sources: usize,
    /// Input records.
    pub records: u64,
    /// `start: latest` instead of `earliest`.
    pub latest: bool,
    /// `watermark.idle_after`, milliseconds.
    pub idle_after_ms: Option<u64>,
    /// How often a worker of the engine evicts a pane after a batch, in a thousand.
    pub evictions: u32,
    /// The engine instead of the fold.
    pub plans: Option<Plans>,
}

/// See the module.
pub struct Outside {
    /// Milliseconds.
    pub now_ms: u64,
    /// All chance of this seed.
    pub rng: Rng,
    /// What goes wrong.
    pub hazards: Hazards,
    /// What the seed is about.
    pub config: Config,
    /// Kafka.
    pub cluster: Cluster,
    /// The checkpoint storage.
    pub storage: Storage,
    /// The storage refuses writes until then.
    pub storage_full_until_ms: u64,
    /// Source partitions that there are by now.
    pub partitions: usize,
    /// How often the source topic was created.
    pub topic_created: u64,
    /// The consumer group has offsets.
    pub group_offsets: bool,
    /// Who compares.
    pub judge: Judge,
    /// What was reached.
    pub coverage: Coverage,
    /// The first thing that was found wrong.
    pub violation: Option<String>,
    /// Lines, if somebody wants to read them.
    pub trace: Option<Vec<String>>,
    next_id: u64,
}

impl Outside {
    /// A world before its first instance.
    pub fn new(
        config: Config,
        rng: Rng,
        hazards: Hazards,
        transaction_timeout_ms: u64,
        trace: bool,
    ) -> Outside {
        Outside {
            now_ms: 1000,
            rng,
            cluster: Cluster::new(config.sources, transaction_timeout_ms),
            storage: Storage::default(),
            storage_full_until_ms: 0,
            partitions: 0,
            topic_created: 1,
            group_offsets: false,
            judge: Judge::new(config.shape, config.sources, hazards.rate(Hazard::SavepointAsked) > 0),
            coverage: Coverage::default(),
            violation: None,
            trace: trace.then(Vec::new),
            next_id: 0,
            hazards,
            config,
        }
    }

    /// Whether a fault strikes now; counted if so.
    pub fn strikes(&mut self, hazard: Hazard) -> bool {
        let rate = self.hazards.rate(hazard);
        let strikes = self.rng.chance(rate);
        if strikes {
            self.coverage.hazard(hazard);
        }
        strikes
    }

    /// A number that was never given before.
    pub fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A claim id for a process's initialisation.
    pub fn claim_id(&mut self, process: u64) -> ClaimId {
        let n = if is_planted(Planted::ClaimIdUsedTwice) { 0 } else { self.fresh() };
        ClaimId(format!("c{process}-{n}"))
    }

    /// Notes what happened, for a reader.
    pub fn say(&mut self, who: u64, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7} #{who} {}", self.now_ms, what()));
        }
    }

    /// Something that must never be.
    pub fn violates(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// Sends a produce request on its way.
    pub fn send(&mut self, request: Produce) {
        let mut due = self.now_ms + self.rng.below(4);
        if self.strikes(Hazard::ProduceDelayed) {
            due += self.rng.below(3000);
        }
        if self.strikes(Hazard::ProduceDuplicated) {
            let again = due + self.rng.below(5000);
            self.cluster.network.push((again, Request::Produce(request.clone())));
        }
        self.cluster.network.push((due, Request::Produce(request)));
    }

    /// EndTxn arrives: whatever it commits is judged at this moment.
    pub fn commit(&mut self, epoch: u32) -> Result<(), Refusal> {
        let values = self.cluster.commit(epoch)?;
        if let Err(violation) = self.judge.committed(&values, &self.cluster, &self.storage) {
            self.violates(violation);
        }
        Ok(())
    }

    /// One of the requests on their way arrives, if one is due.
    pub fn deliver(&mut self) -> bool {
        if self.cluster.network.is_empty() {
            return false;
        }
        let at = self.rng.index(self.cluster.network.len());
        if self.cluster.network[at].0 > self.now_ms {
            return false;
        }
        let (_, request) = self.cluster.network.swap_remove(at);
        match request {
            Request::Commit(epoch) => {
                let outcome = self.commit(epoch);
                self.say(0, || format!("a commit of producer epoch {epoch} arrives late: {outcome:?}"));
            }
            Request::Produce(produce) => match self.cluster.produce(self.now_ms, &produce) {
                Err(Refusal::Busy) => {
                    let again = self.now_ms + 1 + self.rng.below(10);
                    self.cluster.network.push((again, Request::Produce(produce)));
                }
                answer => self.cluster.answers.push((produce.id, answer)),
            },
        }
        true
    }

    /// Deletes a file, unless that must not be.
    pub fn delete(&mut self, name: &str) {
        if let Err(violation) = self.judge.deleted(name, &self.storage) {
            self.violates(violation);
        }
        self.storage.delete(name);
    }
}
