//! A broker as a process, and what tests ask of it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tempfile::TempDir;

use super::tls::Certificates;

/// Any id will do; it is 16 bytes in base64.
const CLUSTER: &str = "aW50ZW50ZC1rYWZrYS0xMQ";

/// Time for a broker to start: it has to share two cores with the other tests.
const START: Duration = Duration::from_secs(180);

const TIMEOUT: Duration = Duration::from_secs(30);

/// The users of the port with a login, and their password.
pub(super) const PASSWORD: &str = "secret";

/// The broker that tests share; each has topics and groups of its own.
pub(super) fn shared() -> &'static Apache {
    static SHARED: LazyLock<Apache> = LazyLock::new(Apache::start);
    &SHARED
}

/// The ports of a broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// Without a login; everything is allowed.
    pub(super) open: u16,
    /// With a login; what access lists allow is allowed.
    pub(super) login: u16,
    /// TLS with a valid certificate.
    pub(super) tls: u16,
    /// TLS with one that has expired.
    pub(super) expired: u16,
    /// TLS with one for another host.
    pub(super) misnamed: u16,
    controller: u16,
}

pub(super) struct Apache {
    pub(super) ports: Ports,
    pub(super) certificates: Certificates,
    folder: TempDir,
    /// Kills the broker when its input ends, so that none outlives the tests.
    _guard: Child,
}

impl Apache {
    fn start() -> Self {
        let ports = Ports::free();
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(folder.path());
        std::fs::write(
            folder.path().join("server.properties"),
            properties(ports, folder.path()),
        )
        .unwrap();
        let format = java(&[
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            CLUSTER,
            "--config",
            folder.path().join("server.properties").to_str().unwrap(),
        ])
        .output()
        .unwrap();
        assert!(format.status.success(), "{format:?}");
        let broker = Self {
            ports,
            certificates,
            _guard: guarded(folder.path()),
            folder,
        };
        broker.wait();
        broker
    }

    fn wait(&self) {
        let began = Instant::now();
        let consumer = self.consumer("nobody");
        while consumer
            .fetch_metadata(None, Duration::from_secs(2))
            .is_err()
        {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(began.elapsed() < START, "the broker does not start: {log}");
        }
    }

    pub(super) fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.open)
    }

    /// Runs one of Kafka's own tools against the port without a login.
    pub(super) fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let bootstrap = self.bootstrap();
        let line = [class, "--bootstrap-server", &bootstrap];
        let output = java(&[&line[..], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Allows a user what the other arguments of Kafka's tool for access lists name.
    pub(super) fn allow(&self, user: &str, what: &[&str]) {
        let user = format!("User:{user}");
        let line = ["--add", "--allow-principal", &user];
        self.tool(
            "org.apache.kafka.tools.AclCommand",
            &[&line[..], what].concat(),
        );
    }

    /// Takes back what [`allow`](Self::allow) has allowed.
    pub(super) fn forbid(&self, user: &str, what: &[&str]) {
        let user = format!("User:{user}");
        let line = ["--remove", "--force", "--allow-principal", &user];
        self.tool(
            "org.apache.kafka.tools.AclCommand",
            &[&line[..], what].concat(),
        );
    }

    pub(super) async fn create_topic(
        &self,
        name: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let made = admin.create_topics([&topic], &AdminOptions::new()).await;
        made.unwrap()[0].clone().unwrap();
        // Known to the controller first, to the broker a moment later.
        let consumer = self.consumer("nobody");
        loop {
            let metadata = consumer.fetch_metadata(Some(name), TIMEOUT).unwrap();
            let found = &metadata.topics()[0];
            if found.error().is_none() && found.partitions().len() == partitions as usize {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn delete_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let deleted = admin.delete_topics(&[name], &AdminOptions::new()).await;
        deleted.unwrap()[0].clone().unwrap();
    }

    /// Removes the records before `offset` of partition 0, as retention does.
    pub(super) async fn delete_records(&self, topic: &str, offset: i64) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut before = TopicPartitionList::new();
        before
            .add_partition_offset(topic, 0, Offset::Offset(offset))
            .unwrap();
        let deleted = admin.delete_records(&before, &AdminOptions::new()).await;
        deleted.unwrap();
    }

    /// Writes a text for each number to partition 0, with that as its key.
    pub(super) fn produce(&self, topic: &str, numbers: std::ops::Range<u32>) {
        let producer: ThreadedProducer<_> = self
            .client()
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        for number in numbers {
            let key = number.to_string();
            let record = BaseRecord::to(topic).partition(0).key(&key);
            producer.send(record.payload("play some jazz")).unwrap();
        }
        producer.flush(TIMEOUT).unwrap();
    }

    /// The keys of all records of a topic, once it has `count` of them.
    pub(super) async fn keys(&self, topic: &str, count: usize) -> Vec<String> {
        let consumer = self.consumer("oracle");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&list).unwrap();
        let mut keys = Vec::new();
        let key = |record: &BorrowedMessage<'_>| {
            String::from_utf8(record.key().unwrap().to_vec()).unwrap()
        };
        let began = Instant::now();
        // A moment longer than needed, for records that should not be there.
        let mut last = Instant::now();
        while keys.len() < count || last.elapsed() < Duration::from_millis(500) {
            assert!(began.elapsed() < START, "{} of {count}", keys.len());
            if let Some(record) = consumer.poll(Duration::ZERO) {
                keys.push(key(&record.unwrap()));
                last = Instant::now();
            } else {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        keys
    }

    /// Waits until the group has committed `offset` in partition 0.
    pub(super) async fn committed(&self, group: &str, topic: &str, offset: i64) {
        let consumer = self.consumer(group);
        let mut found = None;
        let began = Instant::now();
        while began.elapsed() < START {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, 0);
            let committed = consumer.committed_offsets(list, TIMEOUT).unwrap();
            found = Some(committed.elements()[0].offset());
            if found == Some(Offset::Offset(offset)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{group} has committed {found:?}, not {offset}");
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap());
        config
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.client();
        config.set("group.id", group);
        config.create().unwrap()
    }
}

impl Ports {
    /// Ports that nobody has now.
    fn free() -> Self {
        let listeners: [TcpListener; 6] =
            std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [open, login, tls, expired, misnamed, controller] =
            listeners.map(|listener| listener.local_addr().unwrap().port());
        Self {
            open,
            login,
            tls,
            expired,
            misnamed,
            controller,
        }
    }
}

/// The jars of Kafka.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parties/kafka/install.sh");
        let output = Command::new(script).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        PathBuf::from(text.lines().last().unwrap())
    })
}

fn java(arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(options()).args(arguments);
    command
}

fn options() -> Vec<String> {
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parties/kafka/log4j2.yaml");
    vec![
        "-Xmx512m".to_owned(),
        "-XX:+UseSerialGC".to_owned(),
        "-XX:TieredStopAtLevel=1".to_owned(),
        format!("-Dlog4j2.configurationFile={}", log.display()),
        "-cp".to_owned(),
        format!("{}/*", jars().display()),
    ]
}

/// Starts a broker that is killed when the returned process loses its input.
fn guarded(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    Command::new("sh")
        .args(["-c", "\"$@\" & broker=$!; read -r _; kill -9 $broker", "sh"])
        .arg("java")
        .args(options())
        .arg("kafka.Kafka")
        .arg(folder.join("server.properties"))
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn properties(ports: Ports, folder: &Path) -> String {
    let Ports {
        open,
        login,
        tls,
        expired,
        misnamed,
        controller,
    } = ports;
    let folder = folder.display();
    let listeners = format!(
        "OPEN://127.0.0.1:{open},LOGIN://127.0.0.1:{login},TLS://127.0.0.1:{tls},\
         EXPIRED://127.0.0.1:{expired},MISNAMED://127.0.0.1:{misnamed}"
    );
    let mut text = format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,OPEN:PLAINTEXT,LOGIN:SASL_PLAINTEXT,TLS:SSL,EXPIRED:SSL,MISNAMED:SSL
inter.broker.listener.name=OPEN
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
sasl.enabled.mechanisms=PLAIN
listener.name.login.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required \
user_nobody=\"{PASSWORD}\" user_reader=\"{PASSWORD}\" user_member=\"{PASSWORD}\";
"
    );
    for listener in ["tls", "expired", "misnamed"] {
        text += &format!(
            "listener.name.{listener}.ssl.keystore.type=PEM
listener.name.{listener}.ssl.keystore.location={folder}/{listener}.pem
"
        );
    }
    text
}
