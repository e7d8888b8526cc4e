//! The start's questions to the control topic, the source and the storage, as the daemon's keeper asks them.

use std::rc::Rc;

use onceflow_protocol::coordinator::{ControlRecord, Event, Fate, Savepoint, SeenClaim};
use onceflow_protocol::planted::{Planted, is_planted};
use onceflow_protocol::{Claim, ClaimId, Decision, NextOffset, Position, TopicIdentity};

use crate::kafka::{CONTROL, SOURCES, Value};
use crate::outside::Outside;

/// The newest claim and decision that a committed reader sees.
pub fn newest(outside: &Outside) -> Event {
    let (mut claim, mut decision) = (None, None);
    for (_, value) in outside.cluster.committed(CONTROL, 0) {
        match value {
            Value::Claim(newer) => claim = Some(Box::new((**newer).clone())),
            Value::Decision(newer) => decision = Some(Box::new((**newer).clone())),
            _ => {}
        }
    }
    Event::Newest { claim, decision }
}

/// The savepoint of this name.
pub fn savepoint(name: &str, outside: &Outside) -> Event {
    let found = outside.storage.savepoints.get(name).map(|savepoint| Savepoint {
        name: name.into(),
        hash: savepoint.decision.attempt.clone(),
        decision: Box::new(savepoint.decision.clone()),
    });
    Event::SavepointRead(found.ok_or_else(|| format!("there is no savepoint {name}")))
}

/// What stands in the way of restoring this decision.
pub fn restorable(decision: &Decision, savepoint: Option<&str>, outside: &Outside) -> Result<(), String> {
    if let Some(name) = savepoint {
        let savepoint = outside.storage.savepoints.get(name);
        return savepoint.ok_or_else(|| format!("there is no savepoint {name}"))?.manifest().map(drop);
    }
    let Some(reference) = &decision.manifest else { return Ok(()) };
    let manifest = outside.storage.read(&reference.file).and_then(|file| file.manifest.clone());
    let manifest = manifest.ok_or_else(|| format!("{} is missing", reference.file))?;
    match manifest.files(&reference.file).iter().find(|file| outside.storage.read(file).is_none()) {
        Some(missing) => Err(format!("{missing} is missing")),
        None => Ok(()),
    }
}

/// What the control topic holds up to the claim, and after it; `None` while the claim is not to be seen.
pub fn until_claim(claim: &ClaimId, ignored: Option<&str>, outside: &Outside) -> Option<Vec<ControlRecord>> {
    let mut records = vec![];
    let mut found = false;
    for (_, value) in outside.cluster.committed(CONTROL, 0) {
        match value {
            Value::Claim(other) => {
                let ours = other.claim == *claim;
                // Claims before our own are of no interest.
                if (ours && !found) || (found && !ours) {
                    records.push(ControlRecord::Claim((**other).clone()));
                }
                found |= ours;
            }
            Value::Decision(decision)
                if is_planted(Planted::UnknownTakenAsAborted) && ignored == Some(&decision.attempt) => {}
            Value::Decision(decision) if !found || !is_planted(Planted::ClaimIdUsedTwice) => {
                records.push(ControlRecord::Decision(Box::new((**decision).clone())));
            }
            _ => {}
        }
    }
    found.then_some(records)
}

/// Start offsets of the partitions that have no position yet.
pub fn resolve(known: &[Position], outside: &Outside) -> Event {
    let missing = (0..outside.partitions)
        .filter(|partition| known.iter().all(|at| at.partition as usize != *partition));
    let positions = missing.map(|partition| {
        let end = outside.cluster.log(SOURCES + partition).stable_end() as i64;
        Position {
            source: "events".into(),
            topic: "events".into(),
            partition: partition as i32,
            // Only a first start begins at `latest`; a partition that is new to the topic is read whole.
            next_offset: NextOffset(if outside.config.latest && known.is_empty() { end } else { 0 }),
            watermark: None,
            disorder: None,
        }
    });
    let id = format!("t{}", outside.topic_created);
    let topics = vec![TopicIdentity { source: "events".into(), topic: "events".into(), id }];
    Event::StartResolved { let_go: vec![], positions: positions.collect(), topics }
}

/// All claims, and what became of those that follow the newest known one.
pub fn look(known: &[ClaimId], outside: &mut Outside) -> Event {
    let claims: Vec<_> = outside.cluster.all_claims().collect();
    let newest = claims.iter().rposition(|(claim, _)| known.contains(&claim.claim));
    let first = newest.map_or(0, |at| at + 1);
    let (before, after) = claims.split_at(first);
    let before = before.iter().map(|(claim, _)| claim.claim.clone()).collect();
    let seen =
        |(claim, fate): &(&Rc<Claim>, Fate)| SeenClaim { instance: claim.instance.clone(), fate: *fate };
    let after: Vec<SeenClaim> = after.iter().map(seen).collect();
    if after.iter().any(|claim| claim.fate == Fate::Open) {
        outside.coverage.row("looked at an undecided claim");
    }
    Event::ClaimsSeen { before, after }
}
