//! What is put around the ids of a text or a pair, such as `[CLS]` and `[SEP]`.

use tokenizers::{EncodeInput, Encoding, Tokenizer};

/// Texts of one word, of which a vocabulary knows some.
const PROBES: [&str; 8] = ["a", "b", "the", "1", ".", "的", "и", "a b"];

/// Ids with their token types.
type Run = Vec<(u32, u32)>;

/// What stands before, between and behind the ids of texts, and the token type of each text.
#[derive(Debug)]
pub(super) struct Frame {
    /// One more than there are texts.
    around: Vec<Run>,
    types: Vec<u32>,
}

impl Frame {
    /// Of a single text; none when it is not simply put between others.
    pub(super) fn single(tokenizer: &Tokenizer) -> Option<Self> {
        Self::of(tokenizer, PROBES[0].into(), &PROBES[..1])
    }

    /// Of a pair of texts. Two that are not to be told apart would say nothing of their order.
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
        let (mut around, mut types) = (Vec::new(), Vec::new());
        let mut at = 0;
        for text in texts {
            let bare = tokenizer.encode_fast(*text, false).ok()?;
            let offset = special[at..].iter().position(|special| *special == 0)?;
            let (start, end) = (at + offset, at + offset + bare.len());
            // A template may put something else there, or the texts in another order.
            if ids.get(start..end)? != bare.get_ids() || bare.is_empty() {
                return None;
            }
            around.push(run(&probe, at..start));
            types.push(probe.get_type_ids()[start]);
            at = end;
        }
        // The texts stand there once, and all else is special.
        if special[at..].contains(&0) {
            return None;
        }
        around.push(run(&probe, at..probe.len()));
        Some(Self { around, types })
    }

    /// Ids that are put around.
    pub(super) fn len(&self) -> usize {
        self.around.iter().map(Vec::len).sum()
    }

    /// The ids of `texts` with what is put around them, and their token types.
    pub(super) fn put_around(&self, texts: &[&[u32]]) -> (Vec<u32>, Vec<u32>) {
        let len = self.len() + texts.iter().map(|text| text.len()).sum::<usize>();
        let (mut ids, mut types) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for (place, run) in self.around.iter().enumerate() {
            for (id, type_id) in run {
                ids.push(*id);
                types.push(*type_id);
            }
            if let (Some(text), Some(type_id)) = (texts.get(place), self.types.get(place)) {
                ids.extend_from_slice(text);
                types.resize(ids.len(), *type_id);
            }
        }
        (ids, types)
    }
}

fn run(probe: &Encoding, place: std::ops::Range<usize>) -> Run {
    let ids = probe.get_ids()[place.clone()].iter().copied();
    ids.zip(probe.get_type_ids()[place].iter().copied())
        .collect()
}
