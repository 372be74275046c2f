//! A name for a checkpoint that follows from what is in it.

use sha2::{Digest as _, Sha256};

use super::weights::expected_tensors;
use super::{Checkpoint, CheckpointError};

/// Bytes of each tensor that count. All of a large model would take longer to read than measuring it.
const SAMPLE: usize = 4096;

impl Checkpoint {
    /// SHA-256, in hexadecimal digits, of the shape and of the first bytes of every tensor: the same for
    /// the same model in another directory or in other shards, another for one that was trained on.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn digest(&self) -> Result<String, CheckpointError> {
        let (config, weights) = (&self.config, &self.weights);
        let mut hash = Sha256::new();
        let shape = (config.layers, config.heads, config.activation);
        hash.update(format!("{shape:?} {}\n", self.tokenizer.max_tokens()));
        let rows = weights.label_count();
        let classifier = [
            (
                "classifier.weight".to_owned(),
                vec![rows, config.hidden_size],
            ),
            ("classifier.bias".to_owned(), vec![rows]),
        ];
        let mut bytes = [0; SAMPLE];
        for (name, shape) in expected_tensors(config).chain(classifier) {
            let tensor = weights.tensor(&name, &shape)?;
            hash.update(format!("{name} {shape:?} {:?}\n", tensor.dtype()));
            let sample = &mut bytes[..tensor.len().min(SAMPLE)];
            tensor.read_bytes(0, sample)?;
            hash.update(sample);
        }
        let digest = hash.finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_tells_models_apart() {
        let mut checkpoint = Checkpoint::embedded().unwrap();
        let digest = checkpoint.digest().unwrap();
        assert_eq!(digest.len(), 64);
        assert_eq!(digest, Checkpoint::embedded().unwrap().digest().unwrap());
        checkpoint.config.heads *= 2;
        assert_ne!(digest, checkpoint.digest().unwrap());
    }
}
