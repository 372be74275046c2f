//! What distinguishes one encoder family from another, as data.

use super::activation::Activation;
use super::role::{Role, TensorKey, TensorKind};

/// A family of encoders: the names in its configurations and checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Class of the sequence classifier, as `architectures` in `config.json` lists it.
    pub classifier_class: &'static str,
    /// Keys of `config.json`.
    pub keys: ConfigKeys,
    /// Prefix of tensor names, dot included, that a checkpoint may omit.
    pub optional_prefix: &'static str,
    /// Other spellings of the last component of a tensor's name.
    pub aliases: &'static [Alias],
    /// Names of the modules.
    pub modules: ModuleNames,
    /// Activation of the pooler, which stands between the encoder and the classifier.
    pub pooler_activation: Activation,
    /// The row of the position embedding that the first token of a text gets.
    pub first_position: FirstPosition,
}

/// The row of the position embedding that the first token of a text gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstPosition {
    /// The first row.
    Zero,
    /// The row after that of the padding token: `pad_token_id` + 1, or 2 if the key is absent. A padding token within a
    /// text gets the row of its own id and is not counted.
    AfterPadding,
}

/// How embeddings of a width of their own are projected to the hidden size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingProjection {
    /// Width of the embeddings.
    pub size: SizeKey,
    /// Name of the module.
    pub module: &'static str,
    /// Whether the module exists even if both widths are equal.
    pub is_always: bool,
}

/// Another spelling of the last component of a tensor's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alias {
    /// As it stands in the checkpoint.
    pub stored: &'static str,
    /// Its meaning: `weight` or `bias`.
    pub canonical: &'static str,
}

/// A key of `config.json` for a size, with the value that Hugging Face assumes when the key is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeKey {
    /// The key.
    pub name: &'static str,
    /// The key's name in other families, which transformers' configuration class takes for the same.
    pub synonym: Option<&'static str>,
    /// The value when the key is absent.
    pub default: usize,
}

/// The keys of `config.json` whose names differ between families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigKeys {
    /// Rows of the word embedding.
    pub vocab_size: SizeKey,
    /// Width of a token's vector.
    pub hidden_size: SizeKey,
    /// Number of layers.
    pub layers: SizeKey,
    /// Attention heads of a layer.
    pub heads: SizeKey,
    /// Width of the feed-forward block.
    pub intermediate_size: SizeKey,
    /// Rows of the position embedding.
    pub max_positions: SizeKey,
    /// Rows of the token type embedding. `None` for a family without one.
    pub type_vocab_size: Option<SizeKey>,
    /// Activation of the feed-forward block.
    pub activation: &'static str,
    /// The activation when that key is absent.
    pub activation_default: Activation,
    /// ε of every LayerNorm, 1e-12 if absent. `None` for a family in which it is always that.
    pub layer_norm_eps: Option<&'static str>,
    /// Number of layers with weights of their own, which the other layers share. `None` if all layers have.
    pub layer_groups: Option<SizeKey>,
    /// The projection of the embeddings. `None` for a family without one.
    pub embedding_projection: Option<EmbeddingProjection>,
}

/// The names of modules in a checkpoint as transformers writes it. A module's tensors add `.weight` and `.bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleNames {
    /// [`Role::WordEmbedding`]
    pub word_embedding: &'static str,
    /// [`Role::PositionEmbedding`]
    pub position_embedding: &'static str,
    /// [`Role::TokenTypeEmbedding`]. `None` for a family without one: its table reads as zeros.
    pub token_type_embedding: Option<&'static str>,
    /// [`Role::EmbeddingNorm`]
    pub embedding_norm: &'static str,
    /// The list of layers. A layer's number follows, then the name of a module within the layer.
    pub layers: &'static str,
    /// [`Role::Query`], within a layer.
    pub query: &'static str,
    /// [`Role::Key`], within a layer.
    pub key: &'static str,
    /// [`Role::Value`], within a layer.
    pub value: &'static str,
    /// [`Role::AttentionOutput`], within a layer.
    pub attention_output: &'static str,
    /// [`Role::AttentionNorm`], within a layer.
    pub attention_norm: &'static str,
    /// [`Role::FeedForwardIn`], within a layer.
    pub feed_forward_in: &'static str,
    /// [`Role::FeedForwardOut`], within a layer.
    pub feed_forward_out: &'static str,
    /// [`Role::FeedForwardNorm`], within a layer.
    pub feed_forward_norm: &'static str,
    /// [`Role::Pooler`]
    pub pooler: &'static str,
    /// [`Role::Classifier`]
    pub classifier: &'static str,
}

impl SizeKey {
    pub(super) const fn new(name: &'static str, default: usize) -> Self {
        Self {
            name,
            synonym: None,
            default,
        }
    }

    pub(super) const fn or(self, synonym: &'static str) -> Self {
        Self {
            synonym: Some(synonym),
            ..self
        }
    }
}

impl Family {
    /// The name of a tensor as transformers writes it. `None` for a role that the family does not have.
    pub fn tensor_name(&self, key: TensorKey) -> Option<String> {
        let tensor = match key.kind {
            TensorKind::Weight => "weight",
            TensorKind::Bias => "bias",
        };
        let module = match key.role {
            Role::EmbeddingProjection => self.keys.embedding_projection?.module.to_owned(),
            role => self.modules.name(role)?,
        };
        Some(format!("{module}.{tensor}"))
    }

    /// The canonical name of a tensor: [`tensor_name`](Self::tensor_name) without the optional prefix.
    pub fn canonical_name(&self, key: TensorKey) -> Option<String> {
        let name = self.tensor_name(key)?;
        Some(self.without_prefix(&name).to_owned())
    }

    /// The canonical form of a name that stands in a checkpoint: without the optional prefix, aliases resolved.
    ///
    /// For BERT: `bert.encoder.layer.0.output.LayerNorm.gamma` → `encoder.layer.0.output.LayerNorm.weight`.
    pub fn canonicalize(&self, stored: &str) -> String {
        let name = self.without_prefix(stored);
        let resolved = name.rsplit_once('.').and_then(|(stem, last)| {
            let alias = self.aliases.iter().find(|alias| alias.stored == last)?;
            Some(format!("{stem}.{}", alias.canonical))
        });
        resolved.unwrap_or_else(|| name.to_owned())
    }

    fn without_prefix<'a>(&self, name: &'a str) -> &'a str {
        name.strip_prefix(self.optional_prefix).unwrap_or(name)
    }
}

impl ModuleNames {
    fn name(&self, role: Role) -> Option<String> {
        let in_layer = |layer: usize, name: &str| format!("{}.{layer}.{name}", self.layers);
        Some(match role {
            Role::WordEmbedding => self.word_embedding.to_owned(),
            Role::PositionEmbedding => self.position_embedding.to_owned(),
            Role::TokenTypeEmbedding => self.token_type_embedding?.to_owned(),
            Role::EmbeddingNorm => self.embedding_norm.to_owned(),
            Role::Query(layer) => in_layer(layer, self.query),
            Role::Key(layer) => in_layer(layer, self.key),
            Role::Value(layer) => in_layer(layer, self.value),
            Role::AttentionOutput(layer) => in_layer(layer, self.attention_output),
            Role::AttentionNorm(layer) => in_layer(layer, self.attention_norm),
            Role::FeedForwardIn(layer) => in_layer(layer, self.feed_forward_in),
            Role::FeedForwardOut(layer) => in_layer(layer, self.feed_forward_out),
            Role::FeedForwardNorm(layer) => in_layer(layer, self.feed_forward_norm),
            Role::Pooler => self.pooler.to_owned(),
            Role::Classifier => self.classifier.to_owned(),
            // It belongs to a key of the configuration.
            Role::EmbeddingProjection => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BERT, FAMILIES};
    use super::*;

    #[test]
    fn names_are_canonical_without_prefix_and_aliases() {
        let canonical = "encoder.layer.0.output.LayerNorm.weight";
        for stored in [
            "bert.encoder.layer.0.output.LayerNorm.gamma",
            "bert.encoder.layer.0.output.LayerNorm.weight",
            "encoder.layer.0.output.LayerNorm.gamma",
            canonical,
        ] {
            assert_eq!(BERT.canonicalize(stored), canonical);
        }
        let key = Role::FeedForwardNorm(0).weight();
        assert_eq!(BERT.canonical_name(key).as_deref(), Some(canonical));
    }

    #[test]
    fn every_tensor_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = TensorKey::of_encoder(12, false)
            .map(|key| BERT.canonical_name(key).unwrap())
            .collect();
        assert_eq!(names.len(), 5 + 12 * 16 + 2);
        for family in FAMILIES {
            let keys: Vec<_> = TensorKey::of_encoder(3, true).collect();
            let names: Vec<_> = keys
                .iter()
                .filter_map(|key| family.canonical_name(*key))
                .collect();
            let distinct: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(names.len(), distinct.len(), "{}", family.model_type);
        }
    }
}
