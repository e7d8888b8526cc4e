//! Making savepoints, and going back to one.

use onceflow_protocol::coordinator::{self, Event, KeptSnapshot};
use onceflow_protocol::{Decision, Epoch, ManifestRef};

use super::super::context::{SINKS, wall_clock_ms};
use super::super::messages::SavepointReply;
use super::super::savepoint::{self, Savepoint, unreadable};
use super::{CALL, Done, Keeper, Trouble};
use crate::storage::{StorageError, StorageErrorKind};

impl Keeper {
    /// Copies the snapshot of a committed decision. Whatever becomes of it concerns those alone who asked for it.
    pub(super) fn make_savepoint(&mut self, name: String, decision: Decision, reply: Option<SavepointReply>) {
        let pipeline = self.context.plan.pipeline.clone();
        let made = self.try_make(name.clone(), decision).map_err(|trouble| match trouble {
            Trouble::Refused(reason) => reason,
            Trouble::Failed(failure) => failure.message,
        });
        match &made {
            Ok(made) => {
                tracing::info!(pipeline, name, epoch = %made.decision.epoch, bytes = made.bytes, "savepoint made")
            }
            Err(reason) => tracing::warn!(pipeline, name, reason, "no savepoint was made"),
        }
        if let Some(reply) = reply {
            // Whoever asked may have gone.
            let _ = reply.send(made);
        }
    }

    fn try_make(&mut self, name: String, decision: Decision) -> Done<Savepoint> {
        let storage = self.storage()?;
        let manifest = match &decision.manifest {
            Some(reference) => Some(self.read_manifest(&storage, reference)?),
            None => None,
        };
        let pipeline = self.context.plan.pipeline.clone();
        let savepoint = Savepoint::new(
            name.clone(),
            pipeline,
            wall_clock_ms(),
            self.cluster_ids[SINKS].clone(),
            decision,
        );
        savepoint::make(&storage, manifest.as_ref(), savepoint).map_err(|error| match error.kind() {
            StorageErrorKind::Exists => Trouble::Refused(format!("there is a savepoint `{name}` already")),
            _ => error.into(),
        })
    }

    /// What a savepoint says of itself.
    pub(super) fn read_savepoint(&mut self, name: &str) -> Done {
        let storage = self.storage()?;
        let cluster_id = self.admin(SINKS)?.cluster_id(CALL)?;
        let pipeline = &self.context.plan.pipeline;
        let read = match savepoint::read(&storage, name) {
            Ok((found, _)) if found.pipeline != *pipeline => {
                Err(format!("savepoint `{name}` is of pipeline `{}`", found.pipeline))
            }
            Ok((found, _)) if found.cluster_id != cluster_id => Err(format!(
                "savepoint `{name}` was made on cluster `{}`, this is `{cluster_id}`",
                found.cluster_id
            )),
            Ok((found, hash)) => {
                Ok(coordinator::Savepoint { name: name.to_owned(), hash, decision: Box::new(found.decision) })
            }
            Err(error) if is_transient(&error) => return Err(error.into()),
            Err(error) => Err(unreadable(&storage, name, &error)),
        };
        self.driver.event(Event::SavepointRead(read));
        Ok(())
    }

    /// Copies a savepoint back, beside the snapshots that there are.
    pub(super) fn import_savepoint(
        &mut self,
        savepoint: &coordinator::Savepoint,
        epoch: Epoch,
        attempt: &str,
        keeps: Option<&ManifestRef>,
    ) -> Done {
        let storage = self.storage()?;
        let name = &savepoint.name;
        let (_, hash) = savepoint::read(&storage, name).map_err(|error| match is_transient(&error) {
            true => error.into(),
            false => Trouble::Refused(unreadable(&storage, name, &error)),
        })?;
        if hash != savepoint.hash {
            return Err(Trouble::Refused(format!(
                "savepoint `{name}` is not the one that it was a moment ago"
            )));
        }
        let Some(reference) = &savepoint.decision.manifest else {
            self.driver.event(Event::Imported(None));
            return Ok(());
        };
        let from = storage.savepoint(name)?;
        let manifest = self.read_manifest(&from, reference)?;
        let mut kept: Vec<KeptSnapshot> = vec![];
        if let Some(keeps) = keeps {
            // It may be what the savepoint is to get over.
            match self.read_manifest(&storage, keeps) {
                Ok(newest) => {
                    let files = newest.files(&keeps.file);
                    kept.extend(newest.kept.into_iter().map(Into::into));
                    kept.push(KeptSnapshot { epoch: newest.epoch, manifest: keeps.clone(), files });
                }
                Err(Trouble::Refused(reason)) => {
                    tracing::warn!(reason, "the newest snapshot cannot be kept beside the savepoint")
                }
                Err(failed) => return Err(failed),
            }
        }
        let incarnation = self.incarnation.clone();
        let imported = savepoint::import(&storage, &from, manifest, epoch, attempt, &incarnation, kept)?;
        self.driver.event(Event::Imported(Some(imported)));
        Ok(())
    }
}

fn is_transient(error: &StorageError) -> bool {
    matches!(error.kind(), StorageErrorKind::Full | StorageErrorKind::Io)
}
