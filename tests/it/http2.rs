//! HTTP/2: the graceful end, and clients that misuse the protocol, in raw frames.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hostile;
use crate::support::engine::{Gate, Gated};
use crate::support::server::{TestServer, eventually};

const PATH: &str = "/predict?query=play+some+jazz";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types and flags of frames (RFC 9113, section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// What the server sends.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A GET's header block, without compression beyond the static table (RFC 7541, appendix A).
fn block() -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(PATH.len()).unwrap()];
    block.extend_from_slice(PATH.as_bytes());
    block.extend_from_slice(b"\x01\x04test");
    block
}

pub(crate) async fn connect(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Sends until the server closes or `count` is reached, reading what comes meanwhile. Whether the
/// server closed.
async fn flood(stream: TcpStream, count: usize, mut next: impl FnMut(usize) -> Vec<u8>) -> bool {
    let (mut read, mut write) = stream.into_split();
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(1..) = read.read(&mut buffer).await {}
    });
    for number in 0..count {
        if write.write_all(&next(number)).await.is_err() {
            break;
        }
    }
    let closed = tokio::time::timeout(Duration::from_millis(500), reader).await;
    drop(write);
    closed.is_ok()
}

async fn is_well(server: &TestServer) {
    hostile::is_well(server.address).await;
    hostile::adds_up(server).await;
}

#[tokio::test]
async fn streams_reset_at_once_end_the_connection() {
    let server = TestServer::start(&[]).await;
    let stream = connect(server.address).await;
    let closed = flood(stream, 20_000, |number| {
        let id = u32::try_from(2 * number + 1).unwrap();
        let mut frames = frame(HEADERS, END_STREAM | END_HEADERS, id, &block());
        // CANCEL
        frames.extend(frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()));
        frames
    })
    .await;
    assert!(closed, "the server puts up with it");
    is_well(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn headers_that_never_end_end_the_connection() {
    let server = TestServer::start(&[]).await;
    let mut stream = connect(server.address).await;
    stream
        .write_all(&frame(HEADERS, END_STREAM, 1, &block()))
        .await
        .unwrap();
    let mut padding = vec![0x00, 0x01, b'a', 0x7f, 0x81, 0x01];
    padding.extend(vec![b'b'; 256]);
    let closed = flood(stream, 100_000, |_| frame(CONTINUATION, 0, 1, &padding)).await;
    assert!(closed, "the server puts up with it");
    is_well(&server).await;
    server.stop().await;
}

/// Each is to be acknowledged; a client that does not read the acknowledgements gets no further.
#[tokio::test]
async fn settings_and_pings_that_nobody_hears_answered_do_not_pile_up() {
    let server = TestServer::start(&["--idle-timeout", "1s", "--header-timeout", "1s"]).await;
    for (kind, payload) in [(SETTINGS, &[][..]), (PING, &[0; 8])] {
        let mut stream = connect(server.address).await;
        let frames = frame(kind, 0, 0, payload).repeat(1000);
        let sending = async {
            for _ in 0..10_000 {
                if stream.write_all(&frames).await.is_err() {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), sending).await;
        is_well(&server).await;
    }
    let open = server
        .classifier
        .metrics()
        .connections
        .with_label_values(&["main"]);
    eventually("they are closed", || open.get() == 0).await;
    server.stop().await;
}

/// A client that lets nothing be sent and asks for more and more: its connection ends, whatever else it
/// asks for meanwhile.
#[tokio::test]
async fn answers_that_nobody_takes_end_the_connection() {
    let server = TestServer::start(&["--idle-timeout", "700ms"]).await;
    let mut stream = connect(server.address).await;
    // SETTINGS_INITIAL_WINDOW_SIZE, 0
    let window = [0, 4, 0, 0, 0, 0];
    stream
        .write_all(&frame(SETTINGS, 0, 0, &window))
        .await
        .unwrap();
    let (mut read, mut write) = stream.into_split();
    let asking = async {
        for number in 0_u32.. {
            let flags = END_STREAM | END_HEADERS;
            let request = frame(HEADERS, flags, 2 * number + 1, &block());
            if write.write_all(&request).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async {
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
    };
    tokio::select! {
        () = asking => {}
        () = closed => {}
    }
    is_well(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_wait_for_their_turn() {
    let server = TestServer::start(&["--max-streams", "2"]).await;
    let (mut sender, driver) = client(server.address).await;
    // The first answer comes after the settings; until then the client knows of no limit.
    let first = sender.send_request(request()).await.unwrap();
    assert_eq!(first.status(), 200);
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        sender.ready().await.unwrap();
        answers.spawn(sender.send_request(request()));
    }
    for answer in answers.join_all().await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    drop(sender);
    driver.await.unwrap();
    is_well(&server).await;
    server.stop().await;
}

type Sender = hyper::client::conn::http2::SendRequest<String>;

async fn client(address: SocketAddr) -> (Sender, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    (sender, driver)
}

fn request() -> hyper::Request<String> {
    let uri = format!("http://test{PATH}");
    hyper::Request::get(uri).body(String::new()).unwrap()
}

/// GOAWAY: what has begun is answered, nothing new begins.
#[tokio::test]
async fn the_end_lets_streams_finish() {
    let gate = Gate::closed();
    let engines = Arc::clone(&gate);
    let mut server = TestServer::with_engine(&[], |engine| Gated {
        engine,
        gate: engines,
    })
    .await;
    let mut stream = connect(server.address).await;
    let begin = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block());
    stream.write_all(&begin).await.unwrap();
    eventually("it stands before the gate", || gate.is_waiting()).await;
    server.signal();
    while next_frame(&mut stream).await.expect("it is open").kind != GOAWAY {}
    gate.open();
    let mut answered = false;
    while let Some(next) = next_frame(&mut stream).await {
        // 0x88 is ":status: 200" (RFC 7541, appendix A).
        answered |= (next.kind, next.stream, next.payload.first()) == (HEADERS, 1, Some(&0x88));
    }
    assert!(answered);
    drop(stream);
    server.ended().await.expect("the server ends well");
}

/// What comes next; none when the server has closed.
pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, id @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(id),
        payload,
    })
}
