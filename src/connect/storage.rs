//! Whether this process can write its checkpoints, and its working files.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use onceflow_engine::plan::Backend;

use super::{Check, Wrong};
use crate::pipeline::Context;

/// The directories of a pipeline.
pub fn check(context: &Context) -> Vec<Check> {
    let plan = &context.plan;
    let storage = &plan.checkpoint.storage;
    let mut checks = vec![Check::of(
        format!("checkpoint storage {}", storage.display()),
        writable(storage, "checkpoint.storage"),
    )];
    if !context.windowed.is_empty() && plan.state.backend == Backend::RocksDb {
        let dir = &plan.state.dir;
        checks.push(Check::of(format!("state directory {}", dir.display()), writable(dir, "state.dir")));
    }
    checks
}

/// Writes a file, makes it durable and removes it again. A directory that is not there must be one that can be made.
fn writable(directory: &Path, key: &str) -> Result<String, Wrong> {
    let Some(existing) = directory.ancestors().find(|path| path.exists()) else {
        return Err(Wrong::new("no part of this path exists", format!("check {key}")));
    };
    let wrong = |error: std::io::Error| {
        let user = format!("let the user of the daemon write there, or change {key}");
        Wrong::new(format!("{}: {error}", existing.display()), user)
    };
    if existing != directory {
        return match may_write(existing) {
            Ok(()) => Ok("does not exist yet, and can be created".to_owned()),
            Err(error) => Err(wrong(error)),
        };
    }
    let probe = existing.join(format!(".onceflow-probe-{:016x}", rand::random::<u64>()));
    let written = probe_file(&probe);
    let removed = fs::remove_file(&probe);
    written.and(removed).map_err(wrong)?;
    Ok("files can be written and made durable".to_owned())
}

fn probe_file(path: &PathBuf) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(b"onceflow")?;
    file.sync_all()
}

fn may_write(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        return Err(std::io::ErrorKind::NotADirectory.into());
    }
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated path, which is only read.
    match unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_tried_and_left_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        assert!(writable(dir.path(), "k").is_ok());
        assert!(writable(&dir.path().join("a/b"), "k").is_ok_and(|found| found.contains("can be created")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        for wrong in [&file, &file.join("below"), &PathBuf::from("/dev/null/onceflow")] {
            assert!(writable(wrong, "k").is_err_and(|wrong| wrong.advice.ends_with("change k")), "{wrong:?}");
        }
    }
}
