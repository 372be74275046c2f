//! `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`: what they say about the tokenizer.
//!
//! The rules are those of transformers 5.23. A key that could change ids is understood or refused; keys that cannot are
//! listed in [`harmless`].

mod harmless;
mod kwargs;

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::utils::truncation::TruncationDirection;

use self::kwargs::{CONFIG, Kwargs, SPECIAL_TOKENS_MAP, is_described};
use super::config::ModelConfig;
use super::error::CheckpointError;
use super::files::Files;
use super::python_json::{self, kind};
use super::tokenizer_class::{CAMEMBERT_EXTRA, NAMED_TOKENS, TokenizerClass};
use super::tokenizer_report::{self, TokenizerReport};

const ADDED_TOKENS: &str = "added_tokens.json";

/// The key that lists added tokens by id.
const DECODER: &str = "added_tokens_decoder";

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
    /// Whether a file says what the padding token is, be it none.
    pub(super) names_padding: bool,
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
        let mut kwargs = Kwargs::read(files)?;
        let (class, from) = class(files, config, &kwargs)?;
        let has_decoder = kwargs.contains(DECODER);
        if !has_decoder {
            kwargs.apply_map()?;
        }
        let reader = Reader {
            kwargs: &kwargs,
            class,
        };
        reader.check_known()?;
        let named = reader.named()?;
        let decoder = reader.decoder(&named)?;
        let added = match has_decoder {
            true => BTreeMap::new(),
            false => reader.added_tokens(files)?,
        };
        let mut report = TokenizerReport::new(class, from, kwargs.entries());
        for name in [CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS] {
            let is_read = name == CONFIG || !has_decoder;
            if files.contains(name) {
                let read = if is_read {
                    &mut report.files
                } else {
                    &mut report.ignored
                };
                read.push(name.to_owned());
            }
        }
        Ok(Self {
            class,
            lowercase: reader.flag("do_lower_case", true)?,
            strip_accents: reader.strip_accents()?,
            chinese_chars: reader.flag("tokenize_chinese_chars", true)?,
            keep_accents: reader.flag("keep_accents", false)?,
            add_prefix_space: reader.flag("add_prefix_space", class != TokenizerClass::Roberta)?,
            trim_offsets: reader.flag("trim_offsets", true)?,
            max_tokens: reader.max_tokens()?,
            direction: reader.direction()?,
            token_types: reader.token_types()?,
            split_special_tokens: reader.flag("split_special_tokens", false)?,
            named,
            names_padding: kwargs.contains("pad_token"),
            extra: reader.extra()?,
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

/// The class, and what names it.
fn class(
    files: &Files,
    config: &ModelConfig,
    kwargs: &Kwargs<'_>,
) -> Result<(TokenizerClass, String), CheckpointError> {
    let of_model = config
        .tokenizer_class
        .as_deref()
        .filter(|name| !name.is_empty());
    let of_model = of_model.map(|name| ("config.json", name));
    let named = match kwargs.get("tokenizer_class") {
        None | Some(Value::Null) => of_model,
        Some(Value::String(name)) if !name.is_empty() => Some((CONFIG, name.as_str())),
        Some(other) => return Err(kwargs.invalid("tokenizer_class", "a string", other)),
    };
    let class = TokenizerClass::of(files, config.family, named)?;
    let from = match named {
        Some((file, _)) => file.to_owned(),
        None => format!("model_type {}", config.family.model_type),
    };
    Ok((class, from))
}

/// Reads arguments for a class.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    kwargs: &'a Kwargs<'a>,
    class: TokenizerClass,
}

impl<'a> Reader<'a> {
    /// Refuses keys that might change ids in a way that is not known here.
    fn check_known(self) -> Result<(), CheckpointError> {
        for (key, value) in self.kwargs.entries() {
            let is_known = harmless::UNDERSTOOD.contains(&&**key) || key.ends_with("_token");
            if !is_known && !harmless::is_harmless(key, value) {
                let expected = "only keys that are known here, since others might change the tokens; remove the \
                    key if it does not change them";
                return Err(self.kwargs.invalid(key, expected, kind(value)));
            }
        }
        Ok(())
    }

    /// The value of an argument that is not null.
    fn get(self, key: &str) -> Option<&'a Value> {
        self.kwargs.get(key).filter(|value| !value.is_null())
    }

    /// A flag of the class; the default for other classes.
    fn flag(self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        let settings = tokenizer_report::settings(self.class).iter();
        let mut settings = settings.chain(&tokenizer_report::COMMON);
        if !settings.any(|(name, _)| *name == key) {
            return Ok(default);
        }
        match self.kwargs.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            // Python takes null for false where no library checks the type.
            Some(Value::Null) if self.class.is_unigram() && key != "split_special_tokens" => {
                Ok(false)
            }
            Some(other) => Err(self.kwargs.invalid(key, "true or false", other)),
        }
    }

    fn strip_accents(self) -> Result<Option<bool>, CheckpointError> {
        match self.get("strip_accents") {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self
                .kwargs
                .invalid("strip_accents", "true, false or null", other)),
        }
    }

    fn max_tokens(self) -> Result<Option<usize>, CheckpointError> {
        let key = match self.kwargs.contains("model_max_length") {
            true => "model_max_length",
            false => "max_len",
        };
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(max) if max >= UNLIMITED => Ok(None),
            Some(max) if max >= 1.0 => Ok(Some(max as usize)),
            _ => Err(self.kwargs.invalid(key, "a number of tokens", value)),
        }
    }

    fn direction(self) -> Result<Option<TruncationDirection>, CheckpointError> {
        let key = "truncation_side";
        match self.kwargs.get(key) {
            None => Ok(None),
            Some(Value::String(side)) if side == "right" => Ok(Some(TruncationDirection::Right)),
            Some(Value::String(side)) if side == "left" => Ok(Some(TruncationDirection::Left)),
            Some(other) => Err(self.kwargs.invalid(key, "\"left\" or \"right\"", other)),
        }
    }

    fn token_types(self) -> Result<bool, CheckpointError> {
        let key = "model_input_names";
        match self.kwargs.get(key) {
            None => Ok(self.class.has_token_types()),
            Some(Value::Array(names)) => Ok(names.iter().any(|name| name == "token_type_ids")),
            Some(other) => Err(self.kwargs.invalid(key, "a list", kind(other))),
        }
    }

    /// `added_tokens_decoder`: tokens by id.
    fn decoder(
        self,
        named: &[(String, AddedToken)],
    ) -> Result<Option<BTreeMap<u64, AddedToken>>, CheckpointError> {
        let tokens = match self.kwargs.get(DECODER) {
            None => return Ok(None),
            Some(Value::Object(tokens)) => tokens,
            Some(other) => return Err(self.kwargs.invalid(DECODER, "an object", kind(other))),
        };
        let token = |(id, value): (&String, &Value)| {
            let key = format!("{DECODER}[{id:?}]");
            let number = id
                .parse()
                .map_err(|_| self.kwargs.invalid(&key, "an id", id))?;
            match value {
                Value::Object(object) => {
                    let content = object.get("content").and_then(Value::as_str);
                    let is_it = |(_, token): &(_, AddedToken)| Some(&*token.content) == content;
                    let has_role = named.iter().any(is_it);
                    Ok((number, self.described(&key, value, has_role)?))
                }
                other => Err(self.kwargs.invalid(&key, "an object", kind(other))),
            }
        };
        tokens.iter().map(token).collect::<Result<_, _>>().map(Some)
    }

    /// `added_tokens.json`: ids by token.
    fn added_tokens(self, files: &Files) -> Result<BTreeMap<u64, AddedToken>, CheckpointError> {
        let tokens = python_json::read(files, ADDED_TOKENS)?.unwrap_or_default();
        let special = self.kwargs.written_as_special();
        let token = |(content, id): (String, Value)| match id.as_u64() {
            Some(id) => {
                let is_special = special.contains(&*content);
                Ok((id, AddedToken::from(content, is_special)))
            }
            None => {
                let key = format!("{content:?}");
                Err(CheckpointError::invalid(
                    files.path(ADDED_TOKENS),
                    key,
                    "an id",
                    id,
                ))
            }
        };
        tokens.into_iter().map(token).collect()
    }

    /// Tokens with a role: first those of every class, then the model's own, such as `image_token`.
    fn named(self) -> Result<Vec<(String, AddedToken)>, CheckpointError> {
        let mut named = Vec::new();
        for key in NAMED_TOKENS {
            let token = match self.kwargs.get(key) {
                Some(Value::Null) => None,
                Some(value) => Some(self.token(key, value, true)?),
                None => self
                    .class
                    .default_token(key)
                    .map(|content| AddedToken::from(content, true)),
            };
            let is_mask = self.class == TokenizerClass::Camembert && key == "mask_token";
            let is_text = !self.kwargs.get(key).is_some_and(Value::is_object);
            let token = token.map(|token| match is_mask && is_text {
                true => token.lstrip(true),
                false => token,
            });
            named.extend(token.map(|token| (key.to_owned(), token)));
        }
        for (key, value) in self.kwargs.own() {
            if NAMED_TOKENS.contains(&key) {
                let expected = "this role as a key of its own, not within an object";
                return Err(self.kwargs.invalid(key, expected, "an entry of an object"));
            }
            named.push((key.to_owned(), self.token(key, value, true)?));
        }
        Ok(named)
    }

    /// Further special tokens.
    fn extra(self) -> Result<Vec<AddedToken>, CheckpointError> {
        match self.kwargs.extra() {
            None if self.class == TokenizerClass::Camembert => Ok(CAMEMBERT_EXTRA
                .map(|content| AddedToken::from(content, true))
                .into()),
            None | Some((_, Value::Null)) => Ok(Vec::new()),
            Some((key, Value::Array(tokens))) => tokens
                .iter()
                .map(|token| self.token(key, token, false))
                .collect(),
            Some((key, other)) => Err(self.kwargs.invalid(key, "a list", kind(other))),
        }
    }

    /// A token: a string, which is special, or an object that describes it.
    fn token(
        self,
        key: &str,
        value: &Value,
        has_role: bool,
    ) -> Result<AddedToken, CheckpointError> {
        match value {
            Value::String(content) => Ok(AddedToken::from(content, true)),
            value if is_described(value) => self.described(key, value, has_role),
            other => {
                let expected = "a token: a string, or an object with \"__type\": \"AddedToken\"";
                Err(self.kwargs.invalid(key, expected, kind(other)))
            }
        }
    }

    /// The token that an object describes. One with a role will be special, whatever it says.
    fn described(
        self,
        key: &str,
        value: &Value,
        has_role: bool,
    ) -> Result<AddedToken, CheckpointError> {
        let flag = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => {
                let key = format!("{key}.{name}");
                Err(self.kwargs.invalid(&key, "true or false", kind(other)))
            }
        };
        let Some(content) = value.get("content").and_then(Value::as_str) else {
            return Err(self
                .kwargs
                .invalid(&format!("{key}.content"), "a string", "none"));
        };
        let special = flag("special")?.unwrap_or(false);
        Ok(AddedToken::from(content, special)
            .single_word(flag("single_word")?.unwrap_or(false))
            .lstrip(flag("lstrip")?.unwrap_or(false))
            .rstrip(flag("rstrip")?.unwrap_or(false))
            .normalized(flag("normalized")?.unwrap_or(!special && !has_role)))
    }
}
