//! How the process ends: lame duck, drain, signals, also as PID 1 and while it loads.

use std::process::{Command, Stdio};
use std::time::Duration;

use intentd::serving::Phase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::checkpoint::{catalog, write};
use crate::support::http::{Connection, get, head, keep_alive};
use crate::support::process::{Server, kill};
use crate::support::server::{TestServer, eventually};

const PATH: &str = "/predict?query=play+some+jazz";

#[tokio::test]
async fn a_lame_duck_is_not_ready_but_answers_and_asks_to_be_left() {
    let mut server = TestServer::start(&["--lame-duck", "3s", "--drain-timeout", "60s"]).await;
    let mut connection = Connection::open(server.address).await;
    let before = connection.send(&keep_alive(PATH, "text/plain")).await;
    assert_eq!((before.status, before.header("connection")), (200, None));
    server.signal();
    eventually("it drains", || server.classifier.phase() == Phase::Draining).await;
    for address in [server.address, server.admin] {
        let ready = get(address, "/readyz", &[]).await;
        assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
        assert_eq!(get(address, "/healthz", &[]).await.status, 200, "it lives");
    }
    let answer = connection.send(&keep_alive(PATH, "text/plain")).await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(
        get(server.address, PATH, &[]).await.status,
        200,
        "also on a new connection"
    );
    server.ended().await.expect("the server ends well");
}

/// A request that was sent before the port closed is answered, on whatever connection it came.
#[tokio::test]
async fn what_was_sent_before_the_port_closed_is_answered() {
    // Five at once: each waits for about a second.
    for _ in 0..4 {
        futures_util::future::join_all((0..5).map(|_| ask_and_end())).await;
    }
}

async fn ask_and_end() {
    let mut server = TestServer::start(&[]).await;
    let address = server.address;
    let mut kept = Connection::open(address).await;
    assert_eq!(kept.send(&keep_alive(PATH, "text/plain")).await.status, 200);
    // Accepted by the kernel, perhaps not by the server yet.
    let mut fresh = TcpStream::connect(address).await.unwrap();
    fresh.write_all(&head("GET", PATH, &[])).await.unwrap();
    server.signal();
    let late = kept.send(&keep_alive(PATH, "text/plain")).await;
    assert_eq!(late.status, 200);
    let mut answer = String::new();
    fresh.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.ended().await.expect("the server ends well");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let mut server = TestServer::start(&["--drain-timeout", "60s"]).await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    let mut silent = Connection::open(server.address).await;
    assert_eq!(
        silent.send(&keep_alive(PATH, "text/plain")).await.status,
        200
    );
    server.signal();
    let mut rest = Vec::new();
    assert_eq!(
        idle.read_to_end(&mut rest).await.unwrap(),
        0,
        "closed, not reset"
    );
    server.ended().await.expect("the server ends well");
}

#[tokio::test]
async fn told_twice_it_ends_at_once() {
    let flags = [
        "--port",
        "0",
        "--lame-duck",
        "300s",
        "--drain-timeout",
        "600s",
    ];
    let mut server = Server::start(&flags, &[]);
    server.ready().await;
    server.kill("TERM");
    while get(server.address, "/readyz", &[]).await.status == 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(128 + 15), "{log}");
    assert!(log.contains("told to end again"), "{log}");
}

/// queue-proxy goes on to forward requests after SIGTERM (tests/parties/knative has it itself).
#[tokio::test]
async fn under_knative_the_port_stays_open_for_a_while() {
    let flags = ["--port", "0", "--drain-timeout", "300s"];
    let mut server = Server::start_plain(&flags, &[("K_SERVICE", "intents")]);
    server.ready().await;
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(
        log.contains("closing after the lame-duck delay delay=5s"),
        "{log}"
    );
}

/// A checkpoint that takes seconds to load: what loads is not waited for.
#[tokio::test]
async fn told_to_end_while_it_loads_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    write(&catalog::spec("cased").unwrap(), directory.path()).unwrap();
    // A vocabulary that takes seconds to read.
    let path = directory.path().join("vocab.txt");
    let mut vocabulary = std::fs::read_to_string(&path).unwrap();
    for word in 0..1_500_000 {
        vocabulary.push_str(&format!("word{word}\n"));
    }
    std::fs::write(path, vocabulary).unwrap();
    let model = directory.path().to_str().unwrap();
    let flags = [
        "--port",
        "0",
        "--model",
        model,
        "--drain-timeout",
        "600s",
        "--lame-duck",
        "300s",
    ];
    let mut server = Server::start(&flags, &[]);
    assert_eq!(get(server.address, "/readyz", &[]).await.status, 503);
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
}

/// Whether this system lets us make a process that is the first of its PID namespace.
fn can_unshare() -> bool {
    let try_it = Command::new("unshare")
        .args(["--pid", "--fork", "true"])
        .stderr(Stdio::null())
        .status();
    try_it.is_ok_and(|status| status.success())
}

/// The kernel drops signals to PID 1 that it has no handler for, as in a container without an init.
#[tokio::test]
async fn as_pid_1_it_ends_when_told() {
    if !can_unshare() {
        println!("skipped: this system gives no PID namespaces");
        return;
    }
    let mut server = Server::start_under(&["unshare", "--pid", "--fork"], &["--port", "0"]);
    server.ready().await;
    let parent = server.child.id().to_string();
    let children = format!("/proc/{parent}/task/{parent}/children");
    let inner = std::fs::read_to_string(children).unwrap();
    kill(inner.trim().parse().unwrap(), "TERM");
    let (code, log) = server.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("draining"), "{log}");
}

#[tokio::test]
async fn a_unix_socket_serves_as_well_and_is_gone_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("intentd.sock");
    let socket = path.to_str().unwrap();
    // As a process leaves it behind that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = TestServer::start(&["--unix-socket", socket]).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(&head("GET", PATH, &[])).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("PlayMusic"), "{answer}");
    let flags = [
        "--port",
        "off",
        "--admin-port",
        "off",
        "--unix-socket",
        socket,
    ];
    let second = crate::support::process::run(&flags, "");
    let (code, error) = crate::support::process::failure(&second);
    assert_eq!(code, Some(1), "another one listens there: {error}");
    assert!(error.contains("--unix-socket"), "{error}");
    server.stop().await;
    assert!(!path.exists());
}
