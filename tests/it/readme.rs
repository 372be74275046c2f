//! The README says what the program does.

use clap::CommandFactory;
use intentd::cli::Cli;

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
