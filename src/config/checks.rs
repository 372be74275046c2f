//! Checks of the flags of `intentd serve` that parse but may not make sense.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderValue;

use super::platform::Platform;
use super::ports::main_port;
use super::serve::{LoadArgs, ServeArgs};

/// The highest `--max-texts`. A JSON list has more values than texts: three for a pair, ten and more for an
/// event.
const TEXTS_MAX: usize = crate::api::VALUES_MAX / 16;

/// Where a server listens over TCP.
pub(super) struct ListenAddresses {
    /// For predictions.
    pub(super) main: Option<SocketAddr>,
    /// For operators.
    pub(super) admin: Option<SocketAddr>,
}

/// Mistakes in numbers and times.
pub(super) fn number_mistakes(args: &ServeArgs) -> Vec<String> {
    let mut mistakes = Vec::new();
    let (load, connection) = (&args.load, &args.connection);
    for (flag, value) in [
        ("--max-concurrency", load.max_concurrency.unwrap_or(1)),
        ("--max-queue", load.max_queue.unwrap_or(1)),
        ("--max-list-share", load.max_list_share),
        ("--max-texts", load.texts_max()),
        ("--max-batch-tokens", load.max_batch_tokens),
        ("--max-batch-texts", load.max_batch_texts),
        ("--max-body-bytes", load.max_body_bytes),
        ("--max-connections", connection.max_connections.unwrap_or(1)),
        ("--max-streams", connection.max_streams as usize),
        ("--engine-failures", args.end.engine_failures as usize),
    ] {
        if value == 0 {
            mistakes.push(format!("{flag}: expected at least 1, found 0"));
        }
    }
    let sample = args.trace.otlp_sample;
    if !(0.0..=1.0).contains(&sample) {
        mistakes.push(format!(
            "--otlp-sample: expected from 0 to 1, found {sample}"
        ));
    }
    let utilization = args.hints.target_utilization;
    if !(1.0..=100.0).contains(&utilization) {
        mistakes.push(format!(
            "--target-utilization: expected from 1 to 100, found {utilization}"
        ));
    }
    if args.hints.backlog_drain < Duration::from_secs(1) {
        let found = args.hints.backlog_drain;
        mistakes.push(format!(
            "--backlog-drain: expected at least 1s, found {found:?}"
        ));
    }
    mistakes.extend(size_mistakes(load));
    let (lame_duck, drain) = (args.end.lame_duck, args.end.drain_timeout);
    if let Some(lame_duck) = lame_duck.filter(|duck| !duck.is_zero() && *duck >= drain) {
        mistakes.push(format!(
            "--lame-duck: expected less than --drain-timeout ({drain:?}), which counts from the same \
             moment, found {lame_duck:?}"
        ));
    }
    if connection.max_header_bytes < 8192 {
        let found = connection.max_header_bytes;
        mistakes.push(format!(
            "--max-header-bytes: expected at least 8192, found {found}"
        ));
    }
    mistakes
}

/// Mistakes in the limits on lists and bodies.
fn size_mistakes(load: &LoadArgs) -> Vec<String> {
    let mut mistakes = Vec::new();
    if load.max_list_share > 100 {
        let found = load.max_list_share;
        mistakes.push(format!(
            "--max-list-share: expected at most 100, found {found}"
        ));
    }
    let texts = load.texts_max();
    if let Some(queue) = load.max_queue.filter(|queue| texts > *queue) {
        mistakes.push(format!(
            "--max-texts: expected at most --max-queue ({queue}), since a list waits as a whole, \
             found {texts}"
        ));
    }
    if texts > TEXTS_MAX {
        mistakes.push(format!(
            "--max-texts: expected at most {TEXTS_MAX}, found {texts}"
        ));
    }
    if load.max_body_memory < load.max_body_bytes {
        mistakes.push(format!(
            "--max-body-memory: expected at least --max-body-bytes ({}), found {}",
            load.max_body_bytes, load.max_body_memory
        ));
    }
    mistakes
}

/// The addresses that flags and `PORT` give.
pub(super) fn listen_addresses(
    args: &ServeArgs,
    platform: &Platform,
    mistakes: &mut Vec<String>,
) -> ListenAddresses {
    let listen = &args.listen;
    let main = main_port(listen.port, platform.port.as_deref()).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        Some(0)
    });
    if main.is_none() && listen.unix_socket.is_none() {
        let what = "--port: expected a port, or --unix-socket beside \"off\"";
        mistakes.push(what.to_owned());
    }
    let admin = listen.admin_port.get();
    if let Some(port) = main.filter(|port| *port != 0 && admin == Some(*port)) {
        mistakes.push(format!(
            "--admin-port: expected another port than --port, found {port} for both"
        ));
    }
    let address = |port: u16| SocketAddr::from((listen.host, port));
    ListenAddresses {
        main: main.map(address),
        admin: admin.map(address),
    }
}

/// The values of `--cors-allow-origin` as headers.
pub(super) fn cors_origins(origins: &[String], mistakes: &mut Vec<String>) -> Vec<HeaderValue> {
    let mut values = Vec::new();
    for origin in origins {
        let is_origin = origin == "*" || is_origin(origin);
        match origin.parse() {
            Ok(value) if is_origin => values.push(value),
            _ => mistakes.push(format!(
                "--cors-allow-origin: expected an origin like https://example.com, or *, found \
                 {origin:?}"
            )),
        }
    }
    values
}

/// Whether a text is scheme, host and port as browsers write them (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | '*' | '?' | '#') && !c.is_ascii_uppercase();
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && scheme.chars().chain(rest.chars()).all(plain)
    })
}
