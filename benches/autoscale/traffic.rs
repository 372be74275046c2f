//! What is asked: short questions at random times, texts of many lengths, lists, or bursty arrivals.

use std::path::Path;

use intentd::bench::{Load, Loads, read_texts};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Common, TEXTS, TRAFFIC};

/// Texts or lists that are made; requests take them in turn.
const MADE: usize = 5000;

/// Mean length of a text of many lengths, in questions.
const MEAN_QUESTIONS: f64 = 4.0;

/// Longest list.
const LIST_MAX: usize = 32;

/// How far the rate of bursty arrivals goes from its mean, for a second each.
const SWING: f64 = 0.6;

/// Kinds of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Traffic {
    /// Short questions at random times.
    Questions,
    /// Texts whose lengths are distributed exponentially: their coefficient of variation is about 1.
    Lengths,
    /// Lists of 1 to 32 questions.
    Lists,
    /// Questions at a rate that is 60 % above or below its mean for a second each.
    Bursty,
}

/// The texts of all requests.
pub(crate) fn texts(common: &Common) -> Vec<String> {
    if let Some(bytes) = common.chinese {
        return vec!["音乐播放天气".repeat(bytes.div_ceil(18))];
    }
    let questions = read_texts(None::<&Path>).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut some = |count: usize| -> Vec<&str> {
        (0..count)
            .map(|_| questions.choose(&mut random).unwrap().as_str())
            .collect()
    };
    let mut counts = ChaCha8Rng::seed_from_u64(6);
    match common.traffic {
        Traffic::Questions | Traffic::Bursty => questions,
        Traffic::Lengths => (0..MADE)
            .map(|_| {
                let uniform: f64 = counts.random();
                let count = -MEAN_QUESTIONS * (1.0 - uniform).ln();
                some(count.ceil() as usize).join(" ")
            })
            .collect(),
        Traffic::Lists => (0..MADE)
            .map(|_| serde_json::to_string(&some(counts.random_range(1..=LIST_MAX))).unwrap())
            .collect(),
    }
}

/// The body that a text is posted in, or none if it goes into the URL.
pub(crate) fn body() -> Option<&'static str> {
    let longest = TEXTS.get().unwrap().iter().map(String::len).max();
    match TRAFFIC.get().unwrap() {
        Traffic::Lists => Some("{\"query\": {text}}"),
        // A request head has no room for longer texts.
        _ if longest >= Some(1000) => Some("{\"query\": {json}}"),
        _ => None,
    }
}

/// Arrivals at this mean rate.
pub(crate) fn load(rate: f64, seconds: u64, seed: u64) -> Load {
    if *TRAFFIC.get().unwrap() != Traffic::Bursty {
        let Loads(loads) = format!("poisson:{rate:.3}").parse().unwrap();
        return loads.into_iter().next().unwrap();
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    // As many seconds of each, so that the mean is the rate. An odd one is as the mean.
    let mut factors: Vec<f64> = (0..seconds)
        .map(|second| match second % 2 {
            _ if second + 1 == seconds && second % 2 == 0 => 1.0,
            0 => 1.0 + SWING,
            _ => 1.0 - SWING,
        })
        .collect();
    factors.shuffle(&mut random);
    let mut times = Vec::new();
    for (second, factor) in factors.into_iter().enumerate() {
        let now = rate * factor;
        let mut at = 0.0;
        loop {
            let uniform: f64 = random.random();
            at -= (1.0 - uniform).ln() / now;
            if at >= 1.0 {
                break;
            }
            times.push(second as f64 + at);
        }
    }
    Load::Trace {
        file: "bursty".into(),
        times: times.into(),
    }
}
