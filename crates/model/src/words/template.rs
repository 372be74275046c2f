//! The tokens around the ids of a text or a pair, such as `[CLS]` and `[SEP]`.

use std::ops::Range;

use tokenizers::{EncodeInput, Encoding, Tokenizer};

/// Texts of one word. Any vocabulary knows some of them.
const PROBES: [&str; 8] = ["a", "b", "the", "1", ".", "的", "и", "a b"];

/// A token that the template inserts.
#[derive(Debug, Clone, Copy)]
struct InsertedToken {
    id: u32,
    type_id: u32,
}

/// The tokens before, between and after the ids of texts, and the token type of each text.
#[derive(Debug)]
pub(super) struct Template {
    /// One more run than there are texts.
    inserted: Vec<Vec<InsertedToken>>,
    text_types: Vec<u32>,
}

/// Ids with their token types, of equal length.
#[derive(Debug)]
pub(super) struct TemplatedIds {
    pub(super) ids: Vec<u32>,
    pub(super) type_ids: Vec<u32>,
}

impl Template {
    /// The template of a single text. `None` if the post-processor does more than insert tokens.
    pub(super) fn single(tokenizer: &Tokenizer) -> Option<Self> {
        Self::of(tokenizer, PROBES[0].into(), &PROBES[..1])
    }

    /// The template of a pair. The probe needs two texts with different ids, since equal ids would not show their order.
    pub(super) fn pair(tokenizer: &Tokenizer) -> Option<Self> {
        let ids = |text: &str| Some(tokenizer.encode_fast(text, false).ok()?.get_ids().to_vec());
        let first = PROBES[0];
        let of_first = ids(first)?;
        let other = |text: &&&str| ids(text).is_some_and(|ids| ids != of_first);
        let second = *PROBES.iter().find(other)?;
        Self::of(tokenizer, (first, second).into(), &[first, second])
    }

    fn of(tokenizer: &Tokenizer, input: EncodeInput<'_>, texts: &[&str]) -> Option<Self> {
        let probe = tokenizer.encode_fast(input, true).ok()?;
        let (ids, special) = (probe.get_ids(), probe.get_special_tokens_mask());
        let (mut inserted, mut text_types) = (Vec::new(), Vec::new());
        let mut at = 0;
        for text in texts {
            let bare = tokenizer.encode_fast(*text, false).ok()?;
            let offset = special[at..].iter().position(|special| *special == 0)?;
            let (start, end) = (at + offset, at + offset + bare.len());
            // A template may change the text, or the order of the texts.
            if ids.get(start..end)? != bare.get_ids() || bare.is_empty() {
                return None;
            }
            inserted.push(run(&probe, at..start));
            text_types.push(probe.get_type_ids()[start]);
            at = end;
        }
        // Each text must occur once, and all other tokens must be special.
        if special[at..].contains(&0) {
            return None;
        }
        inserted.push(run(&probe, at..probe.len()));
        Some(Self {
            inserted,
            text_types,
        })
    }

    /// Number of inserted tokens.
    pub(super) fn len(&self) -> usize {
        self.inserted.iter().map(Vec::len).sum()
    }

    /// The ids of `texts` with the inserted tokens.
    pub(super) fn apply(&self, texts: &[&[u32]]) -> TemplatedIds {
        let len = self.len() + texts.iter().map(|text| text.len()).sum::<usize>();
        let (mut ids, mut type_ids) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for (index, run) in self.inserted.iter().enumerate() {
            for token in run {
                ids.push(token.id);
                type_ids.push(token.type_id);
            }
            if let (Some(text), Some(type_id)) = (texts.get(index), self.text_types.get(index)) {
                ids.extend_from_slice(text);
                type_ids.resize(ids.len(), *type_id);
            }
        }
        TemplatedIds { ids, type_ids }
    }
}

fn run(probe: &Encoding, range: Range<usize>) -> Vec<InsertedToken> {
    let token = |index: usize| InsertedToken {
        id: probe.get_ids()[index],
        type_id: probe.get_type_ids()[index],
    };
    range.map(token).collect()
}
