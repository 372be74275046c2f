//! The shape of each tensor, from the sizes in `config.json`.

use super::architecture::{Role, TensorKey, TensorKind};
use super::config::ModelConfig;

impl ModelConfig {
    /// All tensors of the encoder with their shapes, row-major. The classifier is not included, because its number
    /// of rows comes from the checkpoint. Layers that share weights have one entry.
    pub fn encoder_tensors(&self) -> impl Iterator<Item = (TensorKey, Vec<usize>)> {
        TensorKey::of_encoder(self.layer_groups, self.has_embedding_projection())
            .map(|key| (key, self.shape(key, 0)))
    }

    /// All tensors with their shapes, for a classifier of `labels` rows.
    pub fn tensors(&self, labels: usize) -> impl Iterator<Item = (TensorKey, Vec<usize>)> {
        let classifier = [Role::Classifier.weight(), Role::Classifier.bias()];
        let classifier = classifier.map(|key| (key, self.shape(key, labels)));
        self.encoder_tensors().chain(classifier)
    }

    fn shape(&self, key: TensorKey, labels: usize) -> Vec<usize> {
        let (hidden, intermediate) = (self.hidden_size, self.intermediate_size);
        let embedding = self.embedding_size;
        let weight = match key.role {
            Role::WordEmbedding => vec![self.vocab_size, embedding],
            Role::PositionEmbedding => vec![self.max_positions, embedding],
            Role::TokenTypeEmbedding => vec![self.type_vocab_size, embedding],
            Role::EmbeddingNorm => vec![embedding],
            Role::EmbeddingProjection => vec![hidden, embedding],
            Role::AttentionNorm(_) | Role::FeedForwardNorm(_) => vec![hidden],
            Role::Query(_)
            | Role::Key(_)
            | Role::Value(_)
            | Role::AttentionOutput(_)
            | Role::Pooler => vec![hidden, hidden],
            Role::FeedForwardIn(_) => vec![intermediate, hidden],
            Role::FeedForwardOut(_) => vec![hidden, intermediate],
            Role::Classifier => vec![labels, hidden],
        };
        match key.kind {
            TensorKind::Weight => weight,
            TensorKind::Bias => vec![weight[0]],
        }
    }
}
