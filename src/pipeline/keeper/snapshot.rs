//! Writing a snapshot: the changed rows and the manifest in one segment file, and what is new of the cold store.

use std::io::{self, BufWriter};

use onceflow_engine::state::extents::{LiveExtents, PaneId, WrittenChange, WrittenPane};
use onceflow_engine::state::segment::SegmentWriter;
use onceflow_engine::state::window_state::Change;
use onceflow_engine::worker::barrier::FrozenStep;
use onceflow_protocol::coordinator::{Event, Failure, SnapshotDraft};
use onceflow_protocol::{ErrorKind, ManifestRef};

use super::super::context::SHARD;
use super::super::manifest::{self, FORMAT_VERSION, Manifest, StepState};
use super::super::messages::ToWorker;
use super::{Done, Keeper, Trouble, bug};
use crate::state::Cold;
use crate::storage::FileName;

impl Keeper {
    /// Every worker stands still: whatever the cold store holds belongs to the epoch that ends.
    pub(super) fn freeze_cold(&mut self) -> Done {
        if let Some(cold) = self.cold.as_ref().filter(|cold| cold.changed_since_snapshot()) {
            self.frozen_cold = cold.freeze().map_err(|error| {
                Trouble::Failed(Failure { kind: ErrorKind::EpochFailed, message: error.to_string() })
            })?;
        }
        self.driver.event(Event::ColdSnapshotTaken);
        Ok(())
    }

    /// Writes the snapshot. What cannot be written now is kept in memory, so that it can be tried again.
    pub(super) fn write_snapshot(&mut self, draft: &SnapshotDraft) -> Done {
        match self.try_write(draft) {
            Ok(()) => Ok(()),
            Err(Trouble::Failed(failure)) if failure.kind == ErrorKind::Retry => {
                self.driver.event(Event::SnapshotFailed(failure.message));
                Ok(())
            }
            // A file that is not as we left it means, while we run, that another instance has taken over and tidied up. The
            // recovery finds out; only a start may refuse.
            Err(Trouble::Refused(message)) => {
                Err(Trouble::Failed(Failure { kind: ErrorKind::EpochFailed, message }))
            }
            Err(other) => Err(other),
        }
    }

    fn try_write(&mut self, draft: &SnapshotDraft) -> Done {
        let storage = self.storage()?;
        let mut cold_bytes = 0;
        if let Some(frozen) = &self.frozen_cold {
            let stored = frozen.store(&storage)?;
            cold_bytes = stored.written_bytes;
            self.cold_snapshot = Some(stored.snapshot);
        }
        let workers: Vec<&Vec<FrozenStep>> = self.frozen.iter().flatten().collect();
        if workers.len() != self.context.settings.workers {
            return Err(bug(format!("a snapshot of epoch {} without every worker's changes", draft.epoch)));
        }
        let name = FileName::snapshot(draft.epoch.0, &draft.attempt)?;
        let ((live, hash, manifest), bytes) = storage.create(&name, |out| {
            let mut segment = SegmentWriter::new(BufWriter::with_capacity(1 << 16, out))?;
            let panes = write_panes(&mut segment, &workers)?;
            let live = self.live.after(name.as_str(), &panes);
            let manifest = self.manifest(draft, live.clone(), &workers);
            let json = serde_json::to_vec(&manifest)?;
            let (mut out, _) = segment.finish(&json)?;
            io::Write::flush(&mut out)?;
            Ok((live, manifest::hash(&json), manifest))
        })?;
        let dead = live.mostly_dead();
        self.live = live;
        self.frozen.fill_with(|| None);
        self.frozen_cold = None;
        for PaneId { step, pane, worker } in dead {
            if let Some(worker) = self.workers.get(usize::from(worker)) {
                let _ = worker.send(ToWorker::Rewrite { state_id: step, pane });
            }
        }
        self.measure_cold(self.cold.as_ref().map_or(0, Cold::bytes));
        let metrics = &self.context.metrics;
        metrics.checkpoint_written_bytes.set((bytes + cold_bytes) as i64);
        let cold =
            self.cold_snapshot.iter().flat_map(|cold| &cold.files).map(|file| file.length).sum::<u64>();
        metrics.checkpoint_full_bytes.set((self.live.bytes() + cold) as i64);
        let files = manifest.files(name.as_str());
        let manifest = ManifestRef { file: name.as_str().to_string(), hash };
        self.driver.event(Event::Durable { manifest, files });
        Ok(())
    }

    fn manifest(&self, draft: &SnapshotDraft, live: LiveExtents, workers: &[&Vec<FrozenStep>]) -> Manifest {
        let steps = self.steps.iter().zip(&draft.frontiers);
        let steps = steps.map(|(step, frontiers)| StepState { frontiers: *frontiers, ..step.clone() });
        let panes = workers.iter().flat_map(|steps| *steps).flat_map(|step| &step.panes);
        Manifest {
            format: FORMAT_VERSION,
            pipeline: self.context.plan.pipeline.clone(),
            shard: SHARD,
            epoch: draft.epoch,
            attempt: draft.attempt.clone(),
            cluster_id: self.cluster_ids.first().cloned().unwrap_or_default(),
            source_clusters: self.source_clusters(),
            topics: draft.topics.clone(),
            positions: draft.positions.clone(),
            counts: draft.counts,
            steps: steps.collect(),
            next_step_id: self.next_step_id,
            workers: self.context.settings.workers,
            live,
            runs: panes.flat_map(|pane| pane.runs.iter().copied()).collect(),
            next_generation: self.context.generation(),
            cold: self.cold_snapshot.clone(),
            kept: draft.kept.iter().cloned().map(Into::into).collect(),
        }
    }
}

fn write_panes<W: io::Write>(
    segment: &mut SegmentWriter<W>,
    workers: &[&Vec<FrozenStep>],
) -> io::Result<Vec<WrittenPane>> {
    let mut written = vec![];
    for (worker, frozen) in workers.iter().enumerate() {
        for step in *frozen {
            for pane in &step.panes {
                let change = match &pane.change {
                    Change::Unchanged => WrittenChange::Unchanged,
                    Change::Delta(rows) => WrittenChange::Delta(segment.write_extent(rows)?),
                    Change::Whole(rows) if rows.is_empty() => WrittenChange::Whole(None),
                    Change::Whole(rows) => WrittenChange::Whole(Some(segment.write_extent(rows)?)),
                };
                let id = PaneId { step: step.state_id, pane: pane.pane, worker: worker as u16 };
                written.push(WrittenPane { id, change });
            }
        }
    }
    Ok(written)
}
