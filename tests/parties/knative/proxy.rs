//! Requests through queue-proxy.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use super::program;
use crate::support::http::get;
use crate::support::process::Server;

/// queue-proxy has ports that cannot be chosen, so one runs at a time.
static ONE: Mutex<()> = Mutex::const_new(());

/// A server as Knative runs it, with queue-proxy before it.
struct Pod {
    _one: MutexGuard<'static, ()>,
    server: Server,
    proxy: Child,
    address: SocketAddr,
}

impl Pod {
    async fn start(flags: &[&str]) -> Self {
        let one = ONE.lock().await;
        let arguments = [&["--port", "0"], flags].concat();
        let environment = [
            ("K_SERVICE", "intents"),
            ("K_CONFIGURATION", "intents"),
            ("K_REVISION", "intents-00001"),
        ];
        let server = Server::start_plain(&arguments, &environment);
        let port = || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let (serving, tls) = (port(), port());
        let user = server.address.port();
        let probe = format!(
            r#"{{"httpGet":{{"path":"/readyz","port":{user},"host":"127.0.0.1","scheme":"HTTP"}},"successThreshold":1}}"#
        );
        let proxy = Command::new(program("queue"))
            .env_clear()
            .envs([
                ("CONTAINER_CONCURRENCY", "0"),
                ("QUEUE_SERVING_PORT", &serving.to_string()),
                ("QUEUE_SERVING_TLS_PORT", &tls.to_string()),
                ("USER_PORT", &user.to_string()),
                ("REVISION_TIMEOUT_SECONDS", "60"),
                ("SERVING_READINESS_PROBE", &probe),
                ("SERVING_LOGGING_CONFIG", ""),
                ("SERVING_LOGGING_LEVEL", ""),
                ("SERVING_NAMESPACE", "intents"),
                ("SERVING_SERVICE", "intents"),
                ("SERVING_CONFIGURATION", "intents"),
                ("SERVING_REVISION", "intents-00001"),
                ("SERVING_POD", "intents-00001-a"),
                ("SERVING_POD_IP", "127.0.0.1"),
                ("SYSTEM_NAMESPACE", "knative-serving"),
                ("METRICS_DOMAIN", "knative.dev/internal/serving"),
                // As Knative sets it; the recorder of statuses comes with it.
                ("SERVING_REQUEST_METRICS_BACKEND", "prometheus"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pod = Self {
            _one: one,
            server,
            proxy,
            address: SocketAddr::from(([127, 0, 0, 1], serving)),
        };
        pod.server.ready().await;
        let began = Instant::now();
        while std::net::TcpStream::connect(pod.address).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "queue-proxy does not start"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pod
    }

    /// The status that curl sees at the end.
    fn curl(&self, arguments: &[&str]) -> String {
        let url = format!("http://{}/predict", self.address);
        let output = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "30"])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

/// queue-proxy takes a 100 for the final status: curl, which expects one above a megabyte, saw an error as 200.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: .ci/knative runs it"]
async fn an_error_after_an_expectation_is_an_error() {
    let pod = Pod::start(&[]).await;
    let large = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(large.path(), vec![b'{'; 1_500_000]).unwrap();
    let body = format!("@{}", large.path().display());
    let json = ["-H", "Content-Type: application/json"];
    let small = pod.curl(&[&json[..], &["--data-binary", "{"]].concat());
    assert_eq!(small, "400");
    // curl expects a 100 by itself above a megabyte.
    let expects = [&json[..], &["--data-binary", &body]].concat();
    assert_eq!(pod.curl(&expects), "400");
    let text = format!("{{\"query\":\"music\"{}}}", " ".repeat(1_500_000));
    std::fs::write(large.path(), text).unwrap();
    assert_eq!(pod.curl(&expects), "200");
}

/// A signal to the server alone, without queue-proxy's preStop hook: it goes on to forward, and 195 of 204 requests were
/// lost.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Go: .ci/knative runs it"]
async fn requests_that_are_forwarded_after_sigterm_are_answered() {
    // The default is checked where the program is (tests/it/life.rs).
    let pod = Pod::start(&["--lame-duck", "60s", "--drain-timeout", "90s"]).await;
    assert_eq!(
        get(pod.address, "/predict?query=music", &[]).await.status,
        200
    );
    pod.server.kill("TERM");
    for _ in 0..200 {
        let answer = get(pod.address, "/predict?query=music", &[]).await;
        assert_eq!(answer.status, 200);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
