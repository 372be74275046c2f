//! Bytes over a socket: what a client sends and what it gets back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An HTTP/1.1 answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends raw bytes and reads until the server closes.
pub(crate) async fn send(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address)
        .await
        .expect("the server listens");
    stream.write_all(request).await.expect("the server reads");
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .await
        .expect("the server answers");
    parse(&answer)
}

pub(crate) fn parse(answer: &[u8]) -> Response {
    let text = String::from_utf8(answer.to_vec()).expect("the answer is UTF-8");
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .expect("a status line");
    let header = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    Response {
        status: status.parse().expect("a status"),
        headers: lines.map(header).collect(),
        body: body.to_owned(),
    }
}

/// A connection that stays open from request to request.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("the socket is open");
        Self {
            stream,
            read: Vec::new(),
        }
    }

    /// Sends a request whose answer has a Content-Length, and reads the answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Response {
        self.stream
            .write_all(request)
            .await
            .expect("the server reads");
        self.read.clear();
        loop {
            let count = self
                .stream
                .read_buf(&mut self.read)
                .await
                .expect("the server answers");
            assert!(count > 0, "the server closed the connection");
            if let Some(response) = complete(&self.read) {
                return response;
            }
        }
    }
}

impl Connection {
    /// Sends bytes and waits for nothing.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream
            .write_all(bytes)
            .await
            .expect("the server reads");
    }

    /// Waits until the server closes.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest).await;
        assert_eq!(read.expect("closed, not reset"), 0);
    }
}

/// The answer, when all of it has arrived.
fn complete(read: &[u8]) -> Option<Response> {
    let head = read.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let response = parse(read);
    let length: usize = response
        .header("content-length")?
        .parse()
        .expect("a length");
    (read.len() == head + length).then_some(response)
}

/// The head of a GET whose connection stays open.
pub(crate) fn keep_alive(path: &str, accept: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\nAccept: {accept}\r\n\r\n").into_bytes()
}

/// `GET path` with extra header lines.
pub(crate) async fn get(address: SocketAddr, path: &str, headers: &[&str]) -> Response {
    send(address, &head("GET", path, headers)).await
}

/// `POST path` with a body of the given type.
pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    content_type: &str,
    body: &str,
) -> Response {
    send(address, &posted(path, content_type, body.as_bytes())).await
}

/// The request that [`post`] sends.
pub(crate) fn posted(path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let content_type = format!("Content-Type: {content_type}");
    let length = format!("Content-Length: {}", body.len());
    let mut request = head("POST", path, &[&content_type, &length]);
    request.extend_from_slice(body);
    request
}

/// `POST /predict` with a JSON body.
pub(crate) async fn post_json(address: SocketAddr, body: &str) -> Response {
    post(address, "/predict", "application/json", body).await
}

/// The head of a request whose connection ends with the answer.
pub(crate) fn head(method: &str, path: &str, headers: &[&str]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The sum of the series of this name in a Prometheus exposition that have all of these labels.
pub(crate) fn metric(exposition: &str, series: &str) -> Option<f64> {
    let split = |series: &str| -> (String, Vec<String>) {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',');
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        (name.to_owned(), labels.collect())
    };
    let (name, labels) = split(series);
    let value = |line: &str| {
        let (found, value) = line.rsplit_once(' ')?;
        let (found, all) = split(found);
        let fits = found == name && labels.iter().all(|label| all.contains(label));
        fits.then(|| value.parse::<f64>().ok())?
    };
    exposition
        .lines()
        .filter_map(value)
        .reduce(|sum, value| sum + value)
}
