//! The roles of tensors in an encoder with a classification head.

/// The role of a module in the network. Layers are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// One row for each entry of the vocabulary.
    WordEmbedding,
    /// One row for each position.
    PositionEmbedding,
    /// One row for each token type.
    TokenTypeEmbedding,
    /// LayerNorm of the summed embeddings.
    EmbeddingNorm,
    /// Query projection of a layer.
    Query(usize),
    /// Key projection of a layer.
    Key(usize),
    /// Value projection of a layer.
    Value(usize),
    /// Output projection of a layer's attention.
    AttentionOutput(usize),
    /// LayerNorm after a layer's attention.
    AttentionNorm(usize),
    /// First feed-forward projection of a layer, to the intermediate size.
    FeedForwardIn(usize),
    /// Second feed-forward projection of a layer, back to the hidden size.
    FeedForwardOut(usize),
    /// LayerNorm after a layer's feed-forward block.
    FeedForwardNorm(usize),
    /// Projection of the `[CLS]` row, followed by tanh.
    Pooler,
    /// Projection of the pooled row to one logit for each label.
    Classifier,
}

/// Which tensor of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorKind {
    /// An embedding table, the matrix of a projection, or the scale (γ) of a LayerNorm.
    Weight,
    /// The bias of a projection or the shift (β) of a LayerNorm.
    Bias,
}

/// A tensor of the network, independent of its name in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorKey {
    /// The module.
    pub role: Role,
    /// The tensor within the module.
    pub kind: TensorKind,
}

impl Role {
    /// The module's weight.
    pub const fn weight(self) -> TensorKey {
        TensorKey {
            role: self,
            kind: TensorKind::Weight,
        }
    }

    /// The module's bias. Embeddings have none.
    pub const fn bias(self) -> TensorKey {
        TensorKey {
            role: self,
            kind: TensorKind::Bias,
        }
    }

    /// Whether the module is a LayerNorm.
    pub const fn is_norm(self) -> bool {
        matches!(
            self,
            Self::EmbeddingNorm | Self::AttentionNorm(_) | Self::FeedForwardNorm(_)
        )
    }

    const fn is_embedding(self) -> bool {
        matches!(
            self,
            Self::WordEmbedding | Self::PositionEmbedding | Self::TokenTypeEmbedding
        )
    }

    /// All roles of an encoder with `layers` layers, without the classifier.
    fn of_encoder(layers: usize) -> impl Iterator<Item = Self> {
        let embeddings = [
            Self::WordEmbedding,
            Self::PositionEmbedding,
            Self::TokenTypeEmbedding,
            Self::EmbeddingNorm,
        ];
        let layer = |layer| {
            [
                Self::Query(layer),
                Self::Key(layer),
                Self::Value(layer),
                Self::AttentionOutput(layer),
                Self::FeedForwardIn(layer),
                Self::FeedForwardOut(layer),
                Self::AttentionNorm(layer),
                Self::FeedForwardNorm(layer),
            ]
        };
        embeddings
            .into_iter()
            .chain((0..layers).flat_map(layer))
            .chain([Self::Pooler])
    }
}

impl TensorKey {
    /// All tensors of an encoder with `layers` layers, without the classifier's.
    ///
    /// The order is fixed, since digests depend on it. The iterator is lazy: a search stops at the first missing
    /// tensor, however many layers a configuration claims.
    pub fn of_encoder(layers: usize) -> impl Iterator<Item = Self> {
        Role::of_encoder(layers).flat_map(|role| {
            let bias = (!role.is_embedding()).then(|| role.bias());
            [role.weight()].into_iter().chain(bias)
        })
    }
}
