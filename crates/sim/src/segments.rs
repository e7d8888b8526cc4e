//! The engine's segments, written and read with the engine's own code.

use std::io::Cursor;

use onceflow_engine::state::cold::Run;
use onceflow_engine::state::extents::{LiveExtents, PaneId, WrittenChange, WrittenPane};
use onceflow_engine::state::segment::{SegmentWriter, read_extent};
use onceflow_engine::state::window_state::{Change, Origin};
use onceflow_engine::worker::WorkerError;
use onceflow_protocol::ErrorKind;
use onceflow_protocol::coordinator::Event;

use crate::engine::EngineTask;
use crate::storage::{Content, Manifest, Storage};
use crate::task::Frozen;
use crate::worker::failed;

/// A segment of all workers' changes: its bytes, the extents that live after it, the cold runs that go with it.
pub fn write(name: &str, live: &LiveExtents, frozen: &[&Frozen]) -> (Vec<u8>, LiveExtents, Vec<Run>) {
    let (mut written, mut runs) = (vec![], vec![]);
    let wrong = |error: std::io::Error| -> ! { panic!("writing to memory failed: {error}") };
    let mut segment = SegmentWriter::new(vec![]).unwrap_or_else(|error| wrong(error));
    for (worker, frozen) in frozen.iter().enumerate() {
        let Frozen::Engine(steps) = frozen else { continue };
        for step in steps {
            for pane in &step.panes {
                let mut extent = |rows| segment.write_extent(rows).unwrap_or_else(|error| wrong(error));
                let change = match &pane.change {
                    Change::Unchanged => WrittenChange::Unchanged,
                    Change::Delta(rows) => WrittenChange::Delta(extent(rows)),
                    Change::Whole(rows) if rows.is_empty() => WrittenChange::Whole(None),
                    Change::Whole(rows) => WrittenChange::Whole(Some(extent(rows))),
                };
                let id = PaneId { step: step.state_id, pane: pane.pane, worker: worker as u16 };
                written.push(WrittenPane { id, change });
                runs.extend_from_slice(&pane.runs);
            }
        }
    }
    let (bytes, _) = segment.finish(b"{}").unwrap_or_else(|error| wrong(error));
    (bytes, live.after(name, &written), runs)
}

/// Brings rows and runs of a snapshot back into new workers: these extents, and the runs of the steps that `keeps` says yes for.
pub fn load(
    manifest: &Manifest,
    live: &LiveExtents,
    keeps: impl Fn(u32) -> bool,
    storage: &Storage,
    tasks: &mut [EngineTask],
) -> Result<(), Event> {
    let workers = tasks.len();
    let origin = if manifest.workers == workers { Origin::Own } else { Origin::Other };
    for (id, extents) in live.panes() {
        let mut rows = extents.into_iter().map(|extent| {
            let missing =
                || WorkerError { kind: ErrorKind::Data, message: format!("{} is missing", extent.file) };
            match storage.read(&extent.file).map(|file| &file.content) {
                Some(Content::Segment(bytes)) => {
                    read_extent(&mut Cursor::new(bytes.as_slice()), &extent.location)
                        .map_err(|error| WorkerError { kind: ErrorKind::Data, message: error.to_string() })
                }
                _ => Err(missing()),
            }
        });
        let worker = &mut tasks[usize::from(id.worker) % workers].worker;
        worker.restore(id.step as usize, id.pane, &mut rows, &[], origin).map_err(failed)?;
    }
    for (_, run) in manifest.cold.iter().filter(|(_, run)| keeps(run.step)) {
        let worker = &mut tasks[0].worker;
        worker
            .restore(run.step as usize, run.pane, &mut std::iter::empty(), &[*run], Origin::Own)
            .map_err(failed)?;
    }
    Ok(())
}
