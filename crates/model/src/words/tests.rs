//! Incremental tokenization compared with the library, which reads whole texts.

use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::tokenizer::{NormalizedString, Normalizer as _, PostProcessor as _};
use tokenizers::utils::truncation::{TruncationParams, truncate_encodings};
use tokenizers::{AddedToken, ModelWrapper};

use super::*;

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Ranges of characters, first and last: letters, marks, blanks and symbols of many scripts.
const SCRIPTS: [(u32, u32); 40] = [
    (0x20, 0x7e),
    (0x61, 0x7a),
    (0x61, 0x7a),
    (0x20, 0x2f),
    (0x00, 0x20),
    (0x80, 0x17f),
    (0xc0, 0xff),
    (0x180, 0x24f),
    (0x300, 0x36f),
    (0x370, 0x3ff),
    (0x400, 0x4ff),
    (0x530, 0x5ff),
    (0x600, 0x6ff),
    (0x900, 0x97f),
    (0xb80, 0xbff),
    (0xe00, 0xfff),
    (0x1000, 0x10ff),
    (0x1100, 0x11ff),
    (0x1680, 0x180f),
    (0x1ab0, 0x1aff),
    (0x1e00, 0x1fff),
    (0x2000, 0x206f),
    (0x20a0, 0x214f),
    (0x3000, 0x30ff),
    (0x302a, 0x302f),
    (0x3400, 0x34ff),
    (0x4e00, 0x9fff),
    (0x4e00, 0x4eff),
    (0xac00, 0xd7a3),
    (0xac00, 0xacff),
    (0xe000, 0xe0ff),
    (0xf900, 0xfaff),
    (0xfb00, 0xfdff),
    (0xfe00, 0xffff),
    (0x10900, 0x109ff),
    (0x1d100, 0x1d1ff),
    (0x1f300, 0x1f6ff),
    (0x20000, 0x2a6df),
    (0x2f800, 0x2fa1f),
    (0xe0000, 0xe01ef),
];

fn char_of(random: &mut ChaCha8Rng, (first, last): (u32, u32)) -> char {
    loop {
        if let Some(char) = char::from_u32(random.random_range(first..=last)) {
            return char;
        }
    }
}

/// A BERT tokenizer whose vocabulary has some characters of each script.
fn tokenizer(normalizer: BertNormalizer) -> Tokenizer {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut vocab = tokenizers::models::bpe::Vocab::new();
    let mut insert = |token: String| {
        let id = vocab.len() as u32;
        vocab.entry(token).or_insert(id);
    };
    SPECIAL.iter().for_each(|token| insert((*token).to_owned()));
    for script in SCRIPTS {
        for _ in 0..200 {
            let mut text = NormalizedString::from(char_of(&mut random, script).to_string());
            normalizer.normalize(&mut text).unwrap();
            let mut text = text.get().trim().to_owned();
            for _ in 0..random.random_range(0..3) {
                text.push(char_of(&mut random, script));
            }
            insert(text.clone());
            insert(format!("##{text}"));
        }
    }
    let model = WordPiece::builder().vocab(vocab.clone());
    let model = model.unk_token("[UNK]".to_owned()).build().unwrap();
    let mut tokenizer = Tokenizer::new(ModelWrapper::from(model));
    tokenizer.with_normalizer(Some(normalizer)).unwrap();
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let of = |token: &str| (token.to_owned(), vocab[token]);
    tokenizer.with_post_processor(Some(BertProcessing::new(of("[SEP]"), of("[CLS]"))));
    let added = SPECIAL.map(|token| AddedToken::from(token, true));
    tokenizer.add_special_tokens(added).unwrap();
    tokenizer
}

fn text_of(random: &mut ChaCha8Rng) -> String {
    let mut text = String::new();
    let some: Vec<(u32, u32)> = (0..random.random_range(1..4))
        .map(|_| *SCRIPTS.choose(random).unwrap())
        .collect();
    let blanks = *[0.0, 0.0, 0.1, 0.3].choose(random).unwrap();
    let longest = *[6, 20, 60, 300].choose(random).unwrap();
    for _ in 0..random.random_range(0..longest) {
        let script = *some.choose(random).unwrap();
        match random.random_range(0..60) {
            0 => text.push_str(SPECIAL.choose(random).unwrap()),
            1 => text.push('['),
            2 => {
                let char = char_of(random, script);
                let many = random.random_range(0..130);
                text.extend(std::iter::repeat_n(char, many));
            }
            3 => {
                let script = *SCRIPTS.choose(random).unwrap();
                text.push(char_of(random, script));
            }
            _ => text.push(char_of(random, script)),
        }
        if random.random_bool(blanks) {
            text.push(' ');
        }
    }
    text
}

/// The library's encoding of the whole text or pair, truncated afterwards.
fn expected(
    tokenizer: &Tokenizer,
    text: &Text,
    max: usize,
    direction: TruncationDirection,
) -> Encoded {
    let all = |text: &str| tokenizer.encode_fast(text, false).unwrap();
    let special = |pair| tokenizer.get_post_processor().unwrap().added_tokens(pair);
    let (first, second) = match text {
        Text::Single(text) => (all(text), None),
        Text::Pair(first, second) => (all(first), Some(all(second))),
    };
    let room = max - special(second.is_some());
    let truncated = first.len() + second.as_ref().map_or(0, |second| second.len()) > room;
    let params = TruncationParams {
        max_length: room,
        direction,
        ..TruncationParams::default()
    };
    let (mut first, mut second) = truncate_encodings(first, second, &params).unwrap();
    first.take_overflowing();
    second.as_mut().map(tokenizers::Encoding::take_overflowing);
    let encoding = tokenizer.post_process(first, second, true).unwrap();
    Encoded {
        ids: encoding.get_ids().to_vec(),
        type_ids: encoding.get_type_ids().to_vec(),
        truncated,
    }
}

fn settings() -> [BertNormalizer; 6] {
    [
        BertNormalizer::new(true, true, None, true),
        BertNormalizer::new(true, true, Some(false), true),
        BertNormalizer::new(true, false, None, false),
        BertNormalizer::new(true, false, Some(true), false),
        BertNormalizer::new(false, true, Some(true), true),
        BertNormalizer::new(false, true, Some(false), false),
    ]
}

/// Number of random texts. Changes here should be tested with more, set by `TEXTS` at build time.
fn texts() -> usize {
    option_env!("TEXTS").map_or(4_000, |texts| texts.parse().expect("a number"))
}

#[test]
fn texts_of_all_scripts_get_the_library_s_ids() {
    for (seed, normalizer) in (0..).zip(settings()) {
        let tokenizer = tokenizer(normalizer);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for direction in [TruncationDirection::Right, TruncationDirection::Left] {
            let words = IncrementalTokenizer::new(&tokenizer, direction).unwrap();
            for _ in 0..texts() / 12 {
                let text = match random.random_range(0..5) {
                    0 => Text::Pair(text_of(&mut random), text_of(&mut random)),
                    _ => Text::Single(text_of(&mut random)),
                };
                let max = *[4, 8, 9, 32, 512].choose(&mut random).unwrap();
                let expected = expected(&tokenizer, &text, max, direction);
                // Twice, because the second time all characters and words are known.
                for _ in 0..2 {
                    let found = words.encode(&tokenizer, &text, max, TooLong::Truncate);
                    let found = found.expect("all characters are supported").unwrap();
                    assert_eq!(found, expected, "{normalizer:?} {max} {text:?}");
                }
                let refused = words.encode(&tokenizer, &text, max, TooLong::Refuse);
                assert_eq!(refused.unwrap().is_err(), expected.truncated, "{text:?}");
            }
        }
    }
}

/// Each character between two letters, and between two marks that are reordered.
#[test]
fn each_character_is_mapped_as_by_the_library() {
    for (start, normalizer) in settings().into_iter().enumerate() {
        let tokenizer = tokenizer(normalizer);
        let words = IncrementalTokenizer::new(&tokenizer, TruncationDirection::Right).unwrap();
        let all = (0..=0x323ff).chain(0xe0000..=0xe01ff);
        let some = all.skip(start % STEP).step_by(STEP);
        let chars: Vec<char> = some.filter_map(char::from_u32).collect();
        for some in chars.chunks(500) {
            let mut text = String::new();
            for char in some {
                text.extend(['a', *char, 'b', ' ', '\u{302e}', *char, '\u{1d165}', ' ']);
            }
            let expected = tokenizer.encode_fast(&*text, false).unwrap();
            let mut ids = Vec::new();
            words.append(&tokenizer, &text, &mut ids, |_| true).unwrap();
            assert!(ids == expected.get_ids(), "{normalizer:?} {:?}", some[0]);
        }
    }
}

/// Every how many characters one is tested; 1 for all.
const STEP: usize = 23;

/// The truncated part of a text is not read, whatever its length and content.
#[test]
fn a_long_text_is_read_only_as_far_as_needed() {
    let tokenizer = tokenizer(settings()[0]);
    let words = IncrementalTokenizer::new(&tokenizer, TruncationDirection::Right).unwrap();
    for piece in ["[", "中", "é!", "a ", "[SEP]", "\u{1d15e} "] {
        let text = piece.repeat(1 << 16);
        let mut segmenter = Segmenter::new(&words.char_map, &words.added, 100, &text);
        for _ in 0..100 {
            let segment = segmenter.next();
            assert!(!matches!(segment, Segment::End | Segment::Unsupported));
        }
        assert!(segmenter.bytes_read() < 2048, "{piece}");
    }
}

#[test]
fn a_word_that_is_too_long_is_one_unknown_token() {
    let tokenizer = tokenizer(settings()[0]);
    let words = IncrementalTokenizer::new(&tokenizer, TruncationDirection::Right).unwrap();
    for piece in ["a", "한", "\u{302e}\u{1d165}", "a\u{301}", "\u{fdfa}"] {
        let text = format!("{} ! ", piece.repeat(1000));
        let expected = tokenizer.encode_fast(&*text, false).unwrap();
        let mut ids = Vec::new();
        words.append(&tokenizer, &text, &mut ids, |_| true).unwrap();
        assert_eq!(ids, expected.get_ids(), "{piece}");
    }
}

/// However long both are: only an odd token depends on it.
#[test]
fn two_long_texts_are_compared_to_their_ends() {
    let [normalizer, ..] = settings();
    let tokenizer = tokenizer(normalizer);
    let words = IncrementalTokenizer::new(&tokenizer, TruncationDirection::Right).unwrap();
    for (first, second) in [(6000, 5000), (5000, 6000)] {
        let text = Text::Pair("a ".repeat(first), "a ".repeat(second));
        let encoded = words.encode(&tokenizer, &text, 12, TooLong::Truncate);
        let types = encoded.unwrap().unwrap().type_ids;
        let of_second = types.iter().filter(|kind| **kind == 1).count();
        // Nine of texts; the second has a special token after it.
        assert_eq!(
            of_second,
            if first > second { 5 } else { 6 },
            "{first} {second}"
        );
    }
}

#[test]
fn the_longer_text_of_a_pair_is_truncated_first() {
    for (seen, room, expected) in [
        ([3, 9], 10, [3, 7]),
        ([9, 3], 10, [7, 3]),
        ([9, 9], 9, [4, 5]),
        ([10, 9], 9, [5, 4]),
        ([0, 99], 5, [0, 5]),
        ([99, 100], 1, [0, 1]),
        ([5, 5], 0, [0, 0]),
    ] {
        assert_eq!(longest_first(seen, room), expected, "{seen:?} {room}");
    }
}
