//! Starting, always the same way: first start, restart, crash, takeover.

use std::collections::BTreeSet;

use crate::error::ErrorKind;
use crate::ids::{ClaimId, Epoch};
use crate::planted::{Planted, is_planted};
use crate::records::{Claim, Decision, FORMAT_VERSION, ManifestRef, Position, TopicIdentity};

use super::checkpoint::Checkpoint;
use super::requests::{Savepoint, Target};
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
    /// The savepoint that was asked for, if there is one.
    savepoint: Option<Savepoint>,
    /// Ids of the requests that this start applies.
    applies: Vec<String>,
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
        if let Some(decision) = &decision
            && decision.transactional_id != self.settings.transactional_id
        {
            let reason = format!(
                "the newest decision was made with transactional id `{}`, this instance has `{}`: two ids would not fence each other",
                decision.transactional_id, self.settings.transactional_id
            );
            return self.refuse(now_ms, reason, effects);
        }
        self.start.candidate = decision.map(|decision| *decision);
        match &self.settings.requests.savepoint {
            Some(name) => effects.push(Effect::ReadSavepoint(name.clone())),
            None => self.check(now_ms, effects),
        }
    }

    /// A savepoint that was applied may be gone.
    pub(super) fn savepoint_read(
        &mut self,
        now_ms: u64,
        result: Result<Savepoint, String>,
        effects: &mut Vec<Effect>,
    ) {
        let (requests, candidate) = (&self.settings.requests, self.start.candidate.as_ref());
        let name = requests.savepoint.as_deref().unwrap_or_default();
        self.start.savepoint = match result {
            Ok(savepoint) => Some(savepoint),
            Err(_) if requests.was_applied(name, candidate) => None,
            Err(reason) => return self.refuse(now_ms, reason, effects),
        };
        self.check(now_ms, effects);
    }

    /// Looks before anyone is fenced whether this start could go on from what it would go on from now.
    fn check(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.target(self.start.candidate.as_ref()) {
            Err(reason) => self.refuse(now_ms, reason, effects),
            Ok(Target { decision: None, .. }) => self.list_files(now_ms, effects),
            Ok(Target { decision: Some(decision), savepoint, .. }) => {
                effects.push(Effect::CheckRestorable {
                    decision: Box::new(decision),
                    savepoint: savepoint.map(|savepoint| savepoint.name),
                });
            }
        }
    }

    fn target(&self, newest: Option<&Decision>) -> Result<Target, String> {
        let (confirmed, savepoint) = (&self.start.traces.requests, self.start.savepoint.as_ref());
        let mut target = self.settings.requests.target(newest, confirmed, savepoint)?;
        if let Some(decision) = &mut target.decision {
            self.settings.rename_sources(decision);
        }
        Ok(target)
    }

    /// A healthy instance may retire what is being checked: only a decision that cannot be restored and is still the
    /// newest on reading it again refuses the start.
    pub(super) fn checked(&mut self, now_ms: u64, result: Result<(), String>, effects: &mut Vec<Effect>) {
        match result {
            Ok(()) => self.list_files(now_ms, effects),
            // Nobody takes a savepoint away; and where there is no decision, there is none that another could have replaced.
            Err(reason) if self.start.candidate.is_none() || self.start.suspect == self.start.candidate => {
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
        // The newest decision may be another than before the claim, and may have applied what this start was to apply.
        let target = match self.target(self.base.as_ref()) {
            Ok(target) => target,
            Err(reason) => return self.refuse(now_ms, reason, effects),
        };
        let decided = self.base.as_ref().map(|decision| decision.epoch);
        // Who goes back to a savepoint and accepts what that repeats does not need the decisions that are lost.
        let forced = target.savepoint.is_some() && self.settings.requests.accept_repeats;
        if let Some(reason) = lost(decided, &self.start.traces).filter(|_| !forced) {
            return self.refuse(now_ms, reason, effects);
        }
        let newest = self.base.take();
        self.base = target.decision;
        self.start.applies = target.applies;
        let (Some(base), Some(savepoint)) = (&mut self.base, target.savepoint) else {
            return self.resolve(now_ms, effects);
        };
        // Beyond every trace, so that whatever an older instance still says or writes is of the past.
        base.epoch =
            [decided, self.start.traces.confirmed].into_iter().flatten().fold(base.epoch, Epoch::max);
        let epoch = base.epoch.next();
        let keeps = newest.and_then(|newest| newest.manifest);
        self.enter(Phase::Importing, now_ms, Some(20 * self.settings.start_limit_ms()));
        let attempt = self.start_attempt(epoch);
        effects.push(Effect::ImportSavepoint { savepoint, epoch, attempt, keeps });
    }

    pub(super) fn imported(&mut self, now_ms: u64, manifest: Option<ManifestRef>, effects: &mut Vec<Effect>) {
        if let Some(base) = &mut self.base {
            base.manifest = manifest;
        }
        self.resolve(now_ms, effects);
    }

    fn resolve(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
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
        if resolved.is_empty() && self.start.applies.is_empty() && self.base.is_some() {
            return self.restore(now_ms, effects);
        }
        self.start.positions.extend(resolved);
        let epoch = self.base.as_ref().map_or(Epoch(0), |decision| decision.epoch.next());
        let mut decision = self.decision(epoch, self.start_attempt(epoch), self.base_manifest());
        decision.requests.append(&mut self.start.applies);
        if let Some(base) = self.base.as_ref().filter(|_| !is_planted(Planted::DiscardForgotten)) {
            // The snapshot is the same, so it still holds what was discarded.
            decision.discarded.clone_from(&base.discarded);
        }
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
            discarded: vec![],
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

    fn start_attempt(&self, epoch: Epoch) -> String {
        format!("start-{}", self.attempt(epoch))
    }

    fn base_manifest(&self) -> Option<ManifestRef> {
        self.base.as_ref().and_then(|base| base.manifest.clone())
    }
}

/// Whether traces say that decisions are lost.
fn lost(decided: Option<Epoch>, traces: &Traces) -> Option<String> {
    let way_out = "(to go on from a savepoint: `--from-savepoint NAME --accept-repeats`)";
    match traces.confirmed {
        Some(confirmed) if decided.is_none_or(|decided| decided < confirmed) => {
            let found = decided
                .map_or("no decision".to_string(), |epoch| format!("a newest decision of epoch {epoch}"));
            Some(format!(
                "the checkpoint storage says that epoch {confirmed} was committed, but the control topic has {found}: \
                 it was deleted, or lost its end, or this is another cluster {way_out}"
            ))
        }
        _ if decided.is_none() && traces.group_offsets => Some(format!(
            "the consumer group has committed offsets, but the control topic has no decision: \
             it was deleted, or this is another cluster {way_out}"
        )),
        _ => None,
    }
}

/// Names an instance for people.
fn by(claim: &Claim) -> String {
    format!("{} on {}", claim.instance, claim.host)
}
