//! Generated texts that belong to no intent: the part of the background that no data set has.
//!
//! A data set of foreign *sentences* does not cover `asdf qwer`, `42`, `...` or an empty text. Those are drawn
//! here from the run's generator, in kinds of equal probability.

use rand::{Rng, RngExt};

use super::random::{pick, shuffle};

/// Draws one foreign text. `neutral` are frequent words without a meaning of their own; `words` are real words
/// to scramble.
pub(crate) fn draw(rng: &mut impl Rng, neutral: &[String], words: &[String]) -> String {
    match rng.random_range(0..8) {
        0 => punctuation(rng),
        1 => digits(rng),
        2 => several(rng, 3, keyboard_run),
        3 => several(rng, 3, random_letters),
        4 => several(rng, 3, syllables),
        5 if !words.is_empty() => several(rng, 3, |rng| scrambled(rng, words)),
        6 if !neutral.is_empty() => several(rng, 3, |rng| pick(rng, neutral).clone()),
        _ => several(rng, 2, foreign_script),
    }
}

fn several<R: Rng>(
    rng: &mut R,
    words_max: usize,
    mut word: impl FnMut(&mut R) -> String,
) -> String {
    let count = rng.random_range(1..=words_max);
    (0..count).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

/// Nothing, blanks, one mark repeated, or a few different marks.
fn punctuation(rng: &mut impl Rng) -> String {
    const MARKS: &[char] = &[
        '.', ',', '!', '?', '-', '_', '*', '#', '@', '&', '%', '$', '+', '=', '/', '\\', ':', ';',
        '(', ')', '[', ']', '<', '>', '"', '\'', '~', '^', '|',
    ];
    match rng.random_range(0..5) {
        0 => pick(rng, &['.', '?', '!'])
            .to_string()
            .repeat(rng.random_range(1..5)),
        1 => " ".repeat(rng.random_range(0..4)),
        2 => pick(rng, MARKS).to_string().repeat(rng.random_range(1..7)),
        _ => (0..rng.random_range(1..7))
            .map(|_| *pick(rng, MARKS))
            .collect(),
    }
}

/// Numbers, bare or in groups.
fn digits(rng: &mut impl Rng) -> String {
    let separators = [" ", ":", "-", ".", "/", ""];
    let separator = *pick(rng, &separators);
    let groups: Vec<String> = (0..rng.random_range(1..5))
        .map(|_| {
            let length = rng.random_range(1..5);
            (0..length)
                .map(|_| char::from(b'0' + rng.random_range(0..10)))
                .collect()
        })
        .collect();
    groups.join(separator)
}

/// A run of keys on one keyboard row, or one key held down.
fn keyboard_run(rng: &mut impl Rng) -> String {
    const ROWS: &[&[u8]] = &[b"qwertyuiop", b"asdfghjkl", b"zxcvbnm"];
    let row = *pick(rng, ROWS);
    let length = rng.random_range(2..=6);
    let start = rng.random_range(0..row.len());
    match rng.random_range(0..3) {
        0 => char::from(row[start]).to_string().repeat(length),
        1 => (0..length)
            .map(|i| char::from(row[(start + i) % row.len()]))
            .collect(),
        _ => (0..length).map(|_| char::from(*pick(rng, row))).collect(),
    }
}

fn random_letters(rng: &mut impl Rng) -> String {
    (0..rng.random_range(1..=8))
        .map(|_| char::from(b'a' + rng.random_range(0..26)))
        .collect()
}

/// A pronounceable word that does not exist.
fn syllables(rng: &mut impl Rng) -> String {
    const STARTS: &[&str] = &[
        "b", "bl", "d", "dr", "f", "fl", "g", "gr", "k", "l", "m", "n", "p", "pr", "sn", "t", "v",
        "w", "z",
    ];
    const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "oo", "ee"];
    const ENDS: &[&str] = &["", "", "b", "g", "lt", "m", "n", "rp", "sh", "x", "zz"];
    (0..rng.random_range(1..=3))
        .map(|_| {
            format!(
                "{}{}{}",
                pick(rng, STARTS),
                pick(rng, VOWELS),
                pick(rng, ENDS)
            )
        })
        .collect()
}

/// A real word with its letters in random order.
fn scrambled(rng: &mut impl Rng, words: &[String]) -> String {
    let mut letters: Vec<char> = pick(rng, words).chars().collect();
    shuffle(rng, &mut letters);
    letters.into_iter().collect()
}

/// Letters or emoji outside the training data, which become `[UNK]`.
fn foreign_script(rng: &mut impl Rng) -> String {
    const RANGES: &[(u32, u32)] = &[
        (0x0430, 0x044f),
        (0x03b1, 0x03c9),
        (0x4e00, 0x4fff),
        (0x3042, 0x3093),
        (0x1f600, 0x1f64f),
    ];
    let (first, last) = *pick(rng, RANGES);
    (0..rng.random_range(1..=5))
        .filter_map(|_| char::from_u32(rng.random_range(first..=last)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, stream};

    #[test]
    fn texts_vary_and_repeat_with_the_seed() {
        let words = ["music".to_owned()];
        let draw_many = |seed| {
            let mut rng = stream(seed, Purpose::Texts, 0);
            (0..400)
                .map(|_| draw(&mut rng, &words, &words))
                .collect::<Vec<_>>()
        };
        let texts = draw_many(1);
        assert_eq!(texts, draw_many(1));
        assert!(texts.iter().any(|text| text.trim().is_empty()));
        assert!(
            texts
                .iter()
                .any(|text| text.chars().any(|c| c.is_ascii_digit()))
        );
        assert!(texts.iter().collect::<std::collections::HashSet<_>>().len() > 250);
    }
}
