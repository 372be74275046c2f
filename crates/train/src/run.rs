//! One training run: data, epochs with checkpoints, export, evaluation.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tokenizers::Tokenizer;

use super::augment::Augmenter;
use super::checkpoint::Checkpoint;
use super::classifier::{self, Classifier};
use super::data::{Corpus, Example, HeldOut, text_key};
use super::error::TrainError;
use super::evaluation::{Evaluation, evaluate};
use super::network::Network;
use super::optimizer::AdamW;
use super::random::{Purpose, stream};
use super::recipe::Recipe;
use super::trainer::Trainer;
use super::{export, vocabulary};

/// One training run.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// The training data and settings.
    pub recipe: Recipe,
    /// The folder that the recipe's file names are relative to.
    pub data_dir: PathBuf,
    /// The model directory to write, created if absent. It also has the checkpoint.
    pub output: PathBuf,
    /// Whether to resume from the checkpoint in `output`, if there is one.
    pub resume: bool,
    /// Stops after this many epochs in total. The checkpoint stays, and nothing is exported.
    pub stop_after: Option<usize>,
    /// Whether to evaluate the recipe's test files on the exported model.
    pub test: bool,
}

/// The progress of a run.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The data is read and the network is built.
    Started(&'a Summary),
    /// An optimiser step is done.
    Step {
        /// The epoch, from 0.
        epoch: usize,
        /// The step in the epoch, from 1.
        step: usize,
        /// The steps of this epoch.
        steps: usize,
        /// The mean loss of the step's texts.
        loss: f32,
    },
    /// An epoch is done and its checkpoint is written.
    Epoch {
        /// The epoch, from 0.
        epoch: usize,
        /// The mean loss.
        loss: f32,
        /// The evaluation on the validation sets.
        validation: &'a [SetEvaluation],
    },
}

/// The size of a run.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Number of training texts, before augmentation.
    pub texts: usize,
    /// Number of training rows left out because a validation or test file has the same text.
    pub excluded: usize,
    /// Number of training rows held out for validation.
    pub held_out: usize,
    /// The labels, in order of their ids.
    pub labels: Vec<String>,
    /// Number of entries of the vocabulary.
    pub vocabulary: usize,
    /// Number of weights of the network.
    pub parameters: usize,
    /// Number of epochs of the run.
    pub epochs: usize,
    /// Number of epochs that were restored from a checkpoint.
    pub resumed: usize,
}

/// The evaluation on one set of texts.
#[derive(Debug, Clone)]
pub struct SetEvaluation {
    /// The name of the set.
    pub name: String,
    /// The evaluation on all texts.
    pub all: Evaluation,
    /// The evaluation without the texts that occur in the training files, if there are any. Those were left
    /// out of training.
    pub without_overlap: Option<Evaluation>,
}

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct TrainReport {
    /// Whether the model was finished and exported; false when [`TrainOptions::stop_after`] ended the run.
    pub finished: bool,
    /// The size of the run.
    pub summary: Summary,
    /// The mean loss of each epoch trained in this process.
    pub losses: Vec<f32>,
    /// The last evaluation on the validation sets.
    pub validation: Vec<SetEvaluation>,
    /// The evaluation of the exported directory on the test sets, if requested.
    pub test: Vec<SetEvaluation>,
}

/// Trains a classifier and exports it.
///
/// # Errors
/// See [`TrainError`]; a failed run leaves the last checkpoint in place.
pub fn run(
    options: &TrainOptions,
    progress: &mut dyn FnMut(&Progress<'_>),
) -> Result<TrainReport, TrainError> {
    let recipe = &options.recipe;
    let run = PreparedRun::new(options)?;
    let mut optimizer = AdamW::new(run.network.parameters(), &recipe.schedule)?;
    let checkpoint = run.checkpoint(options)?;
    let resumed = if options.resume {
        checkpoint.load(run.network.parameters(), &mut optimizer)?
    } else {
        0
    };
    let summary = run.summary(recipe, resumed);
    progress(&Progress::Started(&summary));

    let trainer = Trainer {
        recipe,
        labels: run.corpus.labels.len(),
        tokenizer: &run.tokenizer,
        augmenter: &run.augmenter,
        network: &run.network,
    };
    let mut report = TrainReport {
        finished: false,
        summary,
        losses: vec![],
        validation: vec![],
        test: vec![],
    };
    let last = options
        .stop_after
        .unwrap_or(usize::MAX)
        .min(recipe.schedule.epochs);
    for epoch in resumed..last {
        let loss = trainer.epoch(&mut optimizer, epoch, &mut |step, steps, loss| {
            progress(&Progress::Step {
                epoch,
                step,
                steps,
                loss,
            });
        })?;
        report.losses.push(loss);
        checkpoint.save(run.network.parameters(), &optimizer, epoch + 1)?;
        report.validation = run.validate(recipe)?;
        progress(&Progress::Epoch {
            epoch,
            loss,
            validation: &report.validation,
        });
    }
    if last < recipe.schedule.epochs {
        return Ok(report);
    }
    run.export(options)?;
    checkpoint.remove()?;
    report.finished = true;
    if options.test {
        let exported = Classifier::read(&options.output)?;
        let classify = |texts: &[&str]| exported.classify(texts);
        report.test = measure(&run.corpus.test, &run.corpus.overlap, classify)?;
    }
    Ok(report)
}

/// The state of a run before its first step.
struct PreparedRun {
    corpus: Corpus,
    tokenizer: Tokenizer,
    augmenter: Augmenter,
    network: Network,
}

impl PreparedRun {
    fn new(options: &TrainOptions) -> Result<Self, TrainError> {
        let recipe = &options.recipe;
        recipe.check()?;
        let corpus = Corpus::assemble(recipe, &options.data_dir)?;
        std::fs::create_dir_all(&options.output).map_err(TrainError::io(&options.output))?;
        let texts = corpus.train.iter().map(|example| example.text.as_str());
        let tokenizer = vocabulary::train(texts, recipe.model.vocabulary)?;
        let augmenter = Augmenter::new(recipe, &corpus);
        let entries = tokenizer.get_vocab_size(true);
        let mut rng = stream(recipe.seed, Purpose::Weights, 0);
        let network = Network::initial(&recipe.model, entries, corpus.labels.len(), &mut rng)?;
        Ok(Self {
            corpus,
            tokenizer,
            augmenter,
            network,
        })
    }

    fn checkpoint(&self, options: &TrainOptions) -> Result<Checkpoint, TrainError> {
        let tokenizer = self
            .tokenizer
            .to_string(false)
            .map_err(TrainError::tokenizer)?;
        Checkpoint::new(
            &options.output,
            &options.recipe,
            self.augmenter.real(),
            &tokenizer,
        )
    }

    fn summary(&self, recipe: &Recipe, resumed: usize) -> Summary {
        let parameters = self.network.parameters().iter();
        Summary {
            texts: self.corpus.train.len(),
            excluded: self.corpus.excluded,
            held_out: self.corpus.held_out,
            labels: self.corpus.labels.clone(),
            vocabulary: self.tokenizer.get_vocab_size(true),
            parameters: parameters
                .map(|parameter| parameter.value.elem_count())
                .sum(),
            epochs: recipe.schedule.epochs,
            resumed,
        }
    }

    fn export(&self, options: &TrainOptions) -> Result<(), TrainError> {
        export::write(
            &options.output,
            &options.recipe,
            &self.corpus.labels,
            &self.tokenizer,
            &self.network,
        )
    }

    fn validate(&self, recipe: &Recipe) -> Result<Vec<SetEvaluation>, TrainError> {
        measure(&self.corpus.validation, &BTreeSet::new(), |texts| {
            let ids = vocabulary::encode(&self.tokenizer, texts, recipe.model.max_positions)?;
            let best = classifier::predict(&self.network, &ids)?;
            Ok(best
                .into_iter()
                .map(|label| self.corpus.labels[label].clone())
                .collect())
        })
    }
}

fn measure(
    sets: &[HeldOut],
    overlap: &BTreeSet<String>,
    mut classify: impl FnMut(&[&str]) -> Result<Vec<String>, TrainError>,
) -> Result<Vec<SetEvaluation>, TrainError> {
    let mut measured = Vec::new();
    for set in sets {
        let all = evaluate(&set.examples, &mut classify)?;
        let fresh: Vec<Example> = set
            .examples
            .iter()
            .filter(|example| !overlap.contains(&text_key(&example.text)))
            .cloned()
            .collect();
        let overlaps = fresh.len() < set.examples.len();
        let without_overlap = if overlaps {
            Some(evaluate(&fresh, &mut classify)?)
        } else {
            None
        };
        measured.push(SetEvaluation {
            name: set.name.clone(),
            all,
            without_overlap,
        });
    }
    Ok(measured)
}

#[cfg(test)]
mod tests;
