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
    /// Projection of the normalized embeddings to the hidden size.
    EmbeddingProjection,
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

    /// The layer of the module, if it belongs to one.
    pub const fn layer(self) -> Option<usize> {
        match self {
            Self::Query(layer)
            | Self::Key(layer)
            | Self::Value(layer)
            | Self::AttentionOutput(layer)
            | Self::AttentionNorm(layer)
            | Self::FeedForwardIn(layer)
            | Self::FeedForwardOut(layer)
            | Self::FeedForwardNorm(layer) => Some(layer),
            _ => None,
        }
    }

    /// The same module in another layer.
    const fn in_layer(self, layer: usize) -> Self {
        match self {
            Self::Query(_) => Self::Query(layer),
            Self::Key(_) => Self::Key(layer),
            Self::Value(_) => Self::Value(layer),
            Self::AttentionOutput(_) => Self::AttentionOutput(layer),
            Self::AttentionNorm(_) => Self::AttentionNorm(layer),
            Self::FeedForwardIn(_) => Self::FeedForwardIn(layer),
            Self::FeedForwardOut(_) => Self::FeedForwardOut(layer),
            Self::FeedForwardNorm(_) => Self::FeedForwardNorm(layer),
            other => other,
        }
    }

    const fn is_embedding(self) -> bool {
        matches!(
            self,
            Self::WordEmbedding | Self::PositionEmbedding | Self::TokenTypeEmbedding
        )
    }

    /// All roles of an encoder with `layers` layers, without the classifier.
    fn of_encoder(layers: usize, has_projection: bool) -> impl Iterator<Item = Self> {
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
        let projection = has_projection.then_some(Self::EmbeddingProjection);
        embeddings
            .into_iter()
            .chain(projection)
            .chain((0..layers).flat_map(layer))
            .chain([Self::Pooler])
    }
}

impl TensorKey {
    /// The same tensor in another layer.
    #[must_use]
    pub const fn in_layer(self, layer: usize) -> Self {
        Self {
            role: self.role.in_layer(layer),
            ..self
        }
    }

    /// All tensors of an encoder with `layers` layers of their own weights, without the classifier's. `has_projection`:
    /// whether its embeddings are projected.
    ///
    /// The order is fixed, since digests depend on it. The iterator is lazy: a search stops at the first missing
    /// tensor, however many layers a configuration claims.
    pub fn of_encoder(layers: usize, has_projection: bool) -> impl Iterator<Item = Self> {
        Role::of_encoder(layers, has_projection).flat_map(|role| {
            let bias = (!role.is_embedding()).then(|| role.bias());
            [role.weight()].into_iter().chain(bias)
        })
    }
}
