//! `intentd evaluate`: measures the accuracy of a model on labelled texts, with the engine that serves it.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use super::batches::{forward, load};
use super::failure::Failure;
use super::terminal;
use crate::config::ModelArgs;
use crate::engine::{self, Engine};
use crate::model::{Checkpoint, Text, TooLong};
use crate::train::Recipe;
use crate::train::data::{Corpus, HeldOut, read_examples};
use crate::train::evaluation::{Mistake, evaluate};

/// The flags of `intentd evaluate`.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// Files with lines of {"text": …, "label": …}.
    #[arg(required_unless_present = "recipe", conflicts_with = "recipe")]
    files: Vec<PathBuf>,
    /// Training recipe. Its test sets are evaluated, with its mapping of labels.
    #[arg(long, env = "INTENTD_RECIPE", value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Directory of the files that the recipe names.
    #[arg(
        long,
        env = "INTENTD_DATA_DIR",
        value_name = "DIR",
        default_value = "."
    )]
    data_dir: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Also print each wrong answer.
    #[arg(long, env = "INTENTD_MISTAKES", value_parser = BoolishValueParser::new())]
    mistakes: bool,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open_or_embedded(args.model.model.as_deref())?;
    let mut engine = load(&args.model, &checkpoint)?;
    let mut out = std::io::stdout().lock();
    let sets = sets(args)?;
    if sets.is_empty() {
        return Err(Failure::usage(
            "the recipe has no [[test]] sets; name files of labelled texts",
        ));
    }
    for set in sets {
        check(&set, &checkpoint)?;
        let classify = |texts: &[&str]| labels(&checkpoint, &mut *engine, texts);
        let evaluation = evaluate(&set.examples, classify)?;
        let measured = format!("{}: {evaluation}", set.name);
        out.write_all(terminal::lines(&measured).as_bytes())?;
        if args.mistakes {
            for mistake in &evaluation.mistakes {
                let Mistake {
                    expected,
                    answered,
                    text,
                } = mistake;
                let line = format!("{expected} answered {answered}: {text}");
                writeln!(out, "  {}", terminal::line(&line))?;
            }
        }
    }
    Ok(())
}

/// Fails where the accuracy would be meaningless.
fn check(set: &HeldOut, checkpoint: &Checkpoint) -> Result<(), Failure> {
    if set.examples.is_empty() {
        return Err(Failure::usage(format!("{}: no labelled texts", set.name)));
    }
    let known = |label: &str| checkpoint.labels.names().any(|name| name == label);
    match set.examples.iter().find(|example| !known(&example.label)) {
        Some(example) => Err(Failure::usage(format!(
            "{}: the label {:?} is not one of the model's: {}",
            set.name,
            example.label,
            checkpoint.labels.names().collect::<Vec<_>>().join(", ")
        ))),
        None => Ok(()),
    }
}

fn sets(args: &EvaluateArgs) -> Result<Vec<HeldOut>, Failure> {
    if let Some(recipe) = &args.recipe {
        return Ok(Corpus::assemble(&Recipe::read(recipe)?, &args.data_dir)?.test);
    }
    let set = |file: &PathBuf| {
        let name = file.display().to_string();
        Ok(HeldOut {
            name,
            examples: read_examples(file)?,
        })
    };
    args.files.iter().map(set).collect()
}

/// An error while a text is classified.
#[derive(Debug, thiserror::Error)]
enum EvaluateError {
    #[error(transparent)]
    Encode(#[from] crate::model::EncodeError),
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
}

fn labels(
    checkpoint: &Checkpoint,
    engine: &mut dyn Engine,
    texts: &[&str],
) -> Result<Vec<String>, EvaluateError> {
    let encode = |text: &&str| {
        let text = Text::Single((*text).to_owned());
        checkpoint.tokenizer.encode(&text, TooLong::Truncate)
    };
    let encoded = texts.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
    let rows = forward(engine, &encoded)?;
    let label = |row: &Vec<f32>| checkpoint.labels.best(row).label.to_string();
    Ok(rows.iter().map(label).collect())
}
