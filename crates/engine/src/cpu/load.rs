//! Reading a checkpoint's tensors into packed panels.

use intentd_kernels::cpu::{Form, Heads, Isa, Norm, Panels, Team};

use super::forward::{PackedLayer, PackedModel};
use crate::activation;
use intentd_model::{Checkpoint, CheckpointError, Role};

/// Reads tensors of one checkpoint into this engine's forms, with all threads of the team.
struct PanelReader<'a> {
    checkpoint: &'a Checkpoint,
    isa: Isa,
    team: &'a mut Team,
}

impl PackedModel {
    /// Reads and packs all tensors.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        isa: Isa,
        form: Form,
        team: &mut Team,
    ) -> Result<Self, CheckpointError> {
        let config = &checkpoint.config;
        let mut read = PanelReader {
            checkpoint,
            isa,
            team,
        };
        Ok(Self {
            isa,
            form,
            hidden: config.hidden_size,
            heads: Heads {
                count: config.heads,
                size: config.head_size(),
            },
            activation: activation::kernel(config.activation),
            embedding: config.embedding_size,
            words: read.table(Role::WordEmbedding)?,
            positions: read.table(Role::PositionEmbedding)?,
            types: read.table(Role::TokenTypeEmbedding)?,
            norm: read.norm(Role::EmbeddingNorm)?,
            projection: match config.has_embedding_projection() {
                true => Some(read.linear(&[Role::EmbeddingProjection], Form::F32, 1.0)?),
                false => None,
            },
            layers: (0..config.layer_groups)
                .map(|index| read.layer(index, form))
                .collect::<Result<_, _>>()?,
            order: (0..config.layers)
                .map(|layer| config.weights_of_layer(layer))
                .collect(),
            pooler: read.linear(&[Role::Pooler], Form::F32, 1.0)?,
            pooler_activation: activation::kernel(config.family.pooler_activation),
            classifier: read.linear(&[Role::Classifier], Form::F32, 1.0)?,
        })
    }
}

impl PanelReader<'_> {
    fn layer(&mut self, index: usize, form: Form) -> Result<PackedLayer, CheckpointError> {
        // Scaling the query weights by 1/√d once at load saves scaling the scores in every pass.
        let scale = 1.0 / (self.checkpoint.config.head_size() as f32).sqrt();
        let (key, value) = (Role::Key(index), Role::Value(index));
        Ok(PackedLayer {
            query: self.linear(&[Role::Query(index)], form, scale)?,
            key_value: self.linear(&[key, value], form, 1.0)?,
            attention_output: self.linear(&[Role::AttentionOutput(index)], form, 1.0)?,
            attention_norm: self.norm(Role::AttentionNorm(index))?,
            intermediate: self.linear(&[Role::FeedForwardIn(index)], form, 1.0)?,
            output: self.linear(&[Role::FeedForwardOut(index)], form, 1.0)?,
            output_norm: self.norm(Role::FeedForwardNorm(index))?,
        })
    }

    /// One projection from the stacked rows of `roles`, which have equal shapes, times `scale`.
    fn linear(
        &mut self,
        roles: &[Role],
        form: Form,
        scale: f32,
    ) -> Result<Panels, CheckpointError> {
        let weights = &self.checkpoint.weights;
        let (mut tensors, mut bias) = (Vec::new(), Vec::new());
        for role in roles {
            tensors.push(weights.tensor(role.weight()));
            bias.extend(weights.f32(role.bias())?);
        }
        bias.iter_mut().for_each(|value| *value *= scale);
        let (outputs, inputs) = (tensors[0].shape()[0], tensors[0].shape()[1]);
        Panels::pack(self.team, (self.isa, form), inputs, bias, |output, row| {
            tensors[output / outputs].read(output % outputs * inputs, row)?;
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
            Ok(())
        })
    }

    fn table(&self, role: Role) -> Result<Vec<f32>, CheckpointError> {
        self.checkpoint.weights.f32(role.weight())
    }

    fn norm(&self, role: Role) -> Result<Norm, CheckpointError> {
        let Checkpoint {
            weights, config, ..
        } = self.checkpoint;
        Ok(Norm {
            weight: weights.f32(role.weight())?,
            bias: weights.f32(role.bias())?,
            eps: config.layer_norm_eps as f32,
        })
    }
}
