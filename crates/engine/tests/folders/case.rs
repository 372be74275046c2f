//! The cases of `tests/folders/golden.json`, and the folders that they describe.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use intentd_model::Files;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use serde_json::Value;

/// The content of the file.
#[derive(Debug, Deserialize)]
pub(crate) struct Golden {
    pub(crate) texts: Vec<GoldenText>,
    ids: HashMap<String, Vec<GoldenIds>>,
    tensors: HashMap<String, BTreeMap<String, Vec<usize>>>,
    pub(crate) cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum GoldenText {
    Single(String),
    Pair(String, String),
}

/// Ids, with token types if any is not 0.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum GoldenIds {
    Plain(Vec<u32>),
    Typed(Vec<u32>, Vec<u32>),
}

impl GoldenIds {
    /// Ids and token types.
    pub(crate) fn parts(&self) -> (&[u32], Vec<u32>) {
        match self {
            Self::Plain(ids) => (ids, vec![0; ids.len()]),
            Self::Typed(ids, types) => (ids, types.clone()),
        }
    }
}

/// A folder and what transformers makes of it.
#[derive(Debug, Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    files: BTreeMap<String, Content>,
    tensors: Option<String>,
    /// The longest sequence.
    pub(crate) length: Option<usize>,
    #[serde(default)]
    pub(crate) labels: Vec<String>,
    ids: Option<String>,
    #[serde(default)]
    logits: Vec<(usize, GoldenLogits)>,
    /// The error of transformers, if it does not load the folder.
    pub(crate) fails: Option<String>,
}

/// Logits, or the error of transformers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum GoldenLogits {
    Values(Vec<f32>),
    /// What it says.
    #[expect(dead_code, reason = "for people who read the file")]
    Error(String),
}

/// The content of a file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text {
        text: String,
    },
    /// A file in `tests/folders/base`, with a JSON merge patch (RFC 7386).
    Base {
        base: String,
        patch: Option<Value>,
    },
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/folders")
}

impl Golden {
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(directory().join("golden.json")).expect("the cases");
        serde_json::from_str(&text).expect("cases of this form")
    }

    /// The ids of all texts, if transformers loads the folder.
    pub(crate) fn ids(&self, case: &Case) -> Option<&[GoldenIds]> {
        case.ids.as_ref().map(|name| &*self.ids[name])
    }

    /// The files of a folder.
    pub(crate) fn files(&self, case: &Case) -> Files {
        let mut files: Vec<_> = case
            .files
            .iter()
            .map(|(name, content)| (name.clone(), content.bytes().into()))
            .collect();
        if let Some(tensors) = &case.tensors {
            let weights = safetensors(&self.tensors[tensors]);
            files.push(("model.safetensors".to_owned(), weights.into()));
        }
        Files::Memory {
            origin: case.name.clone(),
            files,
        }
    }
}

impl Case {
    /// Logits by text.
    pub(crate) fn logits(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.logits
            .iter()
            .filter_map(|(text, logits)| match logits {
                GoldenLogits::Values(values) => Some((*text, &**values)),
                GoldenLogits::Error(_) => None,
            })
    }
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        let (base, patch) = match self {
            Self::Text { text } => return text.clone().into_bytes(),
            Self::Base { base, patch } => (base, patch),
        };
        let content = std::fs::read(directory().join("base").join(base)).expect("the base file");
        let Some(patch) = patch else {
            return content;
        };
        let mut value = serde_json::from_slice(&content).expect("JSON");
        merge(&mut value, patch);
        value.to_string().into_bytes()
    }
}

/// JSON merge patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// A file of f32 tensors, whose values follow from their names as in `make.py`.
fn safetensors(shapes: &BTreeMap<String, Vec<usize>>) -> Vec<u8> {
    let values: Vec<Vec<u8>> = shapes
        .iter()
        .map(|(name, shape)| weights(name, shape))
        .collect();
    let views = shapes.iter().zip(&values).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.expect("as many bytes as values"))
    });
    safetensors::serialize(views, None).expect("tensors")
}

fn weights(name: &str, shape: &[usize]) -> Vec<u8> {
    let seed = fnv1a(name);
    let is_vector = shape.len() == 1;
    let is_scale = is_vector && (name.ends_with("weight") || name.ends_with("gamma"));
    let is_table = name.contains("embeddings") && !name.contains("project");
    let value = |index: u64| {
        let unit = (splitmix64(seed, index) >> 40) as f64 / 8_388_608.0 - 1.0;
        let value = match (is_vector, is_table) {
            (true, _) => unit * 0.1 + f64::from(u8::from(is_scale)),
            (false, true) => unit,
            (false, false) => unit * (6.0 / shape[1] as f64).sqrt(),
        };
        (value as f32).to_le_bytes()
    };
    let count = shape.iter().product::<usize>() as u64;
    (0..count).flat_map(value).collect()
}

/// FNV-1a of 64 bits.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The number at `index` of the sequence of splitmix64 from `seed` on.
fn splitmix64(seed: u64, index: u64) -> u64 {
    let step = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = seed.wrapping_add(step);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
