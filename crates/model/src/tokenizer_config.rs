//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`: what they say about the tokenizer.
//!
//! The rules are those of `PreTrainedTokenizerBase.from_pretrained` of transformers 5.23. A key that could change ids is
//! understood or refused; keys that cannot are listed in [`harmless`].

mod harmless;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::AddedToken;
use tokenizers::utils::truncation::TruncationDirection;

use super::config::ModelConfig;
use super::error::CheckpointError;
use super::files::Files;
use super::python_json::{self, kind};
use super::tokenizer_class::{CAMEMBERT_EXTRA, NAMED_TOKENS, TokenizerClass};
use super::tokenizer_report::TokenizerReport;

const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
const ADDED_TOKENS: &str = "added_tokens.json";

/// `model_max_length` of at least this means "no limit" (transformers writes 1e30).
const UNLIMITED: f64 = 1e9;

/// What the files say, with the defaults of the class.
#[derive(Debug)]
pub(super) struct TokenizerConfig {
    pub(super) class: TokenizerClass,
    pub(super) lowercase: bool,
    pub(super) strip_accents: Option<bool>,
    pub(super) chinese_chars: bool,
    pub(super) keep_accents: bool,
    pub(super) add_prefix_space: bool,
    pub(super) trim_offsets: bool,
    /// The longest sequence, special tokens included.
    pub(super) max_tokens: Option<usize>,
    /// `None` leaves it to the truncation of `tokenizer.json`.
    pub(super) direction: Option<TruncationDirection>,
    /// Whether the model gets token types.
    pub(super) token_types: bool,
    /// Whether special tokens in a text are split like other words.
    pub(super) split_special_tokens: bool,
    /// Tokens with a role, such as `cls_token`, in transformers' order.
    pub(super) named: Vec<(String, AddedToken)>,
    /// Further special tokens.
    pub(super) extra: Vec<AddedToken>,
    /// Added tokens by id. `None` leaves them to `tokenizer.json`.
    pub(super) decoder: Option<BTreeMap<u64, AddedToken>>,
    /// Added tokens of `added_tokens.json`, by id.
    pub(super) added: BTreeMap<u64, AddedToken>,
    pub(super) report: TokenizerReport,
}

impl TokenizerConfig {
    /// Reads the files, of which any may be absent.
    ///
    /// # Errors
    /// When a file cannot be read, or the first key that is wrong, or not known and perhaps not harmless.
    pub(super) fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let map = python_json::read(files, CONFIG)?.unwrap_or_default();
        let mut keys = Keys {
            files,
            map,
            replaced: Map::new(),
        };
        let (class, from) = keys.class(config)?;
        let mut report = TokenizerReport::new(class, from, &keys.map);
        for name in [CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS] {
            let is_read = name == CONFIG || !keys.map.contains_key("added_tokens_decoder");
            if files.contains(name) {
                let read = if is_read {
                    &mut report.files
                } else {
                    &mut report.ignored
                };
                read.push(name.to_owned());
            }
        }
        let decoder = keys.decoder()?;
        let mut added = BTreeMap::new();
        if decoder.is_none() {
            keys.replaced = python_json::read(files, SPECIAL_TOKENS_MAP)?.unwrap_or_default();
            added = keys.added_tokens()?;
        }
        keys.check_known()?;
        let mut named = keys.named(class)?;
        let extra = keys.extra(class, &mut named)?;
        let is_special = |token: &AddedToken| {
            let content = &token.content;
            named.iter().any(|(_, named)| named.content == *content)
                || extra.iter().any(|extra| extra.content == *content)
        };
        for token in added.values_mut() {
            token.special = is_special(token);
            token.normalized = !token.special;
        }
        Ok(Self {
            class,
            lowercase: keys.flag("do_lower_case", true)?,
            strip_accents: keys.optional_flag("strip_accents")?,
            chinese_chars: keys.flag("tokenize_chinese_chars", true)?,
            keep_accents: keys.flag("keep_accents", false)?,
            add_prefix_space: keys.flag("add_prefix_space", class != TokenizerClass::Roberta)?,
            trim_offsets: keys.flag("trim_offsets", true)?,
            max_tokens: keys.max_tokens()?,
            direction: keys.direction()?,
            token_types: keys.token_types(class)?,
            split_special_tokens: keys.flag("split_special_tokens", false)?,
            named,
            extra,
            decoder,
            added,
            report,
        })
    }

    /// The token with the role `key`.
    pub(super) fn token(&self, key: &str) -> Option<&AddedToken> {
        let found = self.named.iter().find(|(name, _)| name == key);
        found.map(|(_, token)| token)
    }
}

/// The keys of `tokenizer_config.json`, and of `special_tokens_map.json`, which replace them.
struct Keys<'a> {
    files: &'a Files,
    map: Map<String, Value>,
    replaced: Map<String, Value>,
}

impl Keys<'_> {
    /// The class, and what names it.
    fn class(&self, config: &ModelConfig) -> Result<(TokenizerClass, String), CheckpointError> {
        let named = match self.map.get("tokenizer_class") {
            None | Some(Value::Null) => {
                let of_model = config.tokenizer_class.as_deref();
                of_model.map(|name| ("config.json", name))
            }
            Some(Value::String(name)) => Some((CONFIG, name.as_str())),
            Some(other) => return Err(self.invalid("tokenizer_class", "a string", other)),
        };
        let class = TokenizerClass::of(self.files, config.family, named)?;
        let from = match named {
            Some((file, _)) => file.to_owned(),
            None => format!("model_type {}", config.family.model_type),
        };
        Ok((class, from))
    }

    /// Refuses keys that might change ids in a way that is not known here.
    fn check_known(&self) -> Result<(), CheckpointError> {
        for (key, value) in self.map.iter().chain(&self.replaced) {
            let is_token = key.ends_with("_token")
                && matches!(value, Value::String(_) | Value::Null | Value::Object(_));
            if !is_token
                && !harmless::UNDERSTOOD.contains(&&**key)
                && !harmless::is_harmless(key, value)
            {
                return Err(self.invalid(
                    key,
                    "a key that is known here, since others might change the tokens; remove it if it does not",
                    kind(value),
                ));
            }
        }
        Ok(())
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let value = self.replaced.get(key).or_else(|| self.map.get(key));
        value.filter(|value| !value.is_null())
    }

    /// The file that says what `key` is.
    fn file_of(&self, key: &str) -> &'static str {
        match self.replaced.contains_key(key) {
            true => SPECIAL_TOKENS_MAP,
            false => CONFIG,
        }
    }

    fn optional_flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.invalid(key, "true, false or null", other)),
        }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        Ok(self.optional_flag(key)?.unwrap_or(default))
    }

    fn max_tokens(&self) -> Result<Option<usize>, CheckpointError> {
        let key = match self.map.contains_key("model_max_length") {
            true => "model_max_length",
            false => "max_len",
        };
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(max) if max >= UNLIMITED => Ok(None),
            Some(max) if max >= 1.0 => Ok(Some(max as usize)),
            _ => Err(self.invalid(key, "a number of tokens", value)),
        }
    }

    fn direction(&self) -> Result<Option<TruncationDirection>, CheckpointError> {
        match self.get("truncation_side") {
            None => Ok(None),
            Some(Value::String(side)) if side == "right" => Ok(Some(TruncationDirection::Right)),
            Some(Value::String(side)) if side == "left" => Ok(Some(TruncationDirection::Left)),
            Some(other) => Err(self.invalid("truncation_side", "\"left\" or \"right\"", other)),
        }
    }

    fn token_types(&self, class: TokenizerClass) -> Result<bool, CheckpointError> {
        match self.get("model_input_names") {
            None => Ok(class.has_token_types()),
            Some(Value::Array(names)) => Ok(names.iter().any(|name| name == "token_type_ids")),
            Some(other) => Err(self.invalid("model_input_names", "a list", kind(other))),
        }
    }

    /// `added_tokens_decoder`: tokens by id.
    fn decoder(&self) -> Result<Option<BTreeMap<u64, AddedToken>>, CheckpointError> {
        let tokens = match self.map.get("added_tokens_decoder") {
            None => return Ok(None),
            Some(Value::Object(tokens)) => tokens,
            Some(other) => {
                return Err(self.invalid("added_tokens_decoder", "an object", kind(other)));
            }
        };
        let token = |(id, value): (&String, &Value)| {
            let key = format!("added_tokens_decoder[{id:?}]");
            let number = id.parse().map_err(|_| self.invalid(&key, "an id", id))?;
            match value {
                Value::Object(_) => Ok((number, self.added_token(&key, value, None)?)),
                other => Err(self.invalid(&key, "an object", kind(other))),
            }
        };
        tokens.iter().map(token).collect::<Result<_, _>>().map(Some)
    }

    /// `added_tokens.json`: ids by token. Whether they are special is not known yet.
    fn added_tokens(&self) -> Result<BTreeMap<u64, AddedToken>, CheckpointError> {
        let tokens = python_json::read(self.files, ADDED_TOKENS)?.unwrap_or_default();
        let token = |(content, id): (String, Value)| match id.as_u64() {
            Some(id) => Ok((id, AddedToken::from(content, false))),
            None => Err(CheckpointError::invalid(
                self.files.path(ADDED_TOKENS),
                format!("{content:?}"),
                "an id",
                id,
            )),
        };
        tokens.into_iter().map(token).collect()
    }

    /// Tokens with a role: first those of every class, then the model's own, such as `image_token`.
    fn named(&self, class: TokenizerClass) -> Result<Vec<(String, AddedToken)>, CheckpointError> {
        let mut named = Vec::new();
        for key in NAMED_TOKENS {
            let is_null = |map: &Map<String, Value>| map.get(key).is_some_and(Value::is_null);
            let token = match self.get(key) {
                Some(value) => Some(self.added_token(key, value, Some(true))?),
                None if is_null(&self.map) || is_null(&self.replaced) => None,
                None => class.default_token(key).map(|content| {
                    let is_mask = class == TokenizerClass::Camembert && key == "mask_token";
                    AddedToken::from(content, true).lstrip(is_mask)
                }),
            };
            named.extend(token.map(|token| (key.to_owned(), token)));
        }
        let own = self.map.keys().chain(self.replaced.keys());
        let mut own: Vec<&String> = own
            .filter(|key| key.ends_with("_token") && !NAMED_TOKENS.contains(&&***key))
            .collect();
        own.dedup();
        for key in own {
            if let Some(value) = self.get(key) {
                named.push((key.clone(), self.added_token(key, value, Some(true))?));
            }
        }
        Ok(named)
    }

    /// `extra_special_tokens`, and `additional_special_tokens` as it was called. An object names roles. What
    /// `special_tokens_map.json` says under the old name counts only if the configuration says nothing.
    fn extra(
        &self,
        class: TokenizerClass,
        named: &mut Vec<(String, AddedToken)>,
    ) -> Result<Vec<AddedToken>, CheckpointError> {
        const NEW: &str = "extra_special_tokens";
        const OLD: &str = "additional_special_tokens";
        let is_empty = |value: &&Value| match value {
            Value::Null => true,
            Value::Array(tokens) => tokens.is_empty(),
            Value::Object(tokens) => tokens.is_empty(),
            _ => false,
        };
        let new = self.map.get(NEW);
        let of_config = match new.filter(|value| !is_empty(value)) {
            Some(value) => Some((NEW, value)),
            None => self.map.get(OLD).or(new).map(|value| (OLD, value)),
        };
        let of_map = self.replaced.get(NEW).map(|value| (NEW, value));
        let mut found: Vec<(&str, &Value)> = of_config.into_iter().chain(of_map).collect();
        if found.is_empty() {
            found.extend(self.replaced.get(OLD).map(|value| (OLD, value)));
        }
        let mut extra = Vec::new();
        if found.is_empty() && class == TokenizerClass::Camembert {
            extra.extend(CAMEMBERT_EXTRA.map(|content| AddedToken::from(content, true)));
        }
        for (key, value) in found {
            match value {
                Value::Null => {}
                Value::Array(tokens) => {
                    for token in tokens {
                        extra.push(self.added_token(key, token, Some(true))?);
                    }
                }
                Value::Object(tokens) => {
                    for (role, token) in tokens {
                        named.push((role.clone(), self.added_token(key, token, Some(true))?));
                    }
                }
                other => return Err(self.invalid(key, "a list or an object", kind(other))),
            }
        }
        Ok(extra)
    }

    /// A token: a string, or an object that describes it. `special` where the object does not say.
    fn added_token(
        &self,
        key: &str,
        value: &Value,
        special: Option<bool>,
    ) -> Result<AddedToken, CheckpointError> {
        let object = match value {
            Value::String(content) => {
                return Ok(AddedToken::from(content, special.unwrap_or(false)));
            }
            Value::Object(object) => object,
            other => return Err(self.invalid(key, "a token: a string or an object", kind(other))),
        };
        let flag = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                Err(self.invalid(&format!("{key}.{name}"), "true or false", kind(other)))
            }
        };
        let Some(content) = object.get("content").and_then(Value::as_str) else {
            return Err(self.invalid(&format!("{key}.content"), "a string", "none"));
        };
        let special = flag("special")?.or(special).unwrap_or(false);
        Ok(AddedToken::from(content, special)
            .single_word(flag("single_word")?.unwrap_or(false))
            .lstrip(flag("lstrip")?.unwrap_or(false))
            .rstrip(flag("rstrip")?.unwrap_or(false))
            .normalized(flag("normalized")?.unwrap_or(!special)))
    }

    fn invalid(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> CheckpointError {
        let file = self.file_of(key.split('.').next().unwrap_or(key));
        CheckpointError::invalid(self.files.path(file), key, expected, found)
    }
}
