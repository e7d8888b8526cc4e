//! A real Kafka for this test process, started by the launcher in `kafka/`, and what tests do to it.
//!
//! The broker runs under a guard process that waits for the end of a pipe whose other end this process holds. When the pipe
//! closes, by [`Drop`] or by the death of this process (a failed test, Ctrl-C, kill -9), the guard kills the broker by its own
//! process id and removes its directory. So no exit hook is needed, and none can be skipped.
//!
//! What [`Kafka::kill`] and its like hurt is one node, so that a cluster can lose some and keep the others.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

/// How long a call to Kafka may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The tool behind `kafka-acls`.
const ACLS: &str = "org.apache.kafka.tools.AclCommand";

/// One broker, or a cluster of them.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    dir: PathBuf,
    nodes: usize,
    /// Its standard input is the pipe that keeps the broker alive.
    guard: Child,
}

impl Kafka {
    /// The broker that the tests of this process share; the first call starts it.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Kafka::start)
    }

    /// A broker of one's own, for tests that kill it. Dropping it ends it.
    pub fn start() -> Kafka {
        Self::start_cluster(1, &[])
    }

    /// So many brokers of one's own, with further `key=value` settings. In a cluster of three, topics have three replicas, two of which
    /// must be in sync for a write.
    pub fn start_cluster(nodes: usize, settings: &[&str]) -> Kafka {
        Self::serve(nodes, &[], settings)
    }

    /// A broker of one's own with users, as `NAME:PASSWORD`, who may do nothing until ACLs let them. What the tests do themselves goes
    /// over a listener of its own, as super user.
    pub fn start_guarded(users: &[&str]) -> Kafka {
        Self::serve(1, users, &[])
    }

    fn serve(nodes: usize, users: &[&str], settings: &[&str]) -> Kafka {
        let dir = tempfile::Builder::new().prefix("onceflow-kafka.").tempdir().unwrap().keep();
        let messages = std::fs::File::create(dir.join("launcher.log")).unwrap();
        let mut guard = Command::new(launcher())
            .args(["serve", "--nodes", &nodes.to_string()])
            .args(users.iter().flat_map(|user| ["--user", user]))
            .arg(&dir)
            .args(settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(messages)
            // A Ctrl-C goes to the terminal's process group: the guard has to outlive it.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut bootstrap = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut bootstrap).unwrap();
        let bootstrap = bootstrap.trim().to_owned();
        if bootstrap.is_empty() {
            let said = std::fs::read_to_string(dir.join("launcher.log")).unwrap_or_default();
            panic!("Kafka did not start: {said}");
        }
        Kafka { bootstrap, dir, nodes, guard }
    }

    /// `HOST:PORT`, separated by commas for a cluster.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// `HOST:PORT` of the listener of a guarded broker that wants passwords (SASL_SSL: PLAIN, SCRAM-SHA-512).
    pub fn sasl(&self) -> String {
        self.written("bootstrap.sasl")
    }

    /// `HOST:PORT` of the listener of a guarded broker that wants certificates (SSL).
    pub fn tls(&self) -> String {
        self.written("bootstrap.tls")
    }

    fn written(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).expect("not a guarded broker").trim().to_owned()
    }

    /// A certificate or key of a guarded broker: `ca.pem`, `NAME.pem` and `NAME.key` of a user, and of `stranger` and `stranger-ca`,
    /// whom nobody trusts.
    pub fn certificate(&self, file: &str) -> PathBuf {
        self.dir.join("security").join(file)
    }

    /// Runs `kafka-acls` as super user.
    pub fn acls(&self, arguments: &[&str]) {
        let mut command = Command::new(launcher());
        command.args(["tool", ACLS, "--bootstrap-server", &self.bootstrap]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Writes a `kafka-acls` that works on this broker as super user, whichever broker it is told, and returns its directory.
    pub fn kafka_acls(&self) -> PathBuf {
        let tools = self.dir.join("tools");
        std::fs::create_dir_all(&tools).unwrap();
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = --bootstrap-server ] || exit 64\nshift 2\n\
             exec {} tool {ACLS} --bootstrap-server {} \"$@\"\n",
            launcher().display(),
            self.bootstrap
        );
        let path = tools.join("kafka-acls");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        tools
    }

    /// How many brokers there are.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Kills a broker with -9; its data stays. Nodes count from 1.
    pub fn kill(&self, node: usize) {
        launch("kill", &self.dir_of(node));
    }

    /// Starts a killed broker again, on the same port and data, and waits until it answers.
    pub fn restart(&self, node: usize) {
        launch("start", &self.dir_of(node));
    }

    /// Starts all killed brokers again, together: one alone might wait for the others.
    pub fn restart_all(&self) {
        launch("start", &self.dir);
    }

    /// Sends a signal to a broker's own process.
    pub fn signal(&self, node: usize, signal: i32) {
        let pid = std::fs::read_to_string(self.dir_of(node).join("pid")).unwrap();
        // SAFETY: kill touches no memory. The process is the broker's: its launcher removes the file when it ends one.
        let sent = unsafe { libc::kill(pid.trim().parse().unwrap(), signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    fn dir_of(&self, node: usize) -> PathBuf {
        assert!((1..=self.nodes).contains(&node), "there is no node {node}");
        if self.nodes == 1 { self.dir.clone() } else { self.dir.join(node.to_string()) }
    }

    /// Creates a topic whose records never expire.
    pub fn create_topic(&self, name: &str, partitions: i32) {
        self.create_topic_with(name, partitions, &[]);
    }

    /// Creates a topic whose records never expire, with further settings.
    pub fn create_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        // The broker's default: as many replicas as it has nodes, up to three.
        let mut topic =
            NewTopic::new(name, partitions, TopicReplication::Fixed(-1)).set("retention.ms", "-1");
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let created = block_on(self.admin().create_topics([&topic], &options())).unwrap();
        assert!(created[0].is_ok(), "{name}: {created:?}");
        // The controller has it; brokers hear of it a moment later.
        while (0..partitions).any(|partition| self.end_offset(name, partition).is_none()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes a topic, and waits until it is gone.
    pub fn delete_topic(&self, name: &str) {
        let deleted = block_on(self.admin().delete_topics(&[name], &options())).unwrap();
        assert!(deleted[0].is_ok(), "{name}: {deleted:?}");
        while self.end_offset(name, 0).is_some() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Changes a setting of a topic that exists, and leaves its others at the broker's defaults.
    pub fn configure_topic(&self, name: &str, key: &str, value: &str) {
        let config =
            AlterConfig::new(ResourceSpecifier::Topic(name)).set("retention.ms", "-1").set(key, value);
        let altered = block_on(self.admin().alter_configs([&config], &options())).unwrap();
        assert!(altered[0].is_ok(), "{name}: {altered:?}");
    }

    /// Adds partitions to a topic, up to `count`.
    pub fn grow_topic(&self, name: &str, count: usize) {
        let grown =
            block_on(self.admin().create_partitions([&NewPartitions::new(name, count)], &options())).unwrap();
        assert!(grown[0].is_ok(), "{name}: {grown:?}");
        while self.partitions(name) < count as i32 {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Deletes the records of a partition before `offset`, as retention would.
    pub fn delete_records(&self, topic: &str, partition: i32, offset: i64) {
        let mut before = TopicPartitionList::new();
        before.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        let deleted = block_on(self.admin().delete_records(&before, &options())).unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
    }

    /// The offset after the last record of a partition, markers and open transactions included; `None` if the topic is not there.
    pub fn end_offset(&self, topic: &str, partition: i32) -> Option<i64> {
        let client = self.consumer("read_uncommitted");
        client.fetch_watermarks(topic, partition, PATIENCE).ok().map(|(_, end)| end)
    }

    /// Whether a partition holds records of a transaction that is still open, which readers of committed records wait for.
    pub fn has_open_transaction(&self, topic: &str, partition: i32) -> bool {
        let stable = self.consumer("read_committed").fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
        self.end_offset(topic, partition).is_some_and(|end| stable < end)
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: &str) -> i32 {
        let metadata = self.consumer("read_uncommitted").fetch_metadata(Some(topic), PATIENCE).unwrap();
        metadata.topics()[0].partitions().len() as i32
    }

    /// A consumer that manages no offsets and reports the ends of partitions.
    pub(crate) fn consumer(&self, isolation: &str) -> BaseConsumer {
        self.client()
            .set("group.id", "onceflow-integration-tests")
            .set("isolation.level", isolation)
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .unwrap()
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("allow.auto.create.topics", "false");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// A name that no other test of this broker uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn launch(verb: &str, dir: &Path) {
    let output = Command::new(launcher()).arg(verb).arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn launcher() -> PathBuf {
    // Cargo runs tests in their package's directory. A path fixed by the compiler would be another clone's, if they share a target.
    std::path::absolute("kafka/kafka").unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE))
}

/// The admin client answers from a thread of its own, so that an executor is no more than a parked thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
