//! `intentd scaler` as a process, replicas for it, and a DNS server that says where these are.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::http::StatusCode;
use axum::routing::get;
use intentd::scaler::proto::external_scaler_client::ExternalScalerClient;
use intentd::scaler::proto::{GetMetricsRequest, ScaledObjectRef};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::AbortHandle;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use super::http;
use super::process::intentd;

/// Flags for short times. The timeout is long, so that a slow machine fails no test.
const SHORT: [&str; 6] = [
    "--interval",
    "50ms",
    "--timeout",
    "10s",
    "--wake-interval",
    "50ms",
];

/// A running scaler.
pub(crate) struct Scaler {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Scaler {
    /// With short times and these flags.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let mut command = intentd();
        command.arg("scaler");
        Self::spawn(command, &[&SHORT[..], flags].concat())
    }

    /// With the usual times and these flags.
    #[cfg_attr(test, allow(dead_code, reason = "only benches use it"))]
    pub(crate) fn start_plain(flags: &[&str]) -> Self {
        let mut command = intentd();
        command.arg("scaler");
        Self::spawn(command, flags)
    }

    /// As `start`, where `resolv.conf` names a resolver of the test's.
    pub(crate) fn start_with(dns: &Dns, flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"");
        command.arg(dns.resolv_conf.path());
        command.args([env!("CARGO_BIN_EXE_intentd"), "scaler"]);
        Self::spawn(command, &[&SHORT[..], flags].concat())
    }

    fn spawn(mut command: Command, flags: &[&str]) -> Self {
        let usual = ["--host", "127.0.0.1", "--port", "0", "--admin-port", "0"];
        let mut child = command
            .args(usual)
            .args(flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("it was piped")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address_in = |what: &str| loop {
            let line = lines.next().expect("the program goes on").unwrap();
            assert!(line.contains("INFO") || line.contains("WARN"), "{line}");
            if line.contains(what) {
                let (_, port) = line.rsplit_once(':').expect("an address");
                break SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().unwrap()));
            }
        };
        let address = address_in("serving KEDA");
        let admin = address_in("metrics and health");
        let written = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = written.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            child,
            address,
            admin,
            log,
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn kill(&self, signal: &str) {
        super::process::kill(self.child.id(), signal);
    }

    pub(crate) async fn client(&self) -> ExternalScalerClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        ExternalScalerClient::new(endpoint.connect().await.expect("the scaler listens"))
    }

    /// The value of a series on its admin port.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let scraped = http::get(self.admin, "/metrics", &[]).await;
        let line = |line: &&str| line.split_once(' ').is_some_and(|(name, _)| name == series);
        let line = scraped.body.lines().find(line);
        let line = line.unwrap_or_else(|| panic!("{series} is not in\n{}", scraped.body));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Scaler {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the log of the scaler:\n{}", self.log());
        }
    }
}

/// A trigger with this metadata.
pub(crate) fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    ScaledObjectRef {
        name: "intentd".to_owned(),
        namespace: "test".to_owned(),
        scaler_metadata: metadata.iter().map(owned).collect(),
    }
}

/// `metricValueFloat` and `metricValue` of the metric `demand`.
pub(crate) async fn demand(
    client: &mut ExternalScalerClient<Channel>,
    metadata: &[(&str, &str)],
) -> Result<(f64, i64), Status> {
    let request = GetMetricsRequest {
        scaled_object_ref: Some(object(metadata)),
        metric_name: "demand".to_owned(),
    };
    let values = client
        .get_metrics(request)
        .await?
        .into_inner()
        .metric_values;
    let [value] = &values[..] else {
        panic!("one value: {values:?}");
    };
    assert_eq!(value.metric_name, "demand");
    Ok((value.metric_value_float, value.metric_value))
}

pub(crate) async fn is_active(
    client: &mut ExternalScalerClient<Channel>,
    metadata: &[(&str, &str)],
) -> Result<bool, Status> {
    let answer = client.is_active(object(metadata)).await?;
    Ok(answer.into_inner().result)
}

/// Asks until `is_so`.
pub(crate) async fn until<T, F: Future<Output = T>>(
    mut ask: impl FnMut() -> F,
    is_so: impl Fn(&T) -> bool,
) -> T {
    loop {
        let answer = ask().await;
        if is_so(&answer) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An HTTP server that answers every path with one text, or 500 while there is none.
pub(crate) struct Answering {
    pub(crate) address: SocketAddr,
    pub(crate) queries: Arc<Mutex<Vec<String>>>,
    text: Arc<Mutex<Option<String>>>,
    task: AbortHandle,
}

impl Answering {
    pub(crate) async fn start(address: SocketAddr, text: Option<String>) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("the address is free");
        let address = listener.local_addr().unwrap();
        let text = Arc::new(Mutex::new(text));
        let queries = Arc::new(Mutex::new(Vec::new()));
        let (answer, asked) = (Arc::clone(&text), Arc::clone(&queries));
        let handler = get(move |RawQuery(query): RawQuery| async move {
            asked.lock().unwrap().push(query.unwrap_or_default());
            let text = answer.lock().unwrap().clone();
            text.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        });
        let routes = Router::new()
            .route("/autoscaling", handler.clone())
            .route("/api/v1/query", handler);
        let served = tokio::spawn(async move { axum::serve(listener, routes).await });
        Self {
            address,
            queries,
            text,
            task: served.abort_handle(),
        }
    }

    /// A replica on a free port.
    pub(crate) async fn replica(demand: f64) -> Self {
        Self::replica_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), demand).await
    }

    pub(crate) async fn replica_at(address: SocketAddr, demand: f64) -> Self {
        Self::start(address, Some(report(demand))).await
    }

    pub(crate) fn says(&self, demand: f64) {
        self.answers(Some(report(demand)));
    }

    pub(crate) fn answers(&self, text: Option<String>) {
        *self.text.lock().unwrap() = text;
    }

    /// From now on nobody listens, and whoever is connected gets 500.
    pub(crate) fn dies(&self) {
        self.answers(None);
        self.task.abort();
    }

    pub(crate) fn place(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.dies();
    }
}

/// As a replica with this demand says it.
fn report(demand: f64) -> String {
    let percent = (demand * 100.0).ceil();
    let report = serde_json::json!({
        "schema_version": 1,
        "pod": "intentd-0",
        "model": "snips",
        "demand_replicas": demand,
        "demand_percent": percent,
        "offered_rps": 10.5,
        "capacity_rps": 123.4,
        "in_flight": 0,
        "queue_depth": 0,
        "confidence": 0.9,
        "startup_seconds": 2.5,
        "not_known": [{"yet": null}],
    });
    report.to_string()
}

/// What the resolver says of a name.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    Addresses(Vec<Ipv4Addr>),
    NoSuchName,
    Fails,
}

/// A resolver for one process.
pub(crate) struct Dns {
    names: Arc<Mutex<HashMap<String, Says>>>,
    resolv_conf: tempfile::NamedTempFile,
    task: AbortHandle,
}

impl Dns {
    /// None where a test may not listen on port 53 of `address` or mount files.
    pub(crate) async fn start(address: Ipv4Addr) -> Option<Self> {
        let mount = [
            "--mount",
            "mount",
            "--bind",
            "/etc/hosts",
            "/etc/resolv.conf",
        ];
        let can_mount = Command::new("unshare")
            .args(mount)
            .stderr(Stdio::null())
            .status();
        let socket = UdpSocket::bind((address, 53)).await;
        let (true, Ok(socket)) = (can_mount.is_ok_and(|status| status.success()), socket) else {
            println!("skipped: this system gives a test no resolver of its own");
            return None;
        };
        let resolv_conf = tempfile::NamedTempFile::new().unwrap();
        let text = format!("nameserver {address}\noptions timeout:1 attempts:1\n");
        std::fs::write(resolv_conf.path(), text).unwrap();
        let names: Arc<Mutex<HashMap<String, Says>>> = Arc::default();
        let known = Arc::clone(&names);
        let task = tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                let answer = answer(&question[..length], &known.lock().unwrap());
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Some(Self {
            names,
            resolv_conf,
            task: task.abort_handle(),
        })
    }

    pub(crate) fn says(&self, name: &str, says: Says) {
        self.names.lock().unwrap().insert(name.to_owned(), says);
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The answer to a question of one name (RFC 1035, section 4).
fn answer(question: &[u8], names: &HashMap<String, Says>) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(std::str::from_utf8(&question[at + 1..end]).unwrap());
        at = end;
    }
    let end = at + 5;
    let is_a = question[at + 2] == 1;
    let says = names.get(&labels.join(".")).cloned();
    let (code, addresses) = match says.unwrap_or(Says::NoSuchName) {
        Says::Addresses(addresses) if is_a => (0, addresses),
        Says::Addresses(_) => (0, Vec::new()),
        Says::NoSuchName => (3, Vec::new()),
        Says::Fails => (2, Vec::new()),
    };
    let count = u8::try_from(addresses.len()).unwrap();
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(&question[12..end]);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
