//! The tokenizer classes of transformers: which one a folder gets, and what each assumes where the folder says nothing.
//!
//! Names and defaults are those of transformers 5.23. A class with a constructor of its own takes only the vocabulary from
//! `tokenizer.json`; how it normalizes and splits follows from `tokenizer_config.json` and these defaults.

use super::architecture::Family;
use super::error::CheckpointError;
use super::files::Files;

/// A tokenizer class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenizerClass {
    /// `BertTokenizer`: WordPiece.
    Bert,
    /// `DistilBertTokenizer`: as `BertTokenizer`, without token types.
    DistilBert,
    /// `RobertaTokenizer`: BPE of bytes.
    Roberta,
    /// `XLMRobertaTokenizer`: Unigram.
    XlmRoberta,
    /// `CamembertTokenizer`: Unigram.
    Camembert,
    /// `AlbertTokenizer`: Unigram.
    Albert,
    /// `TokenizersBackend`, which was `PreTrainedTokenizerFast`: whatever `tokenizer.json` says.
    Backend,
}

/// Names of classes, without `Fast` at the end. The first of a class is its own.
const NAMES: [(&str, TokenizerClass); 13] = [
    ("BertTokenizer", TokenizerClass::Bert),
    ("DistilBertTokenizer", TokenizerClass::DistilBert),
    ("RobertaTokenizer", TokenizerClass::Roberta),
    ("XLMRobertaTokenizer", TokenizerClass::XlmRoberta),
    ("CamembertTokenizer", TokenizerClass::Camembert),
    ("AlbertTokenizer", TokenizerClass::Albert),
    ("TokenizersBackend", TokenizerClass::Backend),
    ("PreTrainedTokenizer", TokenizerClass::Backend),
    // transformers knows these as other names of `BertTokenizer`.
    ("ElectraTokenizer", TokenizerClass::Bert),
    ("MobileBertTokenizer", TokenizerClass::Bert),
    ("SqueezeBertTokenizer", TokenizerClass::Bert),
    ("LayoutLMTokenizer", TokenizerClass::Bert),
    ("PreTrainedTokenizerFast", TokenizerClass::Backend),
];

/// The special tokens that every class may have, in transformers' order.
pub(super) const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Tokens that `CamembertTokenizer` adds if no others are named.
pub(super) const CAMEMBERT_EXTRA: [&str; 3] = ["<s>NOTUSED", "</s>NOTUSED", "<unk>NOTUSED"];

impl TokenizerClass {
    /// The class of a folder: by `tokenizer_class` in `tokenizer_config.json`, else in `config.json`, else by the family.
    ///
    /// # Errors
    /// When a file names a class that is not known here.
    pub(super) fn of(
        files: &Files,
        family: &Family,
        named: Option<(&str, &str)>,
    ) -> Result<Self, CheckpointError> {
        let Some((file, name)) = named else {
            return Ok(Self::of_family(family));
        };
        let plain = name.strip_suffix("Fast").unwrap_or(name);
        let found = NAMES.iter().find(|(known, _)| *known == plain);
        found.map(|(_, class)| *class).ok_or_else(|| {
            let known: Vec<&str> = NAMES[..7].iter().map(|(name, _)| *name).collect();
            CheckpointError::invalid(
                files.path(file),
                "tokenizer_class",
                format!("a tokenizer that is known here: {}", known.join(", ")),
                format!("{name:?}"),
            )
        })
    }

    fn of_family(family: &Family) -> Self {
        match family.model_type {
            "roberta" => Self::Roberta,
            "xlm-roberta" => Self::XlmRoberta,
            "camembert" => Self::Camembert,
            "albert" => Self::Albert,
            _ => Self::Bert,
        }
    }

    /// The name in transformers.
    pub(super) fn name(self) -> &'static str {
        let own = NAMES.iter().find(|(_, class)| *class == self);
        own.map_or("TokenizersBackend", |(name, _)| name)
    }

    /// Whether the vocabulary is of pieces with scores.
    pub(super) fn is_unigram(self) -> bool {
        matches!(self, Self::XlmRoberta | Self::Camembert | Self::Albert)
    }

    /// Whether a model gets token types.
    pub(super) fn has_token_types(self) -> bool {
        self == Self::Bert
    }

    /// The files, beside `tokenizer.json`, from which it can be built here.
    pub(super) fn vocabulary_files(self) -> &'static str {
        match self {
            Self::Bert | Self::DistilBert => "tokenizer.json or vocab.txt",
            Self::Roberta => "tokenizer.json, or vocab.json and merges.txt",
            Self::XlmRoberta | Self::Camembert | Self::Albert | Self::Backend => {
                "tokenizer.json (`AutoTokenizer.from_pretrained(…).save_pretrained(…)` of transformers writes it)"
            }
        }
    }

    /// The token that a class takes for `key` if the folder names none.
    pub(super) fn default_token(self, key: &str) -> Option<&'static str> {
        Some(match (self, key) {
            (Self::Backend, _) | (Self::Bert | Self::DistilBert, "bos_token" | "eos_token") => {
                return None;
            }
            (Self::Bert | Self::DistilBert, "unk_token") => "[UNK]",
            (Self::Bert | Self::DistilBert, "pad_token") => "[PAD]",
            (Self::Bert | Self::DistilBert | Self::Albert, "sep_token") => "[SEP]",
            (Self::Bert | Self::DistilBert | Self::Albert, "cls_token") => "[CLS]",
            (Self::Bert | Self::DistilBert | Self::Albert, "mask_token") => "[MASK]",
            (Self::Albert, "bos_token") => "[CLS]",
            (Self::Albert, "eos_token") => "[SEP]",
            (_, "bos_token" | "cls_token") => "<s>",
            (_, "eos_token" | "sep_token") => "</s>",
            (_, "unk_token") => "<unk>",
            (_, "pad_token") => "<pad>",
            (_, "mask_token") => "<mask>",
            _ => return None,
        })
    }
}
