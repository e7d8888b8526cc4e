//! What a process costs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    /// User and system time of the broker meanwhile, seconds.
    pub broker_s: f64,
    /// Shares of the time that Onceflow's workers stood still for checkpoints, and while windows fired.
    pub paused: Option<(f64, f64)>,
}

/// Runs a command to its end; its output goes to `log`.
///
/// # Errors
/// If it cannot be started, or fails.
pub fn run(command: &mut Command, log: &Path) -> Result<Cost> {
    /// How often its memory is looked at: what it grows by in its last moments is missed.
    const LOOK: Duration = Duration::from_millis(50);
    let began = Instant::now();
    let child = spawn(command, log)?;
    let pid = libc::pid_t::try_from(child.id())?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // The kernel's own figure is no less than ours when it was started: a process begins as a copy of its parent.
    let mut peak_rss = 0;
    let (waited, usage) = loop {
        peak_rss = peak_rss.max(self::peak_rss(child.id()).unwrap_or(0));
        // SAFETY: our own child, which nobody else waits for, and two places to write to. All zeros is a valid `rusage`.
        let (waited, usage) = unsafe {
            let waited = libc::wait4(pid, &mut status, libc::WNOHANG, usage.as_mut_ptr());
            (waited, usage.assume_init())
        };
        if waited != 0 {
            break (waited, usage);
        }
        std::thread::sleep(LOOK);
    };
    if waited != pid {
        bail!("waiting for {:?}: {}", command.get_program(), std::io::Error::last_os_error());
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        bail!("{command:?} failed:\n{}", last_words(log));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Cost {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall_s: began.elapsed().as_secs_f64(),
        peak_rss,
        ..Cost::default()
    })
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let out = File::create(log).with_context(|| log.display().to_string())?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.spawn().with_context(|| format!("{:?}", command.get_program()))
}

/// The most memory that a process has held at once, bytes.
fn peak_rss(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(peak.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// A process that goes on until it is ended; dropping it kills it.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a command; its output goes to `log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Running> {
        Ok(Running { child: spawn(command, log)?, log: log.to_owned() })
    }

    /// Fails if it has ended by itself.
    ///
    /// # Errors
    /// What it said last.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended by itself, {status}:\n{}", last_words(&self.log)),
        }
    }

    /// CPU time so far, user and system, its children's too; seconds.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu_s(&self) -> Result<f64> {
        cpu_s(self.child.id())
    }

    /// The most memory that it held at once, bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn peak_rss(&self) -> Result<u64> {
        peak_rss(self.child.id())
    }

    /// Asks it to end, and waits until it has; kills it when it takes too long.
    ///
    /// # Errors
    /// If it cannot be waited for, or had to be killed.
    pub fn end(mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let pid = libc::pid_t::try_from(self.child.id())?;
        // SAFETY: our own child, which has not been waited for: nobody else can have its id.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let asked = Instant::now();
        while self.child.try_wait()?.is_none() {
            if asked.elapsed() > PATIENCE {
                bail!("still there {} s after SIGTERM:\n{}", PATIENCE.as_secs(), last_words(&self.log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU time of a process so far, user and system, its children's too; seconds.
///
/// # Errors
/// If there is no such process.
pub fn cpu_s(pid: u32) -> Result<f64> {
    // SAFETY: a question without pointers.
    let ticks_a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    Ok(ticks(pid)? as f64 / ticks_a_second)
}

/// Of a process, of the children that it waited for, and of those that still run.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is a name in parentheses, which may hold anything; times are the 14th to the 17th.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
    let mut sum = 0;
    for time in fields.split_whitespace().skip(11).take(4) {
        sum += time.parse::<u64>()?;
    }
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread or a child may be gone by now.
        let children = std::fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace() {
            sum += ticks(child.parse()?).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn last_words(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last: Vec<&str> = said.lines().rev().take(20).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("\n")
}
