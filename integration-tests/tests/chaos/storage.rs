//! The checkpoint storage is full, and has room again; so is the working directory.
//!
//! Each is a small file system of its own, filled up with a ballast file. Where nothing may be mounted, the size that the daemon's files
//! may have (`RLIMIT_FSIZE`) is set to nothing instead, which refuses every write as well; the output says so.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use onceflow_integration_tests::daemon::Daemon;
use onceflow_integration_tests::scenario::{Scenario, Settings};

use crate::run::{RECOVERY, Run, Stage, commits, many_groups, restarts};

#[test]
fn the_checkpoint_storage_is_full_and_has_room_again() {
    on_a_thread_of_its_own(|| check(Run::begin("storage"), |scenario| scenario.storage(), (4, 24)));
}

/// Where evicted panes are before they are part of a checkpoint.
#[cfg(feature = "rocksdb")]
#[test]
fn the_working_directory_is_full_and_has_room_again() {
    on_a_thread_of_its_own(|| check(Run::begin("workdir"), |scenario| scenario.dir().join("state"), (2, 12)));
}

fn check(run: Run, dir: impl FnOnce(&Scenario) -> PathBuf, (short, long): (u32, u32)) {
    let mut stage = run.under_load(many_groups());
    let Stage { run, scenario, .. } = &mut stage;
    let disk = Disk::new(run, &dir(scenario));
    let rounds = run.either(short, long);
    let mut file = scenario.dir().to_owned();
    let mut refused = 0;
    for round in 0..rounds {
        // A failure that is tolerated is tried again in the same transaction; another costs a restart.
        let settings = Settings {
            tolerable_failures: if round % 2 == 0 { 0 } else { 50 },
            parallelism: 1 + round / 2 % 2,
            memory: if cfg!(feature = "rocksdb") { "8MiB" } else { "256MiB" },
            timeout: "8s",
            lateness: "6m",
            ..Settings::default()
        };
        file = scenario.write_windowed(&settings);
        let mut daemon = disk.start(scenario, &file);
        commits(scenario, &mut daemon, 10);
        let before = refusals(&daemon);
        daemon.within(RECOVERY, "to notice that nothing can be written", |daemon| {
            disk.fill(daemon);
            std::thread::sleep(Duration::from_millis(20));
            (refusals(daemon) > before).then_some(())
        });
        let (since, hold) = (Instant::now(), run.moment(4_000));
        while since.elapsed() < hold {
            disk.fill(&daemon);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(daemon.get("/healthz").map(|answer| answer.status), Some(200), "the process must stay up");
        let (count, reasons) = (refusals(&daemon) - before, restarts(&mut daemon));
        refused += count;
        disk.relieve(&daemon);
        commits(scenario, &mut daemon, 5);
        run.event(format_args!(
            "{} of {rounds}: full for {} ms after the first of {count} refusals, {} of them tolerated, restarts meanwhile \
             {reasons:?}; commits again",
            round + 1,
            hold.as_millis(),
            settings.tolerable_failures
        ));
        daemon.stop();
    }
    let daemon = disk.start(scenario, &file);
    stage.settle(&file, daemon).held(format_args!("{rounds} times {}, {refused} refused writes", disk.how()));
}

/// How often the daemon said that something could not be written.
fn refusals(daemon: &Daemon) -> usize {
    let log = daemon.log();
    log.matches("the snapshot could not be written").count() + log.matches("this run has failed").count()
}

/// What refuses writes on demand.
enum Disk {
    /// A file system of [`Disk::BYTES`] over this directory.
    Small(PathBuf),
    /// The daemon's own limit.
    Limit,
}

impl Disk {
    const BYTES: u64 = 512 << 20;

    fn new(run: &Run, dir: &Path) -> Disk {
        std::fs::create_dir_all(dir).unwrap();
        let mounted = match std::env::var_os("ONCEFLOW_CHAOS_NO_MOUNT") {
            None => mount(dir),
            Some(_) => Err(io::Error::other("ONCEFLOW_CHAOS_NO_MOUNT is set")),
        };
        match mounted {
            Ok(()) => Disk::Small(dir.to_owned()),
            Err(error) => {
                run.event(format_args!(
                    "NO SMALL FILE SYSTEM ({error}; mounting needs root): the daemon's RLIMIT_FSIZE refuses all writes instead"
                ));
                Disk::Limit
            }
        }
    }

    fn how(&self) -> &'static str {
        match self {
            Disk::Small(_) => "a full file system",
            Disk::Limit => "a file size limit of nothing (no mount possible)",
        }
    }

    fn start(&self, scenario: &Scenario, file: &Path) -> Daemon {
        match self {
            Disk::Small(_) => Daemon::run(scenario, file),
            Disk::Limit => Daemon::run_without_log_file(scenario, file),
        }
    }

    /// Takes the room that is left; to be repeated, as the daemon's own tidying makes some.
    fn fill(&self, daemon: &Daemon) {
        match self {
            Disk::Small(dir) => {
                let mut ballast =
                    OpenOptions::new().create(true).append(true).open(dir.join("ballast")).unwrap();
                for size in [1 << 20, 1 << 12] {
                    let zeros = vec![0; size];
                    while ballast.write_all(&zeros).is_ok() {}
                }
            }
            Disk::Limit => daemon.limit_files(0),
        }
    }

    fn relieve(&self, daemon: &Daemon) {
        match self {
            Disk::Small(dir) => std::fs::remove_file(dir.join("ballast")).unwrap(),
            Disk::Limit => daemon.limit_files(libc::RLIM_INFINITY),
        }
    }
}

/// Mounts a small file system over `dir`, seen by the calling thread and the processes that it starts and by nobody else, so that it
/// is gone with them, however the test ends.
fn mount(dir: &Path) -> io::Result<()> {
    let check = |code: libc::c_int| if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let size = CString::new(format!("size={}", Disk::BYTES)).unwrap();
    let dir = CString::new(dir.as_os_str().as_bytes()).unwrap();
    let nothing = std::ptr::null();
    // SAFETY: the pointers are null where the kernel ignores them, and strings with a terminator elsewhere.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(nothing, c"/".as_ptr(), nothing, libc::MS_REC | libc::MS_PRIVATE, nothing.cast()))?;
        let tmpfs = c"tmpfs".as_ptr();
        check(libc::mount(tmpfs, dir.as_ptr(), tmpfs, 0, size.as_ptr().cast()))
    }
}

/// Mounts belong to threads here: the test runner's must not inherit one.
fn on_a_thread_of_its_own(scenario: impl FnOnce() + Send) {
    let outcome = std::thread::scope(|scope| scope.spawn(scenario).join());
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}
