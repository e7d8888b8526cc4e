//! Image, compose file and board: no container engine is at hand, so what they must agree on is read from the files, and what they ask of
//! the daemon is asked of a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use onceflow_integration_tests::daemon::{Daemon, onceflow};
use onceflow_integration_tests::orders::Orders;
use onceflow_integration_tests::scenario::{Scenario, Settings};
use onceflow_integration_tests::topic::{Producer, write_all};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

/// The project's directory. Cargo runs tests in their package's.
fn root() -> PathBuf {
    std::path::absolute("..").unwrap()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(path: &str) -> Yaml {
    YamlLoader::load_from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}")).remove(0)
}

/// The words of a YAML list; none where there is no list.
fn words(list: &Yaml) -> Vec<&str> {
    list.as_vec().into_iter().flatten().map(|word| word.as_str().expect("not a word")).collect()
}

fn keys(map: &Yaml) -> Vec<&str> {
    map.as_hash()
        .into_iter()
        .flat_map(|map| map.keys())
        .map(|key| key.as_str().expect("not a word"))
        .collect()
}

/// Arguments of the last instruction of that name in the Dockerfile: the one of the image's own stage.
fn instruction(name: &str) -> String {
    let text = read("docker/Dockerfile").replace("\\\n", "");
    let found = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).next_back();
    found.unwrap_or_else(|| panic!("no {name} in the Dockerfile")).to_owned()
}

#[test]
fn every_step_of_the_image_s_build_can_be_taken() {
    let binary = onceflow().get_program().to_owned();
    let output = Command::new(root().join("docker/check")).arg(binary).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_health_check_tells_a_daemon_that_lives_from_one_that_does_not() {
    let check = instruction("HEALTHCHECK");
    let command = check.split_once(" CMD ").expect("no command").1;
    let command: Vec<String> = serde_json::from_str(command).unwrap();
    let healthy = |address: &str| {
        let (host, port) = address.split_once(':').unwrap();
        let script = command[2].replace("127.0.0.1/8080", &format!("{host}/{port}"));
        assert_ne!(script, command[2], "the health check asks another port than the image's");
        Command::new(&command[0]).args([&command[1], &script]).output().unwrap().status.success()
    };
    let scenario = Scenario::new("healthy");
    scenario.create_topics(1);
    let file = scenario.write_windowed(&Settings::default());
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.wait_until_ready();
    let address = daemon.address().to_owned();
    assert!(healthy(&address));
    daemon.stop();
    assert!(!healthy(&address));
}

#[test]
fn image_settings_and_compose_file_agree() {
    let compose = yaml("docker/compose.yaml");
    let services = &compose["services"];
    let daemon = &services["onceflow"];

    // The port: image, health check, compose file, Prometheus.
    let port = instruction("EXPOSE");
    assert_eq!(instruction("ENV"), format!("ONCEFLOW_HTTP__LISTEN=0.0.0.0:{port}"));
    assert!(instruction("HEALTHCHECK").contains(&format!("/dev/tcp/127.0.0.1/{port} ")));
    assert_eq!(words(&daemon["ports"]), [format!("127.0.0.1:{port}:{port}")]);
    let scrape = &yaml("docker/prometheus.yml")["scrape_configs"][0];
    assert_eq!(words(&scrape["static_configs"][0]["targets"]), [format!("onceflow:{port}")]);
    assert_eq!(
        (scrape["job_name"].as_str(), scrape["metrics_path"].as_str()),
        (Some("onceflow"), Some("/metrics"))
    );

    // The user is the one that was made, and owns what it writes to.
    let user = instruction("USER");
    let stage = instruction("RUN");
    assert!(user != "root" && user != "0");
    assert!(stage.contains(&format!("useradd --system --uid {user} --home-dir {} ", instruction("VOLUME"))));

    // Settings and pipelines stand where the daemon looks for them, checkpoints and state in the volume.
    let command: Vec<String> = serde_json::from_str(&instruction("CMD")).unwrap();
    let [run, pipelines] = &command[..] else { panic!("{command:?}") };
    assert_eq!(run, "run");
    assert!(stage.contains(&format!(" {pipelines}")), "nobody makes {pipelines}");
    assert!(read("docker/Dockerfile").contains("\nCOPY config/onceflow.yaml /etc/onceflow/onceflow.yaml\n"));
    let mounts: BTreeMap<&str, &str> = words(&daemon["volumes"])
        .into_iter()
        .map(|mount| mount.split_once(':').unwrap())
        .map(|(from, to)| (to.trim_end_matches(":ro"), from))
        .collect();
    assert_eq!(mounts.get(instruction("VOLUME").as_str()), Some(&"state"));
    let mounted: Vec<_> =
        mounts.iter().filter(|(to, _)| Path::new(to).parent() == Some(Path::new(pipelines))).collect();
    assert!(!mounted.is_empty(), "no pipeline in {pipelines}");
    let brokers = daemon["environment"]["KAFKA_BOOTSTRAP_SERVERS"].as_str().unwrap();
    let advertised = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].as_str().unwrap();
    assert!(advertised.contains(&format!("INSIDE://{brokers}")), "{advertised} has no {brokers}");
    let created = services["topics"]["command"][0].as_str().unwrap();
    for (_, from) in mounted {
        let file = root().join("docker").join(from);
        let pipeline = std::fs::read_to_string(&file).unwrap();
        assert!(pipeline.contains("${KAFKA_BOOTSTRAP_SERVERS"), "{from} reaches another broker");
        assert!(
            pipeline.contains(&format!("file://{}/", instruction("VOLUME"))),
            "{from} keeps its checkpoints elsewhere"
        );
        for topic in topics(&pipeline) {
            assert!(
                created.split_whitespace().any(|word| word.trim_end_matches(';') == topic),
                "nobody creates {topic}"
            );
        }
        // With the settings of the image.
        let settings = root().join("config/onceflow.yaml");
        let mut validate = onceflow();
        let output = validate.arg("validate").arg("--config").arg(settings).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The topics that a pipeline names.
fn topics(pipeline: &str) -> Vec<String> {
    let pipeline = YamlLoader::load_from_str(pipeline).unwrap().remove(0);
    let of = |section: &str| {
        let parts = pipeline[section].as_hash().into_iter().flat_map(|parts| parts.values()).cloned();
        parts.collect::<Vec<Yaml>>()
    };
    let sources = of("sources")
        .into_iter()
        .flat_map(|source| words(&source["topics"]).into_iter().map(str::to_owned).collect::<Vec<_>>());
    let sinks = of("sinks").into_iter().map(|sink| sink["topic"].as_str().unwrap().to_owned());
    let letters = pipeline["dead_letter"]["topic"].as_str().map(str::to_owned);
    sources.chain(sinks).chain(letters).collect()
}

#[test]
fn the_compose_file_names_nothing_that_is_not_there() {
    let compose = yaml("docker/compose.yaml");
    assert_eq!(keys(&compose), ["name", "services", "volumes"]);
    let services = &compose["services"];
    // Keys of the Compose specification that are used here: a mistyped one would be ignored by some engines.
    let known = [
        "image",
        "build",
        "ports",
        "environment",
        "volumes",
        "healthcheck",
        "depends_on",
        "entrypoint",
        "command",
        "stop_grace_period",
        "restart",
        "read_only",
        "cap_drop",
        "security_opt",
    ];
    let mut used = BTreeSet::new();
    for name in keys(services) {
        let service = &services[name];
        for key in keys(service) {
            assert!(known.contains(&key), "{name}: {key}");
        }
        assert!(
            service["image"].is_badvalue() != service["build"].is_badvalue(),
            "{name}: an image or a build"
        );
        if let Some(image) = service["image"].as_str() {
            let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} without a tag"));
            assert!(tag != "latest", "{name}: {image}");
        }
        if !service["build"].is_badvalue() {
            let context = root().join("docker").join(service["build"]["context"].as_str().unwrap());
            assert!(context.join(service["build"]["dockerfile"].as_str().unwrap()).is_file(), "{name}");
        }
        for port in words(&service["ports"]) {
            let parts: Vec<&str> = port.split(':').collect();
            assert!(parts.len() == 3 && parts[0] == "127.0.0.1", "{name}: {port} is open to the network");
            assert!(parts[1..].iter().all(|part| part.parse::<u16>().is_ok()), "{name}: {port}");
        }
        for mount in words(&service["volumes"]) {
            let from = mount.split(':').next().unwrap();
            match from.starts_with('.') {
                true => assert!(root().join("docker").join(from).exists(), "{name}: there is no {from}"),
                false => drop(used.insert(from.to_owned())),
            }
        }
        for other in keys(&service["depends_on"]) {
            let ready = match service["depends_on"][other]["condition"].as_str() {
                Some("service_healthy") => !services[other]["healthcheck"].is_badvalue(),
                Some("service_started" | "service_completed_successfully") => !services[other].is_badvalue(),
                _ => false,
            };
            assert!(ready, "{name}: waits for {other}, which never comes to that");
        }
    }
    let declared: BTreeSet<String> = keys(&compose["volumes"]).into_iter().map(str::to_owned).collect();
    assert_eq!(declared, used);
}

#[test]
fn grafana_finds_source_and_board() {
    let compose = yaml("docker/compose.yaml");
    let mount = |service: &str, from: &str| {
        let mounts = words(&compose["services"][service]["volumes"]);
        let found = mounts.iter().find_map(|mount| mount.strip_prefix(from)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("{service}: {from} is not mounted")).trim_end_matches(":ro").to_owned()
    };
    assert_eq!(mount("prometheus", "./prometheus.yml"), "/etc/prometheus/prometheus.yml");
    assert_eq!(mount("grafana", "./grafana/provisioning"), "/etc/grafana/provisioning");
    let source = &yaml("docker/grafana/provisioning/datasources/prometheus.yaml")["datasources"][0];
    let port = words(&compose["services"]["prometheus"]["ports"])[0].rsplit(':').next().unwrap();
    assert_eq!(source["url"].as_str(), Some(format!("http://prometheus:{port}").as_str()));
    let provider = &yaml("docker/grafana/provisioning/dashboards/onceflow.yaml")["providers"][0];
    let path = provider["options"]["path"].as_str();
    assert_eq!(path, Some(mount("grafana", "./grafana/dashboards").as_str()));

    let board = board();
    assert!(
        read("docker/compose.yaml")
            .contains(&format!("/d/{}\n", board["uid"].as_str().unwrap()).replace('\n', ""))
    );
    let mut ids = BTreeSet::new();
    let mut places = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: its id is another's");
        let at = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| at[key].as_i64().unwrap());
        assert!(x + w <= 24, "{title} does not fit");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(places.insert(place), "{title} lies over another panel");
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"].as_str(), source["uid"].as_str(), "{title}");
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}: what is it?");
        }
    }
}

fn board() -> Value {
    serde_json::from_str(&read("docker/grafana/dashboards/onceflow.json")).unwrap()
}

/// What an expression of PromQL, as the board writes them, names.
#[derive(Debug, Default, PartialEq)]
struct Asked {
    metrics: BTreeSet<String>,
    /// In selectors and groupings.
    labels: BTreeSet<String>,
}

impl Asked {
    fn by(expression: &str) -> Asked {
        let mut asked = Asked::default();
        let mut rest = expression;
        // Inside `{…}`, or inside the list behind `by`, names are labels.
        let (mut selector, mut grouping) = (false, false);
        while let Some(first) = rest.chars().next() {
            let end = |inside: &dyn Fn(char) -> bool| rest.find(|c: char| !inside(c)).unwrap_or(rest.len());
            let taken = match first {
                '"' => 2 + rest[1..].find('"').expect("an open quote"),
                '[' => rest.find(']').expect("an open range") + 1,
                '0'..='9' => end(&|c| c.is_ascii_alphanumeric() || c == '.'),
                'a'..='z' | 'A'..='Z' | '_' => {
                    let length = end(&|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
                    let (word, after) = (&rest[..length], rest[length..].trim_start());
                    // A function, or an aggregation: `sum(…)`, `sum by (…) (…)`.
                    let called = ["(", "by ", "without "].iter().any(|next| after.starts_with(next));
                    if selector || grouping {
                        asked.labels.insert(word.to_owned());
                    } else if matches!(word, "by" | "without" | "on" | "ignoring") {
                        grouping = true;
                    } else if !called && !matches!(word, "or" | "and" | "unless" | "bool") {
                        asked.metrics.insert(word.to_owned());
                    }
                    length
                }
                _ => {
                    selector = first == '{' || (selector && first != '}');
                    grouping = grouping && first != ')';
                    first.len_utf8()
                }
            };
            rest = &rest[taken..];
        }
        asked
    }
}

/// Every metric of an answer of `/metrics` with the labels of all its series.
fn metrics(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut metrics = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let known = metrics.entry(name.to_owned()).or_default();
        if line[name.len()..].starts_with('{') {
            known.extend(labels.split("\",").filter_map(|label| Some(label.split_once("=\"")?.0.to_owned())));
        }
    }
    metrics
}

#[test]
fn expressions_are_read() {
    let asked = Asked::by(
        "histogram_quantile(0.99, sum by (le, phase) (rate(a_bucket{p=~\"$x{y}\", q!=\"z\"}[$__rate_interval]))) > 2 or vector(0) - b:c",
    );
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(asked, Asked { metrics: set(&["a_bucket", "b:c"]), labels: set(&["le", "phase", "p", "q"]) });
    let answer = metrics("# TYPE a counter\na{x=\"1\",y=\"a,b\"} 7\na{z=\"\"} 1\nb 2.5");
    assert_eq!(answer["a"], set(&["x", "y", "z"]));
    assert_eq!(answer["b"], set(&[]));
}

#[test]
fn the_board_asks_for_what_there_is() {
    let scenario = Scenario::new("board");
    scenario.create_topics(4);
    // Records that are filtered, late, broken and dropped, and results.
    write_all(scenario.kafka, &scenario.input(), Orders::default().generate());
    let file = scenario.write_windowed(&Settings { on_error: "drop", ..Settings::default() });
    let mut daemon = Daemon::run(&scenario, &file);
    daemon.eventually_alive("to commit rows", |daemon| {
        daemon.metric("onceflow_records_committed_total", &[]).filter(|rows| *rows > 0.0)
    });
    daemon.eventually_alive("to drop records", |daemon| daemon.metric("onceflow_records_dropped_total", &[]));
    // Somebody who has nothing to do with it takes its transactional id: it finds no claim, and begins anew.
    let id = format!("onceflow.{}.0", scenario.name);
    drop(Producer::transactional(scenario.kafka, &scenario.dead_letter(), &id));
    write_all(scenario.kafka, &scenario.input(), Orders { seed: 2, ..Orders::default() }.generate());
    daemon.eventually_alive("to restart", |daemon| daemon.metric("onceflow_restarts_total", &[]));
    daemon.eventually_alive("to have counted everything again", |daemon| {
        daemon.metric("onceflow_dead_letters_total", &[])
    });
    let text = daemon.get("/metrics").unwrap().body;
    daemon.stop();
    let served = metrics(&text);

    // Prometheus adds these itself.
    let of_prometheus = ["job", "instance"];
    let board = board();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            let mut asked = Asked::by(expression);
            let legend = target["legendFormat"].as_str().unwrap();
            let of_legend =
                legend.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0.to_owned());
            asked.labels.extend(of_legend);
            assert!(!asked.metrics.is_empty(), "{expression}");
            for metric in &asked.metrics {
                let has = served
                    .get(metric)
                    .unwrap_or_else(|| panic!("{expression}: there is no {metric} in\n{text}"));
                for label in &asked.labels {
                    let there = has.contains(label) || of_prometheus.contains(&label.as_str());
                    assert!(there, "{expression} ({legend}): {metric} has no {label}, but {has:?}");
                }
            }
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        let query = variable["query"]["query"].as_str().unwrap();
        let (metric, label) = query
            .strip_prefix("label_values(")
            .and_then(|it| it.strip_suffix(')')?.split_once(", "))
            .unwrap();
        assert!(served[metric].contains(label), "{query}");
        assert_eq!(variable["name"], label);
    }
}
