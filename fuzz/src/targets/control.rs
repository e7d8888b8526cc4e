//! Claims and decisions as the control topic gives them, and what manifests hold; then a start from such a decision, step by step, as
//! the coordinator takes it.

use onceflow_engine::state::cold::{ColdSnapshot, Run};
use onceflow_engine::state::extents::LiveExtents;
use onceflow_protocol::coordinator::{
    BarrierReport, ControlRecord, Coordinator, Effect, Emit, Event, FiredReport, Firing, FrozenReport, Load,
    OpenWindows, PartitionReport, Phase, Requests, Restart, Restored, Settings, TimeInput, Traces,
    WindowedStep,
};
use onceflow_protocol::{
    Claim, ClaimId, Counts, Decision, Epoch, EventTime, FORMAT_VERSION, Frontiers, ManifestRef, NextOffset,
    Position, Watermark, WindowSpec,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::allocation::bounded;
use crate::draw::Draw;

pub fn target(bytes: &[u8]) {
    round_trip::<Claim>(bytes);
    round_trip::<LiveExtents>(bytes).inspect(|live| {
        live.mostly_dead();
        assert_eq!(live.panes().values().map(Vec::len).sum::<usize>(), live.extents().len());
        live.after("file", &[]);
    });
    round_trip::<ColdSnapshot>(bytes);
    round_trip::<Vec<Run>>(bytes);
    if let Some(decision) = round_trip::<Decision>(bytes)
        && decision.version == FORMAT_VERSION
        && decision.check().is_ok()
    {
        let frontier = decision.epoch.0 as i64;
        World::new(decision, Frontiers { fired: frontier, purged: frontier }, &mut Draw(bytes)).run();
    }
}

/// What can be read is written in a form that reads as the same.
fn round_trip<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let bound = (16 << 10) + 256 * bytes.len();
    let value: T = bounded("parsing", bound, || serde_json::from_slice(bytes)).ok()?;
    let text = serde_json::to_vec(&value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&text).unwrap(), value);
    Some(value)
}

fn settings() -> Settings {
    Settings {
        transactional_id: "t".to_owned(),
        sources: vec!["s".to_owned()],
        renamed: vec![],
        steps: vec![WindowedStep {
            inputs: vec![TimeInput::Source(0)],
            lateness_ms: 10,
            emit: Emit::Final,
            granularity_ms: 1,
        }],
        workers: 1,
        interval_ms: 1_000,
        min_pause_ms: 0,
        max_records: 10,
        max_bytes: 1_000,
        timeout_ms: 1_000,
        tolerable_failures: 0,
        retained: 2,
        until_end: false,
        restart: Restart::Exponential { initial_ms: 1, max_ms: 1 },
        requests: Requests::default(),
    }
}

fn claim() -> Claim {
    Claim {
        version: FORMAT_VERSION,
        claim: ClaimId("ours".to_owned()),
        instance: String::new(),
        host: String::new(),
        started_ms: 0,
        transactional_id: "t".to_owned(),
    }
}

/// A start from a decision, and epochs after it.
pub struct World<'d, 'b> {
    decision: Decision,
    /// Watermarks and window ends come out of these bytes.
    draw: &'d mut Draw<'b>,
    /// The step's frontiers as the last barrier left them.
    frontiers: Frontiers,
    committed: Option<Epoch>,
}

impl<'d, 'b> World<'d, 'b> {
    /// A world whose control topic holds this decision, and a snapshot with these frontiers.
    pub fn new(decision: Decision, frontiers: Frontiers, draw: &'d mut Draw<'b>) -> World<'d, 'b> {
        World { decision, draw, frontiers, committed: None }
    }

    /// Answers whatever the coordinator asks for as a healthy Kafka and healthy workers would: it comes to run and commits epochs, or
    /// says why not. Returns the last epoch that was committed.
    pub fn run(mut self) -> Option<Epoch> {
        let mut coordinator = Coordinator::new(settings());
        let mut effects = coordinator.handle(0, Event::Start);
        for now_ms in 0..300 {
            let done = self.committed.is_some() && self.draw.is_empty();
            if done || matches!(coordinator.phase(), Phase::Ended | Phase::Fenced) {
                break;
            }
            let asked = std::mem::take(&mut effects);
            let mut answers: Vec<Event> =
                asked.into_iter().flat_map(|effect| self.answers(effect, &coordinator)).collect();
            if answers.is_empty() {
                answers.push(Event::Trigger);
                answers.push(Event::Tick(Load { records: 11, ..Load::default() }));
            }
            for event in answers {
                effects.extend(coordinator.handle(now_ms, event));
            }
        }
        self.committed
    }

    fn answers(&mut self, effect: Effect, coordinator: &Coordinator) -> Vec<Event> {
        let decision = || Box::new(self.decision.clone());
        let answer = match effect {
            Effect::EnsureControlTopic => Event::ControlTopicReady,
            Effect::ReadNewest => Event::Newest { claim: None, decision: Some(decision()) },
            Effect::CheckRestorable { .. } => Event::Checked(Ok(())),
            Effect::ListFiles => Event::Listed(vec!["f".to_owned()]),
            Effect::InitTransactions => Event::Initialised(Box::new(claim())),
            Effect::CommitClaim(_) => Event::ClaimCommitted,
            Effect::ReadUntilClaim(_) => {
                Event::ControlRead(vec![ControlRecord::Decision(decision()), ControlRecord::Claim(claim())])
            }
            Effect::ReadTraces => Event::Traces(Traces {
                confirmed: Some(self.decision.epoch),
                group_offsets: true,
                ..Traces::default()
            }),
            Effect::ResolveStart(_) => {
                Event::StartResolved { let_go: vec![], positions: vec![], topics: vec![] }
            }
            Effect::CommitStart(_) => Event::StartCommitted,
            Effect::Restore(_) => {
                Event::Restored(Box::new(Restored { frontiers: vec![self.frontiers], kept: vec![] }))
            }
            Effect::StartWorkers(_) => Event::WorkersStarted,
            Effect::Barrier => Event::AtBarrier(self.at_barrier(coordinator.positions())),
            Effect::Fire(Firing { step, end, .. }) => {
                assert!(step == 0 && end > self.frontiers.fired, "{end} fires after {:?}", self.frontiers);
                self.frontiers.fired = end;
                let windows = vec![OpenWindows { next_end: self.next_end(), changed: vec![] }];
                Event::Fired(FiredReport { worker: 0, windows, output_bytes: 1 })
            }
            Effect::Freeze { frontiers, epoch, .. } => {
                let [next] = frontiers[..] else { panic!("{frontiers:?}") };
                let before = self.frontiers;
                assert!(next.fired >= before.fired && next.purged >= before.purged, "{before:?} → {next:?}");
                assert!(next.purged <= next.fired, "{next:?}");
                self.frontiers = next;
                let counts = Counts { read: 11, used: 11, ..Counts::default() };
                return vec![Event::Frozen(FrozenReport { worker: 0, counts }), Event::Flushed(epoch)];
            }
            Effect::SnapshotCold(_) => Event::ColdSnapshotTaken,
            Effect::WriteSnapshot(_) => Event::Durable {
                manifest: ManifestRef { file: "f".to_owned(), hash: String::new() },
                files: vec!["f".to_owned()],
            },
            Effect::Decide(next) => {
                let last = self.committed.unwrap_or(self.decision.epoch);
                assert!(next.epoch > last, "epoch {} after {last}", next.epoch);
                self.committed = Some(next.epoch);
                Event::Committed(next.epoch)
            }
            Effect::ListClaims => Event::ClaimsListed(vec![]),
            Effect::LookForClaims(_) => Event::ClaimsSeen { before: vec![], after: vec![] },
            _ => return vec![],
        };
        vec![answer]
    }

    fn at_barrier(&mut self, positions: &[Position]) -> BarrierReport {
        let mut report = |(partition, position): (usize, &Position)| {
            let kind = self.draw.byte();
            let seen = (kind < 200).then(|| Watermark(self.draw.integer()));
            PartitionReport {
                partition,
                next_offset: NextOffset(position.next_offset.0 + 11),
                watermark: seen.max(position.watermark),
                disorder: None,
                idle: kind & 1 == 1,
                finished: kind & 6 == 6,
            }
        };
        let partitions = positions.iter().enumerate().map(&mut report).collect();
        BarrierReport {
            worker: 0,
            partitions,
            windows: vec![OpenWindows { next_end: self.next_end(), changed: vec![] }],
            cold: self.draw.byte() > 200,
        }
    }

    /// The end of a window that a row of any time can be in, and that has not fired.
    fn next_end(&mut self) -> Option<i64> {
        let last = EventTime::MAX.ms() + WindowSpec::MAX_SIZE_MS;
        let end = self.draw.integer();
        (end > self.frontiers.fired && (1..=last).contains(&end)).then_some(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A world in which nothing ever commits would prove nothing.
    #[test]
    fn a_good_decision_leads_to_epochs() {
        let text = br#"{"version":1,"epoch":7,"attempt":"a-7","claim":"c","transactional_id":"t","positions":[{"source":"s","topic":"s",
            "partition":0,"next_offset":9,"watermark":5}],"counts":{"in":0,"used":0,"filtered":0,"late":0,"dead":0,"dropped":0,"out":0},
            "manifest":null,"topics":[]}"#;
        let decision: Decision = serde_json::from_slice(text).unwrap();
        let frontiers = Frontiers { fired: 0, purged: 0 };
        let bytes: Vec<u8> = (0..100).collect();
        let committed = World::new(decision, frontiers, &mut Draw(&bytes)).run();
        assert!(committed > Some(Epoch(8)), "{committed:?}");
    }
}
