//! The tensors of a checkpoint: `model.safetensors`, one file or shards, f32, f16 or bf16.
//!
//! Names are kept in one canonical form, without the `bert.` prefix and with `weight`/`bias`
//! for the old `gamma`/`beta`, so that an engine asks for a tensor in one way only. Only the
//! headers are read here; the tensors stay in their files until an engine asks for them.

use std::collections::HashMap;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::config::ModelConfig;
use super::files::StoredFile;
use super::{CheckpointError, Files};

/// The longest header that the format allows (safetensors: "there's a limit on the size of the
/// header of 100MB").
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Bytes of a header's length.
const LENGTH_BYTES: usize = 8;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a checkpoint by canonical name.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<StoredFile>,
    tensors: HashMap<String, Location>,
}

#[derive(Debug)]
struct Location {
    shard: usize,
    stored_name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where it begins in its file, and how many bytes it has.
    offset: u64,
    bytes: usize,
}

/// A tensor in its file: little-endian, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    shard: &'a StoredFile,
    location: &'a Location,
}

impl Weights {
    /// Reads the headers of all shards and checks every tensor a BERT classifier needs against
    /// the shape that `config` gives it.
    ///
    /// # Errors
    /// The first file or tensor that is missing, damaged, of an unsupported type or of the wrong
    /// shape.
    pub fn read(files: &Files, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let mut weights = Self {
            shards: Vec::new(),
            tensors: HashMap::new(),
        };
        for name in shard_names(files)? {
            let shard = files.open(&name)?.ok_or_else(|| {
                let path = files.path(&name);
                CheckpointError::missing(&path, format!("a shard, as {INDEX} names it"))
            })?;
            weights.add_shard(shard)?;
        }
        weights.check(config)?;
        Ok(weights)
    }

    fn add_shard(&mut self, shard: StoredFile) -> Result<(), CheckpointError> {
        let invalid = |key: &str, expected: &str, found: String| {
            CheckpointError::invalid(shard.path(), key, expected, found)
        };
        let damaged = |error| {
            invalid(
                "(header)",
                "a complete safetensors file",
                format!("{error}"),
            )
        };
        let header = header(&shard)?;
        // The library checks that the tensors of a header lie end to end from 0 to `data_len`.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(damaged)?;
        let data = header.len() as u64 + LENGTH_BYTES as u64;
        let len = data.saturating_add(metadata.data_len() as u64);
        if shard.len() != len {
            let found = format!("{} bytes", shard.len());
            return Err(invalid("(file)", &format!("{len} bytes"), found));
        }
        for (stored_name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let location = Location {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data + start as u64,
                bytes: end - start,
                stored_name: stored_name.clone(),
            };
            if let Some(other) = self.tensors.insert(canonical(&stored_name), location) {
                let expected = "each tensor once";
                let found = format!("{:?} as well", other.stored_name);
                return Err(invalid(&stored_name, expected, found));
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    fn check(&self, config: &ModelConfig) -> Result<(), CheckpointError> {
        for (name, shape) in expected_tensors(config) {
            self.locate(&name, &shape)?;
        }
        let classifier = self.locate_any("classifier.weight")?;
        let rows = match classifier.shape[..] {
            [rows, width] if rows > 0 && width == config.hidden_size => rows,
            _ => {
                let expected = format!("shape [labels, {}]", config.hidden_size);
                return Err(self.wrong_shape(classifier, &expected));
            }
        };
        self.locate("classifier.bias", &[rows])?;
        Ok(())
    }

    /// Number of classes: the rows of the classifier.
    pub fn label_count(&self) -> usize {
        self.tensors
            .get("classifier.weight")
            .map_or(0, |classifier| classifier.shape[0])
    }

    /// The tensor `name`: of type f32, f16 or bf16.
    ///
    /// # Errors
    /// When the tensor is missing, of another shape, or neither f32, f16 nor bf16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>, CheckpointError> {
        let location = self.locate(name, shape)?;
        Ok(Tensor {
            shard: &self.shards[location.shard],
            location,
        })
    }

    /// The tensor `name` as f32 in row-major order.
    ///
    /// # Errors
    /// As for [`tensor`](Self::tensor), and when the file cannot be read.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        // Only what the file holds is asked memory for.
        let tensor = self.tensor(name, shape)?;
        let mut values = vec![0.0; shape.iter().product()];
        tensor.read(0, &mut values)?;
        Ok(values)
    }

    /// Number of parameters a BERT classifier of this checkpoint uses, and the bytes they take on
    /// disk.
    pub fn size(&self, config: &ModelConfig) -> (usize, usize) {
        let mut names: Vec<String> = expected_tensors(config).map(|(name, _)| name).collect();
        names.extend(["classifier.weight".to_owned(), "classifier.bias".to_owned()]);
        names
            .iter()
            .filter_map(|name| self.tensors.get(name))
            .fold((0, 0), |(n, b), tensor| {
                (n + tensor.shape.iter().product::<usize>(), b + tensor.bytes)
            })
    }

    /// The storage type of the word embedding, which stands for the checkpoint's.
    pub fn dtype(&self) -> String {
        let embedding = self.tensors.get("embeddings.word_embeddings.weight");
        embedding.map_or_else(String::new, |tensor| {
            format!("{:?}", tensor.dtype).to_lowercase()
        })
    }

    /// Paths of the files the tensors stand in.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().map(StoredFile::path)
    }

    fn locate_any(&self, name: &str) -> Result<&Location, CheckpointError> {
        let location = self.tensors.get(name).ok_or_else(|| {
            let files: Vec<&str> = self.paths().collect();
            CheckpointError::invalid(
                files.join(", "),
                name,
                "this tensor (with or without the \"bert.\" prefix)",
                "none of that name",
            )
        })?;
        match location.dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(location),
            other => Err(CheckpointError::invalid(
                self.shards[location.shard].path(),
                &location.stored_name,
                "type F32, F16 or BF16",
                format!("{other:?}"),
            )),
        }
    }

    fn locate(&self, name: &str, shape: &[usize]) -> Result<&Location, CheckpointError> {
        let location = self.locate_any(name)?;
        if location.shape == shape {
            return Ok(location);
        }
        let expected = format!("shape {shape:?} (from config.json)");
        Err(self.wrong_shape(location, &expected))
    }

    fn wrong_shape(&self, location: &Location, expected: &str) -> CheckpointError {
        let found = format!("{:?}", location.shape);
        let path = self.shards[location.shard].path();
        CheckpointError::invalid(path, &location.stored_name, expected, found)
    }
}

impl Tensor<'_> {
    /// The type it is stored in.
    pub fn dtype(&self) -> Dtype {
        self.location.dtype
    }

    /// Bytes it is stored in.
    pub fn len(&self) -> usize {
        self.location.bytes
    }

    /// Whether it has no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `bytes` with what is stored from byte `offset` on.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the tensor has not that many bytes.
    pub fn read_bytes(&self, offset: usize, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        assert!(offset + bytes.len() <= self.len(), "inside the tensor");
        self.shard
            .read_at(self.location.offset + offset as u64, bytes)
    }

    /// Fills `values` with those from the one of number `first` on, as f32.
    ///
    /// # Errors
    /// When the file cannot be read.
    ///
    /// # Panics
    /// When the tensor has not that many values.
    pub fn read(&self, first: usize, values: &mut [f32]) -> Result<(), CheckpointError> {
        let half: fn([u8; 2]) -> f32 = match self.dtype() {
            Dtype::F16 => |bytes| half::f16::from_le_bytes(bytes).to_f32(),
            Dtype::BF16 => |bytes| half::bf16::from_le_bytes(bytes).to_f32(),
            // `locate` lets nothing else through.
            _ => {
                self.read_bytes(4 * first, bytemuck::cast_slice_mut(values))?;
                values
                    .iter_mut()
                    .for_each(|value| *value = f32::from_bits(u32::from_le(value.to_bits())));
                return Ok(());
            }
        };
        let mut piece = [0; 8192];
        for (index, values) in values.chunks_mut(piece.len() / 2).enumerate() {
            let bytes = &mut piece[..2 * values.len()];
            self.read_bytes(2 * first + index * 8192, bytes)?;
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = half(*bytes);
            }
        }
        Ok(())
    }
}

/// The header of a file: JSON, behind its length in 8 bytes (the format's description in the
/// README of safetensors).
fn header(shard: &StoredFile) -> Result<Vec<u8>, CheckpointError> {
    let mut length = [0; LENGTH_BYTES];
    let behind = shard.len().saturating_sub(LENGTH_BYTES as u64);
    if shard.len() >= LENGTH_BYTES as u64 {
        shard.read_at(0, &mut length)?;
    }
    let length = u64::from_le_bytes(length);
    if length == 0 || length > behind.min(HEADER_BYTES_MAX) {
        let expected = format!(
            "a complete safetensors file (a header of 1 to {} bytes)",
            behind.min(HEADER_BYTES_MAX)
        );
        let found = format!("a header of {length} bytes");
        return Err(CheckpointError::invalid(
            shard.path(),
            "(header)",
            expected,
            found,
        ));
    }
    let mut header = vec![0; length as usize];
    shard.read_at(LENGTH_BYTES as u64, &mut header)?;
    Ok(header)
}

/// The files that hold the tensors.
fn shard_names(files: &Files) -> Result<Vec<String>, CheckpointError> {
    if files.contains(SINGLE) {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let path = files.path(INDEX);
    let Some(index) = files.read(INDEX)? else {
        let expected = if files.contains("pytorch_model.bin") {
            format!("{SINGLE} (pytorch_model.bin is not read: save the model with safetensors)")
        } else {
            format!("{SINGLE}, or {INDEX} and its shards")
        };
        return Err(CheckpointError::missing(files.path(SINGLE), expected));
    };
    let invalid = |key: &str, expected: &str, found: String| {
        CheckpointError::invalid(&path, key, expected, found)
    };
    let index: Value = serde_json::from_slice(&index)
        .map_err(|error| invalid("(file)", "JSON", error.to_string()))?;
    let Some(map) = index.get("weight_map").and_then(Value::as_object) else {
        return Err(invalid(
            "weight_map",
            "an object: tensor name to file",
            "none".to_owned(),
        ));
    };
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        // A path could leave the checkpoint's directory.
        let plain = |f: &&str| !f.is_empty() && !f.contains(['/', '\\']) && *f != "..";
        match file.as_str().filter(plain) {
            Some(file) => names.insert(file.to_owned()),
            None => return Err(invalid(tensor, "a plain file name", file.to_string())),
        };
    }
    Ok(names.into_iter().collect())
}

/// `bert.encoder.layer.0.output.LayerNorm.gamma` → `encoder.layer.0.output.LayerNorm.weight`.
fn canonical(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((stem, "gamma")) => format!("{stem}.weight"),
        Some((stem, "beta")) => format!("{stem}.bias"),
        _ => name.to_owned(),
    }
}

/// Canonical names and shapes of everything but the classifier, whose rows the file decides.
///
/// One after the other: who looks for them stops at the first that is missing, however many layers
/// a configuration claims.
pub(crate) fn expected_tensors(
    config: &ModelConfig,
) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
    let (h, ff) = (config.hidden_size, config.intermediate_size);
    let embeddings = [
        ("word", config.vocab_size),
        ("position", config.max_positions),
        ("token_type", config.type_vocab_size),
    ]
    .map(|(name, rows)| {
        (
            format!("embeddings.{name}_embeddings.weight"),
            vec![rows, h],
        )
    });
    let norm = move |name: &str| {
        [
            (format!("{name}.weight"), vec![h]),
            (format!("{name}.bias"), vec![h]),
        ]
    };
    let layer = move |layer: usize| {
        let prefix = format!("encoder.layer.{layer}");
        let mut tensors = Vec::new();
        for (name, outputs, inputs) in [
            ("attention.self.query", h, h),
            ("attention.self.key", h, h),
            ("attention.self.value", h, h),
            ("attention.output.dense", h, h),
            ("intermediate.dense", ff, h),
            ("output.dense", h, ff),
        ] {
            tensors.push((format!("{prefix}.{name}.weight"), vec![outputs, inputs]));
            tensors.push((format!("{prefix}.{name}.bias"), vec![outputs]));
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            tensors.extend(norm(&format!("{prefix}.{name}")));
        }
        tensors
    };
    let pooler = [
        ("pooler.dense.weight".to_owned(), vec![h, h]),
        ("pooler.dense.bias".to_owned(), vec![h]),
    ];
    embeddings
        .into_iter()
        .chain(norm("embeddings.LayerNorm"))
        .chain((0..config.layers).flat_map(layer))
        .chain(pooler)
}
