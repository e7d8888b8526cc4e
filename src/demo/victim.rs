//! The pipeline as a child process of the same binary, and its deaths.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

use super::Run;

/// `onceflow run` of the demo's pipeline. Dropping it kills it.
pub struct Victim {
    child: Child,
}

impl Victim {
    /// Starts the pipeline, with further arguments, and armed with a kill point if one is named.
    pub fn start(run: &Run, arguments: &[&str], kill_at: Option<&str>) -> Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(run.dir.join("pipeline.log"))?;
        // The port is free now; if another process is quicker, the pipeline says so in its log.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("run")
            .args(arguments)
            .arg(run.dir.join("pipeline.yaml"))
            .env("ONCEFLOW_NAMESPACE", "onceflow")
            .env("ONCEFLOW_HTTP__LISTEN", listen)
            .env("ONCEFLOW_LOG__LEVEL", "info")
            .env_remove("ONCEFLOW_KILL_AT")
            .envs(run.variables())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some(point) = kill_at {
            command.env("ONCEFLOW_KILL_AT", point);
        }
        Ok(Self { child: command.spawn().context("starting the pipeline")? })
    }

    /// kill -9.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error that tells how it ended, with the end of its log, unless it runs.
    pub fn must_run(&mut self, run: &Run) -> Result<()> {
        match self.ended()? {
            None => Ok(()),
            Some(status) => {
                bail!("the pipeline ended by itself ({status}); its log ends with\n{}", run.log_end())
            }
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Already dead, mostly: then neither call does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
