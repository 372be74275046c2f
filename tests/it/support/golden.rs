//! Reads the golden files under `tests/golden` and finds the checkpoint each was made from.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::checkpoint::{self, Spec};

/// A string, or a short way to write a long one.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Text {
    Plain(String),
    Repeat { repeat: (Box<Text>, usize) },
    Parts { parts: Vec<Text> },
}

impl Text {
    /// The string it stands for.
    pub(crate) fn expand(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Repeat {
                repeat: (text, times),
            } => text.expand().repeat(*times),
            Self::Parts { parts } => parts.iter().map(Self::expand).collect(),
        }
    }
}

/// `texts.json`: what went into the models.
#[derive(Debug, Deserialize)]
pub(crate) struct Texts {
    pub(crate) tokenization: Vec<Text>,
    pub(crate) classification: Vec<Text>,
    pub(crate) pairs: Vec<(Text, Text)>,
}

/// `<name>.ids.json`: what the tokenizer made of `Texts::tokenization`.
#[derive(Debug, Deserialize)]
pub(crate) struct Ids {
    pub(crate) sha256: String,
    /// The most tokens the model takes.
    pub(crate) length_max: usize,
    /// Index of each text that was cut, and the tokens it has as a whole.
    pub(crate) cut: HashMap<usize, usize>,
    pub(crate) ids: Vec<Vec<u32>>,
}

/// `<name>.logits.json`: what the model answered to `Texts::classification` and `Texts::pairs`.
#[derive(Debug, Deserialize)]
pub(crate) struct Answers {
    pub(crate) sha256: String,
    pub(crate) labels: Vec<String>,
    pub(crate) scores: Vec<Scores>,
    pub(crate) pairs: Vec<Pair>,
    /// Tokens of each text, after cutting.
    pub(crate) lengths: Vec<usize>,
    pub(crate) logits: Vec<Vec<f32>>,
}

/// What transformers' pipeline answered to one of `Texts::classification`.
#[derive(Debug, Deserialize)]
pub(crate) struct Scores {
    pub(crate) text: usize,
    /// In the order of `Answers::labels`.
    pub(crate) scores: Vec<f32>,
}

/// One of `Texts::pairs`, encoded and answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Pair {
    pub(crate) ids: Vec<u32>,
    pub(crate) type_ids: Vec<u32>,
    pub(crate) logits: Vec<f32>,
}

/// Reads a golden file.
pub(crate) fn read<T: DeserializeOwned>(file: &str) -> io::Result<T> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    let content = fs::read(&path)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    Ok(serde_json::from_slice(&content)?)
}

/// Which files of a checkpoint a golden file depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Covers {
    Tokenizer,
    Model,
}

/// Writes the checkpoint into a directory of its own, gone when the value is dropped.
///
/// # Panics
/// When it is not the checkpoint that the golden file was made from.
pub(crate) fn checkpoint(
    spec: &Spec,
    covers: Covers,
    sha256: &str,
) -> io::Result<tempfile::TempDir> {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    checkpoint::write(spec, directory.path())?;
    check(directory.path(), covers, sha256)?;
    Ok(directory)
}

/// The files of the default model.
///
/// # Panics
/// When it is not the checkpoint that the golden file was made from.
pub(crate) fn embedded(covers: Covers, sha256: &str) -> io::Result<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/intent-snips");
    check(&directory, covers, sha256)?;
    Ok(directory)
}

fn check(directory: &Path, covers: Covers, sha256: &str) -> io::Result<()> {
    assert_eq!(
        digest(directory, covers)?,
        sha256,
        "the checkpoint is not the one its golden file was made from: run \
         tests/golden/make_golden.py again if the change was intended",
    );
    Ok(())
}

/// The checksum that `make_golden.py` writes into the golden file.
fn digest(directory: &Path, covers: Covers) -> io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let tokenizer =
            ["tokenizer.json", "tokenizer_config.json", "vocab.txt"].contains(&name.as_str());
        let model = name == "config.json"
            || name.ends_with(".safetensors")
            || name.ends_with(".safetensors.index.json");
        if tokenizer || (model && covers == Covers::Model) {
            names.push(name);
        }
    }
    names.sort();
    let mut total = Sha256::new();
    for name in names {
        total.update(&name);
        total.update(fs::read(directory.join(name))?);
    }
    Ok(total
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
