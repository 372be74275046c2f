//! The arguments that transformers gives to the constructor of a tokenizer: `tokenizer_config.json`, changed by
//! `special_tokens_map.json`, as `PreTrainedTokenizerBase.from_pretrained` of transformers 5.23 does it.
//!
//! The order of keys counts: new tokens get their ids in it.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::error::CheckpointError;
use crate::files::Files;
use crate::python_json::{self, Entry, kind};
use crate::tokenizer_class::NAMED_TOKENS;

pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";

/// Further special tokens, by their present and by their former name.
const EXTRA: &str = "extra_special_tokens";
const ADDITIONAL: &str = "additional_special_tokens";

/// Tokens with roles of the model's own, such as `image_token`, as transformers 5 writes them.
const OWN: &str = "model_specific_special_tokens";

/// Most keys of a file. Real ones have some tens.
const KEYS_MAX: usize = 1000;

/// Arguments in order.
#[derive(Debug)]
pub(super) struct Kwargs<'a> {
    files: &'a Files,
    entries: Vec<(String, Value)>,
    /// Keys that `special_tokens_map.json` has set.
    of_map: HashSet<String>,
    /// Tokens with roles of the model's own that come after those among the other arguments, in order.
    own: Vec<(String, Value)>,
}

impl<'a> Kwargs<'a> {
    /// Reads `tokenizer_config.json`.
    ///
    /// # Errors
    /// When the file cannot be read, or lists tokens in another form than transformers does.
    pub(super) fn read(files: &'a Files) -> Result<Self, CheckpointError> {
        let mut kwargs = Self {
            files,
            entries: Vec::new(),
            of_map: HashSet::new(),
            own: Vec::new(),
        };
        let mut own_order = Vec::new();
        for (key, Entry { value, keys }) in read(files, CONFIG)? {
            if [EXTRA, ADDITIONAL, OWN].contains(&&*key) {
                own_order.extend(keys);
            }
            kwargs.entries.push((key, value));
        }
        if kwargs.contains(ADDITIONAL) && !kwargs.get(EXTRA).is_some_and(is_truthy) {
            let additional = kwargs.pop(ADDITIONAL).unwrap_or_default();
            kwargs.set(EXTRA, additional);
        }
        let is_own = |(key, value): &mut (String, Value)| is_role(key) && value.is_string();
        kwargs.own = kwargs.entries.extract_if(.., is_own).collect();
        if let Some(Value::Object(roles)) = kwargs.pop_if(EXTRA, Value::is_object) {
            kwargs.add_own(roles, &own_order);
        }
        if let Some(roles) = kwargs.pop(OWN)
            && kwargs.own.is_empty()
        {
            match roles {
                Value::Object(roles) => kwargs.add_own(roles, &own_order),
                Value::Null => {}
                other => return Err(kwargs.invalid(OWN, "an object", kind(&other))),
            }
        }
        Ok(kwargs)
    }

    /// Applies `special_tokens_map.json`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn apply_map(&mut self) -> Result<(), CheckpointError> {
        for (key, Entry { value, keys }) in read(self.files, SPECIAL_TOKENS_MAP)? {
            let value = match value {
                Value::Object(token) if key != EXTRA => as_special(token),
                Value::Array(tokens) if key == EXTRA => self.merged(tokens),
                Value::Object(roles) => {
                    self.pop(EXTRA);
                    self.add_own(roles, &keys);
                    continue;
                }
                other => other,
            };
            self.of_map.insert(key.clone());
            self.set(&key, value);
        }
        Ok(())
    }

    /// The extra tokens so far, and those of a list that are not among them.
    fn merged(&self, tokens: Vec<Value>) -> Value {
        let mut all = match self.get(EXTRA) {
            Some(Value::Array(known)) => known.clone(),
            _ => Vec::new(),
        };
        let mut known: HashSet<String> = all.iter().map(Value::to_string).collect();
        for token in tokens {
            let token = match token {
                Value::Object(token) => as_special(token),
                other => other,
            };
            if known.insert(token.to_string()) {
                all.push(token);
            }
        }
        Value::Array(all)
    }

    fn add_own(&mut self, mut roles: serde_json::Map<String, Value>, order: &[String]) {
        for key in order {
            if let Some(value) = roles.remove(key) {
                match self.own.iter_mut().find(|(known, _)| known == key) {
                    Some((_, known)) => *known = value,
                    None => self.own.push((key.clone(), value)),
                }
            }
        }
    }

    /// All arguments.
    pub(super) fn entries(&self) -> &[(String, Value)] {
        &self.entries
    }

    /// The value of an argument; null is a value.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let found = self.entries.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }

    /// Whether there is such an argument.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Further special tokens, if any file lists them: the key and the list, or null.
    pub(super) fn extra(&self) -> Option<(&'static str, &Value)> {
        let value = self.get(EXTRA).map(|value| (EXTRA, value));
        value.or_else(|| Some((ADDITIONAL, self.get(ADDITIONAL)?)))
    }

    /// Tokens with roles of the model's own, in the order in which they are added.
    pub(super) fn own(&self) -> Vec<(&str, &Value)> {
        let is_token = |value: &Value| value.is_string() || is_described(value);
        let mut all: Vec<(&str, &Value)> = Vec::new();
        let among = self.entries.iter();
        let among = among.filter(|(key, value)| is_role(key) && is_token(value));
        for (key, value) in among.chain(&self.own) {
            match all.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => *known = value,
                None => all.push((key, value)),
            }
        }
        all
    }

    /// The contents of the tokens that transformers takes for special when it reads `added_tokens.json`: those that are
    /// written as strings, or in `special_tokens_map.json`.
    pub(super) fn written_as_special(&self) -> HashSet<&str> {
        let content = |key: &str, value: &'_ Value| match value {
            Value::String(_) => true,
            Value::Object(_) => self.of_map.contains(key),
            _ => false,
        };
        let mut found = HashSet::new();
        for key in NAMED_TOKENS {
            if let Some(value) = self.get(key).filter(|value| content(key, value)) {
                found.extend(content_of(value));
            }
        }
        if let Some(Value::Array(tokens)) = self.get(EXTRA) {
            let tokens = tokens.iter().filter(|token| content(EXTRA, token));
            found.extend(tokens.filter_map(content_of));
        }
        found
    }

    /// An error about an argument.
    pub(super) fn invalid(
        &self,
        key: &str,
        expected: &str,
        found: impl std::fmt::Display,
    ) -> CheckpointError {
        let argument = key.split(['.', '[']).next().unwrap_or(key);
        let file = match self.of_map.contains(argument) {
            true => SPECIAL_TOKENS_MAP,
            false => CONFIG,
        };
        CheckpointError::invalid(self.files.path(file), key, expected, found)
    }

    fn set(&mut self, key: &str, value: Value) {
        match self.entries.iter_mut().find(|(name, _)| name == key) {
            Some((_, known)) => *known = value,
            None => self.entries.push((key.to_owned(), value)),
        }
    }

    fn pop(&mut self, key: &str) -> Option<Value> {
        self.pop_if(key, |_| true)
    }

    fn pop_if(&mut self, key: &str, condition: impl Fn(&Value) -> bool) -> Option<Value> {
        let is_it = |(name, value): &(String, Value)| name == key && condition(value);
        let index = self.entries.iter().position(is_it)?;
        Some(self.entries.remove(index).1)
    }
}

fn read(files: &Files, name: &str) -> Result<Vec<(String, Entry)>, CheckpointError> {
    let entries = python_json::entries(files, name)?.unwrap_or_default();
    if entries.len() > KEYS_MAX {
        let expected = format!("at most {KEYS_MAX} keys");
        let path = files.path(name);
        return Err(CheckpointError::invalid(
            path,
            "(file)",
            expected,
            entries.len(),
        ));
    }
    Ok(entries)
}

/// Whether a key names a token's role that is the model's own.
fn is_role(key: &str) -> bool {
    key.ends_with("_token") && !NAMED_TOKENS.contains(&key)
}

/// Whether an object describes an added token, as `tokenizer_config.json` marks it.
pub(super) fn is_described(value: &Value) -> bool {
    value.get("__type").is_some_and(|kind| kind == "AddedToken")
}

/// A token of `special_tokens_map.json`, which is special whatever it says.
fn as_special(mut token: serde_json::Map<String, Value>) -> Value {
    token.insert("__type".to_owned(), json!("AddedToken"));
    token.insert("special".to_owned(), json!(true));
    Value::Object(token)
}

fn content_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// As in Python.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(value) => !value.is_empty(),
        Value::Array(value) => !value.is_empty(),
        Value::Object(value) => !value.is_empty(),
    }
}
