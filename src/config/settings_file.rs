//! The TOML file that `--config` names.

use std::collections::BTreeMap;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::renamed::is_named;
use intentd_base::input;

/// Flags that are not settings.
const NOT_SETTINGS: [&str; 4] = ["help", "version", "config", "print-config"];

/// Settings by the names of their flags, without dashes.
pub(super) type FileSettings = BTreeMap<String, Vec<String>>;

/// Whether a flag may be a key of the file.
pub(super) fn is_setting(name: &str) -> bool {
    !NOT_SETTINGS.contains(&name)
}

/// Reads the settings that neither flags nor environment set.
pub(super) fn read(
    command: &Command,
    matches: &ArgMatches,
    path: &Path,
    mistakes: &mut Vec<String>,
) -> FileSettings {
    let mut wrong = |what: String| mistakes.push(format!("{}: {what}", path.display()));
    let text = match input::read_text(path, input::SMALL) {
        Ok(text) => text,
        Err(error) => {
            wrong(format!("{error} (--config)"));
            return FileSettings::new();
        }
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => {
            wrong(toml_mistake(&text, &error));
            return FileSettings::new();
        }
    };
    let mut settings = FileSettings::new();
    for (key, value) in table {
        let is_flag = |arg: &&Arg| is_named(arg, &key);
        let flag = command.get_arguments().find(is_flag);
        let Some((arg, name)) = flag
            .filter(|_| is_setting(&key))
            .and_then(|arg| Some((arg, arg.get_long()?.to_owned())))
        else {
            wrong(format!(
                "{key:?} is no setting; expected the name of a flag without its dashes, like \
                 max-texts"
            ));
            continue;
        };
        let source = matches.value_source(arg.get_id().as_str());
        let is_list = matches!(arg.get_action(), ArgAction::Append);
        let values =
            values(value).filter(|values| values.len() == 1 || (is_list && !values.is_empty()));
        let Some(values) = values else {
            wrong(format!(
                "{key}: expected a text, a number, true or false, or a list where the flag takes several"
            ));
            continue;
        };
        if matches!(
            source,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        if settings.insert(name.clone(), values).is_some() {
            wrong(format!(
                "{name}: expected once, found under an old name as well"
            ));
        }
    }
    settings
}

/// The values of a key as flags would have them; `None` for a table or a date.
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

/// Describes a syntax error with its line number, but without the line, which may contain a secret.
pub(crate) fn toml_mistake(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}
