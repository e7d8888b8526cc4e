//! How commands talk to a running daemon: its API, at the address that the daemon's own settings name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::settings::{Secret, Settings};

/// How long a daemon may take to accept a connection. Its answers may take as long as what they wait for.
const CONNECT: Duration = Duration::from_secs(5);

/// Which daemon.
#[derive(Debug, Args)]
pub struct DaemonArgs {
    /// Where the daemon answers [default: `http.listen` of its settings]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The daemon's own settings [default: /etc/onceflow/onceflow.yaml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The API of one daemon.
pub struct Client {
    agent: ureq::Agent,
    base: String,
    token: Option<Secret>,
}

impl DaemonArgs {
    /// A client for it. Nothing is sent yet.
    ///
    /// # Errors
    /// If the settings have a mistake.
    pub fn client(&self) -> anyhow::Result<Client> {
        let settings = Settings::of_process(self.config.as_deref())?;
        let base = match &self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", reachable(settings.http.listen)),
        };
        let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_connect(Some(CONNECT));
        Ok(Client { agent: agent.build().into(), base, token: settings.http.token })
    }
}

/// An address that a server listens at, as one that it can be reached at from this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

impl Client {
    /// Asks for what is at `path`, below `/api/v1`.
    ///
    /// # Errors
    /// If no daemon answers, or what it says instead.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(path, &[])
    }

    /// The same, with parameters.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn ask<T: DeserializeOwned>(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<T> {
        let request = self.agent.get(format!("{}/api/v1{path}", self.base));
        let request = request.query_pairs(parameters.iter().copied());
        self.answer(self.authorized(request).call())
    }

    /// Orders something, and waits until it is done.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
        let request = self.agent.post(format!("{}/api/v1{path}", self.base));
        let body = serde_json::to_vec(body)?;
        self.answer(self.authorized(request).header("Content-Type", "application/json").send(body))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {}", token.reveal())),
            None => request,
        }
    }

    fn answer<T: DeserializeOwned>(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> anyhow::Result<T> {
        let mut answer = answer.with_context(|| {
            format!("no daemon answers at {}: does it run? (--url, or --config for its settings)", self.base)
        })?;
        let text = answer.body_mut().read_to_string().context("the daemon's answer broke off")?;
        if answer.status().is_success() {
            return serde_json::from_str(&text)
                .with_context(|| format!("{} does not answer as this version does", self.base));
        }
        let said: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let error = said.as_ref().and_then(|said| said.get("error")).and_then(|error| error.as_str());
        bail!("{}", error.unwrap_or(answer.status().as_str()))
    }
}

/// A pipeline's name as it may stand in a path.
///
/// # Errors
/// If it cannot be the name of a pipeline.
pub fn pipeline_name(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.chars().all(valid) {
        true => Ok(text.to_owned()),
        false => Err("the name of a pipeline has the characters a-z, 0-9 and -".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_listens_everywhere_is_reached_here() {
        let reach = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reach("0.0.0.0:8080"), "127.0.0.1:8080");
        assert_eq!(reach("[::]:1"), "[::1]:1");
        assert_eq!(reach("10.0.0.7:80"), "10.0.0.7:80");
        assert!(pipeline_name("orders-2").is_ok());
        assert!(["", "../x", "a/b", "A"].iter().all(|name| pipeline_name(name).is_err()));
    }
}
