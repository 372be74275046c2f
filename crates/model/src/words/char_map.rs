//! How the library normalizes and splits each character, learned from the library one character at a time.
//!
//! BERT's normalizer and pre-tokenizer process one character at a time, with one exception: if accents are stripped,
//! successive marks are first put into canonical order (UAX #15, "Canonical Ordering Algorithm"). So the result for a
//! text of any length follows from the results for its characters. Each character is looked up in the library once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use tokenizers::normalizers::BertNormalizer;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};
use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

/// A character of the normalized text, as the pre-tokenizer splits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputChar {
    /// It belongs to a word.
    InWord(char),
    /// It is a word of its own, such as punctuation.
    Isolated(char),
    /// It ends a word and belongs to none, such as white space.
    Separator,
}

/// The normalized form of a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CharMapping {
    /// One character.
    One(OutputChar),
    /// Several characters, listed by [`CharMap::expand`].
    Many {
        expansion: Expansion,
        /// Whether all of them belong to a word.
        in_word: bool,
    },
    /// No character. If it blocks reordering, marks before it stay before marks after it.
    Removed { blocks_reordering: bool },
    /// A mark that is kept and may be reordered, or a character with such a mark: see
    /// [`CharMap::marks`].
    Reordered,
    /// None of these forms. Only the library can process the text.
    Unsupported,
}

/// A range of [`CharMap::expansions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expansion {
    start: usize,
    len: usize,
}

/// Characters in a block. A block is allocated when one of its characters occurs.
const BLOCK: usize = 256;

const BLOCKS: usize = (char::MAX as usize + 1) / BLOCK;

/// Most characters in an expansion. NFD gives up to four, and lower-casing may add more.
const EXPANSION_MAX: usize = 31;

type Block = Box<[AtomicU32; BLOCK]>;

/// The normalized form of each character that has occurred.
#[derive(Debug)]
pub(super) struct CharMap {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    /// Whether marks are put into canonical order.
    reorders: bool,
    /// The normalizer's cleaning step alone.
    cleaning: BertNormalizer,
    blocks: Vec<OnceLock<Block>>,
    expansions: RwLock<Vec<u32>>,
}

impl CharMap {
    /// The map of a tokenizer with BERT's normalizer and pre-tokenizer. `None` for any other.
    pub(super) fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let (Some(normalizer), Some(pre_tokenizer)) =
            (tokenizer.get_normalizer(), tokenizer.get_pre_tokenizer())
        else {
            return None;
        };
        let NormalizerWrapper::BertNormalizer(bert) = normalizer else {
            return None;
        };
        let PreTokenizerWrapper::BertPreTokenizer(_) = pre_tokenizer else {
            return None;
        };
        Some(Self {
            reorders: bert.strip_accents.unwrap_or(bert.lowercase),
            cleaning: BertNormalizer::new(bert.clean_text, false, Some(false), false),
            normalizer: normalizer.clone(),
            pre_tokenizer: pre_tokenizer.clone(),
            blocks: (0..BLOCKS).map(|_| OnceLock::new()).collect(),
            expansions: RwLock::default(),
        })
    }

    /// The normalized form of a character.
    pub(super) fn mapping(&self, char: char) -> CharMapping {
        let code = char as usize;
        let block = self.blocks[code / BLOCK]
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(UNSEEN))));
        let entry = &block[code % BLOCK];
        let packed = match entry.load(Ordering::Relaxed) {
            UNSEEN => {
                // Concurrent threads learn the same value.
                let packed = self.learn(char);
                entry.store(packed, Ordering::Relaxed);
                packed
            }
            packed => packed,
        };
        unpack(packed)
    }

    /// For a known character that is removed: whether it blocks reordering.
    pub(super) fn removed(&self, char: char) -> Option<bool> {
        let code = char as usize;
        let block = self.blocks[code / BLOCK].get()?;
        let packed = block[code % BLOCK].load(Ordering::Relaxed);
        (packed & KIND == REMOVED).then_some(packed & 1 == 1)
    }

    /// Whether a known character continues a word without ending it.
    pub(super) fn continues_word(&self, char: char) -> bool {
        let code = char as usize;
        let block = self.blocks[code / BLOCK].get();
        block.is_some_and(|block| {
            let packed = block[code % BLOCK].load(Ordering::Relaxed);
            match packed & KIND {
                IN_WORD | REMOVED => true,
                MANY => packed >> LEN_BITS & 1 == 1,
                _ => false,
            }
        })
    }

    /// Appends the characters of an expansion.
    pub(super) fn expand(&self, Expansion { start, len }: Expansion, into: &mut Vec<OutputChar>) {
        let expansions = self
            .expansions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        into.extend(expansions[start..start + len].iter().filter_map(|packed| {
            match unpack(*packed) {
                CharMapping::One(char) => Some(char),
                // Expansions hold nothing else.
                _ => None,
            }
        }));
    }

    /// Decomposes a [`CharMapping::Reordered`] character and calls `part` for each element, in order.
    ///
    /// `part` gets the combining class and the normalized character, if any. An element of class 0 keeps its place and
    /// separates the marks before it from those after it.
    pub(super) fn marks(&self, char: char, mut part: impl FnMut(u8, Option<char>)) {
        decompose_canonical(char, |char| {
            let class = canonical_combining_class(char);
            part(class, self.normalized(char).chars().next());
        });
    }

    /// The normalizer's output for a single character.
    fn normalized(&self, char: char) -> String {
        let mut text = NormalizedString::from(char.to_string());
        // The normalizer never fails on a single character.
        let _ = self.normalizer.normalize(&mut text);
        text.get().to_owned()
    }

    /// The pre-tokenizer's split of a normalized character.
    fn output_char(&self, char: char) -> OutputChar {
        let mut text = PreTokenizedString::from(format!("a{char}a"));
        let _ = self.pre_tokenizer.pre_tokenize(&mut text);
        let parts = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        match parts.len() {
            1 => OutputChar::InWord(char),
            2 => OutputChar::Separator,
            _ => OutputChar::Isolated(char),
        }
    }

    fn learn(&self, char: char) -> u32 {
        let normalized = self.normalized(char);
        if self.reorders && !self.is_cleaned_away(char) {
            let mut parts = Vec::new();
            decompose_canonical(char, |part| {
                let class = canonical_combining_class(part);
                parts.push((class, self.normalized(part)));
            });
            if normalized.is_empty() {
                let blocks_reordering = parts.iter().any(|(class, _)| *class == 0);
                return pack(CharMapping::Removed { blocks_reordering });
            }
            let moves = |(class, left): &(u8, String)| *class != 0 && !left.is_empty();
            if parts.iter().any(moves) {
                return pack(self.reordered(&normalized, &parts));
            }
        } else if normalized.is_empty() {
            return pack(CharMapping::Removed {
                blocks_reordering: false,
            });
        }
        let chars: Vec<u32> = normalized
            .chars()
            .map(|char| pack(CharMapping::One(self.output_char(char))))
            .collect();
        match chars[..] {
            [single] => single,
            _ if chars.len() > EXPANSION_MAX => pack(CharMapping::Unsupported),
            _ => {
                let mut expansions = self
                    .expansions
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                let start = expansions.len();
                expansions.extend(&chars);
                let len = chars.len();
                let in_word = chars.iter().all(|char| char & KIND == IN_WORD);
                pack(CharMapping::Many {
                    expansion: Expansion { start, len },
                    in_word,
                })
            }
        }
    }

    fn is_cleaned_away(&self, char: char) -> bool {
        let mut text = NormalizedString::from(char.to_string());
        let _ = self.cleaning.normalize(&mut text);
        text.get().is_empty()
    }

    /// The mapping of a character with a mark that is kept: [`CharMapping::Reordered`] if the normalizer maps its
    /// elements one by one, each to at most one character of a word.
    fn reordered(&self, normalized: &str, parts: &[(u8, String)]) -> CharMapping {
        let joined: String = parts.iter().map(|(_, left)| left.as_str()).collect();
        let is_single = |(_, left): &(u8, String)| {
            let mut chars = left.chars();
            let (first, more) = (chars.next(), chars.next());
            let is_inner = |char| matches!(self.output_char(char), OutputChar::InWord(_));
            more.is_none() && first.is_none_or(is_inner)
        };
        if joined == normalized && parts.iter().all(is_single) {
            CharMapping::Reordered
        } else {
            CharMapping::Unsupported
        }
    }
}

// A mapping in 32 bits: its kind in the upper three, a character or an expansion in the rest.
const UNSEEN: u32 = 0;
const IN_WORD: u32 = 1 << 29;
const ISOLATED: u32 = 2 << 29;
const SEPARATOR: u32 = 3 << 29;
const MANY: u32 = 4 << 29;
const REMOVED: u32 = 5 << 29;
const REORDERED: u32 = 6 << 29;
const UNSUPPORTED: u32 = 7 << 29;
const KIND: u32 = 7 << 29;
const LEN_BITS: u32 = 5;
const START: u32 = LEN_BITS + 1;

fn pack(mapping: CharMapping) -> u32 {
    match mapping {
        CharMapping::One(OutputChar::InWord(char)) => IN_WORD | char as u32,
        CharMapping::One(OutputChar::Isolated(char)) => ISOLATED | char as u32,
        CharMapping::One(OutputChar::Separator) => SEPARATOR,
        // 23 bits of start are enough: a hundred thousand characters expand, most of them to three.
        CharMapping::Many {
            expansion: Expansion { start, len },
            in_word,
        } => MANY | (start as u32) << START | u32::from(in_word) << LEN_BITS | len as u32,
        CharMapping::Removed { blocks_reordering } => REMOVED | u32::from(blocks_reordering),
        CharMapping::Reordered => REORDERED,
        CharMapping::Unsupported => UNSUPPORTED,
    }
}

fn unpack(packed: u32) -> CharMapping {
    let value = packed & !KIND;
    // Packed values are valid characters. An invalid one would be left to the library.
    let char = char::from_u32(value);
    match packed & KIND {
        IN_WORD => char.map_or(CharMapping::Unsupported, |char| {
            CharMapping::One(OutputChar::InWord(char))
        }),
        ISOLATED => char.map_or(CharMapping::Unsupported, |char| {
            CharMapping::One(OutputChar::Isolated(char))
        }),
        SEPARATOR => CharMapping::One(OutputChar::Separator),
        MANY => {
            let expansion = Expansion {
                start: (value >> START) as usize,
                len: (value & ((1 << LEN_BITS) - 1)) as usize,
            };
            CharMapping::Many {
                expansion,
                in_word: value >> LEN_BITS & 1 == 1,
            }
        }
        REMOVED => CharMapping::Removed {
            blocks_reordering: value == 1,
        },
        REORDERED => CharMapping::Reordered,
        _ => CharMapping::Unsupported,
    }
}
