//! The tokenizer of a folder, as transformers 5.23 builds it.
//!
//! A class with a constructor of its own takes the vocabulary from `tokenizer.json` or from its vocabulary files, and makes
//! everything else anew from [`TokenizerConfig`]. The rest of `tokenizer.json` counts only for `TokenizersBackend`.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::{
    BertNormalizer, Lowercase, NFKD, Precompiled, Replace, Sequence as Normalizers, StripAccents,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::tokenizer::Model as _;
use tokenizers::utils::truncation::TruncationDirection;
use tokenizers::{AddedToken, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, Tokenizer};

use super::error::CheckpointError;
use super::files::Files;
use super::python_json;
use super::tokenizer_class::TokenizerClass;
use super::tokenizer_config::TokenizerConfig;
use super::tokenizer_json;
use super::tokenizer_report::TokenizerReport;

const JSON: &str = "tokenizer.json";
const VOCAB_TXT: &str = "vocab.txt";
const VOCAB_JSON: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// The id of the unknown token in the vocabularies of two classes.
const XLM_ROBERTA_UNKNOWN: usize = 3;
const ALBERT_UNKNOWN: usize = 1;

/// A tokenizer and what belongs to it.
#[derive(Debug)]
pub(super) struct BuiltTokenizer {
    pub(super) tokenizer: Tokenizer,
    /// The file with the vocabulary, as a user would name it.
    pub(super) path: String,
    /// The side from which texts that are too long lose tokens: what is kept is at the other.
    pub(super) direction: TruncationDirection,
    pub(super) report: TokenizerReport,
}

/// Builds the tokenizer of a folder.
///
/// # Errors
/// The file and the key that are missing or wrong.
pub(super) fn build(
    files: &Files,
    config: &TokenizerConfig,
) -> Result<BuiltTokenizer, CheckpointError> {
    let json = match files.read(JSON)? {
        Some(content) => Some(tokenizer_json::parse(&files.path(JSON), &content)?),
        None => None,
    };
    let truncation = json.as_ref().and_then(|json| json.get_truncation());
    let direction = config
        .direction
        .or(truncation.map(|truncation| truncation.direction))
        .unwrap_or(TruncationDirection::Right);
    let file = match (&json, config.class) {
        (Some(_), _) => JSON,
        (None, TokenizerClass::Roberta) => VOCAB_JSON,
        (None, _) => VOCAB_TXT,
    };
    let builder = Builder {
        files,
        config,
        path: files.path(file),
        json: json.as_ref(),
    };
    let added = builder.added();
    let mut tokenizer = builder.bare()?;
    let added = builder.with_special(added, &tokenizer);
    tokenizer
        .add_tokens(added)
        .map_err(|error| builder.invalid("added_tokens", "tokens that can be added", error))?;
    if let Some(processor) = builder.post_processor(&tokenizer)? {
        tokenizer.with_post_processor(Some(processor));
    }
    tokenizer.set_encode_special_tokens(config.split_special_tokens);
    let mut report = config.report.clone();
    report.files.insert(0, file.to_owned());
    report.compare(json.as_ref(), &tokenizer);
    Ok(BuiltTokenizer {
        path: builder.path.clone(),
        tokenizer,
        direction,
        report,
    })
}

struct Builder<'a> {
    files: &'a Files,
    config: &'a TokenizerConfig,
    /// The file with the vocabulary.
    path: String,
    json: Option<&'a Tokenizer>,
}

impl Builder<'_> {
    /// The tokens that are added, by id: those that `added_tokens_decoder` lists, or else those of the other files.
    fn added(&self) -> Vec<AddedToken> {
        if let Some(decoder) = &self.config.decoder {
            return decoder.values().cloned().collect();
        }
        let mut added: BTreeMap<u64, AddedToken> = self.config.added.clone();
        if let Some(json) = self.json {
            let of_json = json.get_added_tokens_decoder().into_iter();
            added.extend(of_json.map(|(id, token)| (u64::from(id), token)));
        }
        added.into_values().collect()
    }

    /// `added`, and the special tokens that are not among them.
    fn with_special(&self, mut added: Vec<AddedToken>, tokenizer: &Tokenizer) -> Vec<AddedToken> {
        let in_tokenizer = tokenizer.get_added_tokens_decoder();
        let mut known: HashSet<String> = in_tokenizer.into_values().map(|t| t.content).collect();
        known.extend(added.iter().map(|token| token.content.clone()));
        let TokenizerConfig { named, extra, .. } = self.config;
        let special = named.iter().map(|(_, token)| token).chain(extra);
        for token in special {
            if !known.contains(&token.content) && !added.contains(token) {
                added.push(token.clone());
            }
        }
        for token in &mut added {
            token.special |= named
                .iter()
                .any(|(_, named)| named.content == token.content);
        }
        added
    }

    /// The tokenizer before tokens are added, and without a post-processor of its own.
    fn bare(&self) -> Result<Tokenizer, CheckpointError> {
        let class = self.config.class;
        match class {
            TokenizerClass::Backend => self.json.cloned().ok_or_else(|| self.missing()),
            TokenizerClass::Bert | TokenizerClass::DistilBert => self.word_piece(),
            TokenizerClass::Roberta => self.byte_pairs(),
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert | TokenizerClass::Albert => {
                self.unigram()
            }
        }
    }

    fn word_piece(&self) -> Result<Tokenizer, CheckpointError> {
        let config = self.config;
        let unknown = self.special("unk_token")?.content.clone();
        let model = match self.json.map(|json| json.get_model()) {
            Some(ModelWrapper::WordPiece(model)) => {
                // The rest of the model is as in a new one.
                WordPiece::builder().vocab(model.get_vocab().into_iter().collect::<Vocab>())
            }
            Some(_) => return Err(self.invalid("model.type", "\"WordPiece\"", "another one")),
            None => WordPiece::builder().vocab(self.lines(VOCAB_TXT)?),
        };
        let model = model
            .unk_token(unknown)
            .build()
            .map_err(|error| self.invalid("(file)", "a WordPiece vocabulary", error))?;
        let normalizer = BertNormalizer::new(
            true,
            config.chinese_chars,
            config.strip_accents,
            config.lowercase,
        );
        let mut tokenizer = Tokenizer::new(model);
        self.normalize(&mut tokenizer, Some(normalizer.into()))?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        Ok(tokenizer)
    }

    fn byte_pairs(&self) -> Result<Tokenizer, CheckpointError> {
        let mut model = match self.json.map(|json| json.get_model()) {
            Some(ModelWrapper::BPE(model)) => model.clone(),
            Some(_) => return Err(self.invalid("model.type", "\"BPE\"", "another one")),
            None => self.bpe_files()?,
        };
        model.dropout = None;
        model.unk_token = None;
        model.continuing_subword_prefix = None;
        model.end_of_word_suffix = None;
        model.fuse_unk = false;
        model.byte_fallback = false;
        model.ignore_merges = false;
        let mut tokenizer = Tokenizer::new(model);
        let by_bytes = ByteLevel::new(self.config.add_prefix_space, true, true);
        tokenizer.with_pre_tokenizer(Some(by_bytes));
        Ok(tokenizer)
    }

    /// The model of `vocab.json` and `merges.txt`.
    fn bpe_files(&self) -> Result<BPE, CheckpointError> {
        let map = python_json::read(self.files, VOCAB_JSON)?.ok_or_else(|| self.missing())?;
        let id = |(token, id): (String, Value)| match id.as_u64().and_then(|id| id.try_into().ok())
        {
            Some(id) => Ok((token, id)),
            None => Err(self.invalid(&format!("{token:?}"), "an id", id)),
        };
        let vocab = map.into_iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let content = self.files.read(MERGES)?.ok_or_else(|| self.missing())?;
        let invalid = |expected: &str, found: String| {
            CheckpointError::invalid(self.files.path(MERGES), "(file)", expected, found)
        };
        let text =
            std::str::from_utf8(&content).map_err(|error| invalid("UTF-8", error.to_string()))?;
        let mut merges: Merges = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with("#version")) {
            match line.split(' ').collect::<Vec<_>>()[..] {
                [first, second] => merges.push((first.to_owned(), second.to_owned())),
                _ => return Err(invalid("two tokens a line", format!("{line:?}"))),
            }
        }
        let vocab: Vocab = vocab.into_iter().collect();
        BPE::builder()
            .vocab_and_merges(vocab, merges)
            .build()
            .map_err(|error| invalid("merges of the vocabulary", error.to_string()))
    }

    fn unigram(&self) -> Result<Tokenizer, CheckpointError> {
        let json = self.json.ok_or_else(|| self.missing())?;
        let ModelWrapper::Unigram(model) = json.get_model() else {
            return Err(self.invalid("model.type", "\"Unigram\"", "another one"));
        };
        let vocab: Vec<(String, f64)> = model.iter().cloned().collect();
        let class = self.config.class;
        let unknown = match class {
            TokenizerClass::XlmRoberta => XLM_ROBERTA_UNKNOWN,
            TokenizerClass::Albert => ALBERT_UNKNOWN,
            _ => {
                let unknown = &self.special("unk_token")?.content;
                let found = vocab.iter().position(|(token, _)| token == unknown);
                found.unwrap_or(0)
            }
        };
        let model = Unigram::from(vocab, Some(unknown), false)
            .map_err(|error| self.invalid("model.vocab", "a Unigram vocabulary", error))?;
        let mut tokenizer = Tokenizer::new(model);
        let precompiled = json.get_normalizer().and_then(precompiled);
        let normalizer = match class {
            TokenizerClass::Albert => Some(self.albert_normalizer(precompiled)?),
            _ => precompiled.map(NormalizerWrapper::from),
        };
        self.normalize(&mut tokenizer, normalizer)?;
        let scheme = match self.config.add_prefix_space {
            true => PrependScheme::Always,
            false => PrependScheme::Never,
        };
        let split = vec![
            WhitespaceSplit.into(),
            Metaspace::new('▁', scheme, true).into(),
        ];
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(split)));
        Ok(tokenizer)
    }

    fn albert_normalizer(
        &self,
        precompiled: Option<Precompiled>,
    ) -> Result<NormalizerWrapper, CheckpointError> {
        let mut all: Vec<NormalizerWrapper> = Vec::new();
        for quote in ["``", "''"] {
            let replace = Replace::new(quote, "\"")
                .map_err(|error| self.invalid("normalizer", "quotes", error))?;
            all.push(replace.into());
        }
        if !self.config.keep_accents {
            all.extend([NFKD.into(), StripAccents.into()]);
        }
        if self.config.lowercase {
            all.push(Lowercase.into());
        }
        all.extend(precompiled.map(NormalizerWrapper::from));
        Ok(Normalizers::new(all).into())
    }

    fn normalize(
        &self,
        tokenizer: &mut Tokenizer,
        normalizer: Option<NormalizerWrapper>,
    ) -> Result<(), CheckpointError> {
        let set = tokenizer.with_normalizer(normalizer);
        set.map(drop)
            .map_err(|error| self.invalid("normalizer", "a normalizer", error))
    }

    /// What is put around a text and a pair. `None` leaves that of `tokenizer.json`.
    fn post_processor(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<Option<PostProcessorWrapper>, CheckpointError> {
        let token = |key: &str| {
            let content = &self.special(key)?.content;
            match tokenizer.token_to_id(content) {
                Some(id) => Ok((content.as_str(), id)),
                None => Err(self.invalid(key, "a token of the vocabulary", format!("{content:?}"))),
            }
        };
        let value = match self.config.class {
            TokenizerClass::Backend if tokenizer.get_post_processor().is_some() => return Ok(None),
            TokenizerClass::Backend => template(&[], &["A"], &[("B", 1)]),
            TokenizerClass::Bert | TokenizerClass::DistilBert | TokenizerClass::Albert => {
                let (first, last) = (token("cls_token")?, token("sep_token")?);
                template(&[first, last], &["0", "A", "1"], &[("B", 1), ("1", 1)])
            }
            TokenizerClass::Roberta => json!({
                "type": "RobertaProcessing",
                "sep": token("sep_token")?,
                "cls": token("cls_token")?,
                "trim_offsets": self.config.trim_offsets,
                "add_prefix_space": self.config.add_prefix_space,
            }),
            TokenizerClass::XlmRoberta | TokenizerClass::Camembert => {
                let (first, last) = (token("bos_token")?, token("eos_token")?);
                let second = [("1", 0), ("B", 0), ("1", 0)];
                template(&[first, last], &["0", "A", "1"], &second)
            }
        };
        serde_json::from_value(value)
            .map(Some)
            .map_err(|error| self.invalid("post_processor", "a template", error))
    }

    fn special(&self, key: &str) -> Result<&AddedToken, CheckpointError> {
        self.config.token(key).ok_or_else(|| {
            let path = self.files.path("tokenizer_config.json");
            CheckpointError::invalid(path, key, "a token", "none")
        })
    }

    /// Tokens by line. Blanks at the end of a line do not count, as in the library.
    fn lines(&self, name: &str) -> Result<Vocab, CheckpointError> {
        let content = self.files.read(name)?.ok_or_else(|| self.missing())?;
        let text = std::str::from_utf8(&content)
            .map_err(|error| self.invalid("(file)", "UTF-8", error))?;
        let line = |(line, id): (&str, u32)| (line.trim_end().to_owned(), id);
        Ok(text.lines().zip(0..).map(line).collect())
    }

    fn missing(&self) -> CheckpointError {
        let path = self.files.path(JSON);
        CheckpointError::missing(path, self.config.class.vocabulary_files())
    }

    fn invalid(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> CheckpointError {
        CheckpointError::invalid(&self.path, key, expected, found)
    }
}

/// The map of characters that SentencePiece made, if a normalizer has one.
fn precompiled(normalizer: &NormalizerWrapper) -> Option<Precompiled> {
    let all = match normalizer {
        NormalizerWrapper::Sequence(all) => all.as_ref(),
        one => std::slice::from_ref(one),
    };
    all.iter().find_map(|normalizer| match normalizer {
        NormalizerWrapper::Precompiled(map) => Some(map.clone()),
        _ => None,
    })
}

/// A template as the library reads it. `single` has names of texts, and indices of `special`; `second` is what a pair has
/// beyond it, with token types.
fn template(special: &[(&str, u32)], single: &[&str], second: &[(&str, u32)]) -> Value {
    let piece = |(name, token_type): (&str, u32)| match name.parse::<usize>() {
        Ok(index) => json!({"SpecialToken": {"id": special[index].0, "type_id": token_type}}),
        Err(_) => json!({"Sequence": {"id": name, "type_id": token_type}}),
    };
    let single: Vec<Value> = single.iter().map(|name| piece((name, 0))).collect();
    let second = second.iter().copied().map(piece);
    let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
    let special: serde_json::Map<String, Value> = special
        .iter()
        .map(|(token, id)| {
            let described = json!({"id": token, "ids": [id], "tokens": [token]});
            ((*token).to_owned(), described)
        })
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}

#[cfg(test)]
mod tests;
