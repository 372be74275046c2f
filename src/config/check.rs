//! What may be wrong with settings that can be read. Each mistake names the flag, what was expected and
//! what was found.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderValue;

use super::serve::LoadArgs;
use super::{AdminPort, Platform, ServeArgs, main_port, texts_max};

/// A list of JSON has more values than texts: three for a pair, ten and more for an event.
const TEXTS_MAX: usize = crate::api::VALUES_MAX / 16;

/// Mistakes in single numbers.
pub(super) fn numbers(args: &ServeArgs) -> Vec<String> {
    let mut mistakes = Vec::new();
    let (load, connection) = (&args.load, &args.connection);
    for (flag, value) in [
        ("--max-concurrency", load.max_concurrency.unwrap_or(1)),
        ("--max-queue", load.max_queue.unwrap_or(1)),
        ("--max-list-share", load.max_list_share),
        ("--max-texts", texts_max(load)),
        ("--max-batch-tokens", load.max_batch_tokens),
        ("--max-batch-requests", load.max_batch_requests),
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
    mistakes.extend(sizes(load));
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

/// Mistakes in how large lists and bodies may be.
fn sizes(load: &LoadArgs) -> Vec<String> {
    let mut mistakes = Vec::new();
    if load.max_list_share > 100 {
        let found = load.max_list_share;
        mistakes.push(format!(
            "--max-list-share: expected at most 100, found {found}"
        ));
    }
    if let Some(queue) = load.max_queue.filter(|queue| texts_max(load) > *queue) {
        mistakes.push(format!(
            "--max-texts: expected at most --max-queue ({queue}), since a list waits as a whole, \
             found {}",
            texts_max(load)
        ));
    }
    if texts_max(load) > TEXTS_MAX {
        let found = texts_max(load);
        mistakes.push(format!(
            "--max-texts: expected at most {TEXTS_MAX}, found {found}"
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

/// What is wrong with `--log`.
pub(super) fn log_filter(filter: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    if let Some(word) = filter.split(',').find(|word| is_misspelt_level(word)) {
        mistakes.push(format!(
            "--log: expected error, warn, info, debug, trace, off, or target=level, found {word:?}"
        ));
    }
    if let Err(error) = filter.parse::<tracing_subscriber::EnvFilter>() {
        mistakes.push(format!(
            "--log: expected a tracing filter, found {filter:?}: {error}"
        ));
    }
    mistakes
}

/// A lone word is the name of a target to a filter, of which every message is then shown and no other.
fn is_misspelt_level(word: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let word = word.trim();
    let is_level = levels.iter().any(|level| level.eq_ignore_ascii_case(word));
    let is_plain = word.chars().all(char::is_alphanumeric);
    is_plain && !is_level && word.parse::<u8>().is_err()
}

/// Both of two flags or neither of them.
pub(super) fn both<T, U>(
    flags: &str,
    pair: (Option<T>, Option<U>),
    mistakes: &mut Vec<String>,
) -> Option<(T, U)> {
    match pair {
        (Some(one), Some(other)) => Some((one, other)),
        (None, None) => None,
        _ => {
            mistakes.push(format!("{flags}: expected both or neither, found one"));
            None
        }
    }
}

/// The addresses of the main and of the operators' port.
pub(super) fn places(
    args: &ServeArgs,
    platform: &Platform,
    mistakes: &mut Vec<String>,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let listen = &args.listen;
    let main = main_port(listen.port, platform.port.as_deref()).unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        Some(0)
    });
    if main.is_none() && listen.unix_socket.is_none() {
        let what = "--port: expected a port, or --unix-socket beside \"off\"";
        mistakes.push(what.to_owned());
    }
    let admin = match listen.admin_port {
        AdminPort::Off => None,
        AdminPort::Port(port) => Some(port),
    };
    if let Some(port) = main.filter(|port| *port != 0 && admin == Some(*port)) {
        mistakes.push(format!(
            "--admin-port: expected another port than --port, found {port} for both"
        ));
    }
    let address = |port: u16| SocketAddr::from((listen.host, port));
    (main.map(address), admin.map(address))
}

pub(super) fn origins(origins: &[String], mistakes: &mut Vec<String>) -> Vec<HeaderValue> {
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

/// Scheme, host and port as browsers write them (RFC 6454, section 6.2).
fn is_origin(text: &str) -> bool {
    let plain = |c: char| !matches!(c, '/' | '*' | '?' | '#') && !c.is_ascii_uppercase();
    text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && scheme.chars().chain(rest.chars()).all(plain)
    })
}
