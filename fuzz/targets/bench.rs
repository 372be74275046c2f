//! The inputs of `intentd bench`: targets, loads, texts, traces, and the responses of servers.

use std::path::Path;
use std::time::Duration;

use axum::http::{Method, header};
use intentd::bench::{Load, Loads, Target, label_of, parse_texts};

use super::check_length;

/// `u` and a URL, or another letter and the content of a target's file.
pub fn bench_target(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    let Ok(content) = std::str::from_utf8(data) else {
        return;
    };
    let target = if *kind != b'u' {
        Target::read(Path::new("a.toml"), content)
    } else if content.contains("://") {
        content.parse()
    } else {
        // It would be a file name.
        return;
    };
    let most = 1000 + 16 * content.len();
    let target = match target {
        Ok(target) => target,
        Err(why) => return assert!(why.len() <= most, "{} bytes", why.len()),
    };
    assert!(!target.name.is_empty());
    let request = target.request("music").expect("the target is checked");
    let body = target.body.as_deref().unwrap_or_default();
    let filled = body.replace("{query}", "music").replace("{text}", "music");
    let filled = filled.replace("{json}", "\"music\"");
    assert_eq!(request.body(), filled.as_bytes());
    // The host header may be empty, if the file says so.
    let has_host = request.headers().contains_key(header::HOST);
    assert!(has_host || request.uri().authority().is_some());
    let has_type = request.headers().contains_key(header::CONTENT_TYPE);
    assert!(has_type || target.body.is_none());
    if target.method.is_none() {
        assert_eq!(request.method() == Method::POST, target.body.is_some());
    }
    for text in ["", "a b&c=\u{fc}{json}{query}\"\\\n\u{0}"] {
        match target.request(text) {
            Ok(again) => assert!(target.has_text() || again.body() == request.body()),
            // A URL accepts a text only percent-encoded.
            Err(why) => assert!(target.has_text() && why.len() <= most),
        }
    }
}

/// The first byte selects the kind of the rest: `t` lines of text, `j` lines of JSON, `r` a trace, `l` a value
/// of `--load`, any other a response, whose first line is the pointer to its label or empty.
pub fn bench_input(data: &[u8]) {
    let [kind, data @ ..] = data else {
        return;
    };
    if !b"tjrl".contains(kind) {
        return answer(data);
    }
    let Ok(content) = std::str::from_utf8(data) else {
        return;
    };
    match kind {
        b't' | b'j' => {
            let file = if *kind == b't' { "a.txt" } else { "a.jsonl" };
            match parse_texts(Path::new(file), content) {
                Ok(texts) => {
                    assert!((1..=content.lines().count()).contains(&texts.len()));
                    let bytes: usize = texts.iter().map(String::len).sum();
                    assert!(bytes <= content.len());
                }
                Err(error) => check_length(&error.to_string()),
            }
        }
        b'r' => match Load::parse_trace(Path::new("a.csv"), content) {
            Ok(load) => {
                let Load::Trace { times, .. } = &load else {
                    panic!("not a trace");
                };
                assert!(!times.is_empty() && times.len() <= content.lines().count());
                assert!(times.is_sorted() && times.iter().all(|time| (0.0..=1e7).contains(time)));
                check_load(&load);
            }
            Err(why) => check_length(&why),
        },
        // It would be a file name.
        _ if content.starts_with("trace") => {}
        _ => match content.parse() {
            Ok(Loads(loads)) => {
                assert_eq!(loads.len(), content.split(',').count());
                loads.iter().for_each(check_load);
            }
            Err(why) => check_length(&why),
        },
    }
}

/// The times of a load are in order, within the duration, and the same each time.
fn check_load(load: &Load) {
    let (warm_up, duration) = (Duration::from_secs(1), Duration::from_secs(3));
    let rate = load.rate(duration);
    assert!(rate.is_finite() && rate >= 0.0, "{rate}");
    check_length(&load.to_string());
    let times = || load.times(warm_up, duration, 7).take(100);
    let all: Vec<Duration> = times().collect();
    assert!(all.is_sorted());
    assert!(all.iter().all(|time| *time < warm_up + duration));
    assert!(times().eq(all));
    let main = load.times(Duration::ZERO, duration, 7).take(100);
    assert!(main.is_sorted_by(|one, next| one <= next));
}

/// The label of a response is not longer than the response.
fn answer(data: &[u8]) {
    let end = data
        .iter()
        .position(|byte| *byte == b'\n')
        .unwrap_or(data.len());
    let Ok(pointer) = std::str::from_utf8(&data[..end]) else {
        return;
    };
    let body = data.get(end + 1..).unwrap_or_default();
    let pointer = (!pointer.is_empty()).then_some(pointer);
    let label = label_of(body, pointer);
    assert!(label.is_none_or(|label| label.len() <= body.len()));
}
