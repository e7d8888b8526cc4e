//! Secrets go where they are needed and nowhere else: not into diagnostics, logs, probes, API or metrics, whatever goes wrong. Secrets are
//! passwords among a pipeline's Kafka properties, the API's token, and whatever comes from a file or a credential.

use std::path::Path;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::http::free_port;
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::write_all;

/// Stands for every secret.
const MARKER: &str = "dont-tell-8f3a";

/// Properties with secrets in all of their kinds; `debug` makes librdkafka tell everything that it is willing to tell.
fn properties() -> String {
    format!(
        "properties:
    security.protocol: sasl_plaintext
    sasl.mechanism: SCRAM-SHA-256
    sasl.username: someone
    sasl.password: \"{MARKER}, and more\"
    ssl.key.password: {MARKER}
    debug: all
"
    )
}

/// A pipeline file with `kafka` in place of its section of that name.
fn write(scenario: &Scenario, name: &str, kafka: &str) -> std::path::PathBuf {
    let good = std::fs::read_to_string(scenario.write_windowed(&Settings::default())).unwrap();
    let line = good.lines().find(|line| line.starts_with("kafka:")).unwrap();
    scenario.write(name, &good.replace(line, kafka))
}

fn with_bootstrap(bootstrap: &str) -> String {
    format!("kafka:\n  bootstrap_servers: \"{bootstrap}\"\n  {}", properties())
}

/// Runs a command to its end; its exit code and all that it printed.
fn said(command: &str, file: &Path, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = onceflow().arg(command).arg(file).envs(settings.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text.into_owned())
}

fn without_marker(text: &str, what: &str) {
    assert!(!text.contains("dont-tell"), "{what} tells the secret: {text}");
}

#[test]
fn diagnostics_show_the_file_without_its_secrets() {
    let scenario = Scenario::new("secrets");
    let good = write(&scenario, "good.yaml", &with_bootstrap("localhost:9092"));
    let (code, text) = said("validate", &good, &[]);
    assert_eq!(code, Some(0), "{text}");
    without_marker(&text, "a good file");

    let broken = [
        // Mistakes beside it, on its own line and on the next ones.
        format!(
            "kafka: {{ bootstrap_servers: \"x:1\", properties: {{ sasl.password: {MARKER}, acks: all }} }}"
        ),
        format!("kafka: {{ bootstrap_servers: \"x:1\", propertys: {{ sasl.password: {MARKER} }} }}"),
        format!("kafka: {{ bootstrap_servers: \"x:1\", sasl.password: \"{MARKER}\" }}"),
        format!("kafka: {{ properties: {{ sasl.password: \"ab,{MARKER}\", sasl.password: {MARKER} }} }}"),
        format!("kafka:\n  properties:\n    ssl.key.pem: |\n      -----BEGIN\n      {MARKER}\n     x: y\n"),
        // Values that are none, and YAML that is none.
        format!("kafka:\n  properties:\n    sasl.password: [{MARKER}]\n"),
        format!("kafka:\n  properties:\n    sasl.password: {{ {MARKER}: 1 }}\n"),
        format!("kafka:\n  properties:\n    sasl.password: !secret {MARKER}\n"),
        format!("kafka:\n  properties:\n    sasl.password: *{MARKER}\n"),
        format!("kafka:\n  properties:\n    sasl.password: {MARKER}: x\n"),
        format!("kafka:\n  properties:\n    sasl.password: '{MARKER}\n"),
        format!("kafka:\n  properties:\n    sasl.password {MARKER}\n    acks: all\n"),
        format!("kafka:\n  properties:\n\tsasl.password: {MARKER}\n"),
        format!("kafka:\n  properties: {{ sasl.password: {MARKER}\n"),
        format!("kafka:\n  properties:\n    sasl.password: ab,\n      {MARKER}: y\n"),
        // Java's, and a variable with the secret as its default. (What stands behind `:?` is meant to be shown.)
        format!("kafka:\n  properties:\n    sasl.jaas.config: 'org.x required password=\"{MARKER}\";'\n"),
        format!("kafka:\n  properties:\n    ssl.truststore.password: {MARKER}\n"),
        format!("kafka:\n  properties:\n    sasl.password: ${{PASSWORD:-{MARKER}\n"),
    ];
    for (i, kafka) in broken.iter().enumerate() {
        let file = write(&scenario, &format!("broken-{i}.yaml"), kafka);
        for command in ["validate", "run"] {
            let (code, text) = said(command, &file, &[]);
            assert_eq!(code, Some(78), "{kafka}: {text}");
            assert!(text.contains(&format!("broken-{i}.yaml:")), "{kafka}: {text}");
            without_marker(&text, kafka);
        }
    }
}

#[test]
fn the_settings_of_the_daemon_keep_theirs_too() {
    let scenario = Scenario::new("secret-settings");
    let pipeline = scenario.write_windowed(&Settings::default());
    for (i, defaults) in [
        format!("kafka: {{ properties: {{ sasl.password: \"{MARKER}\", acks: all }} }}"),
        format!("kafka: {{ properties: {{ sasl.password: [\"{MARKER}\"] }} }}"),
        format!("kafka: {{ sasl.password: {MARKER} }}"),
        format!("kafka: {{ properties: {{ sasl.password: '{MARKER} }} }}"),
        format!("kafka: {{}}\nhttp: {{ token: '{MARKER} }}"),
        format!("kafka: {{}}\nhttp: {{ token: [{MARKER}] }}"),
        format!("kafka: {{}}\nhttp: {{ tokn: {MARKER} }}"),
        format!("kafka: {{}}\nhttp: {{ token: '${{file:/nowhere}}', listen: {{ {MARKER}: 1 }} }}"),
    ]
    .iter()
    .enumerate()
    {
        let file = scenario.write(&format!("onceflow-{i}.yaml"), &format!("defaults:\n  {defaults}\n"));
        let output = onceflow().arg("validate").arg("--config").arg(&file).arg(&pipeline).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{defaults}: {text}");
        without_marker(&text, defaults);
    }
    let variable =
        [("ONCEFLOW_DEFAULTS__KAFKA__PROPERTIES__SASL.PASSWORD", MARKER), ("ONCEFLOW_HTTP__LISTEN", "no")];
    let (code, text) = said("run", &pipeline, &variable);
    assert_eq!(code, Some(78), "{text}");
    without_marker(&text, "a broken environment");
}

/// Starts a daemon with this `kafka` section at the most talkative level, waits until its log holds `trouble`, and looks for the secret
/// in everything that it says.
fn daemon_keeps_it(scenario: &Scenario, kafka: &str, trouble: &str) {
    let file = write(scenario, "pipeline.yaml", kafka);
    let environment = [("RUST_LOG", "trace"), ("PASSWORD", MARKER)];
    let mut daemon = Daemon::start(scenario, &file, &[], &environment);
    daemon.wait_for_log(trouble);
    for path in ["/metrics", "/readyz", "/healthz", "/", "/api/v1/pipelines"] {
        let answer = daemon.get(path).expect("no answer");
        without_marker(&answer.body, path);
    }
    daemon.signal(libc::SIGTERM);
    daemon.wait();
    without_marker(&daemon.log(), "the log");
}

#[test]
fn an_unreachable_broker_does_not_bring_it_out() {
    let scenario = Scenario::new("secret-nowhere");
    let nowhere = format!("127.0.0.1:{}", free_port());
    daemon_keeps_it(&scenario, &with_bootstrap(&nowhere), "Connection refused");
}

#[test]
fn nor_does_a_broker_that_refuses_to_talk() {
    // The broker knows no SASL on this port, and no restart would change that.
    let scenario = Scenario::new("secret-refused");
    let kafka =
        with_bootstrap(scenario.kafka.bootstrap()).replace(&format!("\"{MARKER}, and more\""), "${PASSWORD}");
    let file = write(&scenario, "pipeline.yaml", &kafka);
    let mut daemon = Daemon::start(&scenario, &file, &[], &[("RUST_LOG", "trace"), ("PASSWORD", MARKER)]);
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log_end());
    assert!(daemon.log().contains("`security.protocol`"), "{}", daemon.log_end());
    without_marker(&daemon.log(), "the log");
}

#[test]
fn nor_a_key_that_cannot_be_read() {
    let scenario = Scenario::new("secret-key");
    let kafka = format!(
        "kafka:\n  bootstrap_servers: \"x:1\"\n  properties:\n    security.protocol: ssl\n    ssl.key.password: {MARKER}\n    \
         ssl.key.pem: |\n      -----BEGIN ENCRYPTED PRIVATE KEY-----\n      {MARKER}\n      -----END ENCRYPTED PRIVATE KEY-----\n"
    );
    let file = write(&scenario, "pipeline.yaml", &kafka);
    let mut daemon = Daemon::start(&scenario, &file, &[], &[("RUST_LOG", "trace")]);
    assert_eq!(daemon.wait().code(), Some(78), "{}", daemon.log_end());
    assert!(daemon.log().contains("ssl.key.pem"), "{}", daemon.log_end());
    without_marker(&daemon.log(), "the log");
}

#[test]
fn a_value_of_a_file_is_not_quoted_in_what_is_wrong_with_it() {
    let scenario = Scenario::new("secret-wrong");
    let good = std::fs::read_to_string(scenario.write_windowed(&Settings::default())).unwrap();
    let secret = scenario.write("secret", &format!("{MARKER} (of a file)\n"));
    let reference = format!("\"${{file:{}}}\"", secret.display());
    for key in [
        "interval: 100ms",
        "timeout: 60s",
        "memory: 256MiB",
        "on_error: dead_letter",
        "from: paid\n",
        "group_by: [user_id]",
    ] {
        let (name, _) = key.split_once(": ").unwrap();
        let broken = good.replacen(
            key,
            &format!("{name}: {reference}{}", if key.ends_with('\n') { "\n" } else { "" }),
            1,
        );
        assert_ne!(broken, good, "{key}");
        let file = scenario.write("broken.yaml", &broken);
        let (code, text) = said("validate", &file, &[]);
        assert_eq!(code, Some(78), "{key}: {text}");
        without_marker(&text, key);
        assert!(text.contains("***") && text.contains("${file:"), "{key}: {text}");
    }
}

#[test]
fn values_of_files_and_credentials_show_nowhere_while_all_is_well() {
    for format in ["text", "json"] {
        let scenario = Scenario::new("secret-values");
        scenario.create_topics(1);
        // Not the other topics of the broker, which librdkafka lists: this value.
        let topic = format!("{}.hush-hush", scenario.name);
        let client = format!("{MARKER}-{format}");
        let without = |text: &str, what: &str| {
            assert!(!text.contains(&topic) && !text.contains(&client), "{what} tells the secret");
        };
        scenario.kafka.create_topic(&topic, 2);
        let orders = Orders { records: 2_000, partitions: 2, ..Orders::default() };
        write_all(scenario.kafka, &topic, orders.generate());
        let secret = scenario.write("topic", &format!("{topic}\n"));
        scenario.write("client", &client);
        let kafka = format!(
            "kafka: {{ bootstrap_servers: \"{}\", properties: {{ client.id: \"${{credential:client}}\", debug: all }} }}",
            scenario.kafka.bootstrap()
        );
        let file = write(&scenario, "pipeline.yaml", &kafka);
        let text = std::fs::read_to_string(&file).unwrap();
        let file = scenario.write(
            "pipeline.yaml",
            &text.replace(
                &format!("topics: [{}]", scenario.input()),
                &format!("topics: [\"${{file:{}}}\"]", secret.display()),
            ),
        );
        let credentials = scenario.dir().to_str().unwrap();
        let environment =
            [("RUST_LOG", "trace"), ("ONCEFLOW_LOG__FORMAT", format), ("CREDENTIALS_DIRECTORY", credentials)];
        let mut daemon = Daemon::start(&scenario, &file, &[], &environment);
        daemon.wait_until_ready();
        daemon.eventually_alive("to read everything", |daemon| {
            daemon
                .metric("onceflow_records_in_total", &["topic=\"***\""])
                .filter(|records| *records == 2_000.0)
        });
        for path in ["/metrics", "/readyz", "/healthz", "/", "/api/v1/pipelines", "/api/v1/reload"] {
            let answer = daemon.get(path).expect("no answer");
            without(&answer.body, path);
        }
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{}", daemon.log_end());
        let log = daemon.log();
        without(&log, "the log");
        assert!(log.contains("***"), "the secret was never about to be told: this proves nothing");
        if format == "json" {
            for line in log.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "no JSON: {line}");
            }
        }
    }
}
