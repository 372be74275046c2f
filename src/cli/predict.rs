//! `intentd predict`: classifies texts without a server.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use serde_json::json;

use super::batches::{forward, load};
use super::failure::Failure;
use super::terminal;
use crate::config::ModelArgs;
use crate::engine::Engine;
use crate::model::{Checkpoint, Encoded, Text, TooLong};

/// Texts in one batch: enough to keep the engine busy, few enough to print early.
const BATCH: usize = 32;

/// The flags of `intentd predict`.
#[derive(Debug, Args)]
pub(super) struct PredictArgs {
    /// Texts to classify [default: the lines of standard input].
    texts: Vec<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Output for each text.
    #[arg(long, env = "INTENTD_FORMAT", value_enum, default_value = "label")]
    format: OutputFormat,
    /// Fail on a text that is too long for the model instead of truncating it.
    #[arg(long, env = "INTENTD_NO_TRUNCATE", value_parser = BoolishValueParser::new())]
    no_truncate: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutputFormat {
    /// The label.
    Label,
    /// Label, score and text, separated by tabs.
    Tsv,
    /// One JSON object with all scores.
    Json,
}

pub(super) fn run(args: &PredictArgs) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open_or_embedded(args.model.model.as_deref())?;
    let engine = load(&args.model, &checkpoint)?;
    let mut predictor = Predictor {
        checkpoint,
        engine,
        args,
        number: 0,
    };
    if args.texts.is_empty() {
        predictor.lines(BufReader::new(std::io::stdin()))
    } else {
        args.texts
            .chunks(BATCH)
            .try_for_each(|texts| predictor.print(texts))
    }
}

struct Predictor<'a> {
    checkpoint: Checkpoint,
    engine: Box<dyn Engine>,
    args: &'a PredictArgs,
    /// Texts printed so far.
    number: usize,
}

impl Predictor<'_> {
    /// Classifies the lines that have arrived and prints their labels before it waits for more, so that the
    /// command works in a pipe and at a prompt.
    fn lines(&mut self, mut input: BufReader<impl Read>) -> Result<(), Failure> {
        let mut texts = Vec::new();
        let mut line = String::new();
        while input.read_line(&mut line)? > 0 {
            texts.push(line.trim_end_matches(['\n', '\r']).to_owned());
            line.clear();
            if texts.len() == BATCH || !input.buffer().contains(&b'\n') {
                self.print(&texts)?;
                texts.clear();
            }
        }
        self.print(&texts)
    }

    fn print(&mut self, texts: &[String]) -> Result<(), Failure> {
        if texts.is_empty() {
            return Ok(());
        }
        let too_long = if self.args.no_truncate {
            TooLong::Refuse
        } else {
            TooLong::Truncate
        };
        let mut encoded = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let text = Text::Single(text.clone());
            let number = self.number + index + 1;
            let one: Encoded = self
                .checkpoint
                .tokenizer
                .encode(&text, too_long)
                .map_err(|error| Failure::usage(format!("text {number}: {error}")))?;
            encoded.push(one);
        }
        let logits = forward(&mut *self.engine, &encoded)?;
        let mut out = std::io::stdout().lock();
        for ((text, encoded), logits) in texts.iter().zip(&encoded).zip(&logits) {
            let line = self.line(text, encoded, logits);
            writeln!(out, "{line}")?;
        }
        self.number += texts.len();
        Ok(())
    }

    fn line(&self, text: &str, encoded: &Encoded, logits: &[f32]) -> String {
        let labels = &self.checkpoint.labels;
        match self.args.format {
            OutputFormat::Label => terminal::line(&labels.best(logits).label),
            OutputFormat::Tsv => {
                let best = labels.best(logits);
                let label = terminal::line(&best.label);
                // A file or a pipe gets the text unchanged.
                let text = match std::io::stdout().is_terminal() {
                    true => &terminal::line(text),
                    false => text,
                };
                format!("{label}\t{:.6}\t{text}", best.score)
            }
            OutputFormat::Json => {
                let scores = labels.scores(logits);
                let all: Vec<_> = scores
                    .iter()
                    .map(|s| json!({"label": &*s.label, "score": s.score}))
                    .collect();
                terminal::json(&json!({
                    "text": text,
                    "label": &*scores[0].label,
                    "score": scores[0].score,
                    "scores": all,
                    "tokens": encoded.ids.len(),
                    "truncated": encoded.truncated,
                }))
            }
        }
    }
}
