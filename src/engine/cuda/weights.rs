//! A checkpoint's tensors into device memory: through pinned memory, converted on the device where
//! they are stored as another type.

use intentd_kernels::{
    Activation, Attention, Buffer, Device, DeviceError, Dtype, Norm, Pinned, Tables,
};

use crate::engine::LoadError;
use crate::model::{self, Checkpoint};

/// Size of a piece of a tensor on its way. Two of them are under way at once.
const PIECE_BYTES: usize = 16 << 20;

/// A matrix `[outer, inner]` and what is added to its product, `[outer]`.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) w: Buffer,
    pub(super) bias: Buffer,
}

#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values in one, `[3 · hidden, hidden]`.
    pub(super) qkv: Linear,
    pub(super) attention_output: Linear,
    pub(super) attention_norm: Norm,
    pub(super) intermediate: Linear,
    pub(super) output: Linear,
    pub(super) output_norm: Norm,
}

/// A BERT classifier in device memory.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) dtype: Dtype,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) labels: usize,
    pub(super) attention: Attention,
    pub(super) activation: Activation,
    pub(super) tables: Tables,
    pub(super) norm: Norm,
    pub(super) layers: Vec<Layer>,
    pub(super) pooler: Linear,
    pub(super) classifier: Linear,
}

impl Model {
    /// Copies all tensors to the device, as `dtype`.
    pub(super) fn load(
        checkpoint: &Checkpoint,
        device: &Device,
        dtype: Dtype,
    ) -> Result<Self, LoadError> {
        check_shape(checkpoint)?;
        let config = &checkpoint.config;
        let (h, ff, labels) = (
            config.hidden_size,
            config.intermediate_size,
            checkpoint.labels.len(),
        );
        let mut load = Loader::new(checkpoint, device, dtype)?;
        let tables = Tables {
            words: load.table("word", config.vocab_size)?,
            positions: load.table("position", config.max_positions)?,
            types: load.table("token_type", config.type_vocab_size)?,
        };
        let norm = load.norm("embeddings.LayerNorm")?;
        let mut layers = Vec::with_capacity(config.layers);
        for index in 0..config.layers {
            let prefix = format!("encoder.layer.{index}");
            let attention = format!("{prefix}.attention");
            let part = |name: &str| format!("{attention}.self.{name}");
            layers.push(Layer {
                qkv: load.linear(&[part("query"), part("key"), part("value")], h, h)?,
                attention_output: load.linear(&[format!("{attention}.output.dense")], h, h)?,
                attention_norm: load.norm(&format!("{attention}.output.LayerNorm"))?,
                intermediate: load.linear(&[format!("{prefix}.intermediate.dense")], ff, h)?,
                output: load.linear(&[format!("{prefix}.output.dense")], h, ff)?,
                output_norm: load.norm(&format!("{prefix}.output.LayerNorm"))?,
            });
        }
        let model = Self {
            dtype,
            hidden: h,
            intermediate: ff,
            labels,
            attention: Attention {
                heads: config.heads,
                head_size: config.head_size(),
            },
            activation: match config.activation {
                model::Activation::Gelu => Activation::Gelu,
                model::Activation::GeluTanh => Activation::GeluTanh,
                model::Activation::Relu => Activation::Relu,
            },
            tables,
            norm,
            layers,
            pooler: load.linear(&["pooler.dense".to_owned()], h, h)?,
            classifier: load.linear(&["classifier".to_owned()], labels, h)?,
        };
        device.synchronize()?;
        Ok(model)
    }
}

/// What the kernels cannot do is refused before anything is copied.
fn check_shape(checkpoint: &Checkpoint) -> Result<(), LoadError> {
    let config = &checkpoint.config;
    let refuse = |key: &str, expected: &str, found: usize| {
        let path = format!("{}/config.json", checkpoint.origin);
        let expected = format!("{expected} (or take --device cpu)");
        Err(model::CheckpointError::invalid(path, key, expected, found).into())
    };
    if !config.hidden_size.is_multiple_of(8) || config.hidden_size > 2048 {
        return refuse(
            "hidden_size",
            "a multiple of 8, at most 2048",
            config.hidden_size,
        );
    }
    if !config.head_size().is_multiple_of(8) || config.head_size() > 256 {
        let expected = "heads of a multiple of 8 values, at most 256";
        return refuse("num_attention_heads", expected, config.heads);
    }
    if !config.intermediate_size.is_multiple_of(8) {
        return refuse(
            "intermediate_size",
            "a multiple of 8",
            config.intermediate_size,
        );
    }
    if config.max_positions > 4096 {
        return refuse(
            "max_position_embeddings",
            "at most 4096",
            config.max_positions,
        );
    }
    Ok(())
}

/// Tensors on their way to the device.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    device: &'a Device,
    dtype: Dtype,
    /// Where a piece waits for its copy, and where the device finds it to convert.
    pieces: [(Pinned, Buffer); 2],
    next: usize,
}

impl<'a> Loader<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        device: &'a Device,
        dtype: Dtype,
    ) -> Result<Self, DeviceError> {
        let piece = || -> Result<(Pinned, Buffer), DeviceError> {
            let words = PIECE_BYTES / Dtype::U32.bytes();
            Ok((
                device.pinned(PIECE_BYTES)?,
                device.zeros(Dtype::U32, words)?,
            ))
        };
        Ok(Self {
            checkpoint,
            device,
            dtype,
            pieces: [piece()?, piece()?],
            next: 0,
        })
    }

    /// `embeddings.<name>_embeddings.weight`, `[rows, hidden]`.
    fn table(&mut self, name: &str, rows: usize) -> Result<Buffer, LoadError> {
        let hidden = self.checkpoint.config.hidden_size;
        let name = format!("embeddings.{name}_embeddings.weight");
        let table = self.device.zeros(self.dtype, rows * hidden)?;
        self.copy(&name, &[rows, hidden], &table)?;
        Ok(table)
    }

    /// Linear layers of `[outer, inner]` each, one after the other.
    fn linear(
        &mut self,
        names: &[String],
        outer: usize,
        inner: usize,
    ) -> Result<Linear, LoadError> {
        let w = self.device.zeros(self.dtype, names.len() * outer * inner)?;
        let bias = self.device.zeros(self.dtype, names.len() * outer)?;
        for (index, name) in names.iter().enumerate() {
            let matrix = w.slice(index * outer * inner..(index + 1) * outer * inner);
            self.copy(&format!("{name}.weight"), &[outer, inner], &matrix)?;
            let vector = bias.slice(index * outer..(index + 1) * outer);
            self.copy(&format!("{name}.bias"), &[outer], &vector)?;
        }
        Ok(Linear { w, bias })
    }

    fn norm(&mut self, name: &str) -> Result<Norm, LoadError> {
        let hidden = self.checkpoint.config.hidden_size;
        let (gamma, beta) = (
            self.device.zeros(self.dtype, hidden)?,
            self.device.zeros(self.dtype, hidden)?,
        );
        self.copy(&format!("{name}.weight"), &[hidden], &gamma)?;
        self.copy(&format!("{name}.bias"), &[hidden], &beta)?;
        let eps = self.checkpoint.config.layer_norm_eps as f32;
        Ok(Norm { gamma, beta, eps })
    }

    fn copy(&mut self, name: &str, shape: &[usize], to: &Buffer) -> Result<(), LoadError> {
        let tensor = self.checkpoint.weights.tensor(name, shape)?;
        let stored = match tensor.dtype() {
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            // `Weights` lets nothing else through.
            _ => Dtype::F32,
        };
        let mut done = 0;
        for start in (0..tensor.len()).step_by(PIECE_BYTES) {
            let bytes = PIECE_BYTES.min(tensor.len() - start);
            let (pinned, raw) = &mut self.pieces[self.next];
            self.next = 1 - self.next;
            // Waits for the copy of the piece before the last.
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
