//! Where settings come from: the command line, then the environment, then a TOML file.
//!
//! clap reads the first two. A key of the file is the long name of a flag, and becomes that flag
//! where neither of the other two sets it; so everything is checked by the same rules, and what they
//! find is gathered into one message.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::input;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// Flags that are not settings.
const NOT_IN_FILES: [&str; 4] = ["help", "version", "config", "print-config"];

/// The command whose settings may come from a file.
const SERVE: &str = "serve";

/// A command whose mistakes are gathered as well.
const SCALER: &str = "scaler";

/// A parsed command line.
#[derive(Debug)]
pub struct Sources {
    /// What clap made of it, the file's settings included.
    pub matches: ArgMatches,
    /// The settings of a server, when the command line is one's.
    pub settings: Option<Settings>,
    /// Values that cannot be read; `matches` has the defaults in their place.
    pub mistakes: Vec<String>,
}

/// The settings of a server and where each comes from.
#[derive(Debug)]
pub struct Settings(Vec<Setting>);

#[derive(Debug)]
struct Setting {
    name: String,
    values: Vec<String>,
    source: Source,
    /// Whether it may hold a password.
    is_secret: bool,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Flag,
    Environment,
    File,
    Default,
}

/// A command line that clap has the word about: help that was asked for, or a flag that does not exist.
#[derive(Debug)]
pub struct SourcesError(pub clap::Error);

impl Sources {
    /// Reads `line` (the program's name first) as `command` says, with the file that `--config`
    /// names.
    ///
    /// # Errors
    /// See [`SourcesError`].
    pub fn read(command: &Command, mut line: Vec<OsString>) -> Result<Self, SourcesError> {
        let named = line.get(1).and_then(|word| word.to_str());
        let subcommand = named.filter(|name| command.find_subcommand(name).is_some());
        let subcommand = subcommand.map(str::to_owned);
        if subcommand.as_deref() == Some(SCALER) {
            let mut mistakes = Vec::new();
            let matches = parse(command, &mut line, &mut mistakes, SCALER)?;
            return Ok(Self {
                matches,
                settings: None,
                mistakes,
            });
        }
        if subcommand.as_ref().is_some_and(|name| name != SERVE) {
            let matches = command.clone().try_get_matches_from(line);
            return Ok(Self {
                matches: matches.map_err(SourcesError)?,
                settings: None,
                mistakes: Vec::new(),
            });
        }
        let mut mistakes = Vec::new();
        let mut matches = parse(command, &mut line, &mut mistakes, SERVE)?;
        let own = |matches: &ArgMatches| match matches.subcommand_matches(SERVE) {
            Some(serve) => serve.clone(),
            None => matches.clone(),
        };
        let mut from_file = BTreeMap::new();
        if let Some(path) = own(&matches).get_one::<PathBuf>("config") {
            from_file = file(command, &own(&matches), path, &mut mistakes);
            for (name, values) in &from_file {
                for value in values {
                    line.push(format!("--{name}={value}").into());
                }
            }
            let mut found = Vec::new();
            matches = parse(command, &mut line, &mut found, SERVE)?;
            // What the environment does wrong is found again.
            found.retain(|mistake| !mistakes.contains(mistake));
            mistakes.append(&mut found);
        }
        let settings = Settings::of(command, &own(&matches), &from_file);
        Ok(Self {
            matches,
            settings: Some(settings),
            mistakes,
        })
    }
}

/// What clap makes of `line`; values that it cannot read are reported and left out, so that it goes on
/// to the next.
fn parse(
    command: &Command,
    line: &mut Vec<OsString>,
    mistakes: &mut Vec<String>,
    subcommand: &str,
) -> Result<ArgMatches, SourcesError> {
    let mut command = command.clone();
    loop {
        let error = match command.clone().try_get_matches_from(line.iter()) {
            Ok(matches) => return Ok(matches),
            Err(error) => error,
        };
        let Some((name, mistake)) = wrong_value(&command, &error) else {
            return Err(SourcesError(error));
        };
        mistakes.push(mistake);
        if !leave_out(line, &name) {
            let id = name.replace('-', "_");
            let unset = |arg: Arg| arg.env(None::<&'static str>);
            // A server's flags may stand without its command.
            if subcommand == SERVE {
                command = command.mut_arg(&id, unset);
            }
            command = command.mut_subcommand(subcommand, |own| own.mut_arg(&id, unset));
        }
    }
}

/// Takes a flag and its value off the line; whether it was there.
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

/// The flag whose value is wrong, and what is. What may be a secret is not repeated.
fn wrong_value(command: &Command, error: &clap::Error) -> Option<(String, String)> {
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
    let name = text(ContextKind::InvalidArg)?.strip_prefix("--")?;
    let name = name.split(' ').next()?.to_owned();
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
        .any(|arg| arg.get_long() == Some(&*name) && arg.is_hide_env_values_set());
    let mistake = if is_secret {
        format!("--{name}: {why}")
    } else {
        format!("--{name}: {why}, found {found:?}")
    };
    Some((name, mistake))
}

/// What is wrong with a file of settings, and where: without the line itself, which may hold a secret.
pub(crate) fn toml_mistake(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

/// The settings of a file that neither flags nor environment set.
fn file(
    command: &Command,
    matches: &ArgMatches,
    path: &Path,
    mistakes: &mut Vec<String>,
) -> BTreeMap<String, Vec<String>> {
    let mut wrong = |what: String| mistakes.push(format!("{}: {what}", path.display()));
    let text = match input::read_text(path, input::SMALL) {
        Ok(text) => text,
        Err(error) => {
            wrong(format!("{error} (--config)"));
            return BTreeMap::new();
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            wrong(toml_mistake(&text, &error));
            return BTreeMap::new();
        }
    };
    let mut settings = BTreeMap::new();
    for (name, value) in table {
        let is_flag = |arg: &&Arg| arg.get_long() == Some(&*name);
        let known = !NOT_IN_FILES.contains(&&*name);
        let Some(arg) = command.get_arguments().find(is_flag).filter(|_| known) else {
            wrong(format!(
                "{name:?} is no setting; expected the name of a flag without its dashes, like \
                 max-texts"
            ));
            continue;
        };
        let set = matches.value_source(arg.get_id().as_str());
        let many = matches!(arg.get_action(), ArgAction::Append);
        let values =
            values(value).filter(|values| values.len() == 1 || (many && !values.is_empty()));
        let Some(values) = values else {
            wrong(format!(
                "{name}: expected a text, a number, true or false, or a list where the flag takes several"
            ));
            continue;
        };
        if !matches!(
            set,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            settings.insert(name, values);
        }
    }
    settings
}

fn values(value: toml::Value) -> Option<Vec<String>> {
    match value {
        toml::Value::String(text) => Some(vec![text]),
        toml::Value::Integer(number) => Some(vec![number.to_string()]),
        toml::Value::Float(number) => Some(vec![number.to_string()]),
        toml::Value::Boolean(flag) => Some(vec![flag.to_string()]),
        toml::Value::Array(items) => {
            let text = |item: toml::Value| match item {
                toml::Value::Array(_) => None,
                item => values(item)?.pop(),
            };
            items.into_iter().map(text).collect()
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

impl Settings {
    fn of(
        command: &Command,
        matches: &ArgMatches,
        from_file: &BTreeMap<String, Vec<String>>,
    ) -> Self {
        let setting = |arg: &Arg| {
            let name = arg.get_long().filter(|name| !NOT_IN_FILES.contains(name))?;
            let id = arg.get_id().as_str();
            let raw = matches.get_raw(id).into_iter().flatten();
            let values = raw.map(|value| value.to_string_lossy().into_owned());
            let source = match matches.value_source(id) {
                _ if from_file.contains_key(name) => Source::File,
                Some(ValueSource::CommandLine) => Source::Flag,
                Some(ValueSource::EnvVariable) => Source::Environment,
                _ => Source::Default,
            };
            Some(Setting {
                name: name.to_owned(),
                values: values.collect(),
                source,
                is_secret: arg.is_hide_env_values_set(),
            })
        };
        Self(command.get_arguments().filter_map(setting).collect())
    }

    /// The settings as a TOML file that `--config` takes.
    pub fn to_toml(&self) -> String {
        let mut text = "# The settings in force; intentd --config FILE takes them.\n".to_owned();
        for setting in &self.0 {
            let source = match setting.source {
                Source::Flag => "flag",
                Source::Environment => "environment",
                Source::File => "file",
                Source::Default => "default",
            };
            let name = &setting.name;
            let line = match &setting.values[..] {
                [] => format!("# {name} is not set"),
                _ if setting.is_secret => format!("# {name} is set ({source}), and not shown"),
                [value] => format!("{name} = {} # {source}", literal(value)),
                values => {
                    let items: Vec<String> = values.iter().map(|value| literal(value)).collect();
                    format!("{name} = [{}] # {source}", items.join(", "))
                }
            };
            // Writing to a String does not fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Numbers as such, everything else as text.
fn literal(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => toml::Value::from(value).to_string(),
    }
}

#[cfg(test)]
mod tests;
