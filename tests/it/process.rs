//! The program as a process: standard input and output, exit codes, signals.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::Duration;

use crate::support::checkpoint::{catalog, write};
use crate::support::http::{Connection, get, keep_alive};
use crate::support::process::{Server, failure, intentd, kill, run, stdout};
use crate::support::server::eventually;

#[tokio::test]
async fn it_serves_until_sigterm_and_logs_no_text() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&["--port", "0", "--log", "trace"], &[]);
        server.ready().await;
        let path = "/predict?query=play+some+zyzzyva";
        assert_eq!(get(server.address, path, &[]).await.body, "PlayMusic");
        let (code, log) = server.signal(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("draining"), "{log}");
        assert!(
            !log.contains("zyzzyva"),
            "a request's text is in the log:\n{log}"
        );
    }
}

#[tokio::test]
async fn health_tells_a_healthy_server_from_a_dead_one() {
    let mut server = Server::start(&["--port", "0"], &[]);
    server.ready().await;
    let port = server.address.port().to_string();
    for arguments in [
        &["health", "--port", &port][..],
        &["health", "--port", &port, "--live"],
    ] {
        assert_eq!(failure(&run(arguments, "")), (Some(0), ""));
    }
    let health = |port: &str| {
        let mut command = intentd();
        // A container also has the variables of the server.
        command
            .arg("health")
            .env("PORT", port)
            .env("INTENTD_HOST", "0.0.0.0");
        command.output().expect("the program starts")
    };
    assert_eq!(failure(&health(&port)), (Some(0), ""));
    assert_eq!(failure(&health("http")).0, Some(64));
    server.signal("TERM");
    let (code, error) = (health(&port).status.code(), health(&port));
    assert_eq!(code, Some(1));
    assert!(
        failure(&error)
            .1
            .contains(&format!("127.0.0.1:{port}/readyz")),
        "{error:?}"
    );
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let output = run(
        &[
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--admin-port",
            "off",
        ],
        "",
    );
    let (code, error) = failure(&output);
    assert_eq!(code, Some(1));
    assert!(error.contains(&port) && error.contains("--port"), "{error}");
}

#[test]
fn a_missing_model_ends_the_server_with_its_name() {
    let flags = ["--host", "127.0.0.1", "--port", "0", "--admin-port", "off"];
    let output = run(&[&flags[..], &["--model", "/nowhere/at/all"]].concat(), "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("/nowhere/at/all") && error.contains("config.json"),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_without_a_reader_blocks_nothing() {
    let flags = ["--port", "0", "--log", "debug,hyper=trace"];
    let mut server = Server::start(&flags, &[]);
    let admin = server.admin();
    server.ready().await;
    let mut connection = Connection::open(server.address).await;
    let request = keep_alive("/predict?query=a", "text/plain");
    let dropped = async || {
        let metrics = get(admin, "/metrics", &[]).await.body;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("intentd_log_lines_dropped_total "));
        line.unwrap().parse::<f64>().unwrap()
    };
    // The pipe holds 64 KiB, the server several thousand lines.
    let mut fill = async || {
        let before = dropped().await;
        while dropped().await == before {
            for _ in 0..200 {
                assert_eq!(connection.send(&request).await.status, 200);
            }
        }
    };
    // A busy machine takes minutes for the seventeen thousand requests.
    let patience = Duration::from_secs(300);
    let filled = tokio::time::timeout(patience, fill()).await;
    filled.expect("requests are answered while nobody reads the log");
    assert_eq!(get(server.address, "/readyz", &[]).await.status, 200);
    assert_eq!(get(admin, "/healthz", &[]).await.status, 200);
    // Once the log is read again, it reports the dropped lines.
    let nothing: Box<dyn Read + Send> = Box::new(std::io::empty());
    let mut log = std::mem::replace(&mut server.log, BufReader::new(nothing));
    let read = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        while !line.contains("were dropped") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
        }
        log
    });
    let log = tokio::time::timeout(patience, read).await;
    let _log = log.expect("it is said that lines were dropped").unwrap();
    // A signal works while nobody reads the log.
    let filled = tokio::time::timeout(patience, fill()).await;
    filled.expect("lines are dropped again");
    kill(server.child.id(), "TERM");
    let child = RefCell::new(&mut server.child);
    let ended = || child.borrow_mut().try_wait().unwrap().is_some();
    eventually("it ends", ended).await;
}

#[test]
fn predict_takes_arguments_or_lines() {
    let arguments = run(&["predict", "play some jazz", "weather"], "");
    assert_eq!(stdout(&arguments), "PlayMusic\nGetWeather\n");
    let lines = run(&["predict"], "play some jazz\r\nweather");
    assert_eq!(stdout(&lines), "PlayMusic\nGetWeather\n");
    assert_eq!(stdout(&run(&["predict"], "")), "");
    let json = run(&["predict", "--format", "json", "play some jazz"], "");
    let json: serde_json::Value = serde_json::from_str(stdout(&json)).unwrap();
    assert_eq!(
        (&json["label"], &json["text"]),
        (&"PlayMusic".into(), &"play some jazz".into())
    );
    let tsv = run(&["predict", "--format", "tsv", "weather"], "");
    assert_eq!(stdout(&tsv).split('\t').count(), 3);
}

#[test]
fn labels_and_texts_cannot_control_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let mut spec = catalog::spec("cased").unwrap();
    spec.labels = vec!["\u{1b}[2Jgone\nlost\u{9b}"; spec.labels.len()]
        .into_iter()
        .enumerate()
        .map(|(number, label)| &*Box::leak(format!("{label}{number}").into_boxed_str()))
        .collect();
    write(&spec, directory.path()).unwrap();
    let model = ["--model", directory.path().to_str().unwrap()];
    let shown = "\\u{1b}[2Jgone\\nlost\\u{9b}";
    let harmless = |text: &str| !text.chars().any(|char| char.is_control() && char != '\n');
    for format in ["label", "json"] {
        let flags = [&["predict", "--format", format][..], &model, &["a"]].concat();
        let output = run(&flags, "");
        let text = stdout(&output);
        assert!(text.lines().count() == 1 && harmless(text), "{text:?}");
        assert!(format == "json" || text.starts_with(shown), "{text:?}");
    }
    let output = run(&["inspect", model[1]], "");
    let text = stdout(&output);
    assert!(harmless(text) && text.contains(shown), "{text:?}");
}

#[test]
fn all_engines_predict_the_same() {
    let texts = "music\nbook a table for two\nasdf qwer\n\nrate this book five stars\n";
    let predict = |engine| run(&["predict", "--device", "cpu", "--engine", engine], texts);
    let reference = predict("reference");
    assert_eq!(stdout(&reference).lines().count(), 5);
    for engine in ["native", "candle"] {
        assert_eq!(stdout(&predict(engine)), stdout(&reference), "{engine}");
    }
}

/// The reason may be a build without CUDA, a missing driver, or too few devices.
#[test]
fn a_missing_gpu_is_named_with_a_remedy() {
    let server = ["--host", "127.0.0.1", "--port", "0", "--admin-port", "off"];
    for command in [&["predict", "music"][..], &server] {
        let output = run(&[command, &["--device", "cuda:99"]].concat(), "");
        let (code, error) = failure(&output);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("--device cuda:99: "), "{error}");
    }
    let output = run(
        &["predict", "music", "--device", "cpu", "--dtype", "f16"],
        "",
    );
    let (code, error) = failure(&output);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("--dtype f16"), "{error}");
    let output = run(&["predict", "music", "--device", "gpu"], "");
    assert!(failure(&output).1.contains("cuda:N"), "{output:?}");
}

#[test]
fn inspect_describes_the_embedded_model() {
    let output = run(&["inspect"], "");
    let text = stdout(&output);
    for fact in [
        "embedded:intent-snips",
        "PlayMusic",
        "None",
        "softmax",
        "cpu engine: ",
        "cuda engine: ",
        "MiB",
        "device      ",
        "will run",
    ] {
        assert!(text.contains(fact), "{fact} is missing from\n{text}");
    }
}

/// A reader that closes the output early is not a failure and must not keep the program running.
#[test]
fn a_closed_output_ends_the_program() {
    let texts = "music\n".repeat(10_000);
    for arguments in [&["predict"][..], &["inspect"]] {
        let mut child = intentd()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        // The program may end before it has read everything.
        let _ = child
            .stdin
            .take()
            .expect("it was piped")
            .write_all(texts.as_bytes());
        let output = child.wait_with_output().expect("the program ends");
        assert_eq!(failure(&output), (Some(0), ""), "{arguments:?}");
    }
}
