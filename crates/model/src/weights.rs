//! The tensors of a checkpoint by role, stored as f32, f16 or bf16.
//!
//! Opening a checkpoint reads only headers. The values stay in their files until an engine asks for them.

use std::collections::HashMap;

use safetensors::Dtype;

use super::architecture::{Family, Role, TensorKey};
use super::config::ModelConfig;
use super::error::CheckpointError;
use super::files::{Files, StoredFile};
use super::shards::{Shards, StoredTensor};

/// The tensors of a classifier, each of the shape that the configuration gives it.
#[derive(Debug)]
pub struct Weights {
    files: Vec<StoredFile>,
    tensors: HashMap<TensorKey, WeightEntry>,
}

#[derive(Debug)]
struct WeightEntry {
    shape: Vec<usize>,
    /// `None` for a role that the family does not have.
    stored: Option<StoredTensor>,
}

/// The size of all tensors of a classifier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightsSize {
    /// Number of parameters.
    pub parameters: usize,
    /// Bytes on disk.
    pub bytes: usize,
}

/// A tensor in its file: little-endian, row-major.
///
/// The tensor of a role that the family does not have reads as zeros.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    shape: &'a [usize],
    stored: Option<(&'a StoredFile, &'a StoredTensor)>,
}

impl Weights {
    /// Reads the headers of all shards and checks every tensor of the classifier against the shape from `config`.
    ///
    /// # Errors
    /// The first file or tensor that is missing, damaged, of an unsupported type, or of the wrong
    /// shape.
    pub fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let family = config.family;
        let mut roles = RoleReader {
            shards: Shards::read(files, family)?,
            family,
        };
        let mut tensors = HashMap::new();
        for (key, shape) in config.encoder_tensors() {
            let stored = match key.role {
                Role::PositionEmbedding => roles.take_positions(key, &shape, config)?,
                _ => roles.take(key, &shape)?,
            };
            tensors.insert(key, WeightEntry { shape, stored });
        }
        for (key, tensor) in roles.take_classifier(config.hidden_size)? {
            let shape = tensor.shape.clone();
            let stored = Some(tensor);
            tensors.insert(key, WeightEntry { shape, stored });
        }
        Ok(Self {
            files: roles.shards.files,
            tensors,
        })
    }

    /// Number of classes: the rows of the classifier.
    pub fn label_count(&self) -> usize {
        self.tensor(Role::Classifier.weight()).shape()[0]
    }

    /// The tensor of a role, of type f32, f16 or bf16.
    ///
    /// # Panics
    /// When the checkpoint's configuration has no such layer. All others were checked by [`read`](Self::read).
    pub fn tensor(&self, key: TensorKey) -> Tensor<'_> {
        let entry = self.tensors.get(&key);
        let WeightEntry { shape, stored } = entry.expect("a role of this configuration");
        Tensor {
            shape,
            stored: stored
                .as_ref()
                .map(|tensor| (&self.files[tensor.shard], tensor)),
        }
    }

    /// The values of a role's tensor as f32, row-major.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// As [`tensor`](Self::tensor).
    pub fn f32(&self, key: TensorKey) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.tensor(key);
        // The shape was compared with the file, so this allocates no more than the file holds.
        let mut values = vec![0.0; tensor.shape().iter().product()];
        tensor.read(0, &mut values)?;
        Ok(values)
    }

    /// Number of parameters that the classifier uses, and their size on disk.
    pub fn size(&self) -> WeightsSize {
        let stored = self
            .tensors
            .values()
            .filter_map(|entry| entry.stored.as_ref());
        stored.fold(WeightsSize::default(), |sum, tensor| WeightsSize {
            parameters: sum.parameters + tensor.shape.iter().product::<usize>(),
            bytes: sum.bytes + tensor.bytes,
        })
    }

    /// The storage type of the word embedding, as a name for the type of the checkpoint.
    pub fn dtype(&self) -> String {
        let embedding = self.tensor(Role::WordEmbedding.weight());
        format!("{:?}", embedding.dtype()).to_lowercase()
    }
}

/// Takes checked tensors out of the shards, role by role.
struct RoleReader {
    shards: Shards,
    family: &'static Family,
}

impl RoleReader {
    /// The tensor of a role. `None` when the family does not have the role.
    fn take(
        &mut self,
        key: TensorKey,
        shape: &[usize],
    ) -> Result<Option<StoredTensor>, CheckpointError> {
        let Some(name) = self.family.canonical_name(key) else {
            return Ok(None);
        };
        let tensor = self.take_typed(&name)?;
        if tensor.shape == shape {
            return Ok(Some(tensor));
        }
        let expected = format!("shape {shape:?} (from config.json)");
        Err(self.wrong_shape(&tensor, &expected))
    }

    /// The position embedding from the row of the first token on.
    fn take_positions(
        &mut self,
        key: TensorKey,
        shape: &[usize],
        config: &ModelConfig,
    ) -> Result<Option<StoredTensor>, CheckpointError> {
        let skipped = config.first_position;
        let stored = [shape[0] + skipped, shape[1]];
        let tensor = self.take(key, &stored)?;
        Ok(tensor.map(|tensor| {
            let bytes = tensor.bytes / stored[0] * skipped;
            StoredTensor {
                shape: shape.to_vec(),
                offset: tensor.offset + bytes as u64,
                bytes: tensor.bytes - bytes,
                ..tensor
            }
        }))
    }

    /// Both tensors of the classifier. Its weight determines the number of rows.
    fn take_classifier(
        &mut self,
        hidden_size: usize,
    ) -> Result<Vec<(TensorKey, StoredTensor)>, CheckpointError> {
        let (weight, bias) = (Role::Classifier.weight(), Role::Classifier.bias());
        let name = self.family.canonical_name(weight).unwrap_or_default();
        let tensor = self.take_typed(&name)?;
        let rows = match tensor.shape[..] {
            [rows, width] if rows > 0 && width == hidden_size => rows,
            _ => {
                let expected = format!("shape [labels, {hidden_size}]");
                return Err(self.wrong_shape(&tensor, &expected));
            }
        };
        let mut tensors = vec![(weight, tensor)];
        tensors.extend(self.take(bias, &[rows])?.map(|tensor| (bias, tensor)));
        Ok(tensors)
    }

    fn take_typed(&mut self, name: &str) -> Result<StoredTensor, CheckpointError> {
        let tensor = self.shards.tensors.remove(name).ok_or_else(|| {
            let files: Vec<&str> = self.shards.files.iter().map(StoredFile::path).collect();
            let Family {
                optional_prefix,
                classifier_class,
                ..
            } = self.family;
            CheckpointError::invalid(
                files.join(", "),
                name,
                format!(
                    "this tensor (with or without the {optional_prefix:?} prefix), as a \
                     {classifier_class} has it"
                ),
                "none of that name",
            )
        })?;
        match tensor.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(tensor),
            other => Err(CheckpointError::invalid(
                self.path(&tensor),
                &tensor.name,
                "type F32, F16 or BF16",
                format!("{other:?}"),
            )),
        }
    }

    fn wrong_shape(&self, tensor: &StoredTensor, expected: &str) -> CheckpointError {
        let found = format!("{:?}", tensor.shape);
        CheckpointError::invalid(self.path(tensor), &tensor.name, expected, found)
    }

    fn path(&self, tensor: &StoredTensor) -> &str {
        self.shards.files[tensor.shard].path()
    }
}

impl<'a> Tensor<'a> {
    /// The shape: `[rows, columns]` of an embedding or `[outputs, inputs]` of a projection; `[values]` of a vector.
    pub fn shape(&self) -> &'a [usize] {
        self.shape
    }

    /// The type it is stored in.
    pub fn dtype(&self) -> Dtype {
        self.stored.map_or(Dtype::F32, |(_, tensor)| tensor.dtype)
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        let zeros = || size_of::<f32>() * self.shape.iter().product::<usize>();
        self.stored.map_or_else(zeros, |(_, tensor)| tensor.bytes)
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `bytes` with the stored bytes from byte `offset` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the range extends beyond the tensor.
    pub fn read_bytes(&self, offset: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        assert!(offset + bytes.len() <= self.len(), "inside the tensor");
        let Some((file, tensor)) = self.stored else {
            bytes.fill(0);
            return Ok(());
        };
        file.read_at(tensor.offset + offset as u64, bytes)
    }

    /// Fills `values` with the values from index `first` on, as f32.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the range extends beyond the tensor.
    pub fn read(&self, first: usize, values: &mut [f32]) -> Result<(), CheckpointError> {
        let half: fn([u8; 2]) -> f32 = match self.dtype() {
            Dtype::F16 => |bytes| half::f16::from_le_bytes(bytes).to_f32(),
            Dtype::BF16 => |bytes| half::bf16::from_le_bytes(bytes).to_f32(),
            // f32: `Weights::read` refuses all other types.
            _ => {
                self.read_bytes(4 * first, bytemuck::cast_slice_mut(values))?;
                values
                    .iter_mut()
                    .for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
                return Ok(());
            }
        };
        let mut buffer = [0; 8192];
        for (index, values) in values.chunks_mut(buffer.len() / 2).enumerate() {
            let bytes = &mut buffer[..2 * values.len()];
            self.read_bytes(2 * first + index * 8192, bytes)?;
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = half(*bytes);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
