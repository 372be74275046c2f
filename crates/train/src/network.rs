//! The network in training: BERT for sequence classification, differentiable, on the CPU.
//!
//! The architecture is exactly Hugging Face's `BertForSequenceClassification`, including the names of the
//! weights ([`BERT`]), so any BERT implementation can read an exported directory. Only the first
//! token's vector feeds the classifier. The last layer therefore computes queries, output projection
//! and feed-forward for that token alone, which saves time and does not change the result.

use candle_core::{D, Device, Result, Tensor, Var};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::operations::{AddBias, Gelu, LayerNorm, MaskedSoftmax};
use super::random::normal;
use super::recipe::Shape;
use intentd_model::{BERT, Role, TensorKey, TensorKind};

/// The epsilon of every layer norm, BERT's.
pub(crate) const EPSILON: f64 = 1e-12;
/// The standard deviation of initial weights, BERT's.
pub(crate) const INITIAL_DEVIATION: f32 = 0.02;

/// Zeroes values at random and scales up the rest. The masks come from the run's own generator, because candle's
/// cannot be seeded on the CPU.
#[derive(Debug)]
pub(crate) struct Dropout {
    rng: ChaCha8Rng,
    /// A random byte below this drops its value: the probability in 256ths.
    threshold: u8,
}

impl Dropout {
    /// Dropout with a probability rounded to 256ths.
    pub(crate) fn new(rng: ChaCha8Rng, probability: f64) -> Self {
        let threshold = (probability * 256.0).round().clamp(0.0, 255.0) as u8;
        Self { rng, threshold }
    }

    fn apply(&mut self, x: &Tensor) -> Result<Tensor> {
        if self.threshold == 0 {
            return Ok(x.clone());
        }
        let mut bytes = vec![0_u8; x.elem_count()];
        self.rng.fill_bytes(&mut bytes);
        let kept = 256.0 / (256.0 - f32::from(self.threshold));
        let mask: Vec<f32> = bytes
            .iter()
            .map(|byte| if *byte < self.threshold { 0.0 } else { kept })
            .collect();
        x * Tensor::from_vec(mask, x.shape(), x.device())?
    }
}

fn drop_out(dropout: &mut Option<Dropout>, x: Tensor) -> Result<Tensor> {
    match dropout {
        Some(dropout) => dropout.apply(&x),
        None => Ok(x),
    }
}

/// A weight of the network under its Hugging Face name.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    /// The name in `model.safetensors`.
    pub(crate) name: String,
    /// The value, f32.
    pub(crate) value: Var,
}

impl Parameter {
    /// Whether weight decay applies: to matrices, but not to biases and layer norms.
    pub(crate) fn decays(&self) -> bool {
        self.value.rank() > 1
    }
}

#[derive(Debug)]
struct Linear {
    /// `[out, in]`, as PyTorch stores it.
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight.t()?)?.apply_op2(&self.bias, AddBias)
    }
}

#[derive(Debug)]
struct Norm {
    gain: Tensor,
    shift: Tensor,
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op3(
            &self.gain,
            &self.shift,
            LayerNorm {
                epsilon: EPSILON as f32,
            },
        )
    }
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    output_norm: Norm,
}

/// Token ids padded to one length, with the attention mask.
#[derive(Debug)]
pub(crate) struct Input {
    /// `[batch, length]`, u32.
    pub(crate) ids: Tensor,
    /// `[batch, length]`: 0 for a token, -∞ for padding.
    pub(crate) mask: Tensor,
}

impl Input {
    /// Pads texts to the length of the longest.
    pub(crate) fn pad(texts: &[&[u32]], padding: u32) -> Result<Self> {
        let length = texts.iter().map(|ids| ids.len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (Vec::new(), Vec::new());
        for text in texts {
            let missing = length - text.len();
            ids.extend(
                text.iter()
                    .copied()
                    .chain(std::iter::repeat_n(padding, missing)),
            );
            mask.extend(std::iter::repeat_n(0.0_f32, text.len()));
            mask.extend(std::iter::repeat_n(f32::NEG_INFINITY, missing));
        }
        let shape = (texts.len(), length);
        Ok(Self {
            ids: Tensor::from_vec(ids, shape, &Device::Cpu)?,
            mask: Tensor::from_vec(mask, shape, &Device::Cpu)?,
        })
    }
}

/// The network and its weights.
#[derive(Debug)]
pub(crate) struct Network {
    heads: usize,
    words: Tensor,
    positions: Tensor,
    types: Tensor,
    embedding_norm: Norm,
    layers: Vec<Layer>,
    pooler: Linear,
    classifier: Linear,
    parameters: Vec<Parameter>,
}

/// The source of a network's weights, by role and shape.
pub(crate) type WeightSource<'a> = dyn FnMut(TensorKey, &[usize]) -> Result<Tensor> + 'a;

/// Creates the network's modules and records their weights in order of creation.
struct Builder<'a> {
    source: &'a mut WeightSource<'a>,
    parameters: Vec<Parameter>,
}

impl Builder<'_> {
    fn weight(&mut self, key: TensorKey, shape: &[usize]) -> Result<Tensor> {
        let value = Var::from_tensor(&(self.source)(key, shape)?)?;
        let tensor = value.as_tensor().clone();
        self.parameters.push(Parameter {
            name: BERT.tensor_name(key).expect("BERT has all roles"),
            value,
        });
        Ok(tensor)
    }

    fn linear(&mut self, role: Role, input: usize, output: usize) -> Result<Linear> {
        Ok(Linear {
            weight: self.weight(role.weight(), &[output, input])?,
            bias: self.weight(role.bias(), &[output])?,
        })
    }

    fn norm(&mut self, role: Role, width: usize) -> Result<Norm> {
        Ok(Norm {
            gain: self.weight(role.weight(), &[width])?,
            shift: self.weight(role.bias(), &[width])?,
        })
    }

    fn layer(&mut self, index: usize, shape: &Shape) -> Result<Layer> {
        let (hidden, wide) = (shape.hidden, shape.intermediate);
        Ok(Layer {
            query: self.linear(Role::Query(index), hidden, hidden)?,
            key: self.linear(Role::Key(index), hidden, hidden)?,
            value: self.linear(Role::Value(index), hidden, hidden)?,
            attention_output: self.linear(Role::AttentionOutput(index), hidden, hidden)?,
            attention_norm: self.norm(Role::AttentionNorm(index), hidden)?,
            intermediate: self.linear(Role::FeedForwardIn(index), hidden, wide)?,
            output: self.linear(Role::FeedForwardOut(index), wide, hidden)?,
            output_norm: self.norm(Role::FeedForwardNorm(index), hidden)?,
        })
    }
}

impl Network {
    /// Builds the network from a source of weights.
    ///
    /// # Errors
    /// Any error of the source.
    pub(crate) fn build(
        shape: &Shape,
        vocabulary: usize,
        labels: usize,
        source: &mut WeightSource<'_>,
    ) -> Result<Self> {
        let mut from = Builder {
            source,
            parameters: Vec::new(),
        };
        let (hidden, positions) = (shape.hidden, shape.max_positions);
        Ok(Self {
            heads: shape.heads,
            words: from.weight(Role::WordEmbedding.weight(), &[vocabulary, hidden])?,
            positions: from.weight(Role::PositionEmbedding.weight(), &[positions, hidden])?,
            types: from.weight(Role::TokenTypeEmbedding.weight(), &[2, hidden])?,
            embedding_norm: from.norm(Role::EmbeddingNorm, hidden)?,
            layers: (0..shape.layers)
                .map(|i| from.layer(i, shape))
                .collect::<Result<_>>()?,
            pooler: from.linear(Role::Pooler, hidden, hidden)?,
            classifier: from.linear(Role::Classifier, hidden, labels)?,
            parameters: from.parameters,
        })
    }

    /// Builds the network with random initial weights, distributed as BERT's.
    ///
    /// # Errors
    /// When a tensor cannot be created.
    pub(crate) fn initial(
        shape: &Shape,
        vocabulary: usize,
        labels: usize,
        rng: &mut impl Rng,
    ) -> Result<Self> {
        Self::build(shape, vocabulary, labels, &mut |key, dims| {
            let count = dims.iter().product();
            let values = match dims {
                [_] if key.role.is_norm() && key.kind == TensorKind::Weight => vec![1.0; count],
                [_] => vec![0.0; count],
                _ => normal(rng, count, INITIAL_DEVIATION),
            };
            Tensor::from_vec(values, dims, &Device::Cpu)
        })
    }

    /// The weights, always in the same order.
    pub(crate) fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Computes logits `[batch, labels]`: with `dropout` in training, without in evaluation.
    ///
    /// # Errors
    /// When the input does not fit the network.
    pub(crate) fn forward(&self, input: &Input, dropout: &mut Option<Dropout>) -> Result<Tensor> {
        let (batch, length) = input.ids.dims2()?;
        let hidden = self.words.dim(1)?;
        let words = self.words.index_select(&input.ids.flatten_all()?, 0)?;
        // All tokens have type 0, so its vector is added to the positions once instead of to each token.
        let places = self.positions.narrow(0, 0, length)?;
        let places = places.broadcast_add(&self.types.narrow(0, 0, 1)?)?;
        let x = words
            .reshape((batch, length, hidden))?
            .broadcast_add(&places)?;
        let x = self
            .embedding_norm
            .forward(&x.reshape((batch * length, hidden))?)?;
        let mut x = drop_out(dropout, x)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let last = index + 1 == self.layers.len();
            x = layer.forward(&x, &input.mask, self.heads, last, dropout)?;
        }
        let pooled = self.pooler.forward(&x)?.tanh()?;
        self.classifier.forward(&drop_out(dropout, pooled)?)
    }
}

impl Layer {
    /// Takes `[batch * length, hidden]`. Gives the same shape, or with `first_only` the first token of
    /// each text, `[batch, hidden]`.
    fn forward(
        &self,
        x: &Tensor,
        mask: &Tensor,
        heads: usize,
        first_only: bool,
        dropout: &mut Option<Dropout>,
    ) -> Result<Tensor> {
        let (batch, length) = mask.dims2()?;
        let hidden = x.dim(1)?;
        let (asking, queries) = if first_only {
            let first = x.reshape((batch, length, hidden))?.narrow(1, 0, 1)?;
            (first.contiguous()?.reshape((batch, hidden))?, 1)
        } else {
            (x.clone(), length)
        };
        let split = |x: Tensor, rows: usize| {
            x.reshape((batch, rows, heads, hidden / heads))?
                .transpose(1, 2)?
                .contiguous()
        };
        let query = split(self.query.forward(&asking)?, queries)?;
        let key = split(self.key.forward(x)?, length)?;
        let value = split(self.value.forward(x)?, length)?;
        let scale = 1.0 / ((hidden / heads) as f32).sqrt();
        let scores = query.matmul(&key.transpose(D::Minus2, D::Minus1)?)?;
        let weights = scores.apply_op2(mask, MaskedSoftmax { scale })?;
        let mixed = drop_out(dropout, weights)?.matmul(&value)?;
        let mixed = mixed
            .transpose(1, 2)?
            .contiguous()?
            .reshape((batch * queries, hidden))?;
        let attended = drop_out(dropout, self.attention_output.forward(&mixed)?)?;
        let x = self.attention_norm.forward(&(attended + asking)?)?;
        let wide = self.intermediate.forward(&x)?.apply_op1(Gelu)?;
        let narrow = drop_out(dropout, self.output.forward(&wide)?)?;
        self.output_norm.forward(&(narrow + x)?)
    }
}
