//! Exhausted connections, memory, file descriptors or disk.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hostile::{PATH, adds_up, head_of_body, is_well};
use crate::support::http::{Connection, get, keep_alive, post_json};
use crate::support::process::{Server, intentd, kill};
use crate::support::server::{TestServer, eventually};

#[tokio::test]
async fn a_connection_beyond_the_limit_gets_503_and_the_admin_port_stays_open() {
    let server = TestServer::start(&["--max-connections", "3"]).await;
    let address = server.address;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut connection = Connection::open(address).await;
        assert_eq!(
            connection
                .send(&keep_alive(PATH, "text/plain"))
                .await
                .status,
            200
        );
        open.push(connection);
    }
    let mut fourth = TcpStream::connect(address).await.unwrap();
    let mut answer = String::new();
    fourth.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("--max-connections"),
        "{answer}"
    );
    assert_eq!(get(server.admin, "/readyz", &[]).await.status, 200);
    assert_eq!(
        server.metric("intentd_connections{port=\"main\"}").await,
        3.0
    );
    assert_eq!(
        server
            .metric("intentd_connections_refused_total{port=\"main\"}")
            .await,
        1.0
    );
    open.pop();
    let gauge = server
        .classifier
        .metrics()
        .connections
        .with_label_values(&["main"]);
    eventually("there is room again", || gauge.get() == 2).await;
    is_well(address).await;
    server.stop().await;
}

#[tokio::test]
async fn all_bodies_share_one_memory_limit() {
    let flags = ["--max-body-bytes", "60000", "--max-body-memory", "100000"];
    let server = TestServer::start(&flags).await;
    let address = server.address;
    let mut half = head_of_body("60000");
    half.extend(vec![b' '; 50_000]);
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(&half).await.unwrap();
    let full = json_of(55_000);
    let mut refused = post_json(address, &full).await;
    // The first body's bytes may not have arrived yet.
    while refused.status == 200 {
        refused = post_json(address, &full).await;
    }
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("--max-body-memory"), "{refused:?}");
    drop(first);
    adds_up(&server).await;
    assert_eq!(post_json(address, &full).await.status, 200);
    server.stop().await;
}

fn json_of(bytes: usize) -> String {
    format!("{{\"query\": \"a\"{}}}", " ".repeat(bytes))
}

/// The value of a series of `/metrics`.
async fn value(admin: SocketAddr, series: &str) -> usize {
    let metrics = get(admin, "/metrics", &[]).await.body;
    let found = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found
        .expect("the series is there")
        .parse()
        .expect("a count")
}

#[tokio::test]
async fn ten_thousand_idle_connections_do_not_block_others() {
    let mut server = Server::start(&["--port", "0"], &[]);
    server.ready().await;
    let admin = server.admin();
    let mut idle = Vec::new();
    for number in 0..10_000 {
        match TcpStream::connect(server.address).await {
            Ok(stream) => idle.push(stream),
            Err(error) => {
                // Each connection takes a file descriptor on this side too.
                println!("{number} connections, then {error}");
                assert!(number > 900);
                break;
            }
        }
    }
    // Leaves file descriptors for the test itself.
    idle.truncate(idle.len() - 10);
    is_well(server.address).await;
    let open = value(admin, "intentd_connections{port=\"main\"}").await;
    assert!(open + 100 >= idle.len(), "{open} of {}", idle.len());
    drop(idle);
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
}

/// With `ulimit -n 100`: some descriptors are reserved for the admin port and for files.
#[tokio::test]
async fn the_descriptor_limit_bounds_connections() {
    let limited = ["sh", "-c", "ulimit -n 100 && exec \"$0\" \"$@\""];
    let mut server = Server::start_under(&limited, &["--port", "0", "--max-connections", "1000"]);
    server.ready().await;
    let admin = server.admin();
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(get(admin, "/readyz", &[]).await.status, 200);
    let refused = "intentd_connections_refused_total{port=\"main\"}";
    while value(admin, refused).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(idle);
    while value(admin, "intentd_connections{port=\"main\"}").await > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    is_well(server.address).await;
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("cannot accept"), "{log}");
}

/// With a full disk, log lines are lost, but requests are answered.
#[tokio::test]
async fn an_unwritable_log_does_not_stop_the_server() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut child = intentd()
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--admin-port",
            "off",
        ])
        .args(["--lame-duck", "off", "--log", "trace"])
        .stdout(Stdio::null())
        .stderr(Stdio::from(full))
        .spawn()
        .unwrap();
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    while TcpStream::connect(address).await.is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while get(address, "/readyz", &[]).await.status != 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    is_well(address).await;
    assert_eq!(post_json(address, "nonsense").await.status, 400);
    kill(child.id(), "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
