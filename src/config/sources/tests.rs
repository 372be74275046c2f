use clap::CommandFactory;

use super::*;
use crate::cli::Cli;

fn read(line: &[&str]) -> Result<Sources, SourcesError> {
    let line = std::iter::once("intentd").chain(line.iter().copied());
    Sources::read(&Cli::command(), line.map(OsString::from).collect())
}

fn mistakes(line: &[&str]) -> Vec<String> {
    read(line).unwrap().mistakes
}

fn written(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = written(
        "max-texts = 16\nmax-queue = 64\nslo = \"20ms\"\ncors-allow-origin = [\"https://a.b\", \"https://c.d\"]\n",
    );
    let path = file.path().to_str().unwrap();
    for serve in [&[][..], &["serve"]] {
        let line = [serve, &["--config", path, "--max-queue", "32"]].concat();
        let settings = read(&line).unwrap().settings.unwrap().to_toml();
        for line in [
            "max-texts = 16 # file",
            "max-queue = 32 # flag",
            "slo = \"20ms\" # file",
            "cors-allow-origin = [\"https://a.b\", \"https://c.d\"] # file",
            "max-body-bytes = 2097152 # default",
            "# max-concurrency is not set",
        ] {
            assert!(
                settings.lines().any(|l| l == line),
                "{line} is not in\n{settings}"
            );
        }
    }
}

/// What is printed says the same when it is read.
#[test]
fn printed_settings_are_a_file() {
    let printed = read(&["--max-texts", "7", "--slo", "off"]).unwrap();
    let printed = printed.settings.unwrap().to_toml();
    let file = written(&printed);
    let again = read(&["--config", file.path().to_str().unwrap()]).unwrap();
    let again = again.settings.unwrap().to_toml();
    let plain = |text: &str| -> Vec<String> {
        let value = |line: &str| line.split(" # ").next().unwrap().to_owned();
        text.lines().map(value).collect()
    };
    assert_eq!(plain(&printed), plain(&again));
}

#[test]
fn all_wrong_values_are_reported_at_once_with_their_flags() {
    let file = written("max-queue = \"many\"\nmax-quee = 1\nmax-texts = [1, 2]\n[table]\na = 1\n");
    let path = file.path().to_str().unwrap();
    let line = [
        "--config", path, "--port", "http", "--slo", "soon", "--engine", "steam",
    ];
    let mistakes = mistakes(&line);
    let text = mistakes.join("\n");
    for part in [
        "--port",
        "--slo",
        "--engine",
        "native",
        "--max-queue",
        "max-quee",
        "table",
        "max-texts",
    ] {
        assert!(text.contains(part), "{part} is missing from\n{text}");
    }
    assert_eq!(mistakes.len(), 7, "{text}");
}

#[test]
fn what_may_be_a_secret_is_not_repeated() {
    let line = ["scaler", "--kafka-config", "hunter2", "--interval", "soon"];
    let mistakes = mistakes(&line);
    assert_eq!(mistakes[0], "--kafka-config: expected KEY=VALUE");
    assert!(mistakes[1].contains("\"soon\""), "{mistakes:?}");
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_a_mistake() {
    assert_eq!(mistakes(&["--config", "/nowhere"]).len(), 1);
    let file = written("max-texts: 16");
    assert_eq!(
        mistakes(&["--config", file.path().to_str().unwrap()]).len(),
        1
    );
}

#[test]
fn unknown_flags_and_help_are_claps_to_say() {
    for line in [
        &["--max-quee", "1"][..],
        &["--help"],
        &["bench", "--slo", "soon"],
    ] {
        assert!(matches!(read(line), Err(SourcesError(_))), "{line:?}");
    }
}
