//! What a daemon says of itself, asked over a plain socket: its metrics and its API.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A port on loopback that nobody listens on.
///
/// # Errors
/// If there is none.
pub fn free_port() -> Result<u16> {
    // Below the ephemeral range, so that no outgoing connection takes it meanwhile.
    let mut ports = 21_000..29_000;
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("no port is free")
}

/// The body of the answer to `GET path`.
///
/// # Errors
/// If nobody answers, or with anything but 200.
pub fn get(port: u16, path: &str) -> Result<String> {
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(PATIENCE)?;
    // HTTP/1.0: the connection is closed after the body, which is not sent in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its headers")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("GET {path}: {head}\n{body}");
    }
    Ok(body.to_owned())
}

/// A figure of `/metrics`, summed over its labels.
///
/// # Errors
/// If nobody answers, or there is no such figure.
pub fn metric(port: u16, name: &str) -> Result<f64> {
    let text = get(port, "/metrics")?;
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        // No longer name that begins like it.
        rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    let samples: Vec<f64> = samples.collect();
    if samples.is_empty() {
        bail!("there is no metric {name}");
    }
    Ok(samples.iter().sum())
}
