//! The weights: which tensors there are, which values they get, how they are laid out in files.
//!
//! A value depends on the seed, the tensor's current name and its index alone, never on the file it
//! is in, so one spec written in three shards or under old names is the same model.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype as StoredDtype, View, serialize_to_file};
use serde_json::{Map, json};

use super::{Dtype, Names, Spec, write_json};

/// Segment ids 0 and 1, as in every published BERT.
pub(super) const TYPE_VOCABULARY_SIZE: usize = 2;

/// Standard deviation of a projection's output for inputs of unit variance.
///
/// BERT's own 0.02 would give almost the same logits to every text: attention would be uniform and
/// the residual stream would drown each layer. 1.4 makes attention pick tokens and each layer count.
const PROJECTION_GAIN: f32 = 1.4;
/// As [`PROJECTION_GAIN`], for the classifier: logits of size 1 to 5.
const CLASSIFIER_GAIN: f32 = 2.5;
/// Spread of the biases, and of the LayerNorm weights around 1.
const OFFSET_SPREAD: f32 = 0.1;

/// How a tensor's values are distributed.
#[derive(Debug, Clone, Copy)]
enum Values {
    /// Around zero with this standard deviation.
    Normal(f32),
    /// Around one: LayerNorm weights.
    NearOne,
    /// 0, 1, 2, … as 64-bit integers: the buffer of old files which no engine reads.
    Positions,
}

#[derive(Debug)]
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Values,
    dtype: Dtype,
    seed: u64,
}

/// Writes the weights in as many files as the spec asks for.
pub(super) fn write(spec: &Spec, vocabulary_size: usize, directory: &Path) -> io::Result<()> {
    let mut tensors = tensors(spec, vocabulary_size);
    if spec.names == Names::Old {
        tensors
            .iter_mut()
            .for_each(|tensor| tensor.name = old_name(&tensor.name));
    }
    if spec.shards == 1 {
        return write_file(&tensors, &directory.join("model.safetensors"));
    }
    let mut weight_map = Map::new();
    let mut size = 0;
    let shard_len = tensors.len().div_ceil(spec.shards);
    for (index, shard) in tensors.chunks(shard_len).enumerate() {
        let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, spec.shards);
        for tensor in shard {
            size += tensor.data_len();
            weight_map.insert(tensor.name.clone(), json!(file));
        }
        write_file(shard, &directory.join(file))?;
    }
    let index = json!({"metadata": {"total_size": size}, "weight_map": weight_map});
    write_json(&directory.join("model.safetensors.index.json"), &index)
}

fn write_file(tensors: &[Tensor], path: &Path) -> io::Result<()> {
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize_to_file(
        tensors.iter().map(|tensor| (&tensor.name, tensor)),
        Some(metadata),
        path,
    )
    .map_err(io::Error::other)
}

fn tensors(spec: &Spec, vocabulary_size: usize) -> Vec<Tensor> {
    let (hidden, intermediate) = (spec.shape.hidden, spec.shape.intermediate);
    let mut list = List {
        spec,
        tensors: Vec::new(),
    };
    for (name, rows, spread) in [
        ("word", vocabulary_size, 1.0),
        ("position", spec.shape.positions, 0.5),
        ("token_type", TYPE_VOCABULARY_SIZE, 0.5),
    ] {
        let name = format!("bert.embeddings.{name}_embeddings.weight");
        list.add(name, vec![rows, hidden], Values::Normal(spread));
    }
    if spec.names == Names::Old {
        let name = "bert.embeddings.position_ids".to_owned();
        list.add(name, vec![1, spec.shape.positions], Values::Positions);
    }
    list.layer_norm("bert.embeddings.LayerNorm");
    for layer in 0..spec.shape.layers {
        let layer = format!("bert.encoder.layer.{layer}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            list.linear(
                &format!("{layer}.attention.{name}"),
                hidden,
                hidden,
                PROJECTION_GAIN,
            );
        }
        list.layer_norm(&format!("{layer}.attention.output.LayerNorm"));
        let gain = PROJECTION_GAIN;
        list.linear(
            &format!("{layer}.intermediate.dense"),
            intermediate,
            hidden,
            gain,
        );
        list.linear(&format!("{layer}.output.dense"), hidden, intermediate, gain);
        list.layer_norm(&format!("{layer}.output.LayerNorm"));
    }
    list.linear("bert.pooler.dense", hidden, hidden, PROJECTION_GAIN);
    list.linear("classifier", spec.labels.len(), hidden, CLASSIFIER_GAIN);
    list.tensors
}

struct List<'a> {
    spec: &'a Spec,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    fn linear(&mut self, name: &str, outputs: usize, inputs: usize, gain: f32) {
        let spread = gain / (inputs as f32).sqrt();
        self.add(
            format!("{name}.weight"),
            vec![outputs, inputs],
            Values::Normal(spread),
        );
        self.add(
            format!("{name}.bias"),
            vec![outputs],
            Values::Normal(OFFSET_SPREAD),
        );
    }

    fn layer_norm(&mut self, name: &str) {
        let hidden = self.spec.shape.hidden;
        self.add(format!("{name}.weight"), vec![hidden], Values::NearOne);
        self.add(
            format!("{name}.bias"),
            vec![hidden],
            Values::Normal(OFFSET_SPREAD),
        );
    }

    fn add(&mut self, name: String, shape: Vec<usize>, values: Values) {
        let seed = name_hash(self.spec.seed, &name);
        self.tensors.push(Tensor {
            name,
            shape,
            values,
            dtype: self.spec.dtype,
            seed,
        });
    }
}

fn old_name(name: &str) -> String {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    name.replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta")
}

/// Values are made when the file is written, so the 350 MB of BERT-base are never held at once.
impl View for &Tensor {
    fn dtype(&self) -> StoredDtype {
        match (self.values, self.dtype) {
            (Values::Positions, _) => StoredDtype::I64,
            (_, Dtype::F32) => StoredDtype::F32,
            (_, Dtype::F16) => StoredDtype::F16,
            (_, Dtype::Bf16) => StoredDtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let (centre, spread) = match self.values {
            Values::Normal(spread) => (0.0, spread),
            Values::NearOne => (1.0, OFFSET_SPREAD),
            Values::Positions => {
                let positions = 0..self.shape.iter().product::<usize>() as u64;
                return Cow::Owned(positions.flat_map(u64::to_le_bytes).collect());
            }
        };
        let mut random = SplitMix64(self.seed);
        let mut bytes = Vec::with_capacity(self.data_len());
        for _ in 0..self.shape.iter().product() {
            let value = centre + spread * random.normal();
            match self.dtype {
                Dtype::F32 => bytes.extend_from_slice(&value.to_le_bytes()),
                Dtype::F16 => bytes.extend_from_slice(&half::f16::from_f32(value).to_le_bytes()),
                Dtype::Bf16 => bytes.extend_from_slice(&half::bf16::from_f32(value).to_le_bytes()),
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * View::dtype(self).bitsize() / 8
    }
}

/// FNV-1a over the seed and the name.
fn name_hash(seed: u64, name: &str) -> u64 {
    let bytes = seed.to_le_bytes().into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Steele, Lea and Flood's generator: one multiplication chain a draw, and no state but a counter.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Close to a normal distribution of variance one: the sum of four 16-bit uniform numbers.
    ///
    /// Integer arithmetic and one multiplication give the same bits everywhere, which the
    /// logarithm and cosine of the usual method do not.
    fn normal(&mut self) -> f32 {
        const MEAN: i32 = 2 * 0xffff;
        const DEVIATION: f32 = 37_837.23;
        let draw = self.next();
        // Written out: this makes a hundred million weights, and tests are not optimised.
        let sum = i32::from(draw as u16)
            + i32::from((draw >> 16) as u16)
            + i32::from((draw >> 32) as u16)
            + i32::from((draw >> 48) as u16);
        (sum - MEAN) as f32 * (1.0 / DEVIATION)
    }
}
