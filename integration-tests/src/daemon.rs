//! The daemon as a child process: started with a pipeline file, watched through its log, its HTTP and its exit code, and killed in
//! every way there is.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::http::{Response, ask, free_port, get, post};
use crate::kafka::unique;
use crate::scenario::Scenario;

/// How long a daemon may take to get ready, to finish a bounded run or to stop.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A running daemon. Dropping it kills it; if the test failed, the end of its log is printed.
pub struct Daemon {
    child: Child,
    address: String,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Daemon {
    /// `onceflow run FILE`.
    pub fn run(scenario: &Scenario, file: &Path) -> Self {
        Self::start(scenario, file, &[], &[])
    }

    /// `onceflow run --until-end FILE`, to its end; panics unless it exits with 0.
    pub fn run_until_end(scenario: &Scenario, file: &Path) {
        let mut daemon = Self::start(scenario, file, &["--until-end"], &[]);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
    }

    /// `onceflow run FILE` that kills itself where `point` is reached, for example `after-commit:2`.
    pub fn run_armed(scenario: &Scenario, file: &Path, point: &str) -> Self {
        Self::start(scenario, file, &[], &[("ONCEFLOW_KILL_AT", point)])
    }

    /// One after the other, each armed for the next of these points, until it has killed itself there.
    pub fn die_at(scenario: &Scenario, file: &Path, points: &[&str]) {
        points.iter().for_each(|point| Self::run_armed(scenario, file, point).wait_for_self_kill());
    }

    /// `onceflow run ARGUMENTS… FILE` with further environment variables.
    pub fn start(scenario: &Scenario, file: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = scenario.dir().join(unique("daemon") + ".log");
        let output = File::create(&log).unwrap();
        Self::spawn(Some(file), arguments, environment, log, output.into())
    }

    /// `onceflow run ARGUMENTS…`, where the settings say what to run.
    pub fn without_files(scenario: &Scenario, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = scenario.dir().join(unique("daemon") + ".log");
        let output = File::create(&log).unwrap();
        Self::spawn(None, arguments, environment, log, output.into())
    }

    /// `onceflow run FILE`, whose log takes the way through another process: so that [`Daemon::limit_files`] concerns all other files.
    pub fn run_without_log_file(scenario: &Scenario, file: &Path) -> Self {
        let log = scenario.dir().join(unique("daemon") + ".log");
        let mut copy = Command::new("cat");
        copy.stdin(Stdio::piped()).stdout(File::create(&log).unwrap());
        // It ends with the last writer of the pipe.
        let pipe = copy.spawn().unwrap().stdin.take().unwrap();
        Self::spawn(Some(file), &[], &[], log, OwnedFd::from(pipe))
    }

    fn spawn(
        file: Option<&Path>,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: PathBuf,
        output: OwnedFd,
    ) -> Self {
        let mut address = format!("127.0.0.1:{}", free_port());
        let mut command = onceflow();
        command
            .arg("run")
            .args(arguments)
            .args(file)
            .env("ONCEFLOW_HTTP__LISTEN", &address)
            .env("ONCEFLOW_LOG__LEVEL", "info")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        // SAFETY: signal and prctl with these arguments are async-signal-safe and touch no memory of the process.
        unsafe {
            command.pre_exec(|| {
                // Beyond its limit a write fails; without this, it kills.
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                Ok(())
            });
            // A test process that dies takes its daemons along.
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        if let Some((_, listen)) = environment.iter().find(|(name, _)| *name == "ONCEFLOW_HTTP__LISTEN") {
            address = listen.replace("0.0.0.0", "127.0.0.1");
        }
        let child = command.spawn().unwrap();
        Self { child, address, log, status: None }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the child was not waited for, so its process id is still its own.
        let sent = unsafe { libc::kill(self.child.id() as i32, signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    /// Lets its files grow to so many bytes, and no further.
    pub fn limit_files(&self, bytes: libc::rlim_t) {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the kernel reads the one limit, which is a local, and writes nothing through null.
        let set = unsafe {
            libc::prlimit(self.child.id() as i32, libc::RLIMIT_FSIZE, &raw const limit, std::ptr::null_mut())
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(mut self) {
        if self.poll().is_none() {
            self.signal(libc::SIGKILL);
        }
        let status = self.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself: {status}\n{}", self.log_end());
    }

    /// SIGTERM, and waits; panics unless it exits with 0.
    pub fn stop(mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.log_end());
    }

    /// The exit status, if it has ended.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().unwrap();
        }
        self.status
    }

    /// The most memory that it has held so far, bytes; `None` once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
    }

    /// Waits for its end; panics after [`PATIENCE`].
    pub fn wait(&mut self) -> ExitStatus {
        self.eventually(PATIENCE, "to end", |daemon| daemon.poll())
    }

    /// Waits until a self-kill armed by [`Daemon::run_armed`] has happened.
    pub fn wait_for_self_kill(mut self) {
        let status = self.wait();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status}\n{}", self.log_end());
    }

    /// Waits until `/readyz` says so.
    pub fn wait_until_ready(&mut self) {
        self.eventually_alive("to become ready", |daemon| daemon.is_ready().then_some(()));
    }

    /// Whether its pipeline runs.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.status == 200)
    }

    /// Whether another instance has taken its pipeline over, and it knows.
    pub fn is_fenced(&self) -> bool {
        self.get("/readyz").is_some_and(|answer| answer.status == 503 && answer.body.contains(" fenced"))
    }

    /// Waits until the log holds `text`, and returns the whole log.
    pub fn wait_for_log(&mut self, text: &str) -> String {
        self.eventually_alive(&format!("to log {text:?}"), |daemon| {
            Some(daemon.log()).filter(|log| log.contains(text))
        })
    }

    /// Repeats `attempt` until it returns something; panics after [`PATIENCE`], or if the daemon ends meanwhile.
    pub fn eventually_alive<T>(&mut self, what: &str, attempt: impl FnMut(&Self) -> Option<T>) -> T {
        self.within(PATIENCE, what, attempt)
    }

    /// [`Daemon::eventually_alive`] with another patience, for faults after which time limits have to pass first.
    pub fn within<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut attempt: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        self.eventually(patience, what, |daemon| {
            let ended = daemon.poll();
            attempt(daemon).or_else(|| match ended {
                Some(status) => panic!("waiting for it {what}, but it ended: {status}\n{}", daemon.log_end()),
                None => None,
            })
        })
    }

    fn eventually<T>(
        &mut self,
        patience: Duration,
        what: &str,
        mut attempt: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let start = Instant::now();
        loop {
            if let Some(result) = attempt(self) {
                return result;
            }
            assert!(start.elapsed() < patience, "waited too long for it {what}\n{}", self.log_end());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `HOST:PORT` of its HTTP.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks its HTTP; `None` while it does not listen.
    pub fn get(&self, path: &str) -> Option<Response> {
        get(&self.address, path).ok()
    }

    /// Sends it a request with further headers; `None` while it does not listen. A reload may take as long as its checkpoints.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Option<Response> {
        ask(&self.address, method, path, headers, PATIENCE).ok()
    }

    /// Posts to its HTTP; panics while it does not listen.
    pub fn post(&self, path: &str, body: &str) -> Response {
        post(&self.address, path, body).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log_end()))
    }

    /// What its API answers as JSON; panics unless that is a success.
    pub fn api(&self, path: &str) -> serde_json::Value {
        let answer = self.get(&format!("/api/v1{path}")).expect("it listens");
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// `onceflow ARGUMENTS… --url URL`: a command that talks to this daemon.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        let url = format!("http://{}", self.address);
        onceflow().args(arguments).args(["--url", &url]).output().unwrap()
    }

    /// The sum of a metric over all its series whose labels hold every text of `labels`; `None` if there is no such series.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let body = self.get("/metrics")?.body;
        let values = body.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (metric, set) = series.split_once('{').unwrap_or((series, ""));
            (metric == name && labels.iter().all(|label| set.contains(label))).then(|| value.parse().ok())?
        });
        values.fold(None, |sum: Option<f64>, value: f64| Some(sum.unwrap_or(0.0) + value))
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines it has printed.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(40)..];
        format!("--- the log of the daemon ends with\n{}\n---", last.join("\n"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log_end());
        }
    }
}

/// The binary under test: `$ONCEFLOW_BIN`, or the one that cargo put beside the test executable's directory. The environment of whoever
/// runs the tests must not reach it.
pub fn onceflow() -> Command {
    let built = || {
        let tests = std::env::current_exe().unwrap();
        tests.parent().and_then(Path::parent).unwrap().join("onceflow")
    };
    let binary = std::env::var_os("ONCEFLOW_BIN").map_or_else(built, PathBuf::from);
    assert!(binary.exists(), "{} is missing: run `make build` first", binary.display());
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ONCEFLOW_")) {
        command.env_remove(name);
    }
    command
}
