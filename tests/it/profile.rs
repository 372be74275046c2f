//! `intentd profile`, and a server that begins with what it measured.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::checkpoint::{catalog, write};
use crate::support::http::{get, post};
use crate::support::process::{Server, failure, run, stdout};

/// A profile of the embedded model, or of the one in `model`, with some more flags.
fn profile(flags: &[&str]) -> Output {
    let usual = [
        "profile",
        "--device",
        "cpu",
        "--duration",
        "2s",
        "--max-batch-tokens",
        "512",
        "--max-batch-texts",
        "16",
    ];
    run(&[&usual, flags].concat(), "")
}

fn json(flags: &[&str]) -> Value {
    let output = profile(&[flags, &["--json", "-"]].concat());
    serde_json::from_str(stdout(&output)).unwrap()
}

/// The log of a server with these flags, up to the limits that follow from what it knows of its speed.
async fn log_of(flags: &[&str]) -> String {
    let usual = ["--port", "0", "--device", "cpu"];
    let mut server = Server::start(&[&usual, flags].concat(), &[]);
    server.ready().await;
    let (code, log) = server.signal("TERM");
    assert_eq!(code, Some(0), "{log}");
    log
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_profile_says_how_long_batches_take_and_what_follows() {
    let profile = json(&["--slo", "50ms,1s", "--tokens", "8"]);
    assert_eq!(profile["schema_version"], 1);
    assert_eq!(profile["model"]["name"], "intent-snips");
    assert_eq!(profile["model"]["sha256"].as_str().unwrap().len(), 64);
    assert!(profile["engine"].as_str().unwrap().starts_with("cpu f32"));
    assert!(profile["date"].as_str().unwrap().ends_with('Z'));
    let points = profile["points"].as_array().unwrap();
    let skipped = profile["skipped"].as_array().unwrap();
    // 8 to 128 tokens; 1 to 16 texts, of 64 tokens up to 8, of 128 up to 4.
    assert_eq!(points.len() + skipped.len(), 5 + 5 + 5 + 4 + 3);
    assert!(points.len() >= 2);
    for point in points {
        let of = |key: &str| point[key].as_f64().unwrap();
        assert!(of("texts") * of("tokens") <= 512.0);
        assert!(of("seconds_q1") <= of("seconds_median"));
        assert!(of("seconds_median") <= of("seconds_q3"));
        assert!(of("repeats") >= 1.0 && of("seconds_q1") > 0.0);
    }
    assert!(profile["fit"]["alpha_seconds"].as_f64().unwrap() > 0.0);
    let outlook = &profile["outlook"];
    assert_eq!(outlook["request_tokens"], 8);
    assert_eq!(outlook["objectives"].as_array().unwrap().len(), 2);
    let limits = outlook["container_concurrency"].as_array().unwrap();
    assert_eq!(limits[1]["container_concurrency"], 2);
}

#[test]
fn the_tables_and_the_picture_are_for_people() {
    let directory = tempfile::tempdir().unwrap();
    let (file, picture) = (
        directory.path().join("p.json"),
        directory.path().join("p.svg"),
    );
    std::fs::write(
        &file,
        "what was there before, and is longer than it should be".repeat(999),
    )
    .unwrap();
    let output = profile(&["--json", path(&file), "--plot", path(&picture)]);
    let text = stdout(&output);
    for part in [
        "milliseconds a batch",
        "texts a second",
        "a batch of n tokens takes",
        "99 % within",
        "Knative rps target",
        "containerConcurrency",
    ] {
        assert!(text.contains(part), "{part} is missing from:\n{text}");
    }
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(written["schema_version"], 1);
    let picture = std::fs::read_to_string(picture).unwrap();
    assert!(picture.contains("Time of a batch") && picture.contains("</svg>"));
}

#[test]
fn flags_that_make_no_sense_are_all_named() {
    let output = profile(&["--tokens", "0", "--slo", "0s,1s"]);
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64));
    for flag in ["--tokens", "--slo"] {
        assert!(error.contains(flag), "{flag} is missing from {error}");
    }
    let output = profile(&["--tokens", "9999"]);
    let (code, error) = failure(&output);
    assert!(code == Some(64) && error.contains("--tokens"), "{error}");
    assert_eq!(failure(&profile(&["--plot", "a.pdf"])).0, Some(64));
    assert_eq!(
        failure(&profile(&["--json", "/no/such/folder/p.json"])).0,
        Some(64)
    );
}

#[tokio::test]
async fn a_server_begins_with_a_profile_instead_of_measuring() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("profile.json");
    std::fs::write(&file, json(&[]).to_string()).unwrap();
    // Not checked: a test must not fail because the machine became busy.
    let log = log_of(&["--profile", path(&file), "--calibration", "off"]).await;
    assert!(log.contains("service curve known by the profile"), "{log}");
    assert!(!log.contains("WARN"), "{log}");
    // Checked, it is taken or measured again; either way the server knows its speed.
    let log = log_of(&["--profile", path(&file)]).await;
    assert!(log.contains("service curve known by"), "{log}");
    let log = log_of(&[]).await;
    assert!(
        log.contains("service curve known by measured batches"),
        "{log}"
    );
    let log = log_of(&["--calibration", "off"]).await;
    assert!(!log.contains("service curve"), "{log}");
}

#[tokio::test]
async fn a_profile_of_another_model_is_refused_also_at_a_reload() {
    let directory = tempfile::tempdir().unwrap();
    let (model, file) = (
        directory.path().join("model"),
        directory.path().join("profile.json"),
    );
    let cased = |seed| {
        let mut spec = catalog::spec("cased").unwrap();
        spec.seed = seed;
        write(&spec, &model).unwrap();
    };
    cased(2);
    let flags = ["--model", path(&model)];
    std::fs::write(&file, json(&flags).to_string()).unwrap();
    let log = log_of(&["--profile", path(&file)]).await;
    assert!(log.contains("the profile is not used"), "{log}");
    assert!(log.contains("it is of another model"), "{log}");
    assert!(log.contains("known by measured batches"), "{log}");
    // The right model, and then another in its place.
    let flags = [
        "--port",
        "0",
        "--device",
        "cpu",
        "--calibration",
        "off",
        "--profile",
        path(&file),
    ];
    let mut server = Server::start(&[&flags[..], &["--model", path(&model)]].concat(), &[]);
    let admin = server.admin();
    server.ready().await;
    cased(3);
    let answer = post(admin, "/reload", "application/json", "").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(get(server.address, "/readyz", &[]).await.status, 200);
    let (_, log) = server.signal("TERM");
    assert!(log.contains("known by the profile"), "{log}");
    assert!(log.contains("it is of another model"), "{log}");
}

#[test]
fn a_damaged_profile_is_a_mistake_among_others() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("damaged.json");
    std::fs::write(&file, "{\"schema_version\": 1, \"points\": [").unwrap();
    let output = run(&["--profile", path(&file), "--max-queue", "0"], "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64), "{error}");
    for part in ["--profile", "damaged.json", "EOF", "--max-queue"] {
        assert!(error.contains(part), "{part} is missing from {error}");
    }
    let missing = run(&["--profile", "no/such/file.json"], "");
    let (code, error) = failure(&missing);
    assert!(
        code == Some(64) && error.contains("no/such/file.json"),
        "{error}"
    );
}
