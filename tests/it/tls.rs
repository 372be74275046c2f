//! TLS: both versions of HTTP, certificates that are replaced, and what is refused at start.

use std::path::Path;
use std::sync::Arc;

use intentd::server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::support::http::{get, head, post};
use crate::support::process::{failure, run};
use crate::support::server::{TestServer, config};

const PATH: &str = "/predict?query=play+some+jazz";

/// Writes a new certificate for localhost and its key.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(directory.join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(directory.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    pair.cert.der().clone()
}

fn flags(directory: &Path) -> Vec<String> {
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    [
        "--tls-cert",
        &path("cert.pem"),
        "--tls-key",
        &path("key.pem"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Connects, trusting nothing but `certificate`.
async fn connect(
    server: &TestServer,
    certificate: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(server.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn ask(mut stream: TlsStream<TcpStream>) -> String {
    stream
        .write_all(&head("GET", PATH, &["Accept: text/plain"]))
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn certificates_are_replaced_while_connections_stay() {
    let directory = tempfile::tempdir().unwrap();
    let old = certificate(directory.path());
    let flags = flags(directory.path());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = TestServer::start(&flags).await;
    let stream = connect(&server, &old, "http/1.1").await.unwrap();
    assert!(ask(stream).await.ends_with("PlayMusic"));
    let kept = connect(&server, &old, "http/1.1").await.unwrap();

    std::fs::write(directory.path().join("key.pem"), "no key").unwrap();
    let refused = post(server.admin, "/reload", "text/plain", "").await;
    assert_eq!(refused.status, 422);
    assert!(refused.body.contains("--tls-key"), "{refused:?}");
    assert!(
        connect(&server, &old, "http/1.1").await.is_ok(),
        "the old one is in use"
    );

    let new = certificate(directory.path());
    assert_eq!(
        post(server.admin, "/reload", "text/plain", "").await.status,
        200
    );
    assert!(connect(&server, &old, "http/1.1").await.is_err());
    let stream = connect(&server, &new, "http/1.1").await.unwrap();
    assert!(ask(stream).await.ends_with("PlayMusic"));
    assert!(ask(kept).await.ends_with("PlayMusic"), "opened before");
    server.stop().await;
}

/// Somebody who connects and says nothing is not waited for.
#[tokio::test]
async fn a_handshake_that_does_not_come_does_not_hold_up_the_end() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path());
    let flags = flags(directory.path());
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend(["--header-timeout", "1000s", "--drain-timeout", "900s"]);
    let server = TestServer::start(&flags).await;
    let silent = TcpStream::connect(server.address).await.unwrap();
    server.stop().await;
    drop(silent);
}

#[tokio::test]
async fn http2_is_chosen_by_alpn_and_plain_text_gets_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let trusted = certificate(directory.path());
    let flags = flags(directory.path());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let server = TestServer::start(&flags).await;
    let stream = connect(&server, &trusted, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io);
    let (mut sender, connection) = handshake.await.unwrap();
    let driver = tokio::spawn(connection);
    let request = hyper::Request::get(format!("https://localhost{PATH}"));
    let answer = sender
        .send_request(request.body(String::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    drop((answer, sender));
    driver.await.unwrap().unwrap();

    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(&head("GET", PATH, &[])).await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(
        get(server.admin, "/readyz", &[]).await.status,
        200,
        "operators ask without TLS"
    );
    server.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    certificate(directory.path());
    certificate(other.path());
    let path = |directory: &Path, name: &str| directory.join(name).to_str().unwrap().to_owned();
    let cert = path(directory.path(), "cert.pem");
    let (missing, foreign) = (
        path(directory.path(), "none.pem"),
        path(other.path(), "key.pem"),
    );
    for (key, part) in [
        (&missing, "none.pem"),
        (&cert, "--tls-key"),
        (&foreign, "fit together"),
    ] {
        let flags = [
            "--port",
            "0",
            "--admin-port",
            "off",
            "--tls-cert",
            &cert,
            "--tls-key",
            key,
        ];
        let output = run(&flags, "");
        let (code, error) = failure(&output);
        assert_eq!(code, Some(64), "{error}");
        assert!(error.contains(part), "{error}");
    }
    let config = config(&["--tls-cert", &cert, "--tls-key", &missing]);
    assert!(server::start(&config).is_err());
}
