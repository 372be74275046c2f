//! The settings in force, which `--print-config` shows.

use std::fmt::Write as _;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::settings_file::{FileSettings, is_setting};

/// The settings of a server, each with its source.
#[derive(Debug)]
pub struct EffectiveSettings(Vec<EffectiveSetting>);

#[derive(Debug)]
struct EffectiveSetting {
    name: String,
    values: Vec<String>,
    source: SettingSource,
    /// Whether the value may contain a password.
    is_secret: bool,
}

#[derive(Debug, Clone, Copy)]
enum SettingSource {
    Flag,
    Environment,
    File,
    Default,
}

impl EffectiveSettings {
    pub(super) fn new(command: &Command, matches: &ArgMatches, from_file: &FileSettings) -> Self {
        let setting = |arg: &Arg| {
            let name = arg.get_long().filter(|name| is_setting(name))?;
            let id = arg.get_id().as_str();
            let raw = matches.get_raw(id).into_iter().flatten();
            let values = raw.map(|value| value.to_string_lossy().into_owned());
            let source = match matches.value_source(id) {
                _ if from_file.contains_key(name) => SettingSource::File,
                Some(ValueSource::CommandLine) => SettingSource::Flag,
                Some(ValueSource::EnvVariable) => SettingSource::Environment,
                _ => SettingSource::Default,
            };
            Some(EffectiveSetting {
                name: name.to_owned(),
                values: values.collect(),
                source,
                is_secret: arg.is_hide_env_values_set(),
            })
        };
        Self(command.get_arguments().filter_map(setting).collect())
    }

    /// Formats the settings as a TOML file that `--config` accepts.
    pub fn to_toml(&self) -> String {
        let mut text = "# The settings in force; intentd --config FILE takes them.\n".to_owned();
        for setting in &self.0 {
            let source = match setting.source {
                SettingSource::Flag => "flag",
                SettingSource::Environment => "environment",
                SettingSource::File => "file",
                SettingSource::Default => "default",
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
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

/// Integers as they are, everything else as a string.
fn literal(value: &str) -> String {
    match value.parse::<i64>() {
        Ok(number) if number.to_string() == value => value.to_owned(),
        _ => toml::Value::from(value).to_string(),
    }
}
