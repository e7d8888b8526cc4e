//! Who may ask: checks that come before every answer.
//!
//! - **Host**, always: it must name this machine. A page in somebody's browser can have its own name resolve to this address (DNS
//!   rebinding), but the browser still sends that name. Beyond `localhost`, addresses and `http.hosts`, a server off loopback answers to
//!   the machine's own name and to names of one label, as container networks have them.
//! - **Origin**, where there is one: what a page of another site asks is refused.
//! - **Token**, off loopback: all but probes and metrics want `Authorization: Bearer TOKEN`, and without `http.token` get nothing.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api;
use crate::settings::{Http, Secret};

/// What nobody needs a token for.
const PUBLIC: [&str; 3] = ["/metrics", "/healthz", "/readyz"];

/// What requests are held against.
#[derive(Debug)]
pub struct Guard {
    token: Option<Secret>,
    loopback: bool,
    hosts: Vec<String>,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(StatusCode, String);

impl Guard {
    /// For a server with these settings, on a machine of this name.
    pub fn new(settings: &Http, machine: &str) -> Guard {
        let loopback = settings.listen.ip().is_loopback();
        let mut hosts = settings.hosts.clone();
        if !loopback {
            hosts.push(machine.to_owned());
        }
        Guard { token: settings.token.clone(), loopback, hosts }
    }

    fn check(&self, path: &str, target: Option<&Authority>, headers: &HeaderMap) -> Result<(), Refusal> {
        let host = host(target, headers)?;
        if !self.is_ours(host.host()) {
            let hint = "name it in `http.hosts` if it is right";
            return Err(Refusal(
                StatusCode::FORBIDDEN,
                format!("this is not the host `{}`: {hint}", host.host()),
            ));
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let origin = origin.to_str().unwrap_or_default();
            let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            if !site.is_some_and(|site| site.eq_ignore_ascii_case(host.as_str())) {
                return Err(Refusal(
                    StatusCode::FORBIDDEN,
                    "pages of other sites get no answer here".to_owned(),
                ));
            }
        }
        if self.loopback || PUBLIC.contains(&path) {
            return Ok(());
        }
        let Some(token) = &self.token else {
            let message = "`http.listen` is not loopback: the API answers only with `http.token` set";
            return Err(Refusal(StatusCode::FORBIDDEN, message.to_owned()));
        };
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        match given.split_at_checked("Bearer ".len()) {
            Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") && token.is(given) => Ok(()),
            _ => {
                Err(Refusal(StatusCode::UNAUTHORIZED, "this needs `Authorization: Bearer TOKEN`".to_owned()))
            }
        }
    }

    fn is_ours(&self, host: &str) -> bool {
        let unbracketed = host.trim_start_matches('[').trim_end_matches(']');
        let is_address = host.parse::<IpAddr>().is_ok() || unbracketed.parse::<Ipv6Addr>().is_ok();
        is_address
            || host.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
            || (!self.loopback && !host.contains('.'))
    }
}

/// The host that is asked for: exactly one, and nothing but a name or an address, with a port or without.
fn host(target: Option<&Authority>, headers: &HeaderMap) -> Result<Authority, Refusal> {
    let refusal = || Refusal(StatusCode::BAD_REQUEST, "one `Host`, please".to_owned());
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (target, named.next(), named.next()) {
        (_, _, Some(_)) => return Err(refusal()),
        (Some(target), ..) => target.clone(),
        (None, Some(host), None) => Authority::try_from(host.as_bytes()).map_err(|_| refusal())?,
        (None, None, None) => return Err(refusal()),
    };
    if host.as_str().contains('@') { Err(refusal()) } else { Ok(host) }
}

/// Answers a request, unless it is refused.
pub async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.uri().path(), request.uri().authority(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refusal(status, message)) => {
            let mut response = api::problem(status, message);
            if status == StatusCode::UNAUTHORIZED {
                let bearer = header::HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
            }
            response.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarding(listen: &str, token: Option<&str>) -> Guard {
        let settings = Http {
            listen: listen.parse().unwrap(),
            token: token.map(Secret::from),
            hosts: vec!["flow.example.com".to_owned()],
        };
        Guard::new(&settings, "node-7.example.com")
    }

    /// The status that refuses a request with these headers, 200 for none.
    fn status(guard: &Guard, path: &str, pairs: &[(&str, &str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        guard.check(path, None, &headers).map_or_else(|refusal| refusal.0.as_u16(), |()| 200)
    }

    #[test]
    fn a_name_that_is_not_ours_gets_no_answer() {
        let (inside, outside) = (guarding("127.0.0.1:80", None), guarding("0.0.0.0:80", None));
        for (host, on_loopback, off_loopback) in [
            ("localhost:8080", 200, 200),
            ("127.0.0.1", 200, 200),
            ("[::1]:8080", 200, 200),
            ("10.1.2.3:8080", 200, 200),
            ("FLOW.example.com:443", 200, 200),
            ("onceflow:8080", 403, 200),
            ("node-7.example.com", 403, 200),
            ("evil.example.com", 403, 403),
            ("localhost.evil.com", 403, 403),
            ("x@localhost", 400, 400),
            ("", 400, 400),
        ] {
            for (guard, expected) in [(&inside, on_loopback), (&outside, off_loopback)] {
                for path in PUBLIC {
                    assert_eq!(status(guard, path, &[("host", host)]), expected, "{host} {guard:?}");
                }
            }
        }
        assert_eq!(status(&inside, "/", &[]), 400);
        assert_eq!(status(&inside, "/", &[("host", "localhost"), ("host", "localhost")]), 400);
    }

    #[test]
    fn another_sites_page_gets_no_answer() {
        let guard = guarding("127.0.0.1:80", None);
        for (origin, expected) in [
            ("http://localhost:8080", 200),
            ("https://localhost:8080", 200),
            ("http://localhost:8081", 403),
            ("http://evil.example.com", 403),
            ("null", 403),
            ("", 403),
        ] {
            let headers = [("host", "localhost:8080"), ("origin", origin)];
            assert_eq!(status(&guard, "/api/v1/reload", &headers), expected, "{origin}");
        }
    }

    #[test]
    fn off_loopback_all_but_probes_and_metrics_wants_the_token() {
        let (with, without) = (guarding("0.0.0.0:80", Some("s3cret")), guarding("0.0.0.0:80", None));
        let ask = |guard: &Guard, path: &str, authorization: Option<&str>| {
            let mut headers = vec![("host", "10.0.0.1")];
            headers.extend(authorization.map(|value| ("authorization", value)));
            status(guard, path, &headers)
        };
        for path in ["/", "/api/v1/reload", "/metrics/x"] {
            assert_eq!(ask(&without, path, Some("Bearer s3cret")), 403);
            for (authorization, expected) in [
                (None, 401),
                (Some("Bearer s3cret"), 200),
                (Some("bearer s3cret"), 200),
                (Some("Bearer s3cre"), 401),
                (Some("Bearer s3crets"), 401),
                (Some("Bearer "), 401),
                (Some("s3cret"), 401),
                (Some("Basic s3cret"), 401),
            ] {
                assert_eq!(ask(&with, path, authorization), expected, "{path} {authorization:?}");
            }
        }
        for path in PUBLIC {
            assert_eq!((ask(&with, path, None), ask(&without, path, None)), (200, 200));
        }
        assert_eq!(status(&guarding("[::1]:80", Some("s3cret")), "/api/v1/x", &[("host", "localhost")]), 200);
    }
}
