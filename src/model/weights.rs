//! The tensors of a checkpoint: `model.safetensors`, one file or shards, f32, f16 or bf16.
//!
//! Names are kept in one canonical form, without the `bert.` prefix and with `weight`/`bias`
//! for the old `gamma`/`beta`, so that an engine asks for a tensor in one way only. Bytes stay
//! as they are on disk until an engine asks; nothing is converted twice.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::config::ModelConfig;
use super::{CheckpointError, Files};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// All tensors of a checkpoint by canonical name.
#[derive(Debug)]
pub struct Weights {
    shards: Vec<Shard>,
    tensors: HashMap<String, Location>,
}

#[derive(Debug)]
struct Shard {
    path: String,
    bytes: Cow<'static, [u8]>,
}

#[derive(Debug)]
struct Location {
    shard: usize,
    stored_name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: std::ops::Range<usize>,
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
            let path = files.path(&name);
            let bytes = files.read(&name)?.ok_or_else(|| {
                CheckpointError::missing(&path, format!("a shard, as {INDEX} names it"))
            })?;
            weights.add_shard(Shard { path, bytes })?;
        }
        weights.check(config)?;
        Ok(weights)
    }

    fn add_shard(&mut self, shard: Shard) -> Result<(), CheckpointError> {
        let invalid = |key: &str, expected: &str, found: String| {
            CheckpointError::invalid(&shard.path, key, expected, found)
        };
        let damaged = |error| {
            invalid(
                "(header)",
                "a complete safetensors file",
                format!("{error}"),
            )
        };
        let (header_len, metadata) = SafeTensors::read_metadata(&shard.bytes).map_err(damaged)?;
        // The library has checked that the offsets of this header lie inside `data_len` bytes.
        let data = header_len + 8;
        if shard.bytes.len() != data + metadata.data_len() {
            let found = format!("{} bytes", shard.bytes.len());
            let expected = format!("{} bytes", data + metadata.data_len());
            return Err(invalid("(file)", &expected, found));
        }
        for (stored_name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let location = Location {
                shard: self.shards.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                bytes: data + start..data + end,
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

    /// The bytes of tensor `name` as they are on disk (little-endian, row-major), and their type:
    /// f32, f16 or bf16.
    ///
    /// # Errors
    /// As for [`f32`](Self::f32).
    pub fn bytes(&self, name: &str, shape: &[usize]) -> Result<(Dtype, &[u8]), CheckpointError> {
        let location = self.locate(name, shape)?;
        let bytes = &self.shards[location.shard].bytes[location.bytes.clone()];
        Ok((location.dtype, bytes))
    }

    /// The tensor `name` as f32 in row-major order.
    ///
    /// # Errors
    /// When the tensor is missing, of another shape, or neither f32, f16 nor bf16.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let (dtype, bytes) = self.bytes(name, shape)?;
        Ok(match dtype {
            Dtype::F16 => {
                let value = |b: &[u8; 2]| half::f16::from_le_bytes(*b).to_f32();
                bytes.as_chunks::<2>().0.iter().map(value).collect()
            }
            Dtype::BF16 => {
                let value = |b: &[u8; 2]| half::bf16::from_le_bytes(*b).to_f32();
                bytes.as_chunks::<2>().0.iter().map(value).collect()
            }
            // `locate` lets nothing else through.
            _ => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
        })
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
                (
                    n + tensor.shape.iter().product::<usize>(),
                    b + tensor.bytes.len(),
                )
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
        self.shards.iter().map(|shard| shard.path.as_str())
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
                &self.shards[location.shard].path,
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
        let path = &self.shards[location.shard].path;
        CheckpointError::invalid(path, &location.stored_name, expected, found)
    }
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
pub(crate) fn expected_tensors(
    config: &ModelConfig,
) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
    let (h, ff) = (config.hidden_size, config.intermediate_size);
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    add(
        "embeddings.word_embeddings.weight".to_owned(),
        &[config.vocab_size, h],
    );
    add(
        "embeddings.position_embeddings.weight".to_owned(),
        &[config.max_positions, h],
    );
    add(
        "embeddings.token_type_embeddings.weight".to_owned(),
        &[config.type_vocab_size, h],
    );
    let norm = |prefix: String| {
        [
            (format!("{prefix}.weight"), vec![h]),
            (format!("{prefix}.bias"), vec![h]),
        ]
    };
    for (name, shape) in norm("embeddings.LayerNorm".to_owned()) {
        add(name, &shape);
    }
    for layer in 0..config.layers {
        let prefix = format!("encoder.layer.{layer}");
        for (name, outputs, inputs) in [
            ("attention.self.query", h, h),
            ("attention.self.key", h, h),
            ("attention.self.value", h, h),
            ("attention.output.dense", h, h),
            ("intermediate.dense", ff, h),
            ("output.dense", h, ff),
        ] {
            add(format!("{prefix}.{name}.weight"), &[outputs, inputs]);
            add(format!("{prefix}.{name}.bias"), &[outputs]);
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            for (name, shape) in norm(format!("{prefix}.{name}")) {
                add(name, &shape);
            }
        }
    }
    add("pooler.dense.weight".to_owned(), &[h, h]);
    add("pooler.dense.bias".to_owned(), &[h]);
    tensors.into_iter()
}
