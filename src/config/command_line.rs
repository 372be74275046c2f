//! The command line, completed by the environment and by a TOML file.
//!
//! clap reads flags and environment variables. A key of the file becomes the flag of the same name unless
//! that flag or its variable is set. So all three sources are checked by the same rules, and their mistakes
//! are reported in one message.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

use super::effective::EffectiveSettings;
use super::renamed::{is_named, with_old_variables};
use super::settings_file::{self, FileSettings};

/// The command whose settings may come from a file.
const SERVE: &str = "serve";

/// A command without a file whose mistakes are collected as well.
const SCALER: &str = "scaler";

/// A parsed command line.
#[derive(Debug)]
pub struct CommandLine {
    /// What clap parsed, including the settings of the file.
    pub matches: ArgMatches,
    /// The settings in force, if the command is `serve`.
    pub settings: Option<EffectiveSettings>,
    /// Values that cannot be parsed; `matches` has the defaults instead.
    pub mistakes: Vec<String>,
}

/// A command line that clap answers itself: a request for help, or a flag that does not exist.
#[derive(Debug)]
pub struct CommandLineError(pub clap::Error);

impl CommandLine {
    /// Parses `line`, whose first word is the program's name, and reads the file that `--config` names.
    ///
    /// # Errors
    /// See [`CommandLineError`].
    pub fn read(command: &Command, mut line: Vec<OsString>) -> Result<Self, CommandLineError> {
        let command = &with_old_variables(command.clone());
        let named = line.get(1).and_then(|word| word.to_str());
        let subcommand = named.filter(|name| command.find_subcommand(name).is_some());
        match subcommand {
            None | Some(SERVE) => Self::read_serve(command, line),
            Some(SCALER) => {
                let mut mistakes = Vec::new();
                let matches = parse(command, &mut line, &mut mistakes, SCALER)?;
                Ok(Self {
                    matches,
                    settings: None,
                    mistakes,
                })
            }
            Some(_) => {
                let matches = command.clone().try_get_matches_from(line);
                Ok(Self {
                    matches: matches.map_err(CommandLineError)?,
                    settings: None,
                    mistakes: Vec::new(),
                })
            }
        }
    }

    fn read_serve(command: &Command, mut line: Vec<OsString>) -> Result<Self, CommandLineError> {
        let mut mistakes = Vec::new();
        let mut matches = parse(command, &mut line, &mut mistakes, SERVE)?;
        let of_serve = |matches: &ArgMatches| match matches.subcommand_matches(SERVE) {
            Some(serve) => serve.clone(),
            None => matches.clone(),
        };
        let mut from_file = FileSettings::new();
        if let Some(path) = of_serve(&matches).get_one::<PathBuf>("config") {
            from_file = settings_file::read(command, &of_serve(&matches), path, &mut mistakes);
            for (name, values) in &from_file {
                for value in values {
                    line.push(format!("--{name}={value}").into());
                }
            }
            let mut found = Vec::new();
            matches = parse(command, &mut line, &mut found, SERVE)?;
            // The second pass finds the mistakes in the environment again.
            found.retain(|mistake| !mistakes.contains(mistake));
            mistakes.append(&mut found);
        }
        let settings = EffectiveSettings::new(command, &of_serve(&matches), &from_file);
        Ok(Self {
            matches,
            settings: Some(settings),
            mistakes,
        })
    }
}

/// Parses `line`. A value that clap rejects is reported and left out, and parsing starts again.
fn parse(
    command: &Command,
    line: &mut Vec<OsString>,
    mistakes: &mut Vec<String>,
    subcommand: &str,
) -> Result<ArgMatches, CommandLineError> {
    let mut command = command.clone();
    loop {
        let error = match command.clone().try_get_matches_from(line.iter()) {
            Ok(matches) => return Ok(matches),
            Err(error) => error,
        };
        let Some(InvalidValue { flag, mistake }) = invalid_value(&command, &error) else {
            return Err(CommandLineError(error));
        };
        mistakes.push(mistake);
        let names = names_of(&command, &flag);
        if !names.iter().any(|name| leave_out(line, name)) {
            let id = flag.replace('-', "_");
            let unset = |arg: Arg| arg.env(None::<&'static str>);
            // The flags of a server may stand without `serve`.
            if subcommand == SERVE {
                command = command.mut_arg(&id, unset);
            }
            command = command.mut_subcommand(subcommand, |own| own.mut_arg(&id, unset));
        }
    }
}

/// The name of a flag and its old ones.
fn names_of(command: &Command, flag: &str) -> Vec<String> {
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let args = commands.flat_map(Command::get_arguments);
    let aliases = args
        .filter(|arg| is_named(arg, flag))
        .flat_map(|arg| arg.get_all_aliases().unwrap_or_default());
    let names = std::iter::once(flag).chain(aliases);
    names.map(str::to_owned).collect()
}

/// Removes a flag and its value from the line; returns whether it was there.
fn leave_out(line: &mut Vec<OsString>, name: &str) -> bool {
    let flag = format!("--{name}");
    let joined = format!("{flag}=");
    let is_joined = |word: &OsString| word.to_string_lossy().starts_with(&joined);
    if let Some(at) = line.iter().position(is_joined) {
        line.remove(at);
    } else if let Some(at) = line.iter().position(|word| *word == *flag) {
        line.drain(at..line.len().min(at + 2));
    } else {
        return false;
    }
    true
}

/// A flag whose value clap rejects.
struct InvalidValue {
    /// The flag's name without dashes.
    flag: String,
    mistake: String,
}

/// The flag that `error` is about, with a message that does not repeat secrets.
fn invalid_value(command: &Command, error: &clap::Error) -> Option<InvalidValue> {
    if !matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation
    ) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg)?.strip_prefix("--")?;
    let flag = flag.split(' ').next()?.to_owned();
    let found = text(ContextKind::InvalidValue)?;
    let why = match (
        std::error::Error::source(error),
        error.get(ContextKind::ValidValue),
    ) {
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) if !valid.is_empty() => {
            format!("expected {}", valid.join(", "))
        }
        _ => "expected a value".to_owned(),
    };
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let is_secret = commands
        .flat_map(Command::get_arguments)
        .any(|arg| arg.get_long() == Some(&*flag) && arg.is_hide_env_values_set());
    let mistake = if is_secret {
        format!("--{flag}: {why}")
    } else {
        format!("--{flag}: {why}, found {found:?}")
    };
    Some(InvalidValue { flag, mistake })
}

#[cfg(test)]
mod tests;
