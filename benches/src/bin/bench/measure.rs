//! What a process costs.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Of a process and of the children that it waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// User and system time, seconds.
    pub cpu_s: f64,
    /// From its start to its end, seconds.
    pub wall_s: f64,
    /// The most memory that it held at once, bytes.
    pub peak_rss: u64,
}

/// Runs a command to its end; its output goes to `log`.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run(command: &mut Command, log: &Path) -> Result<Cost> {
    let out = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    let began = Instant::now();
    let child = command.spawn().with_context(|| format!("{:?}", command.get_program()))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: our own child, which nobody else waits for, and two places to write to. All zeros is a valid `rusage`.
    let (waited, usage) = unsafe {
        let waited = libc::wait4(pid, &mut status, 0, usage.as_mut_ptr());
        (waited, usage.assume_init())
    };
    if waited != pid {
        bail!("waiting for {:?}: {}", command.get_program(), std::io::Error::last_os_error());
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let last: Vec<&str> = said.lines().rev().take(20).collect();
        bail!("{command:?} failed:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Cost {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall_s: began.elapsed().as_secs_f64(),
        peak_rss: usage.ru_maxrss as u64 * 1024,
    })
}
