//! README and docs agree with the program: flags are documented, and examples work.

use std::process::Command;

use clap::{Arg, CommandFactory};
use intentd::cli::Cli;

use crate::support::server::TestServer;

/// The flags of a command with their names, apart from `--help` and `--version`.
fn flags(command: &clap::Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = |arg| Arg::get_long(arg).map(|name| (name, arg));
    let flags = command.get_arguments().filter_map(named);
    flags.filter(|(name, _)| *name != "help" && *name != "version")
}

fn default(arg: &Arg) -> String {
    let defaults = arg.get_default_values();
    let value = defaults.first().map(|value| value.to_str().unwrap());
    value.map_or_else(String::new, |value| format!("`{value}`"))
}

/// The first paragraph of the help text.
fn help(arg: &Arg) -> String {
    let help = arg.get_help().expect("a help text").to_string();
    let first = help.lines().next().unwrap();
    first.trim_end_matches('.').replace('|', "\\|")
}

/// The table of flags of `intentd serve`, as the README has it.
fn flags_of_serve() -> String {
    let mut table = "| flag | default | |\n| --- | --- | --- |\n".to_owned();
    for (name, arg) in flags(&Cli::command()) {
        let (default, help) = (default(arg), help(arg));
        table.push_str(&format!("| `--{name}` | {default} | {help} |\n"));
    }
    table
}

#[test]
fn the_readme_has_the_flags_of_serve() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let table = flags_of_serve();
    assert!(readme.contains(&table), "put this into README.md:\n{table}");
}

/// A command other than `serve`, and its section in docs/flags.md.
struct Section {
    command: String,
    rows: Vec<String>,
}

impl Section {
    fn new(path: &str, command: &clap::Command) -> Self {
        let serve = Cli::command();
        let is_shared = |arg: &Arg| {
            let same = |other: &Arg| {
                other.get_long() == arg.get_long() && other.get_env() == arg.get_env()
            };
            let mut of_serve = flags(&serve).map(|(_, other)| other);
            of_serve.any(|other| same(other) && help(other) == help(arg))
        };
        let (shared, own): (Vec<_>, Vec<_>) = flags(command).partition(|(_, arg)| is_shared(arg));
        let mut rows = Vec::new();
        for arg in command.get_positionals() {
            let name = arg.get_id().as_str().to_uppercase();
            rows.push(format!("| `{name}` | | | {} |", help(arg)));
        }
        for (name, arg) in own {
            let variable = arg.get_env().expect("a variable").to_str().unwrap();
            let (default, help) = (default(arg), help(arg));
            rows.push(format!(
                "| `--{name}` | `{variable}` | {default} | {help} |"
            ));
        }
        for (name, _) in shared {
            rows.push(format!("| `--{name}` | | | as for `serve` |"));
        }
        Self {
            command: path.to_owned(),
            rows,
        }
    }

    /// The section of a command and of its subcommands.
    fn of(path: &str, command: &clap::Command) -> Vec<Self> {
        let mut sections = vec![Self::new(path, command)];
        for subcommand in command.get_subcommands() {
            let path = format!("{path} {}", subcommand.get_name());
            sections.extend(Self::of(&path, subcommand));
        }
        sections
    }

    fn heading(&self) -> String {
        format!("## {}", self.command)
    }

    fn markdown(&self) -> String {
        let rows = self.rows.join("\n");
        let head = "| flag | variable | default | |\n| --- | --- | --- | --- |";
        format!("{}\n\n{head}\n{rows}\n", self.heading())
    }

    /// What `document` lacks of this section, and what it has too much.
    fn mistakes(&self, document: &str) -> Vec<String> {
        let heading = self.heading();
        let lines = document.lines().skip_while(|line| *line != heading);
        let found: Vec<&str> = lines
            .skip(1)
            .take_while(|line| !line.starts_with("## "))
            .filter(|line| line.starts_with("| `"))
            .collect();
        let missing = self
            .rows
            .iter()
            .filter(|row| !found.contains(&row.as_str()));
        let missing = missing.map(|row| format!("{}: missing: {row}", self.command));
        let known = |row: &&&str| self.rows.iter().any(|own| own == *row);
        let unknown = found.iter().filter(|row| !known(row));
        let unknown = unknown.map(|row| format!("{}: not a flag: {row}", self.command));
        missing.chain(unknown).collect()
    }
}

#[test]
fn every_flag_of_every_command_is_documented() {
    let document = std::fs::read_to_string("docs/flags.md").unwrap();
    let program = Cli::command();
    let commands = program
        .get_subcommands()
        .filter(|command| !matches!(command.get_name(), "help" | "serve"));
    let sections: Vec<Section> = commands
        .flat_map(|command| Section::of(&format!("intentd {}", command.get_name()), command))
        .collect();
    let mistakes: Vec<String> = sections
        .iter()
        .flat_map(|section| section.mistakes(&document))
        .collect();
    let expected: Vec<String> = sections.iter().map(Section::markdown).collect();
    assert!(
        mistakes.is_empty(),
        "{}\nput this into docs/flags.md:\n{}",
        mistakes.join("\n"),
        expected.join("\n")
    );
}

/// A fenced block of a document.
struct Block {
    language: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                language: language.to_owned(),
                text: text.join("\n"),
            });
        }
    }
    blocks
}

/// Whether `found` matches `expected`, in which `…` stands for any text.
fn matches_example(expected: &str, found: &str) -> bool {
    let found = found.replace('\r', "");
    let (found, expected) = (found.trim(), expected.trim());
    let Some((first, rest)) = expected.split_once('…') else {
        return found == expected;
    };
    let Some(mut found) = found.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match found.split_once(part) {
            Some((_, after)) => found = after,
            None => return false,
        }
    }
    found.ends_with(last)
}

/// The `curl` commands of a block, with their continuation lines.
fn curls(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    for line in block.lines() {
        let continues = commands.last().is_some_and(|command| {
            command.ends_with('\\') || command.matches('\'').count() % 2 == 1
        });
        match commands.last_mut() {
            Some(command) if continues => command.push_str(&format!("\n{line}")),
            _ => commands.push(line.to_owned()),
        }
    }
    commands.retain(|command| command.starts_with("curl "));
    commands
}

/// Each `curl` command of the documents succeeds in a shell and prints the block that follows it.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_work() {
    if Command::new("curl").arg("--version").output().is_err() {
        println!("skipped: there is no curl");
        return;
    }
    let server = TestServer::start(&["--slo", "1s"]).await;
    let mut documents = vec!["README.md".to_owned()];
    for entry in std::fs::read_dir("docs").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path.to_str().unwrap().to_owned());
        }
    }
    let mut run = 0;
    for document in documents {
        let blocks = blocks(&std::fs::read_to_string(&document).unwrap());
        for (index, block) in blocks.iter().enumerate() {
            let commands = curls(&block.text);
            if block.language != "sh" || commands.is_empty() {
                continue;
            }
            let mut output = String::new();
            for command in commands {
                let command = command
                    .replace("localhost:8080", &server.address.to_string())
                    .replace("localhost:9100", &server.admin.to_string())
                    .replacen("curl ", "curl -sS --fail-with-body ", 1);
                let ran = Command::new("sh").args(["-c", &command]).output().unwrap();
                assert!(ran.status.success(), "{document}: {command}: {ran:?}");
                output.push_str(&String::from_utf8(ran.stdout).unwrap());
                run += 1;
            }
            if let Some(Block {
                language,
                text: expected,
            }) = blocks.get(index + 1)
                && (language == "text" || language == "json")
            {
                assert!(
                    matches_example(expected, &output),
                    "{document}:\n{expected}\nis not\n{output}"
                );
            }
        }
    }
    assert!(run >= 12, "only {run} examples were found");
    server.stop().await;
}

#[test]
fn an_ellipsis_matches_any_text() {
    assert!(
        matches_example("a…c", "a b c\n")
            && matches_example("a", " a ")
            && matches_example("a…", "ab")
    );
    assert!(
        !matches_example("a…c", "a b")
            && !matches_example("a", "ab")
            && !matches_example("b", "ab")
    );
}
