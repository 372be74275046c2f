//! `intentd train`: trains a classifier on labelled texts and writes a model directory.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::terminal;
use crate::train::data::read_examples;
use crate::train::recipe::{Schedule, StoredType};
use crate::train::{self, Progress, Recipe, SetEvaluation, Summary, TrainError, TrainOptions};

/// The flags of `intentd train`.
#[derive(Debug, Clone, Args)]
pub(super) struct TrainArgs {
    /// Training recipe, a TOML file.
    #[arg(long, env = "INTENTD_RECIPE", required_unless_present = "data")]
    pub recipe: Option<PathBuf>,
    /// JSONL file to train on with its own labels, instead of a recipe.
    #[arg(long, env = "INTENTD_DATA", conflicts_with = "recipe")]
    pub data: Option<PathBuf>,
    /// Directory of the files that the recipe names.
    #[arg(long, env = "INTENTD_DATA_DIR", default_value = ".")]
    pub data_dir: PathBuf,
    /// Model directory to write.
    #[arg(long, env = "INTENTD_OUTPUT")]
    pub output: PathBuf,
    /// Continue from the checkpoint in the output directory, if there is one.
    #[arg(long, env = "INTENTD_RESUME", value_parser = BoolishValueParser::new())]
    pub resume: bool,
    /// Stop after this number of epochs in total and leave the checkpoint.
    #[arg(long, env = "INTENTD_STOP_AFTER")]
    pub stop_after: Option<usize>,
    /// Evaluate the exported model on the recipe's test files.
    #[arg(long, env = "INTENTD_TEST", value_parser = BoolishValueParser::new())]
    pub test: bool,
    /// Seed of every random choice. This flag and those below override the recipe.
    #[arg(long, env = "INTENTD_SEED")]
    pub seed: Option<u64>,
    /// Passes over the data.
    #[arg(long, env = "INTENTD_EPOCHS")]
    pub epochs: Option<usize>,
    /// Texts in one optimizer step.
    #[arg(long, env = "INTENTD_BATCH")]
    pub batch: Option<usize>,
    /// Peak learning rate.
    #[arg(long, env = "INTENTD_LEARNING_RATE")]
    pub learning_rate: Option<f64>,
    /// Encoder layers.
    #[arg(long, env = "INTENTD_LAYERS")]
    pub layers: Option<usize>,
    /// Hidden size; the feed-forward size is four times as large.
    #[arg(long, env = "INTENTD_HIDDEN")]
    pub hidden: Option<usize>,
    /// Attention heads.
    #[arg(long, env = "INTENTD_HEADS")]
    pub heads: Option<usize>,
    /// Largest size of the vocabulary.
    #[arg(long, env = "INTENTD_VOCABULARY")]
    pub vocabulary: Option<usize>,
    /// Label for texts without an intent; meaningless texts are generated for it.
    #[arg(long, env = "INTENTD_BACKGROUND")]
    pub background: Option<String>,
    /// Number format of stored weights.
    #[arg(long, env = "INTENTD_DTYPE")]
    pub dtype: Option<StoredDtype>,
}

/// The number format of exported weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum StoredDtype {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

/// Trains with a progress bar and prints the accuracy.
pub(super) fn run(args: &TrainArgs) -> Result<(), TrainError> {
    let options = TrainOptions {
        recipe: recipe(args)?,
        data_dir: args.data_dir.clone(),
        output: args.output.clone(),
        resume: args.resume,
        stop_after: args.stop_after,
        test: args.test,
    };
    let bar = ProgressBar::new(0);
    let style = "{msg} {wide_bar} {pos}/{len} steps, {eta} left in this epoch";
    // The template is a constant; if it were wrong, the plain bar would do.
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    let report = train::run(&options, &mut |progress| show_progress(&bar, progress))?;
    bar.finish_and_clear();
    for measured in &report.test {
        print_measured(measured);
    }
    let output = options.output.display();
    if report.finished {
        print_line(format_args!("The model is in {output}"));
    } else {
        print_line(format_args!(
            "Stopped early; the checkpoint is in {output}, --resume goes on from it"
        ));
    }
    Ok(())
}

fn recipe(args: &TrainArgs) -> Result<Recipe, TrainError> {
    let mut recipe = match (&args.recipe, &args.data) {
        (Some(path), _) => Recipe::read(path)?,
        (None, Some(file)) => {
            let file = std::path::absolute(file).map_err(|source| TrainError::Io {
                path: file.clone(),
                source,
            })?;
            recipe_for_file(&file, args)?
        }
        (None, None) => return Err(TrainError::Recipe("neither --recipe nor --data".to_owned())),
    };
    if let Some(hidden) = args.hidden {
        recipe.model.hidden = hidden;
        recipe.model.intermediate = 4 * hidden;
    }
    let set = |value: &mut usize, flag: Option<usize>| *value = flag.unwrap_or(*value);
    set(&mut recipe.model.layers, args.layers);
    set(&mut recipe.model.heads, args.heads);
    set(&mut recipe.model.vocabulary, args.vocabulary);
    set(&mut recipe.schedule.epochs, args.epochs);
    set(&mut recipe.schedule.batch, args.batch);
    recipe.schedule.learning_rate = args.learning_rate.unwrap_or(recipe.schedule.learning_rate);
    recipe.seed = args.seed.unwrap_or(recipe.seed);
    recipe.dtype = match args.dtype {
        Some(StoredDtype::F32) => StoredType::F32,
        Some(StoredDtype::F16) => StoredType::F16,
        None => recipe.dtype,
    };
    if args.background.is_some() {
        recipe.background.clone_from(&args.background);
    }
    if args.stop_after == Some(0) {
        return Err(TrainError::Recipe(
            "--stop-after must be at least 1".to_owned(),
        ));
    }
    recipe.check()?;
    Ok(recipe)
}

/// The recipe for a user's own file. Short fragments help any set of intents. Foreign texts need a label.
fn recipe_for_file(file: &Path, args: &TrainArgs) -> Result<Recipe, TrainError> {
    let mut recipe = Recipe::for_file(file);
    recipe.schedule = Schedule::for_texts(read_examples(file)?.len());
    recipe.augmentation.fragments = 0.2;
    if let Some(background) = &args.background {
        recipe.background = Some(background.clone());
        recipe.augmentation.foreign = 0.05;
    }
    Ok(recipe)
}

fn show_progress(bar: &ProgressBar, progress: &Progress<'_>) {
    match progress {
        Progress::Started(summary) => bar.suspend(|| print_summary(summary)),
        Progress::Step {
            epoch,
            step,
            steps,
            loss,
        } => {
            bar.set_length(*steps as u64);
            bar.set_position(*step as u64);
            bar.set_message(format!("epoch {}, loss {loss:.3}", epoch + 1));
        }
        Progress::Epoch {
            epoch,
            loss,
            validation,
        } => bar.suspend(|| {
            let mut line = format!("epoch {}: loss {loss:.4}", epoch + 1);
            for measured in *validation {
                let accuracy = 100.0 * measured.all.accuracy();
                line.push_str(&format!(", {} {accuracy:.2} %", measured.name));
            }
            print_line(format_args!("{line}"));
        }),
    }
}

fn print_summary(summary: &Summary) {
    print_line(format_args!(
        "{} texts ({} kept back to validate, {} left out as in a held-out file), {} labels, vocabulary {}, \
         {} weights, {} epochs",
        summary.texts,
        summary.held_out,
        summary.excluded,
        summary.labels.len(),
        summary.vocabulary,
        summary.parameters,
        summary.epochs,
    ));
    if summary.resumed > 0 {
        print_line(format_args!("going on after epoch {}", summary.resumed));
    }
}

fn print_measured(measured: &SetEvaluation) {
    print_line(format_args!("{}: {}", measured.name, measured.all));
    if let Some(rest) = &measured.without_overlap {
        let percent = 100.0 * rest.accuracy();
        print_line(format_args!(
            "  without texts the training files hold too: {}/{} right, {percent:.2} %\n",
            rest.correct, rest.total,
        ));
    }
}

/// Prints a line. This cannot fail: a closed output must not end the run.
fn print_line(line: std::fmt::Arguments<'_>) {
    let line = terminal::lines(&line.to_string());
    let _ = writeln!(std::io::stdout(), "{line}");
}
