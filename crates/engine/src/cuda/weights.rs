//! Copying a checkpoint's tensors into device memory.
//!
//! Tensors go through pinned memory. The device converts those that are stored in another type.

use intentd_kernels::{
    Activation, Attention, Buffer, Device, DeviceError, Dtype, Norm, Pinned, Tables,
};

use crate::activation;
use crate::error::LoadError;
use intentd_model::{Checkpoint, CheckpointError, Role, TensorKey};

/// Size of one copy. Two copies are in flight at a time.
const PIECE_BYTES: usize = 16 << 20;

/// A projection: a matrix `[outer, inner]` and its bias, `[outer]`.
#[derive(Debug)]
pub(super) struct DeviceLinear {
    pub(super) w: Buffer,
    pub(super) bias: Buffer,
}

#[derive(Debug)]
pub(super) struct DeviceLayer {
    /// Query, key and value projections, stacked: `[3 · hidden, hidden]`.
    pub(super) qkv: DeviceLinear,
    pub(super) attention_output: DeviceLinear,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: DeviceLinear,
    pub(super) output: DeviceLinear,
    pub(super) output_norm: Norm,
}

/// A classifier in device memory.
#[derive(Debug)]
pub(super) struct DeviceModel {
    pub(super) dtype: Dtype,
    /// Width of the embeddings.
    pub(super) embedding: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) labels: usize,
    pub(super) attention: Attention,
    pub(super) activation: Activation,
    pub(super) tables: Tables,
    pub(super) norm: Norm,
    /// From the embeddings to the hidden size. `None` if they have it.
    pub(super) projection: Option<DeviceLinear>,
    /// The layers with weights of their own.
    layers: Vec<DeviceLayer>,
    /// The index of each layer's weights in `layers`.
    order: Vec<usize>,
    pub(super) pooler: DeviceLinear,
    pub(super) pooler_activation: Activation,
    pub(super) classifier: DeviceLinear,
}

impl DeviceModel {
    /// Copies all tensors to the device, as `dtype`.
    ///
    /// # Errors
    /// When the kernels do not support the shape, a tensor cannot be read, or the device fails.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        check_shape(checkpoint)?;
        let config = &checkpoint.config;
        let mut load = Uploader::new(checkpoint, device, dtype)?;
        let tables = Tables {
            words: load.table(Role::WordEmbedding)?,
            positions: load.table(Role::PositionEmbedding)?,
            types: load.table(Role::TokenTypeEmbedding)?,
        };
        let norm = load.norm(Role::EmbeddingNorm)?;
        let projection = match config.has_embedding_projection() {
            true => Some(load.linear(&[Role::EmbeddingProjection])?),
            false => None,
        };
        let layers = (0..config.layer_groups)
            .map(|index| load.layer(index))
            .collect::<Result<_, _>>()?;
        let model = Self {
            dtype,
            embedding: config.embedding_size,
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            labels: checkpoint.labels.len(),
            attention: Attention {
                heads: config.heads,
                head_size: config.head_size(),
            },
            activation: activation::kernel(config.activation),
            tables,
            norm,
            projection,
            layers,
            order: (0..config.layers)
                .map(|layer| config.weights_of_layer(layer))
                .collect(),
            pooler: load.linear(&[Role::Pooler])?,
            pooler_activation: activation::kernel(config.family.pooler_activation),
            classifier: load.linear(&[Role::Classifier])?,
        };
        device.synchronize()?;
        Ok(model)
    }

    /// The layers in order.
    pub(super) fn layers(
        &self,
    ) -> impl ExactSizeIterator<Item = &DeviceLayer> + DoubleEndedIterator {
        self.order.iter().map(|layer| &self.layers[*layer])
    }
}

/// Refuses shapes that the kernels do not support, before anything is copied.
fn check_shape(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    let config = &checkpoint.config;
    let keys = &config.family.keys;
    let refuse = |key: &str, expected: &str, found: usize| {
        let path = format!("{}/config.json", checkpoint.origin);
        let expected = format!("{expected} (or take --device cpu)");
        Err(CheckpointError::invalid(path, key, expected, found).into())
    };
    if !config.hidden_size.is_multiple_of(8) || config.hidden_size > 2048 {
        let expected = "a multiple of 8, at most 2048";
        return refuse(keys.hidden_size.name, expected, config.hidden_size);
    }
    if !config.head_size().is_multiple_of(8) || config.head_size() > 256 {
        let expected = "heads of a multiple of 8 values, at most 256";
        return refuse(keys.heads.name, expected, config.heads);
    }
    if !config.intermediate_size.is_multiple_of(8) {
        let key = keys.intermediate_size.name;
        return refuse(key, "a multiple of 8", config.intermediate_size);
    }
    if !config.embedding_size.is_multiple_of(8) || config.embedding_size > config.hidden_size {
        let key = keys
            .embedding_projection
            .map_or("embedding_size", |p| p.size.name);
        let expected = format!("a multiple of 8, at most {}", config.hidden_size);
        return refuse(key, &expected, config.embedding_size);
    }
    if config.max_positions > 4096 {
        return refuse(
            keys.max_positions.name,
            "at most 4096",
            config.max_positions,
        );
    }
    Ok(())
}

/// Copies tensors of one checkpoint to the device.
struct Uploader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    dtype: Dtype,
    /// Used in turn.
    staging: [Staging; 2],
    next: usize,
}

/// Memory for one copy in flight.
struct Staging {
    pinned: Pinned,
    /// The copy in its stored type, before the device converts it.
    raw: Buffer,
}

impl<'a> Uploader<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        dtype: Dtype,
    ) -> Result<Self, DeviceError> {
        let staging = || -> Result<Staging, DeviceError> {
            Ok(Staging {
                pinned: device.pinned(PIECE_BYTES)?,
                raw: device.zeros(Dtype::U32, PIECE_BYTES / Dtype::U32.bytes())?,
            })
        };
        Ok(Self {
            checkpoint,
            device,
            dtype,
            staging: [staging()?, staging()?],
            next: 0,
        })
    }

    fn layer(&mut self, index: usize) -> Result<DeviceLayer, LoadError> {
        let (query, key, value) = (Role::Query(index), Role::Key(index), Role::Value(index));
        Ok(DeviceLayer {
            qkv: self.linear(&[query, key, value])?,
            attention_output: self.linear(&[Role::AttentionOutput(index)])?,
            attention_norm: self.norm(Role::AttentionNorm(index))?,
            intermediate: self.linear(&[Role::FeedForwardIn(index)])?,
            output: self.linear(&[Role::FeedForwardOut(index)])?,
            output_norm: self.norm(Role::FeedForwardNorm(index))?,
        })
    }

    fn table(&mut self, role: Role) -> Result<Buffer, LoadError> {
        self.vector(role.weight())
    }

    /// The stacked projections of `roles`, which have equal shapes.
    fn linear(&mut self, roles: &[Role]) -> Result<DeviceLinear, LoadError> {
        let shape = self.checkpoint.weights.tensor(roles[0].weight()).shape();
        let (outer, inner) = (shape[0], shape[1]);
        let w = self.device.zeros(self.dtype, roles.len() * outer * inner)?;
        let bias = self.device.zeros(self.dtype, roles.len() * outer)?;
        for (index, role) in roles.iter().enumerate() {
            let matrix = w.slice(index * outer * inner..(index + 1) * outer * inner);
            self.copy(role.weight(), &matrix)?;
            let vector = bias.slice(index * outer..(index + 1) * outer);
            self.copy(role.bias(), &vector)?;
        }
        Ok(DeviceLinear { w, bias })
    }

    fn norm(&mut self, role: Role) -> Result<Norm, LoadError> {
        Ok(Norm {
            gamma: self.vector(role.weight())?,
            beta: self.vector(role.bias())?,
            eps: self.checkpoint.config.layer_norm_eps as f32,
        })
    }

    /// All values of a tensor in a buffer of its own.
    fn vector(&mut self, key: TensorKey) -> Result<Buffer, LoadError> {
        let values = self.checkpoint.weights.tensor(key).shape().iter().product();
        let buffer = self.device.zeros(self.dtype, values)?;
        self.copy(key, &buffer)?;
        Ok(buffer)
    }

    fn copy(&mut self, key: TensorKey, to: &Buffer) -> Result<(), LoadError> {
        let tensor = self.checkpoint.weights.tensor(key);
        let stored = match tensor.dtype() {
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            // `Weights::read` refuses all other types.
            _ => Dtype::F32,
        };
        let mut done = 0;
        for start in (0..tensor.len()).step_by(PIECE_BYTES) {
            let bytes = PIECE_BYTES.min(tensor.len() - start);
            let Staging { pinned, raw } = &mut self.staging[self.next];
            self.next = 1 - self.next;
            // Waits for the last copy from this memory.
            tensor.read_bytes(start, &mut pinned.write()?[..bytes])?;
            let len = bytes / stored.bytes();
            let to = to.slice(done..done + len);
            if stored == self.dtype {
                self.device.upload(pinned, &to)?;
            } else {
                let raw = raw.reinterpret(stored).slice(0..len);
                self.device.upload(pinned, &raw)?;
                self.device.convert(&raw, &to)?;
            }
            done += len;
        }
        Ok(())
    }
}
