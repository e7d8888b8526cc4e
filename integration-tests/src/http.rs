//! One request over a plain socket: enough for probes, metrics and the API, and no client library whose retries could hide a failure.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::rng::Rng;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code, for example 200.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

/// Asks `address` for `path`. Fails when nobody listens, or when no whole answer comes within five seconds.
pub fn get(address: &str, path: &str) -> Result<Response> {
    ask(address, "GET", path, &[], Duration::from_secs(5))
}

/// Sends `body`, perhaps nothing, to `path`. The answer may take a minute.
pub fn post(address: &str, path: &str, body: &str) -> Result<Response> {
    send(address, "POST", path, &[], body, Duration::from_secs(60))
}

/// Sends a request without a body. `headers` go before those that a client would send by itself.
pub fn ask(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    patience: Duration,
) -> Result<Response> {
    send(address, method, path, headers, "", patience)
}

fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    patience: Duration,
) -> Result<Response> {
    let malformed = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let address: SocketAddr = address.parse().map_err(|_| malformed("not an address"))?;
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    // HTTP/1.0: the server closes the connection after the body and does not send it in chunks.
    let mut request = format!("{method} {path} HTTP/1.0\r\nAccept: */*\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request += &format!("Host: {address}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    write!(stream, "{request}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| malformed("no end of headers"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response { status: status.ok_or_else(|| malformed("no status"))?, body: body.to_owned() })
}

/// A port on loopback that nobody listens on, below the ephemeral range, so that no outgoing connection takes it meanwhile.
pub fn free_port() -> u16 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut rng = Rng::new(clock.as_nanos() as u64 ^ u64::from(std::process::id()) << 32);
    loop {
        let port = 20_000 + rng.below(10_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
