//! The files that hold a checkpoint's tensors: `model.safetensors`, or an index and its shards.
//!
//! Takes the files of a checkpoint, gives the location of every tensor by canonical name. Reads only the headers.

use std::collections::{BTreeSet, HashMap};

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use super::architecture::Family;
use super::error::CheckpointError;
use super::files::{Files, StoredFile};

/// The longest header that the format allows (safetensors: "there's a limit on the size of the
/// header of 100MB").
const HEADER_BYTES_MAX: u64 = 100_000_000;

/// Size of the length field in front of the header.
const LENGTH_BYTES: usize = 8;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The opened files and the tensors in them.
#[derive(Debug, Default)]
pub(super) struct Shards {
    pub(super) files: Vec<StoredFile>,
    /// By canonical name.
    pub(super) tensors: HashMap<String, StoredTensor>,
}

/// Location and type of a tensor.
#[derive(Debug)]
pub(super) struct StoredTensor {
    /// Index into [`Shards::files`].
    pub(super) shard: usize,
    /// Name in the file.
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Byte offset in the file.
    pub(super) offset: u64,
    /// Size in bytes.
    pub(super) bytes: usize,
}

impl Shards {
    /// Opens all files and reads their headers. `family` defines the canonical names.
    ///
    /// # Errors
    /// The first file that is missing or damaged, or that repeats a tensor.
    pub(super) fn read(files: &Files, family: &Family) -> Result<Self, CheckpointError> {
        let mut shards = Self::default();
        for name in shard_names(files)? {
            let shard = files.open(&name)?.ok_or_else(|| {
                let path = files.path(&name);
                CheckpointError::missing(&path, format!("a shard, as {INDEX} names it"))
            })?;
            shards.add(shard, family)?;
        }
        Ok(shards)
    }

    fn add(&mut self, shard: StoredFile, family: &Family) -> Result<(), CheckpointError> {
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
        // The library checks that the tensors lie end to end from 0 to `data_len`.
        let metadata: Metadata = serde_json::from_slice(&header).map_err(damaged)?;
        let data = header.len() as u64 + LENGTH_BYTES as u64;
        let len = data.saturating_add(metadata.data_len() as u64);
        if shard.len() != len {
            let found = format!("{} bytes", shard.len());
            return Err(invalid("(file)", &format!("{len} bytes"), found));
        }
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let tensor = StoredTensor {
                shard: self.files.len(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                offset: data + start as u64,
                bytes: end - start,
                name: name.clone(),
            };
            let canonical = family.canonicalize(&name);
            if let Some(other) = self.tensors.insert(canonical, tensor) {
                let expected = "each tensor once";
                let found = format!("{:?} as well", other.name);
                return Err(invalid(&name, expected, found));
            }
        }
        self.files.push(shard);
        Ok(())
    }
}

/// The header of a file: JSON, after its length in 8 bytes (the format's description in the
/// README of safetensors).
fn header(shard: &StoredFile) -> Result<Vec<u8>, CheckpointError> {
    let mut length = [0; LENGTH_BYTES];
    let available = shard.len().saturating_sub(LENGTH_BYTES as u64);
    if shard.len() >= LENGTH_BYTES as u64 {
        shard.read_at(0, &mut length)?;
    }
    let length = u64::from_le_bytes(length);
    if length == 0 || length > available.min(HEADER_BYTES_MAX) {
        let expected = format!(
            "a complete safetensors file (a header of 1 to {} bytes)",
            available.min(HEADER_BYTES_MAX)
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
    let mut names = BTreeSet::new();
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
