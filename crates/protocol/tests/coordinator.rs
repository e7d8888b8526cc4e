//! The coordinator against a shell that does everything at once: what it asks for, in which order, and what it refuses.
//! Schedules of faults are the simulator's; these are the sentences that a reader would want to check first.

use onceflow_protocol::coordinator::*;
use onceflow_protocol::*;

const STEP: WindowedStep =
    WindowedStep { inputs: vec![], lateness_ms: 0, emit: Emit::Final, granularity_ms: 1 };

fn settings() -> Settings {
    Settings {
        transactional_id: "ns.p.0".into(),
        sources: vec!["orders".into()],
        renamed: vec![],
        steps: vec![WindowedStep { inputs: vec![TimeInput::Source(0)], ..STEP }],
        workers: 1,
        interval_ms: 100,
        min_pause_ms: 0,
        max_records: 1000,
        max_bytes: 1000,
        timeout_ms: 1000,
        tolerable_failures: 1,
        retained: 2,
        until_end: false,
        restart: Restart::Exponential { initial_ms: 10, max_ms: 100 },
        requests: Requests::default(),
    }
}

/// A shell whose every call succeeds, over one partition; others that are added later stay empty. It keeps what would be in Kafka and in the storage.
struct Shell {
    coordinator: Coordinator,
    now_ms: u64,
    log: Vec<String>,
    control: Vec<ControlRecord>,
    claims: u32,
    /// How many the cluster has.
    partitions: i32,
    next_offset: i64,
    watermark: Option<i64>,
    /// The partition has reached its end.
    finished: bool,
    /// Window ends that hold rows.
    windows: Vec<i64>,
    traces: Traces,
    outcome: Option<Outcome>,
    /// Effects that get no answer, by the first word of their name.
    silent: Option<&'static str>,
    /// The savepoint that there is.
    savepoint: Option<Savepoint>,
    /// Whether what a start would go on from can be restored.
    restorable: Result<(), String>,
}

impl Shell {
    fn new(settings: Settings) -> Shell {
        Shell {
            coordinator: Coordinator::new(settings),
            now_ms: 0,
            log: vec![],
            control: vec![],
            claims: 0,
            partitions: 1,
            next_offset: 5,
            watermark: None,
            finished: false,
            windows: vec![],
            traces: Traces::default(),
            outcome: None,
            silent: None,
            savepoint: None,
            restorable: Ok(()),
        }
    }

    fn started(settings: Settings) -> Shell {
        let mut shell = Shell::new(settings);
        shell.event(Event::Start);
        assert_eq!(shell.coordinator.phase(), Phase::Running);
        shell.log.clear();
        shell
    }

    fn event(&mut self, event: Event) {
        let mut effects: std::collections::VecDeque<_> = self.coordinator.handle(self.now_ms, event).into();
        while let Some(effect) = effects.pop_front() {
            if let Some(answer) = self.perform(effect) {
                effects.extend(self.coordinator.handle(self.now_ms, answer));
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.event(Event::Tick(Load { finished: self.finished, ..Load::default() }));
    }

    fn next_end(&self) -> Option<i64> {
        self.windows.iter().copied().min()
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        let name = format!("{effect:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default().to_string();
        self.log.push(name.clone());
        if self.silent.is_some_and(|silent| silent == name) {
            return None;
        }
        let newest_decision = |control: &[ControlRecord]| {
            control.iter().rev().find_map(|record| match record {
                ControlRecord::Decision(decision) => Some(decision.clone()),
                ControlRecord::Claim(_) => None,
            })
        };
        Some(match effect {
            Effect::EnsureControlTopic => Event::ControlTopicReady,
            Effect::ReadNewest => {
                let claim = self.control.iter().rev().find_map(|record| match record {
                    ControlRecord::Claim(claim) => Some(Box::new(claim.clone())),
                    ControlRecord::Decision(_) => None,
                });
                Event::Newest { claim, decision: newest_decision(&self.control) }
            }
            Effect::ReadSavepoint(name) => {
                Event::SavepointRead(self.savepoint.clone().ok_or_else(|| format!("no savepoint `{name}`")))
            }
            Effect::CheckRestorable { .. } => Event::Checked(self.restorable.clone()),
            Effect::ImportSavepoint { savepoint, attempt, .. } => {
                let import = |manifest: ManifestRef| ManifestRef { file: attempt, ..manifest };
                Event::Imported(savepoint.decision.manifest.map(import))
            }
            Effect::MakeSavepoint { name, decision } => {
                let hash = format!("hash of {}", decision.attempt);
                self.savepoint = Some(Savepoint { name, hash, decision });
                return None;
            }
            Effect::ListFiles => Event::Listed(vec!["orphan".into()]),
            Effect::InitTransactions => {
                self.claims += 1;
                Event::Initialised(Box::new(claim(&format!("own-{}", self.claims))))
            }
            Effect::CommitClaim(claim) => {
                self.control.push(ControlRecord::Claim(*claim));
                Event::ClaimCommitted
            }
            Effect::ReadUntilClaim(_) => Event::ControlRead(self.control.clone()),
            Effect::ReadTraces => Event::Traces(self.traces.clone()),
            Effect::ResolveStart(known) => {
                let position = |partition| Position {
                    source: "orders".into(),
                    topic: "orders".into(),
                    partition,
                    next_offset: NextOffset(5),
                    watermark: None,
                    disorder: None,
                };
                let positions = (known.len() as i32..self.partitions).map(position).collect();
                Event::StartResolved { let_go: vec![], positions, topics: vec![] }
            }
            Effect::CommitStart(decision) => {
                self.control.push(ControlRecord::Decision(decision));
                Event::StartCommitted
            }
            Effect::Restore(decision) => {
                self.next_offset = decision.positions[0].next_offset.0;
                self.finished = false;
                Event::Restored(Box::new(Restored { frontiers: vec![Frontiers::START], kept: vec![] }))
            }
            Effect::StartWorkers(_) => Event::WorkersStarted,
            Effect::Barrier => Event::AtBarrier(BarrierReport {
                worker: 0,
                partitions: vec![PartitionReport {
                    partition: 0,
                    next_offset: NextOffset(self.next_offset),
                    watermark: self.watermark.map(Watermark),
                    disorder: None,
                    idle: false,
                    finished: self.finished,
                }],
                windows: vec![OpenWindows { next_end: self.next_end(), changed: vec![] }],
                cold: false,
            }),
            Effect::Fire(Firing { end, .. }) => {
                self.log.push(format!("fired {end}"));
                self.windows.retain(|window| *window != end);
                let windows = vec![OpenWindows { next_end: self.next_end(), changed: vec![] }];
                Event::Fired(FiredReport { worker: 0, windows, output_bytes: 600 })
            }
            Effect::Freeze { epoch, .. } => {
                let counts = Counts { read: 7, ..Counts::default() };
                let mut effects =
                    self.coordinator.handle(self.now_ms, Event::Frozen(FrozenReport { worker: 0, counts }));
                for effect in effects.drain(..) {
                    if let Some(answer) = self.perform(effect) {
                        let more = self.coordinator.handle(self.now_ms, answer);
                        assert!(more.is_empty(), "nothing is decided before the output is flushed: {more:?}");
                    }
                }
                Event::Flushed(epoch)
            }
            Effect::SnapshotCold(_) => Event::ColdSnapshotTaken,
            Effect::WriteSnapshot(draft) => Event::Durable {
                manifest: ManifestRef { file: draft.attempt.clone(), hash: String::new() },
                files: vec![draft.attempt.clone()],
            },
            Effect::Decide(decision) => {
                let epoch = decision.epoch;
                self.control.push(ControlRecord::Decision(decision));
                Event::Committed(epoch)
            }
            Effect::ListClaims => {
                let id = |record: &ControlRecord| match record {
                    ControlRecord::Claim(claim) => Some(claim.claim.clone()),
                    ControlRecord::Decision(_) => None,
                };
                Event::ClaimsListed(self.control.iter().filter_map(id).collect())
            }
            Effect::LookForClaims(known) => {
                let claims = self.control.iter().filter_map(|record| match record {
                    ControlRecord::Claim(claim) => Some(claim),
                    ControlRecord::Decision(_) => None,
                });
                let claims: Vec<&Claim> = claims.collect();
                let newest = claims.iter().rposition(|claim| known.contains(&claim.claim));
                let first = newest.map_or(0, |at| at + 1);
                let seen =
                    |claim: &&Claim| SeenClaim { instance: claim.instance.clone(), fate: Fate::Committed };
                Event::ClaimsSeen {
                    before: claims[..first].iter().map(|claim| claim.claim.clone()).collect(),
                    after: claims[first..].iter().map(seen).collect(),
                }
            }
            Effect::End(outcome) => {
                self.outcome = Some(outcome);
                return None;
            }
            Effect::StopReading => {
                self.finished = true;
                return None;
            }
            Effect::Resume
            | Effect::Release
            | Effect::Confirm(_)
            | Effect::DeleteFiles(_)
            | Effect::TearDown => return None,
        })
    }

    fn asked(&self, name: &str) -> usize {
        self.log.iter().filter(|asked| *asked == name).count()
    }
}

fn claim(id: &str) -> Claim {
    Claim {
        version: FORMAT_VERSION,
        claim: ClaimId(id.into()),
        instance: format!("instance-{id}"),
        host: "host".into(),
        started_ms: 0,
        transactional_id: "ns.p.0".into(),
    }
}

fn failure(kind: ErrorKind) -> Event {
    Event::Failed(Failure { kind, message: "planted".into() })
}

#[test]
fn a_first_start_commits_its_offsets_before_anything_is_read() {
    let mut shell = Shell::new(settings());
    shell.event(Event::Start);
    let expected = [
        "EnsureControlTopic",
        "ListClaims",
        "ReadNewest",
        "ListFiles",
        "InitTransactions",
        "CommitClaim",
        "ReadUntilClaim",
        "ReadTraces",
        "ResolveStart",
        "CommitStart",
        "Restore",
        "StartWorkers",
        "DeleteFiles",
        "Confirm",
    ];
    assert_eq!(shell.log, expected);
    assert_eq!(shell.coordinator.committed().map(|decision| decision.epoch), Some(Epoch(0)));
}

#[test]
fn an_epoch_is_prepared_then_decided_then_let_go() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.pass(100);
    assert_eq!(shell.log, ["Barrier", "Freeze", "WriteSnapshot", "Decide", "Release", "Confirm"]);
    let decision = shell.coordinator.committed().cloned().unwrap();
    assert_eq!((decision.epoch, decision.positions[0].next_offset), (Epoch(1), NextOffset(12)));
    assert_eq!(decision.counts.read, 7);
}

#[test]
fn an_epoch_in_which_nothing_changed_is_not_committed() {
    let mut shell = Shell::started(settings());
    shell.pass(100);
    assert_eq!(shell.log, ["Barrier", "Resume"]);
    shell.pass(99);
    assert_eq!(shell.log.len(), 2, "the next barrier comes an interval after the last");
}

#[test]
fn windows_fire_in_order_up_to_the_watermark_and_the_byte_limit() {
    let mut shell = Shell::started(settings());
    (shell.next_offset, shell.watermark, shell.windows) = (12, Some(300), vec![100, 200, 300, 400]);
    shell.pass(100);
    let fired: Vec<_> = shell.log.iter().filter(|entry| entry.starts_with("fired")).cloned().collect();
    assert_eq!(fired, ["fired 100", "fired 200"], "600 bytes each reach the limit of 1000");
    assert_eq!(shell.coordinator.frontiers(), [Frontiers { fired: 200, purged: 200 }]);
    shell.pass(1);
    assert_eq!(shell.windows, [400], "the pass goes on at once, and stops at the watermark");
    assert_eq!(shell.coordinator.frontiers(), [Frontiers { fired: 300, purged: 300 }]);
}

#[test]
fn retired_files_are_those_of_the_oldest_snapshot_beyond_what_is_kept() {
    let mut shell = Shell::started(settings());
    for offset in 10..13 {
        shell.next_offset = offset;
        shell.pass(100);
    }
    assert_eq!(shell.asked("WriteSnapshot"), 3);
    assert_eq!(shell.asked("DeleteFiles"), 1, "two are retained");
}

#[test]
fn an_unknown_outcome_is_answered_by_starting_again_and_believing_what_is_read() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("Decide");
    shell.next_offset = 12;
    shell.pass(100);
    assert_eq!(shell.coordinator.phase(), Phase::Deciding);
    shell.event(failure(ErrorKind::OutcomeUnknown));
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff);
    shell.silent = None;
    shell.pass(10);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
    assert_eq!(shell.next_offset, 5, "the decision did not get there: back to the start offsets");
    assert_eq!(shell.claims, 2, "a claim is never used twice");
}

#[test]
fn fencing_is_not_answered_by_fencing() {
    let mut shell = Shell::started(settings());
    shell.control.push(ControlRecord::Claim(claim("other")));
    shell.event(failure(ErrorKind::Fenced));
    shell.pass(1999);
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff, "the other's claim takes a moment");
    shell.pass(1);
    assert_eq!(shell.coordinator.phase(), Phase::Fenced);
    assert_eq!(shell.coordinator.fenced_by(), Some("instance-other"));
    assert_eq!(shell.claims, 1);
    shell.event(Event::Stop);
    assert_eq!(shell.outcome, Some(Outcome::Done));
}

#[test]
fn fenced_by_the_broker_alone_starts_again() {
    let mut shell = Shell::started(settings());
    shell.event(failure(ErrorKind::Fenced));
    shell.pass(1999);
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff, "the other's claim takes a moment");
    shell.pass(1);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
}

#[test]
fn what_would_fail_again_is_not_restarted() {
    for kind in [ErrorKind::Data, ErrorKind::Config, ErrorKind::Bug] {
        let mut shell = Shell::started(settings());
        shell.event(failure(kind));
        assert!(matches!(&shell.outcome, Some(Outcome::Failed(failed)) if failed.kind == kind));
    }
}

#[test]
fn a_call_that_does_not_return_fails_the_run() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("Barrier");
    shell.pass(100);
    shell.pass(999);
    assert_eq!(shell.coordinator.phase(), Phase::Aligning);
    shell.pass(1);
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff);
}

#[test]
fn delays_double_and_start_anew_after_a_quiet_time() {
    let mut shell = Shell::started(settings());
    for delay in [10, 20, 40] {
        shell.event(failure(ErrorKind::EpochFailed));
        shell.pass(delay - 1);
        assert_eq!(shell.coordinator.phase(), Phase::BackingOff, "{delay}");
        shell.pass(1);
        assert_eq!(shell.coordinator.phase(), Phase::Running, "{delay}");
    }
    shell.pass(100);
    shell.event(failure(ErrorKind::EpochFailed));
    shell.pass(10);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
}

/// A shell that runs with this strategy; `fail` lets the run fail and waits for what follows.
fn restarting(restart: Restart) -> Shell {
    Shell::started(Settings { restart, ..settings() })
}

fn fail_and_wait(shell: &mut Shell, ms: u64) -> Phase {
    shell.event(failure(ErrorKind::EpochFailed));
    shell.pass(ms);
    shell.coordinator.phase()
}

#[test]
fn no_restart_is_a_strategy() {
    let mut shell = restarting(Restart::None);
    assert_eq!(fail_and_wait(&mut shell, 0), Phase::Ended);
    assert!(matches!(&shell.outcome, Some(Outcome::Failed(failure)) if failure.message == "planted"));

    let mut shell = Shell::new(Settings { restart: Restart::None, ..settings() });
    shell.silent = Some("EnsureControlTopic");
    shell.event(Event::Start);
    shell.event(failure(ErrorKind::Retry));
    assert!(
        matches!(shell.outcome, Some(Outcome::Failed(_))),
        "nothing was claimed: there is nobody to look for"
    );
}

#[test]
fn fixed_attempts_are_counted_from_the_last_commit_on() {
    let mut shell = restarting(Restart::Fixed { attempts: 2, delay_ms: 30 });
    for round in 0..3 {
        assert_eq!(fail_and_wait(&mut shell, 29), Phase::BackingOff);
        shell.pass(1);
        assert_eq!(shell.coordinator.phase(), Phase::Running);
        assert_eq!(fail_and_wait(&mut shell, 30), Phase::Running, "round {round}");
        shell.next_offset += 1;
        shell.pass(100);
        assert_eq!(shell.coordinator.phase(), Phase::Running);
    }
    fail_and_wait(&mut shell, 30);
    fail_and_wait(&mut shell, 30);
    assert_eq!(fail_and_wait(&mut shell, 0), Phase::Ended);
}

#[test]
fn a_failure_rate_forgets_what_is_long_ago() {
    let mut shell = restarting(Restart::FailureRate { failures: 2, per_ms: 1000, delay_ms: 5 });
    for _ in 0..5 {
        assert_eq!(fail_and_wait(&mut shell, 5), Phase::Running);
        shell.now_ms += 500;
    }
    assert_eq!(fail_and_wait(&mut shell, 5), Phase::Running);
    assert_eq!(fail_and_wait(&mut shell, 5), Phase::Ended, "the third within a second");
}

#[test]
fn giving_up_never_makes_a_service_manager_fence_a_successor() {
    for kind in [ErrorKind::Fenced, ErrorKind::EpochFailed] {
        let mut shell = restarting(Restart::None);
        shell.control.push(ControlRecord::Claim(claim("other")));
        shell.event(failure(kind));
        shell.pass(2000);
        assert_eq!((shell.coordinator.phase(), shell.outcome), (Phase::Fenced, None), "{kind}");
    }
}

#[test]
fn who_was_fenced_looks_until_there_is_an_answer_before_it_gives_up() {
    for (kind, ends) in [(ErrorKind::Fenced, false), (ErrorKind::EpochFailed, true)] {
        let mut shell = restarting(Restart::None);
        shell.silent = Some("LookForClaims");
        shell.event(failure(kind));
        shell.pass(2000);
        assert_eq!(shell.coordinator.phase(), Phase::Looking);
        shell.event(failure(ErrorKind::Retry));
        assert_eq!(shell.outcome.is_some(), ends, "{kind}");
        if !ends {
            shell.silent = None;
            shell.pass(2000);
            assert!(matches!(&shell.outcome, Some(Outcome::Failed(failure)) if failure.kind == kind));
        }
    }
}

#[test]
fn a_snapshot_that_cannot_be_written_is_tried_again_within_the_transaction() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("WriteSnapshot");
    shell.next_offset = 12;
    shell.pass(100);
    shell.event(Event::SnapshotFailed("disk full".into()));
    shell.silent = None;
    shell.pass(999);
    assert_eq!(shell.asked("WriteSnapshot"), 1);
    shell.pass(1);
    assert_eq!(shell.asked("WriteSnapshot"), 2);
    assert_eq!(shell.coordinator.committed().map(|decision| decision.epoch), Some(Epoch(1)));
    shell.silent = Some("WriteSnapshot");
    shell.next_offset = 13;
    shell.pass(100);
    shell.event(Event::SnapshotFailed("disk full".into()));
    shell.pass(1000);
    shell.event(Event::SnapshotFailed("disk full".into()));
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff, "one failure is tolerable, two are not");
}

#[test]
fn traces_without_a_decision_refuse() {
    let traces = [
        Traces { confirmed: Some(Epoch(3)), ..Traces::default() },
        Traces { group_offsets: true, ..Traces::default() },
    ];
    for traces in traces {
        let mut shell = Shell::new(settings());
        shell.traces = traces.clone();
        shell.event(Event::Start);
        assert!(matches!(shell.outcome, Some(Outcome::Refused(_))), "{traces:?}");
    }
}

#[test]
fn a_decision_older_than_the_confirmed_one_refuses() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.pass(100);
    shell.traces.confirmed = Some(Epoch(2));
    shell.event(failure(ErrorKind::EpochFailed));
    shell.pass(10);
    assert!(matches!(&shell.outcome, Some(Outcome::Refused(reason)) if reason.contains("epoch 2")));
}

#[test]
fn a_stop_takes_a_final_checkpoint() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.event(Event::Stop);
    assert_eq!(shell.outcome, Some(Outcome::Done));
    assert_eq!(shell.coordinator.committed().map(|decision| decision.epoch), Some(Epoch(1)));
}

#[test]
fn a_stop_during_a_checkpoint_takes_one_more() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("Decide");
    shell.next_offset = 12;
    shell.pass(100);
    shell.silent = None;
    shell.event(Event::Stop);
    assert_eq!(shell.outcome, None);
    shell.next_offset = 13;
    shell.event(Event::Committed(Epoch(1)));
    assert_eq!(shell.outcome, Some(Outcome::Done));
    assert_eq!(
        shell.coordinator.committed().map(|decision| decision.positions[0].next_offset),
        Some(NextOffset(13))
    );
}

#[test]
fn a_drain_closes_all_windows_where_the_workers_stand() {
    let mut shell = Shell::started(settings());
    (shell.next_offset, shell.watermark, shell.windows) = (12, Some(100), vec![100, 200, 300]);
    shell.event(Event::Drain);
    assert_eq!(shell.log, ["StopReading"]);
    shell.pass(1);
    assert_eq!((shell.outcome.as_ref(), &shell.windows[..]), (None, &[300][..]), "the byte limit holds");
    shell.pass(1);
    assert_eq!((shell.outcome.as_ref(), &shell.windows[..]), (Some(&Outcome::Done), &[][..]));
    assert_eq!(shell.coordinator.frontiers(), [Frontiers { fired: 300, purged: 300 }]);
}

#[test]
fn a_drain_outlives_a_failure_and_waits_for_no_start_that_will_not_come() {
    let mut shell = Shell::started(settings());
    shell.windows = vec![100];
    shell.event(Event::Drain);
    shell.event(failure(ErrorKind::EpochFailed));
    assert_eq!(shell.coordinator.phase(), Phase::BackingOff);
    shell.pass(10);
    assert_eq!(shell.asked("StopReading"), 2, "the next run drains too");
    shell.pass(1);
    assert_eq!((shell.outcome, &shell.windows[..]), (Some(Outcome::Done), &[][..]));

    let mut shell = Shell::new(settings());
    shell.event(Event::Drain);
    assert_eq!(shell.outcome, Some(Outcome::Done));
}

#[test]
fn what_is_abandoned_ends_at_once() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.event(Event::Abandon);
    assert_eq!(shell.outcome, Some(Outcome::Abandoned));
    assert_eq!(shell.log, ["TearDown", "End"]);
}

#[test]
fn every_phase_can_be_reached_and_left() {
    for (from, to) in TRANSITIONS {
        for phase in *to {
            assert!(from.may_become(*phase));
        }
        assert!(from.may_become(Phase::Ended));
    }
    assert!(!Phase::Ended.may_become(Phase::Preflight));
    assert!(!Phase::Running.may_become(Phase::Deciding), "nothing is decided that was not prepared");
}

#[test]
fn a_frontier_that_moves_in_silence_is_committed() {
    let mut shell = Shell::started(settings());
    shell.watermark = Some(300);
    shell.pass(100);
    assert_eq!(shell.asked("Decide"), 1, "the workers must judge lateness by the same frontier");
    shell.pass(100);
    assert_eq!(shell.asked("Decide"), 1);
}

#[test]
fn a_pass_that_takes_too_long_is_cut() {
    let mut shell = Shell::started(settings());
    (shell.next_offset, shell.watermark, shell.windows) = (12, Some(300), vec![100, 200]);
    shell.silent = Some("Fire");
    shell.pass(100);
    (shell.silent, shell.windows) = (None, vec![200]);
    shell.now_ms += 600;
    let windows = vec![OpenWindows { next_end: Some(200), changed: vec![] }];
    shell.event(Event::Fired(FiredReport { worker: 0, windows, output_bytes: 1 }));
    assert_eq!(shell.coordinator.frontiers(), [Frontiers { fired: 100, purged: 100 }]);
    shell.pass(1);
    assert_eq!(shell.coordinator.frontiers(), [Frontiers { fired: 300, purged: 300 }]);
}

#[test]
fn nothing_is_begun_after_the_last_commit() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.event(Event::Stop);
    assert_eq!(shell.asked("Release"), 0, "an open transaction would hold readers back");
}

#[test]
fn a_stop_while_an_unchanged_barrier_aligns_ends_at_once() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("Barrier");
    shell.pass(100);
    shell.event(Event::Stop);
    assert_eq!(shell.outcome, None);
    let partition = PartitionReport {
        partition: 0,
        next_offset: NextOffset(5),
        watermark: None,
        disorder: None,
        idle: false,
        finished: false,
    };
    let (partitions, windows) = (vec![partition], vec![OpenWindows::default()]);
    shell.event(Event::AtBarrier(BarrierReport { worker: 0, partitions, windows, cold: false }));
    assert_eq!(shell.outcome, Some(Outcome::Done));
}

#[test]
fn another_claim_between_the_look_and_the_start_fences() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("EnsureControlTopic");
    shell.event(failure(ErrorKind::EpochFailed));
    shell.pass(10);
    assert_eq!(shell.coordinator.phase(), Phase::Preflight);
    shell.control.push(ControlRecord::Claim(claim("other")));
    shell.event(Event::ControlTopicReady);
    assert_eq!(shell.coordinator.phase(), Phase::Fenced);
    assert_eq!(shell.claims, 1, "the other is not fenced in return");
}

#[test]
fn a_topic_that_leaves_a_source_is_no_longer_read() {
    let mut shell = Shell::started(settings());
    shell.event(Event::Stop);
    let mut next = Shell::new(settings());
    (next.control, next.claims) = (shell.control.clone(), shell.claims);
    next.silent = Some("ResolveStart");
    next.event(Event::Start);
    assert_eq!(next.coordinator.positions().len(), 1);
    let let_go = vec![("orders".into(), "orders".into())];
    next.event(Event::StartResolved { let_go, positions: vec![], topics: vec![] });
    assert!(next.coordinator.positions().is_empty());

    // Nor is a source that is no more.
    let mut other = Shell::new(Settings { sources: vec!["others".into()], ..settings() });
    (other.control, other.claims) = (shell.control, shell.claims);
    other.silent = Some("ResolveStart");
    other.event(Event::Start);
    assert!(other.coordinator.positions().is_empty());
}

#[test]
fn a_topic_that_is_away_keeps_its_position_and_its_identity() {
    let identity =
        |id: &str| TopicIdentity { source: "orders".into(), topic: "orders".into(), id: id.into() };
    let resolved = |topics| Event::StartResolved { let_go: vec![], positions: vec![], topics };
    let mut shell = Shell::new(settings());
    shell.silent = Some("ResolveStart");
    shell.event(Event::Start);
    let Event::StartResolved { positions, .. } =
        (Shell { silent: None, ..Shell::new(settings()) }).perform(Effect::ResolveStart(vec![])).unwrap()
    else {
        panic!("no answer");
    };
    shell.event(Event::StartResolved { let_go: vec![], positions, topics: vec![identity("a")] });
    assert_eq!(shell.coordinator.phase(), Phase::Running);

    // Away: nothing is known of it but what was.
    let restart = |shell: &mut Shell, topics| {
        shell.event(failure(ErrorKind::EpochFailed));
        shell.pass(100);
        shell.event(resolved(topics));
    };
    restart(&mut shell, vec![]);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
    assert_eq!(shell.coordinator.positions().len(), 1);
    // Back: it is the same one, or another.
    restart(&mut shell, vec![identity("a")]);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
    restart(&mut shell, vec![identity("b")]);
    assert!(matches!(shell.outcome, Some(Outcome::Refused(_))), "{:?}", shell.outcome);
}

#[test]
fn a_run_ends_with_a_checkpoint_when_its_sources_have_changed() {
    for something_new in [true, false] {
        let mut shell = Shell::started(settings());
        shell.next_offset += i64::from(something_new) * 7;
        shell.partitions = 2;
        shell.event(Event::SourcesChanged);
        shell.pass(1);
        assert_eq!(shell.coordinator.phase(), Phase::BackingOff);
        assert_eq!(shell.log.contains(&"Decide".to_string()), something_new, "{:?}", shell.log);
        assert!(!shell.log.contains(&"Release".to_string()), "an open transaction would hold readers back");
        assert!(shell.log.ends_with(&["TearDown".to_string()]));
        // There is no pause, and the start finds the new partition.
        shell.pass(0);
        assert_eq!(shell.coordinator.phase(), Phase::Running);
        let positions: Vec<_> =
            shell.coordinator.positions().iter().map(|at| (at.partition, at.next_offset.0)).collect();
        assert_eq!(positions, [(0, if something_new { 12 } else { 5 }), (1, 5)]);
        assert_eq!(shell.claims, 2);
        // It is over with that.
        shell.pass(1);
        assert_eq!(shell.coordinator.phase(), Phase::Running);
    }
}

#[test]
fn a_stop_goes_before_a_change_of_the_sources() {
    let mut shell = Shell::started(settings());
    shell.next_offset = 12;
    shell.silent = Some("Decide");
    shell.event(Event::SourcesChanged);
    shell.pass(1);
    shell.event(Event::Stop);
    shell.silent = None;
    let epoch = shell.coordinator.committed().unwrap().epoch.next();
    shell.event(Event::Committed(epoch));
    assert_eq!(shell.outcome, Some(Outcome::Done));
    assert!(shell.log.contains(&"Release".to_string()), "the final checkpoint needs a transaction");
}

#[test]
fn a_claim_before_our_first_one_fences_only_if_it_came_after_the_start() {
    for (earlier, later) in [(true, false), (false, true)] {
        let mut shell = Shell::new(settings());
        if earlier {
            shell.control.push(ControlRecord::Claim(claim("other")));
        }
        shell.silent = Some("InitTransactions");
        shell.event(Event::Start);
        if later {
            shell.control.push(ControlRecord::Claim(claim("other")));
        }
        shell.event(failure(ErrorKind::Retry));
        shell.pass(10);
        let expected = if later { Phase::Fenced } else { Phase::Fencing };
        assert_eq!(shell.coordinator.phase(), expected);
    }
}

#[test]
fn an_older_claim_that_appears_late_does_not_fence() {
    let mut shell = Shell::new(settings());
    shell.control.push(ControlRecord::Claim(claim("older")));
    shell.event(Event::Start);
    shell.event(failure(ErrorKind::EpochFailed));
    // Our own claim's marker is still to come: a committed reader sees the one before.
    shell.control.truncate(1);
    shell.silent = Some("LookForClaims");
    shell.pass(10);
    shell.silent = None;
    let before = vec![ClaimId("older".into()), ClaimId("own-1".into())];
    shell.event(Event::ClaimsSeen { before, after: vec![] });
    assert_eq!(shell.coordinator.phase(), Phase::Running);
}

#[test]
fn a_refusal_after_the_claim_stands_only_if_nobody_else_has_claimed() {
    for another in [true, false] {
        let mut shell = Shell::new(settings());
        shell.silent = Some("Restore");
        shell.event(Event::Start);
        if another {
            shell.control.push(ControlRecord::Claim(claim("other")));
        }
        shell.event(Event::Refused("a file is missing".into()));
        match another {
            true => assert_eq!(shell.coordinator.phase(), Phase::Fenced),
            false => assert_eq!(shell.outcome, Some(Outcome::Refused("a file is missing".into()))),
        }
    }
}

#[test]
fn the_snapshot_before_the_newest_is_kept_even_if_one_is_retained() {
    let mut shell = Shell::started(Settings { retained: 1, ..settings() });
    for next_offset in 6..9 {
        shell.next_offset = next_offset;
        shell.pass(100);
        // A start may still see the epoch before as the newest one.
        assert_eq!(shell.asked("DeleteFiles"), usize::from(next_offset == 8));
    }
}

/// A pipeline that has committed three epochs, made a savepoint of the second, and was stopped.
fn with_savepoint() -> Shell {
    let mut shell = Shell::started(settings());
    for (next_offset, savepoint) in [(6, false), (7, true), (8, false)] {
        shell.next_offset = next_offset;
        if savepoint {
            shell.event(Event::Savepoint("before".into()));
        }
        shell.pass(100);
    }
    shell.event(Event::Stop);
    assert_eq!(shell.outcome, Some(Outcome::Done));
    shell
}

/// Another process after `shell`, with this command line.
fn restarted(shell: &Shell, requests: Requests) -> Shell {
    let mut next = Shell::new(Settings { requests, ..settings() });
    (next.control, next.claims) = (shell.control.clone(), shell.claims);
    next.savepoint = shell.savepoint.clone();
    next.traces = Traces { confirmed: Some(Epoch(3)), group_offsets: true, ..Traces::default() };
    next.event(Event::Start);
    next
}

fn go_back() -> Requests {
    Requests { savepoint: Some("before".into()), accept_repeats: true, ..Requests::default() }
}

fn requests(shell: &Shell) -> usize {
    shell.coordinator.committed().map_or(0, |decision| decision.requests.len())
}

#[test]
fn a_savepoint_is_a_copy_of_what_is_committed_made_before_anything_is_retired() {
    let mut shell = Shell::started(Settings { retained: 1, ..settings() });
    for next_offset in [6, 7] {
        shell.next_offset = next_offset;
        shell.pass(100);
    }
    shell.log.clear();
    shell.next_offset = 8;
    shell.event(Event::Savepoint("mine".into()));
    assert!(shell.log.is_empty(), "it waits for a barrier");
    shell.pass(1);
    let expected = [
        "Barrier",
        "Freeze",
        "WriteSnapshot",
        "Decide",
        "Release",
        "Confirm",
        "MakeSavepoint",
        "DeleteFiles",
    ];
    assert_eq!(shell.log, expected);
    assert_eq!(shell.savepoint.as_ref().map(|savepoint| savepoint.decision.epoch), Some(Epoch(3)));
    shell.pass(100);
    assert_eq!(shell.asked("MakeSavepoint"), 1);
}

#[test]
fn a_savepoint_of_a_pipeline_in_which_nothing_changes_is_of_its_newest_epoch() {
    let mut shell = Shell::started(settings());
    shell.event(Event::Savepoint("mine".into()));
    shell.pass(1);
    assert_eq!(shell.log, ["Barrier", "MakeSavepoint", "Resume"]);
    assert_eq!(shell.savepoint.as_ref().map(|savepoint| savepoint.decision.epoch), Some(Epoch(0)));
}

#[test]
fn a_savepoint_asked_for_during_a_checkpoint_waits_for_the_next() {
    let mut shell = Shell::started(settings());
    shell.silent = Some("Decide");
    shell.next_offset = 6;
    shell.pass(100);
    shell.silent = None;
    shell.event(Event::Savepoint("mine".into()));
    shell.event(Event::Committed(Epoch(1)));
    assert_eq!(shell.asked("MakeSavepoint"), 0);
    shell.next_offset = 7;
    shell.pass(1);
    assert_eq!(shell.savepoint.as_ref().map(|savepoint| savepoint.decision.epoch), Some(Epoch(2)));
}

#[test]
fn a_run_that_fails_makes_no_savepoint_later() {
    let mut shell = Shell::started(settings());
    shell.event(Event::Savepoint("mine".into()));
    shell.event(failure(ErrorKind::EpochFailed));
    shell.pass(10);
    assert_eq!(shell.coordinator.phase(), Phase::Running);
    shell.pass(100);
    assert_eq!(shell.asked("MakeSavepoint"), 0, "whoever asked has been told that there is none");
}

#[test]
fn a_savepoint_is_decided_before_anything_is_read() {
    let shell = restarted(&with_savepoint(), go_back());
    let expected = [
        "EnsureControlTopic",
        "ListClaims",
        "ReadNewest",
        "ReadSavepoint",
        "CheckRestorable",
        "ListFiles",
        "InitTransactions",
        "CommitClaim",
        "ReadUntilClaim",
        "ReadTraces",
        "ImportSavepoint",
        "ResolveStart",
        "CommitStart",
        "Restore",
        "StartWorkers",
        "DeleteFiles",
        "Confirm",
    ];
    assert_eq!(shell.log, expected);
    let decision = shell.coordinator.committed().unwrap();
    assert_eq!(decision.epoch, Epoch(4), "it exceeds every trace");
    assert_eq!(decision.positions[0].next_offset, NextOffset(7));
    assert_eq!(decision.requests, ["savepoint:before:hash of own-1-2-0:1"]);
    assert_eq!(decision.manifest.as_ref().map(|manifest| manifest.file.as_str()), Some("start-own-2-4"));
}

#[test]
fn a_savepoint_is_applied_once_however_often_the_command_line_is_repeated() {
    let mut first = restarted(&with_savepoint(), go_back());
    first.next_offset = 9;
    first.pass(100);
    assert_eq!(requests(&first), 1, "later decisions carry it on");
    first.event(failure(ErrorKind::EpochFailed));
    first.pass(10);
    assert_eq!(first.next_offset, 9, "a recovery is no second start");
    let mut second = restarted(&first, go_back());
    assert_eq!((second.next_offset, second.asked("ImportSavepoint")), (9, 0));
    second.savepoint = None;
    let third = restarted(&second, go_back());
    assert_eq!(third.coordinator.phase(), Phase::Running, "one that was applied may be deleted");
    let again = restarted(&first, Requests { again: 2, ..go_back() });
    assert_eq!((again.next_offset, requests(&again)), (7, 2));
}

#[test]
fn of_two_instances_with_one_command_line_one_applies_it() {
    let stopped = with_savepoint();
    let mut second = Shell::new(Settings { requests: go_back(), ..settings() });
    second.control = stopped.control.clone();
    second.savepoint = stopped.savepoint.clone();
    second.silent = Some("InitTransactions");
    second.event(Event::Start);
    assert_eq!(second.coordinator.phase(), Phase::Fencing, "it is past its pre-flight");
    let first = restarted(&stopped, go_back());
    second.control = first.control.clone();
    second.event(Event::Initialised(Box::new(claim("second"))));
    assert_eq!(second.coordinator.phase(), Phase::Running);
    assert_eq!((second.asked("ImportSavepoint"), requests(&second)), (0, 1));
}

#[test]
fn going_back_behind_committed_output_must_be_accepted() {
    let requests = Requests { accept_repeats: false, ..go_back() };
    let mut stopped = with_savepoint();
    // Nothing was produced since, so that nothing would come again.
    assert_eq!(restarted(&stopped, requests.clone()).coordinator.phase(), Phase::Running);
    if let Some(ControlRecord::Decision(newest)) = stopped.control.last_mut() {
        newest.counts.out += 1;
    }
    let refused = restarted(&stopped, requests);
    assert!(
        matches!(&refused.outcome, Some(Outcome::Refused(reason)) if reason.contains("--accept-repeats"))
    );
    assert_eq!(refused.claims, stopped.claims, "nobody was fenced for it");
    assert_eq!(restarted(&stopped, go_back()).coordinator.phase(), Phase::Running);
}

#[test]
fn a_savepoint_that_is_not_there_or_cannot_be_restored_refuses_before_anyone_is_fenced() {
    let mut stopped = with_savepoint();
    let requests = Requests { savepoint: Some("others".into()), ..Requests::default() };
    let mut without = Shell::new(Settings { requests: requests.clone(), ..settings() });
    without.control = stopped.control.clone();
    without.event(Event::Start);
    assert_eq!(without.outcome, Some(Outcome::Refused("no savepoint `others`".into())));
    stopped.control.clear();
    for control in [vec![], with_savepoint().control] {
        let mut damaged = Shell::new(Settings { requests: requests.clone(), ..settings() });
        (damaged.control, damaged.savepoint) = (control, stopped.savepoint.clone());
        damaged.restorable = Err("a file is missing".into());
        damaged.event(Event::Start);
        assert_eq!(damaged.outcome, Some(Outcome::Refused("a file is missing".into())));
        assert_eq!(damaged.claims, 0);
    }
}

#[test]
fn a_savepoint_gets_over_a_lost_control_topic_if_repeats_are_accepted() {
    for accept_repeats in [true, false] {
        let mut stopped = with_savepoint();
        stopped.control.clear();
        let shell = restarted(&stopped, Requests { accept_repeats, ..go_back() });
        match accept_repeats {
            true => assert_eq!(shell.coordinator.committed().map(|decision| decision.epoch), Some(Epoch(4))),
            false => {
                assert!(
                    matches!(&shell.outcome, Some(Outcome::Refused(reason)) if reason.contains("epoch 3"))
                )
            }
        }
    }
}

#[test]
fn a_command_line_that_stands_does_not_hide_a_lost_control_topic() {
    let mut first = restarted(&with_savepoint(), go_back());
    let applied = first.coordinator.committed().unwrap().requests.clone();
    first.control.clear();
    for again in [1, 2] {
        let mut next = Shell::new(Settings { requests: Requests { again, ..go_back() }, ..settings() });
        next.savepoint = first.savepoint.clone();
        next.traces = Traces { confirmed: Some(Epoch(4)), requests: applied.clone(), group_offsets: true };
        next.event(Event::Start);
        match again {
            1 => {
                assert!(matches!(&next.outcome, Some(Outcome::Refused(reason)) if reason.contains("epoch 4")))
            }
            _ => assert_eq!(requests(&next), 2),
        }
    }
}

#[test]
fn discarded_state_stays_discarded_until_a_snapshot_without_it() {
    let discard = |again| Requests { discard: vec!["per_user".into()], again, ..Requests::default() };
    let mut shell = restarted(&with_savepoint(), discard(1));
    let decision = shell.coordinator.committed().cloned().unwrap();
    assert_eq!((decision.epoch, &decision.discarded[..]), (Epoch(4), &["per_user".to_string()][..]));
    assert_eq!(decision.requests, ["discard-state:per_user:1"]);
    let next = restarted(&shell, discard(1));
    assert_eq!(next.asked("CommitStart"), 0, "it is not decided a second time");
    assert_eq!(next.coordinator.committed().map(|decision| decision.discarded.len()), Some(1));
    shell.next_offset = 12;
    shell.pass(100);
    assert_eq!(shell.coordinator.committed().map(|decision| decision.discarded.len()), Some(0));
    assert_eq!(requests(&restarted(&shell, discard(1))), 1);
    assert_eq!(requests(&restarted(&shell, discard(2))), 2);
}

#[test]
fn a_request_at_a_first_start_is_not_applied_at_the_second() {
    let discard = Requests { discard: vec!["per_user".into()], ..Requests::default() };
    let mut first = Shell::new(Settings { requests: discard.clone(), ..settings() });
    first.event(Event::Start);
    assert_eq!(requests(&first), 1);
    assert_eq!(restarted(&first, discard).asked("CommitStart"), 0);
}

#[test]
fn a_renamed_source_keeps_its_positions() {
    let mut stopped = with_savepoint();
    let renamed = Settings {
        sources: vec!["bills".into()],
        renamed: vec![("orders".into(), "bills".into())],
        ..settings()
    };
    let mut shell = Shell::new(renamed);
    (shell.control, shell.claims) = (std::mem::take(&mut stopped.control), stopped.claims);
    shell.silent = Some("ResolveStart");
    shell.event(Event::Start);
    let positions: Vec<_> =
        shell.coordinator.positions().iter().map(|at| (at.source.as_str(), at.next_offset.0)).collect();
    assert_eq!(positions, [("bills", 8)]);
}
