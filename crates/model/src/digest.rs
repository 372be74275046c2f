//! The digest of a checkpoint: a name derived from its content.

use sha2::{Digest as _, Sha256};

use super::checkpoint::Checkpoint;
use super::error::CheckpointError;

/// Bytes of each tensor that are hashed. Reading a large model whole would take longer than measuring it.
const SAMPLE: usize = 4096;

impl Checkpoint {
    /// SHA-256, as hexadecimal digits, of the shape and of the first bytes of every tensor.
    ///
    /// The digest does not depend on the directory or on how the tensors are split into shards. Further training
    /// changes it.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn digest(&self) -> Result<String, CheckpointError> {
        let (config, weights) = (&self.config, &self.weights);
        let mut hash = Sha256::new();
        let shape = (config.layers, config.heads, config.activation);
        hash.update(format!("{shape:?} {}\n", self.tokenizer.max_tokens()));
        let mut bytes = [0; SAMPLE];
        for (key, shape) in config.tensors(weights.label_count()) {
            let Some(name) = config.family.canonical_name(key) else {
                continue;
            };
            let tensor = weights.tensor(key);
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
    fn different_models_have_different_digests() {
        let mut checkpoint = Checkpoint::embedded().unwrap();
        let digest = checkpoint.digest().unwrap();
        assert_eq!(digest.len(), 64);
        assert_eq!(digest, Checkpoint::embedded().unwrap().digest().unwrap());
        checkpoint.config.heads *= 2;
        assert_ne!(digest, checkpoint.digest().unwrap());
    }
}
