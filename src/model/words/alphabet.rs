//! What the library makes of each character, learnt from it one character at a time.
//!
//! BERT's normalizer and pre-tokenizer look at one character after the other, with one exception:
//! where accents are stripped, marks that follow each other are put into canonical order first
//! (UAX #15, "Canonical Ordering Algorithm"). So what they make of a text of any length follows from
//! what they make of its characters, of which each is asked for once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};

use tokenizers::normalizers::BertNormalizer;
use tokenizers::tokenizer::{
    NormalizedString, Normalizer as _, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer as _,
};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};
use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

/// What a character of a normalized text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letter {
    /// It belongs to a word.
    Inner(char),
    /// It is a word by itself.
    Alone(char),
    /// It ends a word and belongs to none.
    Blank,
}

/// What becomes of a character of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// One character.
    One(Letter),
    /// Several, which [`Alphabet::several`] has; whether all of them belong to a word.
    Several(Several, bool),
    /// Nothing. Whether marks before it keep their place before those behind it.
    Nothing { is_wall: bool },
    /// A mark that stays and may change its place, or a character with such a mark: see
    /// [`Alphabet::marks`].
    Moving,
    /// Something else than what is described here: only the library knows.
    Unknown,
}

/// A place in the list of what characters become that become several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Several {
    start: usize,
    len: usize,
}

/// Characters of a block, which is learnt of when one of it is met.
const BLOCK: usize = 256;

const BLOCKS: usize = (char::MAX as usize + 1) / BLOCK;

/// Most that a character becomes: NFD gives four, to which lower case may add.
const SEVERAL_MAX: usize = 31;

type Block = Box<[AtomicU32; BLOCK]>;

/// What is known of each character.
#[derive(Debug)]
pub(super) struct Alphabet {
    normalizer: NormalizerWrapper,
    pre_tokenizer: PreTokenizerWrapper,
    /// Whether marks are put into order.
    reorders: bool,
    /// What cleaning alone does.
    cleaning: BertNormalizer,
    blocks: Vec<OnceLock<Block>>,
    several: RwLock<Vec<u32>>,
}

impl Alphabet {
    /// Of a tokenizer that cuts texts as BERT does; none of any other.
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
            several: RwLock::default(),
        })
    }

    /// What becomes of a character.
    pub(super) fn made(&self, char: char) -> Made {
        let code = char as usize;
        let block = self.blocks[code / BLOCK]
            .get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU32::new(UNSEEN))));
        let place = &block[code % BLOCK];
        let packed = match place.load(Ordering::Relaxed) {
            UNSEEN => {
                // Two that learn it at once learn the same.
                let packed = self.learn(char);
                place.store(packed, Ordering::Relaxed);
                packed
            }
            packed => packed,
        };
        unpack(packed)
    }

    /// Whether a character that has been met before becomes nothing, and if so, whether it is a wall.
    pub(super) fn nothing(&self, char: char) -> Option<bool> {
        let code = char as usize;
        let block = self.blocks[code / BLOCK].get()?;
        let packed = block[code % BLOCK].load(Ordering::Relaxed);
        (packed & KIND == NOTHING).then_some(packed & 1 == 1)
    }

    /// Whether a character that has been met before changes nothing where a word goes on.
    pub(super) fn is_inner(&self, char: char) -> bool {
        let code = char as usize;
        let block = self.blocks[code / BLOCK].get();
        block.is_some_and(|block| {
            let packed = block[code % BLOCK].load(Ordering::Relaxed);
            match packed & KIND {
                INNER | NOTHING => true,
                SEVERAL => packed >> LEN_BITS & 1 == 1,
                _ => false,
            }
        })
    }

    /// Appends what a character becomes that becomes several.
    pub(super) fn several(&self, Several { start, len }: Several, into: &mut Vec<Letter>) {
        let several = self.several.read().unwrap_or_else(PoisonError::into_inner);
        into.extend(several[start..start + len].iter().filter_map(|packed| {
            match unpack(*packed) {
                Made::One(letter) => Some(letter),
                // Nothing else is put there.
                _ => None,
            }
        }));
    }

    /// The parts of a character that is [`Made::Moving`] in their order: the combining class of each, where
    /// 0 keeps its place and parts those before from those behind it, and what is left of it in the word.
    pub(super) fn marks(&self, char: char, mut part: impl FnMut(u8, Option<char>)) {
        decompose_canonical(char, |char| {
            let class = canonical_combining_class(char);
            part(class, self.normalized(char).chars().next());
        });
    }

    /// What the normalizer makes of a character that stands alone.
    fn normalized(&self, char: char) -> String {
        let mut text = NormalizedString::from(char.to_string());
        // An error is what the library would end with, and it has none for this.
        let _ = self.normalizer.normalize(&mut text);
        text.get().to_owned()
    }

    /// What the pre-tokenizer does with a character of a normalized text.
    fn letter(&self, char: char) -> Letter {
        let mut text = PreTokenizedString::from(format!("a{char}a"));
        let _ = self.pre_tokenizer.pre_tokenize(&mut text);
        let parts = text.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        match parts.len() {
            1 => Letter::Inner(char),
            2 => Letter::Blank,
            _ => Letter::Alone(char),
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
                let is_wall = parts.iter().any(|(class, _)| *class == 0);
                return pack(Made::Nothing { is_wall });
            }
            let moves = |(class, left): &(u8, String)| *class != 0 && !left.is_empty();
            if parts.iter().any(moves) {
                return pack(self.moving(&normalized, &parts));
            }
        } else if normalized.is_empty() {
            return pack(Made::Nothing { is_wall: false });
        }
        let letters: Vec<u32> = normalized
            .chars()
            .map(|char| pack(Made::One(self.letter(char))))
            .collect();
        match letters[..] {
            [letter] => letter,
            _ if letters.len() > SEVERAL_MAX => pack(Made::Unknown),
            _ => {
                let mut several = self.several.write().unwrap_or_else(PoisonError::into_inner);
                let start = several.len();
                several.extend(&letters);
                let len = letters.len();
                let is_inner = letters.iter().all(|letter| letter & KIND == INNER);
                pack(Made::Several(Several { start, len }, is_inner))
            }
        }
    }

    fn is_cleaned_away(&self, char: char) -> bool {
        let mut text = NormalizedString::from(char.to_string());
        let _ = self.cleaning.normalize(&mut text);
        text.get().is_empty()
    }

    /// Whether a character with a mark that stays is what it is taken for: its parts one by one, each at
    /// most one letter of a word.
    fn moving(&self, normalized: &str, parts: &[(u8, String)]) -> Made {
        let joined: String = parts.iter().map(|(_, left)| left.as_str()).collect();
        let is_letter = |(_, left): &(u8, String)| {
            let mut chars = left.chars();
            let (first, more) = (chars.next(), chars.next());
            let is_inner = |char| matches!(self.letter(char), Letter::Inner(_));
            more.is_none() && first.is_none_or(is_inner)
        };
        if joined == normalized && parts.iter().all(is_letter) {
            Made::Moving
        } else {
            Made::Unknown
        }
    }
}

// What becomes of a character in 32 bits: what it is in the upper three, and a character or a place.
const UNSEEN: u32 = 0;
const INNER: u32 = 1 << 29;
const ALONE: u32 = 2 << 29;
const BLANK: u32 = 3 << 29;
const SEVERAL: u32 = 4 << 29;
const NOTHING: u32 = 5 << 29;
const MOVING: u32 = 6 << 29;
const UNKNOWN: u32 = 7 << 29;
const KIND: u32 = 7 << 29;
const LEN_BITS: u32 = 5;
const START: u32 = LEN_BITS + 1;

fn pack(made: Made) -> u32 {
    match made {
        Made::One(Letter::Inner(char)) => INNER | char as u32,
        Made::One(Letter::Alone(char)) => ALONE | char as u32,
        Made::One(Letter::Blank) => BLANK,
        // 23 bits of start are enough: a hundred thousand characters become several, most of them three.
        Made::Several(Several { start, len }, is_inner) => {
            SEVERAL | (start as u32) << START | u32::from(is_inner) << LEN_BITS | len as u32
        }
        Made::Nothing { is_wall } => NOTHING | u32::from(is_wall),
        Made::Moving => MOVING,
        Made::Unknown => UNKNOWN,
    }
}

fn unpack(packed: u32) -> Made {
    let value = packed & !KIND;
    // What was packed is a character; were it none, the library would be asked.
    let char = char::from_u32(value);
    match packed & KIND {
        INNER => char.map_or(Made::Unknown, |char| Made::One(Letter::Inner(char))),
        ALONE => char.map_or(Made::Unknown, |char| Made::One(Letter::Alone(char))),
        BLANK => Made::One(Letter::Blank),
        SEVERAL => {
            let several = Several {
                start: (value >> START) as usize,
                len: (value & ((1 << LEN_BITS) - 1)) as usize,
            };
            Made::Several(several, value >> LEN_BITS & 1 == 1)
        }
        NOTHING => Made::Nothing {
            is_wall: value == 1,
        },
        MOVING => Made::Moving,
        _ => Made::Unknown,
    }
}
