//! From a checkpoint's tensors to panels.

use intentd_kernels::Activation as Kernel;
use intentd_kernels::cpu::{Form, Heads, Isa, Norm, Panels, Team};

use super::forward::{Bert, Layer};
use crate::model::{Activation, Checkpoint, CheckpointError};

/// Reads tensors of one checkpoint into this engine's forms, all threads of the team at once.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    isa: Isa,
    team: &'a mut Team,
}

impl Bert {
    /// Reads and packs all tensors.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        (isa, form): (Isa, Form),
        team: &mut Team,
    ) -> Result<Self, CheckpointError> {
        let config = &checkpoint.config;
        let (h, labels) = (config.hidden_size, checkpoint.labels.len());
        let mut read = Reader {
            checkpoint,
            isa,
            team,
        };
        Ok(Self {
            isa,
            form,
            hidden: h,
            heads: Heads {
                count: config.heads,
                size: config.head_size(),
            },
            activation: match config.activation {
                Activation::Gelu => Kernel::Gelu,
                Activation::GeluTanh => Kernel::GeluTanh,
                Activation::Relu => Kernel::Relu,
            },
            words: read.table("word", config.vocab_size)?,
            positions: read.table("position", config.max_positions)?,
            types: read.table("token_type", config.type_vocab_size)?,
            norm: read.norm("embeddings.LayerNorm")?,
            layers: (0..config.layers)
                .map(|index| read.layer(index, form))
                .collect::<Result<_, _>>()?,
            pooler: read.linear(&["pooler.dense"], [h, h], Form::F32, 1.0)?,
            classifier: read.linear(&["classifier"], [labels, h], Form::F32, 1.0)?,
        })
    }
}

impl Reader<'_> {
    fn layer(&mut self, index: usize, form: Form) -> Result<Layer, CheckpointError> {
        let config = &self.checkpoint.config;
        let (h, ff) = (config.hidden_size, config.intermediate_size);
        // Scaling the queries' weights by 1/√d here saves scaling the scores each time.
        let scale = 1.0 / (config.head_size() as f32).sqrt();
        let name = |name: &str| format!("encoder.layer.{index}.{name}");
        let [query, key, value] =
            ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        let (attention_output, output) = (name("attention.output"), name("output"));
        let intermediate = name("intermediate.dense");
        Ok(Layer {
            query: self.linear(&[&query], [h, h], form, scale)?,
            key_value: self.linear(&[&key, &value], [h, h], form, 1.0)?,
            attention_output: {
                self.linear(&[&format!("{attention_output}.dense")], [h, h], form, 1.0)?
            },
            attention_norm: self.norm(&format!("{attention_output}.LayerNorm"))?,
            intermediate: self.linear(&[&intermediate], [ff, h], form, 1.0)?,
            output: self.linear(&[&format!("{output}.dense")], [h, ff], form, 1.0)?,
            output_norm: self.norm(&format!("{output}.LayerNorm"))?,
        })
    }

    /// One layer of the stacked rows of `names`, each `[outputs, inputs]`, times `scale`.
    fn linear(
        &mut self,
        names: &[&str],
        [outputs, inputs]: [usize; 2],
        form: Form,
        scale: f32,
    ) -> Result<Panels, CheckpointError> {
        let (mut tensors, mut bias) = (Vec::new(), Vec::new());
        let weights = &self.checkpoint.weights;
        for name in names {
            tensors.push(weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?);
            bias.extend(weights.f32(&format!("{name}.bias"), &[outputs])?);
        }
        bias.iter_mut().for_each(|value| *value *= scale);
        Panels::pack(self.team, (self.isa, form), inputs, bias, |output, row| {
            tensors[output / outputs].read(output % outputs * inputs, row)?;
            if scale != 1.0 {
                row.iter_mut().for_each(|value| *value *= scale);
            }
            Ok(())
        })
    }

    fn table(&self, name: &str, rows: usize) -> Result<Vec<f32>, CheckpointError> {
        let name = format!("embeddings.{name}_embeddings.weight");
        let shape = [rows, self.checkpoint.config.hidden_size];
        self.checkpoint.weights.f32(&name, &shape)
    }

    fn norm(&self, name: &str) -> Result<Norm, CheckpointError> {
        let Checkpoint {
            weights, config, ..
        } = self.checkpoint;
        let shape = [config.hidden_size];
        Ok(Norm {
            weight: weights.f32(&format!("{name}.weight"), &shape)?,
            bias: weights.f32(&format!("{name}.bias"), &shape)?,
            eps: config.layer_norm_eps as f32,
        })
    }
}
