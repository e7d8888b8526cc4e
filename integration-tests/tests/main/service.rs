//! The daemon as a service: what it tells systemd, restart strategies that end, and who may ask over HTTP.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use onceflow_integration_tests::daemon::{Daemon, PATIENCE};
use onceflow_integration_tests::http::free_port;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::Live;

/// The service manager's end of the notifications.
struct Manager {
    socket: UnixDatagram,
    path: String,
    heard: Vec<String>,
}

impl Manager {
    fn new(scenario: &Scenario) -> Manager {
        let path = scenario.dir().join("notify").to_str().unwrap().to_owned();
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Manager { socket, path, heard: vec![] }
    }

    /// Waits for a message with all of these lines among those that come from now on.
    fn hears(&mut self, lines: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let mut message = [0; 4096];
            if let Ok(length) = self.socket.recv(&mut message) {
                let message = String::from_utf8(message[..length].to_vec()).unwrap();
                self.heard.push(message.clone());
                if lines.iter().all(|line| message.lines().any(|it| it == *line)) {
                    return message;
                }
            }
            assert!(began.elapsed() < PATIENCE, "{lines:?} never came, but {:?}", self.heard);
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    let scenario = Scenario::new("notified");
    scenario.create_topics(1);
    let file = scenario.write_windowed(&Settings::default());
    let live = Live::start(
        scenario.kafka,
        &scenario.input(),
        500,
        Orders { partitions: 1, ..Orders::default() }.endless(),
    );
    let mut manager = Manager::new(&scenario);
    let notified = [("NOTIFY_SOCKET", manager.path.clone()), ("WATCHDOG_USEC", "1000000".to_owned())];
    let notified = notified.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut daemon = Daemon::start(&scenario, &file, &[], &notified);
    manager.hears(&["READY=1"]);
    manager.hears(&["STATUS=1 of 1 pipelines running"]);
    manager.hears(&["WATCHDOG=1"]);

    daemon.signal(libc::SIGHUP);
    let reloading = manager.hears(&["RELOADING=1"]);
    let clock = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = clock.split(' ').next().unwrap().parse().unwrap();
    let told = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let told = told.parse::<f64>().unwrap() / 1e6;
    assert!((seconds - 60.0..=seconds + 1.0).contains(&told), "{told} s, but it is {seconds}");
    manager.hears(&["READY=1"]);

    // Another instance takes over: the first one stays, fenced, and is not taken for dead, so that nobody restarts it.
    let mut second = Daemon::run(&scenario, &file);
    second.wait_until_ready();
    manager.hears(&[&format!("STATUS=0 of 1 pipelines running; {} fenced", scenario.name)]);
    for _ in 0..5 {
        manager.hears(&["WATCHDOG=1"]);
    }
    assert!(daemon.poll().is_none() && second.is_ready());
    live.stop();
    second.stop();

    daemon.signal(libc::SIGTERM);
    manager.hears(&["STOPPING=1"]);
    assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
}

fn with_restart(scenario: &Scenario, restart: &str, bootstrap: Option<&str>) -> std::path::PathBuf {
    let file = scenario.write_windowed(&Settings::default());
    let text = std::fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.starts_with("restart:")).unwrap();
    let text = text.replace(line, &format!("restart: {restart}"));
    let text = bootstrap.map_or(text.clone(), |nowhere| text.replace(scenario.kafka.bootstrap(), nowhere));
    scenario.write("pipeline.yaml", &text)
}

#[test]
fn a_strategy_that_gives_up_ends_with_what_a_service_manager_restarts() {
    let nowhere = format!("127.0.0.1:{}", free_port());
    let strategies = [
        ("{ strategy: none }", 1),
        ("{ strategy: fixed, attempts: 1, delay: 10ms }", 2),
        ("{ strategy: failure_rate, failures: 1, per: 10m, delay: 10ms }", 2),
    ];
    let running = strategies.map(|(restart, starts)| {
        let scenario = Scenario::new("gives-up");
        let file = with_restart(&scenario, restart, Some(&nowhere));
        (Daemon::run(&scenario, &file), scenario, restart, starts)
    });
    for (mut daemon, _scenario, restart, starts) in running {
        assert_eq!(daemon.wait().code(), Some(75), "{restart}: {}", daemon.log_end());
        let log = daemon.log();
        assert_eq!(log.matches("starting pipeline=").count(), starts, "{restart}: {log}");
        assert!(log.contains("its restart strategy gives up"), "{restart}: {log}");
    }
}

#[test]
fn who_is_fenced_stays_up_even_if_it_is_never_to_be_restarted() {
    let scenario = Scenario::new("fenced-for-good");
    scenario.create_topics(1);
    let file = with_restart(&scenario, "{ strategy: none }", None);
    // Who has nothing to commit does not notice that it was fenced.
    let live = Live::start(
        scenario.kafka,
        &scenario.input(),
        500,
        Orders { partitions: 1, ..Orders::default() }.endless(),
    );
    let mut first = Daemon::run(&scenario, &file);
    first.wait_until_ready();
    let mut second = Daemon::run(&scenario, &file);
    second.wait_until_ready();
    first.eventually_alive("to be fenced", |daemon| daemon.is_fenced().then_some(()));
    assert!(second.is_ready());
    live.stop();
    second.stop();
    first.stop();
}

#[test]
fn who_asks_is_looked_at_and_probes_need_no_token() {
    let scenario = Scenario::new("guarded");
    scenario.create_topics(1);
    let file = scenario.write_windowed(&Settings::default());
    let token = scenario.write("token", "s3cret-token\n");
    let settings =
        scenario.write("onceflow.yaml", &format!("http: {{ token: \"${{file:{}}}\" }}\n", token.display()));
    let listen = format!("0.0.0.0:{}", free_port());
    let config = ["--config", settings.to_str().unwrap()];
    let mut daemon = Daemon::start(&scenario, &file, &config, &[("ONCEFLOW_HTTP__LISTEN", &listen)]);
    daemon.wait_until_ready();
    let status = |method: &str, path: &str, headers: &[(&str, &str)]| {
        daemon.ask(method, path, headers).map(|answer| answer.status)
    };
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status("GET", path, &[]), Some(200), "{path}");
        assert_eq!(status("GET", path, &[("Host", "evil.example.com")]), Some(403), "{path}");
        assert_eq!(status("GET", path, &[("Origin", "http://evil.example.com")]), Some(403), "{path}");
    }
    let reload = |headers: &[(&str, &str)]| status("POST", "/api/v1/reload", headers);
    assert_eq!(reload(&[]), Some(401));
    assert_eq!(reload(&[("Authorization", "Bearer another")]), Some(401));
    assert_eq!(reload(&[("Authorization", "Bearer s3cret-token")]), Some(200));
    assert_eq!(reload(&[("Authorization", "Bearer s3cret-token"), ("Origin", "null")]), Some(403));
    assert!(!daemon.log().contains("s3cret-token"));
    daemon.stop();
}

#[test]
fn the_unit_is_what_systemd_understands() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/unit");
    let output = Command::new(script).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}
