//! The state of an unfinished run: weights, optimiser moments, and how many epochs are done.
//!
//! No generator state is stored: every epoch draws from its own stream (see [`super::random`]).
//! A fingerprint of recipe, texts and vocabulary prevents resuming another run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sha2::{Digest, Sha256};

use super::error::TrainError;
use super::labelled::LabelledText;
use super::network::Parameter;
use super::optimizer::{AdamW, Slot};
use super::recipe::Recipe;

/// The checkpoint's file name inside the output folder.
const FILE: &str = "checkpoint.safetensors";

/// The checkpoint file of a run, with the fingerprint of the run.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    path: PathBuf,
    fingerprint: String,
}

impl Checkpoint {
    /// Names the checkpoint of a run with this recipe, these texts and this tokenizer.
    pub(crate) fn new(
        output: &Path,
        recipe: &Recipe,
        texts: &[LabelledText],
        tokenizer: &str,
    ) -> Result<Self, TrainError> {
        let recipe = canonical(recipe)?;
        let mut hash = Sha256::new();
        hash.update(recipe.as_bytes());
        hash.update(tokenizer.as_bytes());
        for LabelledText { text, label } in texts {
            hash.update(text.as_bytes());
            hash.update(label.to_le_bytes());
        }
        let digest = hash.finalize();
        let fingerprint = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            path: output.join(FILE),
            fingerprint,
        })
    }

    /// Writes the state after `epochs` finished epochs. The file is replaced atomically, so that a crash
    /// leaves the old or the new state.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(
        &self,
        parameters: &[Parameter],
        optimizer: &AdamW,
        epochs: usize,
    ) -> Result<(), TrainError> {
        let mut tensors = Vec::new();
        for (parameter, slot) in parameters.iter().zip(&optimizer.slots) {
            let parts = [
                ("weight", &slot.weight),
                ("mean", &slot.mean),
                ("variance", &slot.variance),
            ];
            for (part, values) in parts {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                tensors.push((format!("{part}/{}", parameter.name), bytes));
            }
        }
        let views = tensors
            .iter()
            .map(|(name, bytes)| {
                let count = bytes.len() / size_of::<f32>();
                let view = TensorView::new(Dtype::F32, vec![count], bytes);
                view.map(|view| (name.as_str(), view))
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.wrong(&e.to_string()))?;
        let about = HashMap::from([
            ("fingerprint".to_owned(), self.fingerprint.clone()),
            ("epochs".to_owned(), epochs.to_string()),
            ("steps".to_owned(), optimizer.steps.to_string()),
        ]);
        let bytes =
            safetensors::serialize(views, Some(about)).map_err(|e| self.wrong(&e.to_string()))?;
        let fresh = self.path.with_extension("new");
        std::fs::write(&fresh, bytes).map_err(TrainError::io(&fresh))?;
        std::fs::rename(&fresh, &self.path).map_err(TrainError::io(&self.path))
    }

    /// Restores network and optimiser. Returns the number of finished epochs, 0 without a checkpoint.
    ///
    /// # Errors
    /// When the file is damaged or belongs to another run.
    pub(crate) fn load(
        &self,
        parameters: &[Parameter],
        optimizer: &mut AdamW,
    ) -> Result<usize, TrainError> {
        if !self.path.exists() {
            return Ok(0);
        }
        let bytes = std::fs::read(&self.path).map_err(TrainError::io(&self.path))?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|e| self.wrong(&e.to_string()))?;
        let about = header.metadata().clone().unwrap_or_default();
        if about.get("fingerprint") != Some(&self.fingerprint) {
            return Err(TrainError::OtherRun(self.path.clone()));
        }
        let number = |key: &str| {
            let number = about.get(key).and_then(|value| value.parse::<usize>().ok());
            number.ok_or_else(|| self.wrong(&format!("no number of {key}")))
        };
        let (epochs, steps) = (number("epochs")?, number("steps")?);
        let stored = SafeTensors::deserialize(&bytes).map_err(|e| self.wrong(&e.to_string()))?;
        let read = |name: String, count: usize| -> Result<Vec<f32>, TrainError> {
            let view = stored
                .tensor(&name)
                .map_err(|e| self.wrong(&e.to_string()))?;
            let (values, _) = view.data().as_chunks::<4>();
            if view.dtype() != Dtype::F32 || values.len() != count {
                return Err(self.wrong(&format!("{name} has the wrong size")));
            }
            Ok(values
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect())
        };
        for (parameter, slot) in parameters.iter().zip(&mut optimizer.slots) {
            let count = slot.weight.len();
            let part = |part: &str| read(format!("{part}/{}", parameter.name), count);
            *slot = Slot {
                weight: part("weight")?,
                mean: part("mean")?,
                variance: part("variance")?,
            };
            slot.write(parameter)?;
        }
        optimizer.steps = steps;
        Ok(epochs)
    }

    /// Removes the checkpoint of a finished run.
    ///
    /// # Errors
    /// When the file exists and cannot be removed.
    pub(crate) fn remove(&self) -> Result<(), TrainError> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(TrainError::io(&self.path)(error))
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, reason: &str) -> TrainError {
        TrainError::Model {
            path: self.path.clone(),
            reason: reason.to_owned(),
        }
    }
}

/// A text form of everything in the recipe.
fn canonical(recipe: &Recipe) -> Result<String, TrainError> {
    serde_json::to_string(recipe).map_err(|e| TrainError::Recipe(e.to_string()))
}
