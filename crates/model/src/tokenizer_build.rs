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

use self::parts::{precompiled, template};
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

/// The roles that transformers adds before that of the padding token.
const BEFORE_PADDING: [&str; 4] = ["bos_token", "eos_token", "unk_token", "sep_token"];

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
    let (mut json, mut listed) = (None, BTreeMap::new());
    if let Some(content) = files.read(JSON)? {
        let path = files.path(JSON);
        json = Some(tokenizer_json::parse(&path, &content)?);
        listed = tokenizer_json::added_tokens(&path, &content)?;
    }
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
    let mut tokenizer = builder.bare()?;
    let added = builder.with_special(builder.added(listed), &tokenizer);
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
    /// The tokens that are added, by id: those that `added_tokens_decoder` lists, or else those of the other files, of
    /// which `tokenizer.json` has `listed`.
    fn added(&self, listed: BTreeMap<u64, AddedToken>) -> Vec<AddedToken> {
        match &self.config.decoder {
            Some(decoder) => decoder.values().cloned().collect(),
            None => {
                let mut added = self.config.added.clone();
                added.extend(listed);
                added.into_values().collect()
            }
        }
    }

    /// `added`, and the special tokens that are not among them.
    fn with_special(&self, mut added: Vec<AddedToken>, tokenizer: &Tokenizer) -> Vec<AddedToken> {
        let in_tokenizer = tokenizer.get_added_tokens_decoder();
        let mut known: HashSet<String> = in_tokenizer.into_values().map(|t| t.content).collect();
        known.extend(added.iter().map(|token| token.content.clone()));
        let named = self.named();
        let mut new = HashSet::new();
        for token in named.iter().chain(&self.config.extra) {
            if !known.contains(&token.content) && new.insert(token.clone()) {
                added.push(token.clone());
            }
        }
        let named: HashSet<&str> = named.iter().map(|token| &*token.content).collect();
        for token in &mut added {
            token.special |= named.contains(&*token.content);
        }
        added
    }

    /// Tokens with a role. If no file says what the padding token is, the generic class takes that of the padding in
    /// `tokenizer.json`.
    fn named(&self) -> Vec<AddedToken> {
        let padding = self.json.and_then(|json| json.get_padding());
        let padding = padding
            .filter(|_| self.config.class == TokenizerClass::Backend && !self.config.names_padding);
        let mut padding = padding.map(|padding| AddedToken::from(padding.pad_token.clone(), true));
        let mut named = Vec::new();
        for (key, token) in &self.config.named {
            if !BEFORE_PADDING.contains(&&**key) {
                named.extend(padding.take());
            }
            named.push(token.clone());
        }
        named.extend(padding);
        named
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
            Some(other) => return Err(self.wrong_model("WordPiece", other)),
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
            Some(other) => return Err(self.wrong_model("BPE", other)),
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
        let model = match json.get_model() {
            ModelWrapper::Unigram(model) => model,
            other => return Err(self.wrong_model("Unigram", other)),
        };
        let vocab: Vec<(String, f64)> = model.iter().cloned().collect();
        let class = self.config.class;
        let unknown = match class {
            TokenizerClass::XlmRoberta => 3, // In the constructors.
            TokenizerClass::Albert => 1,
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
        let of_json = self.json.and_then(|json| json.get_post_processor());
        let value = match self.config.class {
            // Its constructor sets its own first.
            TokenizerClass::Albert if of_json.is_some() => return Ok(of_json.cloned()),
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

    fn wrong_model(&self, expected: &str, found: &ModelWrapper) -> CheckpointError {
        let found = match found {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
            ModelWrapper::Unigram(_) => "Unigram",
        };
        let class = self.config.class.name();
        let expected = format!("{expected:?}, as {class} needs it (tokenizer_class)");
        self.invalid("model.type", &expected, format!("{found:?}"))
    }

    fn missing(&self) -> CheckpointError {
        let path = self.files.path(JSON);
        CheckpointError::missing(path, self.config.class.vocabulary_files())
    }

    fn invalid(&self, key: &str, expected: &str, found: impl std::fmt::Display) -> CheckpointError {
        CheckpointError::invalid(&self.path, key, expected, found)
    }
}

mod parts;
#[cfg(test)]
mod tests;
