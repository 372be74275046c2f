//! Tensors by role, in files that are made here.

use safetensors::tensor::TensorView;

use super::super::architecture::{BERT, ModuleNames};
use super::*;

/// The configuration of a tiny classifier of a family with its own names and without token types.
fn config() -> ModelConfig {
    let json =
        br#"{"vocab_size": 3, "hidden_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 4, "max_position_embeddings": 5, "type_vocab_size": 1}"#;
    let family = Family {
        model_type: "other",
        optional_prefix: "other.",
        modules: ModuleNames {
            token_type_embedding: None,
            layers: "other.blocks",
            query: "q",
            ..BERT.modules
        },
        ..BERT
    };
    ModelConfig {
        family: Box::leak(Box::new(family)),
        ..ModelConfig::read(&memory("config.json", json.to_vec())).unwrap()
    }
}

fn memory(name: &str, content: Vec<u8>) -> Files {
    Files::Memory {
        origin: "test".to_owned(),
        files: vec![(name.to_owned(), content.into())],
    }
}

/// A file of f32 tensors with these names and shapes, each filled with its index.
fn stored(tensors: &[(String, Vec<usize>)]) -> Files {
    let bytes: Vec<Vec<u8>> = (0_u8..)
        .zip(tensors)
        .map(|(index, (_, shape))| {
            f32::from(index)
                .to_le_bytes()
                .repeat(shape.iter().product())
        })
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name, view.unwrap())
    });
    let file = safetensors::serialize(views, None).unwrap();
    memory("model.safetensors", file)
}

fn names(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    config
        .tensors(2)
        .filter_map(|(key, shape)| Some((config.family.tensor_name(key)?, shape)))
        .collect()
}

#[test]
fn a_family_finds_its_tensors_by_its_own_names() {
    let config = config();
    let mut tensors = names(&config);
    let query = tensors
        .iter()
        .position(|(name, _)| name == "other.blocks.0.q.weight");
    let query = query.expect("the family's name");
    "blocks.0.q.weight".clone_into(&mut tensors[query].0);
    let weights = Weights::read(&stored(&tensors), &config).unwrap();
    let found = weights.f32(Role::Query(0).weight()).unwrap();
    assert_eq!(found, [query as f32; 4]);
    assert_eq!(weights.label_count(), 2);
    let stored = tensors
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>());
    assert_eq!(weights.size().parameters, stored.sum::<usize>());
}

#[test]
fn a_role_that_a_family_does_not_have_reads_as_zeros() {
    let config = config();
    let weights = Weights::read(&stored(&names(&config)), &config).unwrap();
    let types = Role::TokenTypeEmbedding.weight();
    assert_eq!(weights.tensor(types).shape(), [1, 2]);
    assert_eq!(weights.f32(types).unwrap(), [0.0; 2]);
    assert_eq!(weights.tensor(types).len(), 8);
}

#[test]
fn an_error_names_the_missing_tensor_and_the_family_s_prefix() {
    let config = config();
    let mut tensors = names(&config);
    tensors.retain(|(name, _)| name != "other.blocks.0.q.bias");
    let error = Weights::read(&stored(&tensors), &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test/model.safetensors: blocks.0.q.bias: expected this tensor (with or without the \
         \"other.\" prefix), as a BertForSequenceClassification has it, found none of that name"
    );
}
