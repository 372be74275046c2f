use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use super::*;
use crate::config::{ScalerArgs, ServeArgs, time};

/// A program like ours.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Program {
    #[command(flatten)]
    _serve: ServeArgs,
    #[command(subcommand)]
    _command: Option<ProgramCommand>,
}

#[derive(Subcommand)]
enum ProgramCommand {
    Serve(Box<ServeArgs>),
    Scaler(Box<ScalerArgs>),
    Bench {
        #[arg(long, value_parser = time::parse)]
        slo: Duration,
    },
}

fn read(line: &[&str]) -> Result<CommandLine, CommandLineError> {
    let line = std::iter::once("intentd").chain(line.iter().copied());
    CommandLine::read(&Program::command(), line.map(OsString::from).collect())
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
fn a_flag_overrides_the_file_and_the_file_overrides_the_default() {
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

/// Settings that are printed and read again are the same.
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
fn all_invalid_values_are_reported_at_once_with_their_flags() {
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
fn a_value_that_may_be_a_secret_is_not_repeated() {
    let line = ["scaler", "--kafka-config", "hunter2", "--interval", "soon"];
    let mistakes = mistakes(&line);
    assert_eq!(mistakes[0], "--kafka-config: expected KEY=VALUE");
    assert!(mistakes[1].contains("\"soon\""), "{mistakes:?}");
}

#[test]
fn a_file_that_is_missing_or_not_toml_is_a_mistake() {
    assert_eq!(mistakes(&["--config", "/nowhere"]).len(), 1);
    let file = written("max-texts: 16");
    assert_eq!(
        mistakes(&["--config", file.path().to_str().unwrap()]).len(),
        1
    );
}

#[test]
fn clap_answers_unknown_flags_and_help() {
    for line in [
        &["--max-quee", "1"][..],
        &["--help"],
        &["bench", "--slo", "soon"],
    ] {
        assert!(matches!(read(line), Err(CommandLineError(_))), "{line:?}");
    }
}

#[test]
fn an_old_name_works_as_a_flag_and_in_the_file() {
    let setting = |line: &[&str]| {
        let settings = read(line).unwrap().settings.unwrap().to_toml();
        let mut lines = settings.lines().map(str::to_owned);
        lines.find(|line| line.contains("max-batch-texts")).unwrap()
    };
    let flag = ["--max-batch-requests", "3"];
    assert_eq!(setting(&flag), "max-batch-texts = 3 # flag");
    let file = written("max-batch-requests = 7\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(setting(&["--config", path]), "max-batch-texts = 7 # file");
    let both = ["--config", path, "--max-batch-texts", "9"];
    assert_eq!(setting(&both), "max-batch-texts = 9 # flag");
}

#[test]
fn an_invalid_value_of_an_old_name_is_a_mistake() {
    for line in [
        ["--max-batch-requests", "many"],
        ["--max-batch-texts", "many"],
    ] {
        let mistakes = mistakes(&line);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(
            mistakes[0].starts_with("--max-batch-texts: "),
            "{mistakes:?}"
        );
    }
    let file = written("max-batch-requests = 7\nmax-batch-texts = 8\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(mistakes(&["--config", path]).len(), 1);
}
