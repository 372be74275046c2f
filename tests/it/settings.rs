//! Settings of the program: flags, variables and the TOML file.

use crate::support::http::post_json;
use crate::support::process::{Server, failure, intentd, run, stdout};

#[tokio::test]
async fn variables_set_what_flags_do_not() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port().to_string()
    };
    let environment = [("PORT", port.as_str()), ("INTENTD_MAX_TEXTS", "1")];
    let mut server = Server::start(&[], &environment);
    assert_eq!(server.address.port().to_string(), port);
    server.ready().await;
    let answer = post_json(server.address, r#"["a", "b"]"#).await;
    assert_eq!(answer.status, 422);
    server.signal("TERM");
}

#[test]
fn all_invalid_settings_are_named_and_the_exit_code_is_64() {
    let output = run(&["--max-queue", "0", "--max-batch-tokens", "0"], "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64));
    assert!(
        error.contains("--max-queue") && error.contains("--max-batch-tokens"),
        "{error}"
    );
}

/// For a Service called `intentd`, Kubernetes sets `INTENTD_PORT=tcp://…`.
#[tokio::test]
async fn a_kubernetes_service_link_is_not_a_port() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let port = port.to_string();
    let environment = [
        ("INTENTD_PORT", "tcp://10.96.3.4:80"),
        ("PORT", port.as_str()),
    ];
    let mut server = Server::start(&[], &environment);
    assert_eq!(server.address.port().to_string(), port);
    assert_eq!(server.signal("TERM").0, Some(0), "also while it loads");
}

/// A probe in the container of the server finds the port in the same file.
#[tokio::test]
async fn server_and_probe_read_the_same_file() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("port = {port}\nmax-texts = 2\n")).unwrap();
    let environment = [("INTENTD_CONFIG", file.path().to_str().unwrap())];
    let mut server = Server::start(&["--lame-duck", "0"], &environment);
    assert_eq!(server.address.port(), port);
    server.ready().await;
    let mut health = intentd();
    let health = health.arg("health").envs(environment).output().unwrap();
    assert_eq!(failure(&health), (Some(0), ""));
    let answer = post_json(server.address, r#"["a", "b", "c"]"#).await;
    assert_eq!(answer.status, 422);
    server.signal("TERM");
}

#[test]
fn one_message_reports_mistakes_of_every_kind() {
    let flags = [
        "--port",
        "70000",
        "--slo",
        "soon",
        "--max-queue",
        "0",
        "--tls-cert",
        "x",
        "--log",
        "wrn",
    ];
    let output = run(&flags, "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64));
    for flag in ["--port", "--slo", "--max-queue", "--tls-key", "--log"] {
        assert!(error.contains(flag), "{flag} is missing from {error}");
    }
}

#[test]
fn print_config_shows_the_settings_in_force() {
    let output = run(&["--print-config", "--slo", "20ms"], "");
    let text = stdout(&output);
    assert!(text.contains("slo = \"20ms\" # flag"), "{text}");
    assert!(text.contains("max-batch-tokens = 4096 # default"), "{text}");
    let endpoint = "http://me:hush@collector:4318";
    let output = run(&["--print-config", "--otlp-endpoint", endpoint], "");
    let text = stdout(&output);
    assert!(
        text.contains("otlp-endpoint is set (flag), and not shown"),
        "{text}"
    );
    // An invalid value is not shown either.
    for endpoint in [
        "ftp://me:hush@collector:4318",
        "me:hush@collector",
        "http://me:hu/sh@c",
    ] {
        let output = run(&["--otlp-endpoint", endpoint], "");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains("--otlp-endpoint"), "{error}");
        assert!(
            !error.contains("hush") && !error.contains("hu/sh"),
            "{error}"
        );
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\notlp-endpoint = http://me:hush@c\n").unwrap();
    let output = run(&["--config", file.path().to_str().unwrap()], "");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("line 2") && !error.contains("hush"),
        "{error}"
    );
}

#[test]
fn the_old_name_of_max_batch_texts_still_works() {
    let setting = |flags: &[&str], environment: &[(&str, &str)]| {
        let mut command = intentd();
        let command = command.arg("--print-config").args(flags);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        let mut lines = stdout(&output).lines();
        let found = lines.find(|line| line.contains("max-batch-texts"));
        found.expect("the setting").to_owned()
    };
    let (new, old) = ("INTENTD_MAX_BATCH_TEXTS", "INTENTD_MAX_BATCH_REQUESTS");
    let environment = "max-batch-texts = 8 # environment";
    assert_eq!(setting(&[], &[]), "max-batch-texts = 256 # default");
    assert_eq!(setting(&[], &[(old, "8")]), environment);
    assert_eq!(setting(&[], &[(old, "9"), (new, "8")]), environment);
    let flag = ["--max-batch-requests", "7"];
    assert_eq!(setting(&flag, &[(new, "8")]), "max-batch-texts = 7 # flag");
    for command in [&[][..], &["serve"], &["profile"]] {
        let prefix = if command == ["profile"] {
            "INTENTD_PROFILE"
        } else {
            "INTENTD"
        };
        let mut process = intentd();
        let variable = format!("{prefix}_MAX_BATCH_REQUESTS");
        let output = process.args(command).env(variable, "0").output().unwrap();
        let (code, error) = failure(&output);
        assert_eq!(code, Some(64), "{command:?}: {error}");
        assert!(
            error.contains("--max-batch-texts: expected at least 1"),
            "{error}"
        );
    }
}
