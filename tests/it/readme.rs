//! The README says what the program does, and the examples of README and docs do what they say.

use std::process::Command;

use clap::CommandFactory;
use intentd::cli::Cli;

use crate::support::server::TestServer;

/// The table of flags, as it must stand in the README.
fn flags() -> String {
    let mut table = "| flag | default | |\n| --- | --- | --- |\n".to_owned();
    for argument in Cli::command().get_arguments() {
        let Some(name) = argument
            .get_long()
            .filter(|name| *name != "help" && *name != "version")
        else {
            continue;
        };
        let defaults = argument.get_default_values();
        let default = defaults.first().map_or_else(String::new, |value| {
            format!("`{}`", value.to_str().unwrap())
        });
        let help = argument.get_help().unwrap().to_string();
        let help = help.lines().next().unwrap().trim_end_matches('.');
        table.push_str(&format!("| `--{name}` | {default} | {help} |\n"));
    }
    table
}

#[test]
fn the_table_of_flags_is_the_programs() {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let flags = flags();
    assert!(readme.contains(&flags), "put this into README.md:\n{flags}");
}

/// A block of a document: its language and its text.
fn blocks(document: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((language.to_owned(), text.join("\n")));
        }
    }
    blocks
}

/// Whether `found` is `expected`, in which `…` stands for anything.
fn fits(expected: &str, found: &str) -> bool {
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

/// The commands of a block that begin with `curl`, with continued lines and without comments.
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

/// Each `curl` of the documents, as a shell runs it, is answered well and with what stands below it.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_do_what_they_say() {
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
        for (place, (language, block)) in blocks.iter().enumerate() {
            let commands = curls(block);
            if language != "sh" || commands.is_empty() {
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
            if let Some((language, expected)) = blocks.get(place + 1)
                && (language == "text" || language == "json")
            {
                assert!(
                    fits(expected, &output),
                    "{document}:\n{expected}\nis not\n{output}"
                );
            }
        }
    }
    assert!(run >= 12, "only {run} examples were found");
    server.stop().await;
}

#[test]
fn an_example_may_leave_things_out() {
    assert!(fits("a…c", "a b c\n") && fits("a", " a ") && fits("a…", "ab"));
    assert!(!fits("a…c", "a b") && !fits("a", "ab") && !fits("b", "ab"));
}
