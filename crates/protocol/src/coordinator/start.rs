//! Starting, always the same way: first start, restart, crash, takeover.

use std::collections::BTreeSet;

use crate::error::ErrorKind;
use crate::ids::{ClaimId, Epoch};
use crate::planted::{Planted, is_planted};
use crate::records::{Claim, Decision, FORMAT_VERSION, ManifestRef, Position, TopicIdentity};

use super::checkpoint::Checkpoint;
use super::{ControlRecord, Coordinator, Effect, Failure, Outcome, Phase, Restored, Traces};

/// What a start has found out so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The decision that could not be restored when it was first checked: refused if it is still the newest.
    suspect: Option<Decision>,
    /// The newest decision at pre-flight.
    candidate: Option<Decision>,
    /// Files in the checkpoint storage before anyone was fenced: only these can be orphans.
    listed: Vec<String>,
    /// Our claim.
    pub claim: Option<Claim>,
    traces: Traces,
    /// Positions to start from, in the order that workers number them by.
    pub positions: Vec<Position>,
    /// Topics of all sources.
    pub topics: Vec<TopicIdentity>,
    /// How it is to end, unless another instance has taken over since.
    pub verdict: Option<Outcome>,
}

impl Coordinator {
    /// Begins a run: nobody is fenced before it is known that this start can succeed.
    pub(super) fn begin(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.start = Progress::default();
        self.base = None;
        self.kept = vec![];
        self.renewing = false;
        self.enter(Phase::Preflight, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::EnsureControlTopic);
    }

    /// What was claimed before this process began is not another's doing to it. A committed reader would not see all of that: a claim
    /// may be committed, or be going to be, while its marker is still to come.
    pub(super) fn control_topic_ready(&mut self, effects: &mut Vec<Effect>) {
        effects.push(match self.recovery.knows_claims() {
            true => Effect::ReadNewest,
            false => Effect::ListClaims,
        });
    }

    pub(super) fn newest(
        &mut self,
        now_ms: u64,
        claim: Option<Box<Claim>>,
        decision: Option<Box<Decision>>,
        effects: &mut Vec<Effect>,
    ) {
        if self.recovery.is_anothers(claim.as_ref().map(|claim| &claim.claim)) {
            self.fenced_by = claim.map(|claim| by(&claim));
            self.enter(Phase::Fenced, now_ms, None);
            return effects.push(Effect::TearDown);
        }
        let Some(decision) = decision else {
            return self.list_files(now_ms, effects);
        };
        if decision.transactional_id != self.settings.transactional_id {
            let reason = format!(
                "the newest decision was made with transactional id `{}`, this instance has `{}`: two ids would not fence each other",
                decision.transactional_id, self.settings.transactional_id
            );
            return self.refuse(now_ms, reason, effects);
        }
        self.start.candidate = Some((*decision).clone());
        effects.push(Effect::CheckRestorable(decision));
    }

    /// A healthy instance may retire what is being checked: only a decision that cannot be restored and is still the
    /// newest on reading it again refuses the start.
    pub(super) fn checked(&mut self, now_ms: u64, result: Result<(), String>, effects: &mut Vec<Effect>) {
        match result {
            Ok(()) => self.list_files(now_ms, effects),
            Err(reason) if self.start.suspect.is_some() && self.start.suspect == self.start.candidate => {
                self.refuse(now_ms, reason, effects)
            }
            Err(_) => {
                self.start.suspect = self.start.candidate.take();
                self.enter(Phase::Preflight, now_ms, Some(self.settings.start_limit_ms()));
                effects.push(Effect::ReadNewest);
            }
        }
    }

    fn list_files(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.enter(Phase::Listing, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::ListFiles);
    }

    pub(super) fn listed(&mut self, now_ms: u64, files: Vec<String>, effects: &mut Vec<Effect>) {
        self.start.listed = files;
        self.enter(Phase::Fencing, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::InitTransactions);
    }

    pub(super) fn initialised(&mut self, now_ms: u64, claim: Box<Claim>, effects: &mut Vec<Effect>) {
        // Noted before it is committed: the commit may take effect although its answer is lost.
        self.recovery.knows(claim.claim.clone());
        self.start.claim = Some((*claim).clone());
        self.enter(Phase::Claiming, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::CommitClaim(claim));
    }

    pub(super) fn claimed(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.enter(Phase::Reading, now_ms, Some(self.settings.start_limit_ms()));
        effects.extend(self.claim_id().cloned().map(Effect::ReadUntilClaim));
    }

    /// Every predecessor's decision lies before our claim: the last one there is what counts.
    pub(super) fn control_read(
        &mut self,
        now_ms: u64,
        records: Vec<ControlRecord>,
        effects: &mut Vec<Effect>,
    ) {
        let is_ours = |record: &ControlRecord| matches!(record, ControlRecord::Claim(claim) if Some(&claim.claim) == self.claim_id());
        let Some(own) = records.iter().position(is_ours) else {
            let message = "the control topic was read without finding the claim just committed".to_string();
            return self.fail(now_ms, Failure { kind: ErrorKind::Retry, message }, effects);
        };
        match records.get(own + 1) {
            None => {}
            Some(ControlRecord::Claim(later)) => {
                self.fenced_by = Some(by(later));
                self.enter(Phase::Fenced, now_ms, None);
                return effects.push(Effect::TearDown);
            }
            Some(ControlRecord::Decision(decision)) => {
                let message =
                    format!("epoch {} was decided by a fenced instance, after our claim", decision.epoch);
                return self.fail(now_ms, Failure { kind: ErrorKind::Bug, message }, effects);
            }
        }
        self.base = records[..own].iter().rev().find_map(|record| match record {
            ControlRecord::Decision(decision) => Some((**decision).clone()),
            ControlRecord::Claim(_) => None,
        });
        if is_planted(Planted::StoreReadBeforeClaim) {
            self.base = self.start.candidate.clone();
        }
        self.enter(Phase::Tracing, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::ReadTraces);
    }

    pub(super) fn traced(&mut self, now_ms: u64, traces: Traces, effects: &mut Vec<Effect>) {
        self.start.traces = traces;
        let decided = self.base.as_ref().map(|decision| decision.epoch);
        if let Some(confirmed) =
            traces.confirmed.filter(|confirmed| decided.is_none_or(|decided| decided < *confirmed))
        {
            let found = decided
                .map_or("no decision".to_string(), |epoch| format!("a newest decision of epoch {epoch}"));
            let reason = format!(
                "the checkpoint storage says that epoch {confirmed} was committed, but the control topic has {found}: \
                 it was deleted, or lost its end, or this is another cluster"
            );
            return self.refuse(now_ms, reason, effects);
        }
        if decided.is_none() && traces.group_offsets {
            let reason = "the consumer group has committed offsets, but the control topic has no decision: \
                          it was deleted, or this is another cluster";
            return self.refuse(now_ms, reason.to_string(), effects);
        }
        // Positions of sources that the plan no longer has are let go.
        let is_read = |at: &&Position| self.settings.sources.contains(&at.source);
        let known = self.base.iter().flat_map(|decision| &decision.positions);
        self.start.positions = known.filter(is_read).cloned().collect();
        self.enter(Phase::Resolving, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::ResolveStart(self.start.positions.clone()));
    }

    /// Start offsets are committed before anything is consumed: else `latest` would be resolved anew after a crash, and skip.
    pub(super) fn start_resolved(
        &mut self,
        now_ms: u64,
        let_go: &[(String, String)],
        resolved: Vec<Position>,
        mut topics: Vec<TopicIdentity>,
        effects: &mut Vec<Effect>,
    ) {
        let anew = |known: &&TopicIdentity| {
            topics
                .iter()
                .any(|topic| known.is_of(&topic.source, &topic.topic) && known.was_replaced_by(&topic.id))
        };
        if let Some(topic) = self.base.iter().flat_map(|base| &base.topics).find(anew) {
            let reason = format!(
                "topic `{}` is not the one that was consumed: it was deleted and created anew",
                topic.topic
            );
            return self.refuse(now_ms, reason, effects);
        }
        self.start.positions.retain(|at| {
            let same = |(source, topic): &(String, String)| at.source == *source && at.topic == *topic;
            !let_go.iter().any(same)
        });
        // A topic that is read and not there keeps its identity, as it keeps its positions: it may come back.
        for known in self.base.iter().flat_map(|base| &base.topics) {
            let is_read = self.start.positions.iter().any(|at| known.is_of(&at.source, &at.topic));
            if is_read && !topics.iter().any(|topic| known.is_of(&topic.source, &topic.topic)) {
                topics.push(known.clone());
            }
        }
        self.start.topics = topics;
        if resolved.is_empty() && self.base.is_some() {
            return self.restore(now_ms, effects);
        }
        self.start.positions.extend(resolved);
        let epoch = self.base.as_ref().map_or(Epoch(0), |decision| decision.epoch.next());
        let decision = self.decision(epoch, format!("start-{}", self.attempt(epoch)), self.base_manifest());
        self.base = Some(decision.clone());
        if is_planted(Planted::StartResolvedTwice) {
            return self.restore(now_ms, effects);
        }
        self.enter(Phase::CommittingStart, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::CommitStart(Box::new(decision)));
    }

    pub(super) fn restore(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        // Loading much state takes its time; a call that does not return is still noticed.
        self.enter(Phase::Restoring, now_ms, Some(20 * self.settings.start_limit_ms()));
        effects.extend(self.base.clone().map(|decision| Effect::Restore(Box::new(decision))));
    }

    pub(super) fn restored(&mut self, now_ms: u64, restored: Restored, effects: &mut Vec<Effect>) {
        self.frontiers = restored.frontiers;
        self.kept = restored.kept;
        self.enter(Phase::StartingWorkers, now_ms, Some(self.settings.start_limit_ms()));
        effects.push(Effect::StartWorkers(self.start.positions.clone()));
    }

    pub(super) fn workers_started(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let named: BTreeSet<&String> = self.kept.iter().flat_map(|kept| &kept.files).collect();
        let orphans: Vec<_> =
            self.start.listed.iter().filter(|file| !named.contains(file)).cloned().collect();
        if !orphans.is_empty() {
            effects.push(Effect::DeleteFiles(orphans));
        }
        if let Some(base) = &self.base
            && self.start.traces.confirmed != Some(base.epoch)
        {
            effects.push(Effect::Confirm(Box::new(base.clone())));
        }
        self.recovery.run_began(now_ms);
        let (positions, frontiers) = (self.start.positions.clone(), self.frontiers.clone());
        self.checkpoint = Checkpoint::new(now_ms, positions, frontiers, self.base_counts());
        self.enter(Phase::Running, now_ms, None);
        if self.draining {
            effects.push(Effect::StopReading);
        }
    }

    /// A decision of this instance over the run's present positions.
    pub(super) fn decision(&self, epoch: Epoch, attempt: String, manifest: Option<ManifestRef>) -> Decision {
        Decision {
            version: FORMAT_VERSION,
            epoch,
            attempt,
            claim: self.claim_id().cloned().unwrap_or_else(|| ClaimId(String::new())),
            transactional_id: self.settings.transactional_id.clone(),
            positions: self.start.positions.clone(),
            counts: self.base_counts(),
            requests: self.base.as_ref().map(|base| base.requests.clone()).unwrap_or_default(),
            manifest,
            topics: self.start.topics.clone(),
        }
    }

    /// Names an attempt at an epoch: a claim is never used twice, so neither is this.
    pub(super) fn attempt(&self, epoch: Epoch) -> String {
        match self.claim_id() {
            Some(claim) => format!("{claim}-{epoch}"),
            None => epoch.to_string(),
        }
    }

    fn base_manifest(&self) -> Option<ManifestRef> {
        self.base.as_ref().and_then(|base| base.manifest.clone())
    }
}

/// Names an instance for people.
fn by(claim: &Claim) -> String {
    format!("{} on {}", claim.instance, claim.host)
}
