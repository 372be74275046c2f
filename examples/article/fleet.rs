//! Replicas that come and go: a loop of a few lines for a demonstration, where Knative, KEDA or an HPA do
//! this in a cluster.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::Error;
use super::gateway::Gateway;

/// Replicas go when they were too many for so long, as with an HPA's stabilization window.
const WINDOW: Duration = Duration::from_secs(10);

/// Time for a replica's answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What the replicas say at a moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    /// The sum of their demand.
    pub(crate) demand: f64,
    /// Texts that wait.
    pub(crate) queue_depth: f64,
    /// Replicas that run.
    pub(crate) running: usize,
    /// Replicas that get requests.
    pub(crate) ready: usize,
}

/// A process that is this program with the arguments of intentd.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    fn start(arguments: &[String]) -> Result<Self, Error> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        Ok(Self(command.spawn()?))
    }

    /// Tells it to end, and waits for that.
    pub(crate) fn end(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // It may have ended by itself.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the relay: the knobs are those of the article's sink.
///
/// Its group is new, so it reads all of the topic.
pub(crate) fn relay(brokers: &str, topic: &str, sink: &str) -> Result<Process, Error> {
    let group = format!("article-{}", std::process::id());
    let arguments = [
        "relay",
        "--sink",
        sink,
        "--kafka-brokers",
        brokers,
        "--kafka-topic",
        topic,
        "--kafka-group",
        &group,
        "--kafka-group-protocol",
        "consumer",
        "--request-timeout",
        "60s",
        "--retry",
        "10",
        "--retry-delay",
        "200ms",
        "--admin-port",
        "off",
        "--log",
        "warn",
    ];
    let mut process = Process::start(&arguments.map(str::to_owned))?;
    let log = process.0.stderr.take();
    std::thread::spawn(move || {
        let lines = log.into_iter().flat_map(|log| BufReader::new(log).lines());
        lines
            .map_while(Result::ok)
            .for_each(|line| eprintln!("relay: {line}"));
    });
    Ok(process)
}

struct Replica {
    process: Process,
    /// Where it serves predictions and where it says how it is, once it has said so.
    addresses: Option<[SocketAddr; 2]>,
    announced: Receiver<[SocketAddr; 2]>,
}

/// What replicas are to be.
#[derive(Debug, Clone)]
pub(crate) struct Replicas {
    /// The directory of the model; the embedded one for none.
    pub(crate) model: Option<PathBuf>,
    /// The objective.
    pub(crate) slo: String,
    /// Percentage of the capacity that is to be used.
    pub(crate) utilization: String,
    /// How many at most.
    pub(crate) max: usize,
}

/// The replicas.
pub(crate) struct Fleet {
    gateway: Arc<Gateway>,
    client: Client<HttpConnector, Full<Bytes>>,
    settings: Replicas,
    replicas: Vec<Replica>,
    ready: Vec<SocketAddr>,
    /// Since when there are more than needed.
    idle: Option<Instant>,
}

impl Fleet {
    pub(crate) fn new(gateway: &Arc<Gateway>, settings: Replicas) -> Self {
        Self {
            gateway: Arc::clone(gateway),
            client: Client::builder(TokioExecutor::new()).build_http(),
            settings,
            replicas: Vec::new(),
            ready: Vec::new(),
            idle: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// Asks all replicas how they are.
    pub(crate) async fn look(&mut self) -> Seen {
        let mut seen = Seen {
            running: self.replicas.len(),
            ..Seen::default()
        };
        self.ready.clear();
        for replica in &mut self.replicas {
            replica.addresses = replica
                .addresses
                .or_else(|| replica.announced.try_recv().ok());
            let Some([main, admin]) = replica.addresses else {
                continue;
            };
            let asked = tokio::time::timeout(TIMEOUT, hints(&self.client, admin)).await;
            let Ok(Ok(hints)) = asked else { continue };
            let number = |key: &str| hints[key].as_f64().unwrap_or(0.0);
            seen.demand += number("demand_replicas");
            seen.queue_depth += number("queue_depth");
            if number("ready") > 0.0 {
                self.ready.push(main);
            }
        }
        seen.ready = self.ready.len();
        self.gateway.route(self.ready.clone());
        seen
    }

    /// The demand is the number of replicas: the target is 1. With none, whoever waits brings the first.
    pub(crate) fn follow(&mut self, demand: f64, waiting: usize) -> Result<(), Error> {
        let first = usize::from(waiting > 0);
        let wanted = (demand.ceil() as usize).max(first).min(self.settings.max);
        while self.replicas.len() < wanted {
            self.replicas.push(self.start()?);
        }
        if wanted == self.replicas.len() {
            self.idle = None;
        } else if self.idle.get_or_insert_with(Instant::now).elapsed() >= WINDOW {
            self.idle = None;
            if let Some(mut replica) = self.replicas.pop() {
                let gone = replica.addresses.map(|[main, _]| main);
                self.ready.retain(|ready| Some(*ready) != gone);
                self.gateway.route(self.ready.clone());
                std::thread::spawn(move || replica.process.end());
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Replica, Error> {
        let mut arguments: Vec<String> = [
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--admin-port",
            "0",
            "--threads",
            "1",
            "--slo",
            &self.settings.slo,
            "--target-utilization",
            &self.settings.utilization,
        ]
        .map(str::to_owned)
        .into();
        if let Some(model) = &self.settings.model {
            arguments.extend(["--model".to_owned(), model.display().to_string()]);
        }
        let mut process = Process::start(&arguments)?;
        let log = process.0.stderr.take();
        let (announce, announced) = mpsc::channel();
        std::thread::spawn(move || {
            let mut addresses = Vec::new();
            let lines = log.into_iter().flat_map(|log| BufReader::new(log).lines());
            for line in lines.map_while(Result::ok) {
                if line.contains("serving") {
                    addresses.extend(address(&line));
                }
                if let [main, admin] = addresses[..] {
                    // Nobody listens once the replica is gone.
                    let _ = announce.send([main, admin]);
                    addresses.clear();
                }
            }
        });
        Ok(Replica {
            process,
            addresses: None,
            announced,
        })
    }

    /// Ends all of them.
    pub(crate) fn end(&mut self) {
        for replica in &mut self.replicas {
            replica.process.end();
        }
        self.replicas.clear();
    }
}

/// The address in a line of the log.
fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    format!("127.0.0.1:{port}").parse().ok()
}

async fn hints(
    client: &Client<HttpConnector, Full<Bytes>>,
    admin: SocketAddr,
) -> Result<Value, Error> {
    let answer = client
        .get(format!("http://{admin}/autoscaling").parse()?)
        .await?;
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
