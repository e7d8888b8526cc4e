//! Kafka that wants to know who comes, and lets nobody do more than was granted: passwords and certificates, and the ACLs that a pipeline
//! needs, exactly these.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::fold::Window;
use onceflow_integration_tests::kafka::Kafka;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Live, write_all};
use onceflow_integration_tests::verify::verify;

/// Exit code of what no restart mends.
const CONFIG: Option<i32> = Some(78);
/// The password of everyone.
const PASSWORD: &str = "dont-tell-8f3a";
/// A password of no one, which must not be told either.
const WRONG: &str = "dont-tell-77c1";
/// Users from whom one ACL each is withheld; more of them than there are ACLs.
const DEPRIVED: usize = 16;

/// A broker whose users `trusted` and `revoked` may do everything, and all others nothing.
fn broker() -> &'static Kafka {
    static BROKER: OnceLock<Kafka> = OnceLock::new();
    BROKER.get_or_init(|| {
        let named = ["trusted", "revoked", "exact"].map(|user| format!("{user}:{PASSWORD}"));
        let mut users = Vec::from(named);
        users.extend((0..DEPRIVED).map(|i| format!("{}:{PASSWORD}", deprived(i))));
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        let kafka = Kafka::start_guarded(&users);
        let everything = ["--topic", "*", "--group", "*", "--transactional-id", "*"];
        let everybody = ["--allow-principal", "User:trusted", "--allow-principal", "User:revoked"];
        kafka.acls(&[&["--add", "--operation", "All"], &everybody[..], &everything[..]].concat());
        kafka
    })
}

fn deprived(i: usize) -> String {
    format!("deprived-{i}")
}

/// How a pipeline shows who it is.
struct Access {
    bootstrap: String,
    properties: Vec<(&'static str, String)>,
}

impl Access {
    fn sasl(mechanism: &str, user: &str, password: &str) -> Access {
        let properties = vec![
            ("security.protocol", "sasl_ssl".to_owned()),
            ("sasl.mechanism", mechanism.to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", password.to_owned()),
        ];
        Access { bootstrap: broker().sasl(), properties }.trusting("ca.pem")
    }

    /// With the certificate of `user`, or without one.
    fn tls(user: Option<&str>) -> Access {
        let mut properties = vec![("security.protocol", "ssl".to_owned())];
        if let Some(user) = user {
            let file = |ending| broker().certificate(&format!("{user}.{ending}")).display().to_string();
            properties.push(("ssl.certificate.location", file("pem")));
            properties.push(("ssl.key.location", file("key")));
        }
        Access { bootstrap: broker().tls(), properties }.trusting("ca.pem")
    }

    fn trusting(mut self, authority: &str) -> Access {
        self.properties.retain(|(name, _)| *name != "ssl.ca.location");
        self.properties.push(("ssl.ca.location", broker().certificate(authority).display().to_string()));
        self
    }

    /// The windowed pipeline of a scenario, with this access in place of the plain one.
    fn pipeline(&self, scenario: &Scenario) -> PathBuf {
        let plain = std::fs::read_to_string(scenario.write_windowed(&Settings::default())).unwrap();
        let line = plain.lines().find(|line| line.starts_with("kafka:")).unwrap();
        let properties: String =
            self.properties.iter().map(|(name, value)| format!("    {name}: \"{value}\"\n")).collect();
        let kafka =
            format!("kafka:\n  bootstrap_servers: \"{}\"\n  properties:\n{properties}", self.bootstrap);
        scenario.write("guarded.yaml", &plain.replace(line, &kafka))
    }
}

/// A scenario on the guarded broker, with its topics and orders in them.
fn scenario(name: &str) -> Scenario {
    let scenario = Scenario::on(broker(), name);
    scenario.create_topics(4);
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    scenario
}

/// Runs a command to its end; its exit code and all that it printed.
fn said(arguments: &[&str], file: &Path) -> (Option<i32>, String) {
    let output = onceflow().args(arguments).arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

#[test]
fn pipelines_come_in_by_password_and_by_certificate() {
    for (name, access) in [
        ("scram", Access::sasl("SCRAM-SHA-512", "trusted", PASSWORD)),
        ("plain", Access::sasl("PLAIN", "trusted", PASSWORD)),
        ("tls", Access::tls(Some("trusted"))),
    ] {
        let scenario = scenario(name);
        let file = access.pipeline(&scenario);
        let (code, checks) = said(&["validate", "--connect"], &file);
        assert_eq!(code, Some(0), "{name}: {checks}");
        Daemon::run_until_end(&scenario, &file);
        let verdict = verify(&scenario, Window::TUMBLING);
        assert!(verdict.rows > 0, "{name}: {verdict:?}");
    }
}

/// Expects a pipeline, and `validate --connect`, to end with words about `property`, and without secrets at the most talkative level.
fn refused(scenario: &Scenario, access: &Access, property: &str) {
    let file = access.pipeline(scenario);
    let mut daemon = Daemon::start(scenario, &file, &[], &[("RUST_LOG", "trace")]);
    assert_eq!(daemon.wait().code(), CONFIG, "{property}: {}", daemon.log_end());
    let log = daemon.log();
    let told = log.lines().any(|line| line.contains(" ERROR ") && line.contains(property));
    assert!(told, "{property}: {}", daemon.log_end());
    assert!(!log.contains("dont-tell"), "{property}: the log tells a password");

    let (code, checks) = said(&["validate", "--connect"], &file);
    assert_eq!(code, CONFIG, "{property}: {checks}");
    assert!(checks.contains(property) && !checks.contains("dont-tell"), "{property}: {checks}");
}

#[test]
fn whoever_is_not_let_in_is_told_which_property_to_look_at() {
    let scenario = scenario("strangers");
    for (access, property) in [
        (Access::sasl("SCRAM-SHA-512", "trusted", WRONG), "`sasl.password`"),
        (Access::sasl("PLAIN", "trusted", WRONG), "`sasl.password`"),
        (Access::sasl("SCRAM-SHA-256", "trusted", PASSWORD), "`sasl.mechanism`"),
        (Access::sasl("PLAIN", "trusted", PASSWORD).trusting("stranger-ca.pem"), "`ssl.ca.location`"),
        (Access::tls(Some("trusted")).trusting("stranger-ca.pem"), "`ssl.ca.location`"),
        (Access::tls(Some("stranger")), "`ssl.certificate.location`"),
        (Access::tls(None), "`ssl.certificate.location`"),
    ] {
        refused(&scenario, &access, property);
    }
    assert_eq!(scenario.kafka.end_offset(&scenario.control(), 0), None, "one of them got in");
}

/// What `validate --print-acls` prints for a user, without the comments.
fn printed(file: &Path, user: &str) -> Vec<String> {
    let (code, text) = said(&["validate", "--print-acls", "--principal", &format!("User:{user}")], file);
    assert_eq!(code, Some(0), "{text}");
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_printed_acls_are_enough() {
    let scenario = scenario("enough");
    let file = Access::sasl("SCRAM-SHA-512", "exact", PASSWORD).pipeline(&scenario);
    let (code, checks) = said(&["validate", "--connect"], &file);
    assert_eq!(code, CONFIG, "nothing is granted yet: {checks}");

    let path = format!("{}:{}", scenario.kafka.kafka_acls().display(), std::env::var("PATH").unwrap());
    for line in printed(&file, "exact") {
        let granted = Command::new("sh").args(["-ec", &line]).env("PATH", &path).output().unwrap();
        assert!(granted.status.success(), "{line}: {}", String::from_utf8_lossy(&granted.stderr));
    }
    let (code, checks) = said(&["validate", "--connect"], &file);
    assert_eq!(code, Some(0), "{checks}");
    Daemon::run_until_end(&scenario, &file);
    // A second start finds everything there, and needs no more than the first.
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}

#[test]
fn an_acl_that_is_taken_away_ends_a_running_pipeline_and_loses_nothing() {
    let scenario = Scenario::on(broker(), "revoked");
    scenario.create_topics(4);
    let file = Access::tls(Some("revoked")).pipeline(&scenario);
    let live = Live::start(scenario.kafka, &scenario.input(), 3_000, Orders::default().endless());
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to commit rows", |daemon| {
        daemon.metric("onceflow_records_committed_total", &[]).filter(|rows| *rows > 0.0)
    });
    // A refusal goes before every grant.
    let output = scenario.output();
    let deny = ["--deny-principal", "User:revoked", "--operation", "Write", "--topic", &output];
    scenario.kafka.acls(&[&["--add"], &deny[..]].concat());
    assert_eq!(daemon.wait().code(), CONFIG, "{}", daemon.log_end());
    let log = daemon.log();
    let told = log
        .lines()
        .any(|line| line.contains(" ERROR ") && line.contains(&format!("Write on topic {output}")));
    assert!(told, "{}", daemon.log_end());

    scenario.kafka.acls(&[&["--remove", "--force"], &deny[..]].concat());
    live.stop();
    Daemon::run_until_end(&scenario, &file);
    verify(&scenario, Window::TUMBLING);
}

/// One operation on one resource, as `kafka-acls` takes them and as messages name them.
#[derive(Clone, Debug)]
struct Acl {
    operation: String,
    kind: String,
    name: String,
}

impl Acl {
    /// Those of one printed line: `… --operation A --operation B --topic NAME`.
    fn of(line: &str) -> Vec<Acl> {
        let words: Vec<&str> = line.split(' ').collect();
        let operations = words.windows(2).filter(|pair| pair[0] == "--operation").map(|pair| pair[1]);
        let [.., kind, name] = words[..] else { panic!("{line}") };
        operations
            .map(|operation| Acl {
                operation: operation.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
            })
            .collect()
    }

    fn as_told(&self) -> String {
        let kind = match self.kind.as_str() {
            "--topic" => "topic",
            "--group" => "consumer group",
            "--transactional-id" => "transactional id",
            other => panic!("{other}"),
        };
        format!("{} on {kind} {}", self.operation, self.name)
    }
}

#[test]
fn each_of_the_printed_acls_is_needed_and_named_where_it_is_missing() {
    let scenario = scenario("deprived");
    let pipeline_of = |user: &str| Access::sasl("SCRAM-SHA-512", user, PASSWORD).pipeline(&scenario);
    let mut acls: Vec<Acl> =
        printed(&pipeline_of("exact"), "exact").iter().flat_map(|line| Acl::of(line)).collect();
    // Whoever may not create the control topic comes first, while it is not there.
    acls.sort_by_key(|acl| acl.operation != "Create");
    assert_eq!(acls[0].name, scenario.control());
    assert!((8..=DEPRIVED).contains(&acls.len()), "{acls:?}");

    // Everybody gets everything but his own.
    for (i, acl) in acls.iter().enumerate() {
        let others = (0..acls.len()).filter(|other| *other != i);
        let principals: Vec<String> = others.map(|other| format!("User:{}", deprived(other))).collect();
        let principals = principals.iter().flat_map(|name| ["--allow-principal", name]);
        let grant = ["--add", "--operation", &acl.operation, &acl.kind, &acl.name].into_iter();
        scenario.kafka.acls(&grant.chain(principals).collect::<Vec<_>>());
    }

    for (i, acl) in acls.iter().enumerate() {
        let file = pipeline_of(&deprived(i));
        let mut daemon = Daemon::start(&scenario, &file, &["--until-end"], &[]);
        assert_eq!(daemon.wait().code(), CONFIG, "without {}: {}", acl.as_told(), daemon.log_end());
        let log = daemon.log();
        let end = log.lines().rfind(|line| line.contains(" ERROR ")).unwrap_or_default();
        assert!(end.contains(&acl.as_told()), "without {}: {}", acl.as_told(), daemon.log_end());
        assert!(end.contains("--print-acls"), "{end}");

        // Fencing an instance that runs is no way to find out about the transactional id.
        if acl.kind != "--transactional-id" && acl.operation != "Create" {
            let (code, checks) = said(&["validate", "--connect"], &file);
            assert_eq!(code, CONFIG, "without {}: {checks}", acl.as_told());
            assert!(checks.contains(&acl.name), "without {}: {checks}", acl.as_told());
        }
    }
    assert_eq!(scenario.committed(&scenario.output()), [], "somebody wrote");
}
