//! Parts of a tokenizer as the library reads them.

use serde_json::{Value, json};
use tokenizers::NormalizerWrapper;
use tokenizers::normalizers::Precompiled;

/// The map of characters that SentencePiece made, if a normalizer has one.
pub(super) fn precompiled(normalizer: &NormalizerWrapper) -> Option<Precompiled> {
    let all = match normalizer {
        NormalizerWrapper::Sequence(all) => all.as_ref(),
        one => std::slice::from_ref(one),
    };
    all.iter().find_map(|normalizer| match normalizer {
        NormalizerWrapper::Precompiled(map) => Some(map.clone()),
        _ => None,
    })
}

/// A template as the library reads it. `single` has names of texts, and indices of `special`; `second` is what a pair has
/// beyond it, with token types.
pub(super) fn template(special: &[(&str, u32)], single: &[&str], second: &[(&str, u32)]) -> Value {
    let piece = |(name, token_type): (&str, u32)| match name.parse::<usize>() {
        Ok(index) => json!({"SpecialToken": {"id": special[index].0, "type_id": token_type}}),
        Err(_) => json!({"Sequence": {"id": name, "type_id": token_type}}),
    };
    let single: Vec<Value> = single.iter().map(|name| piece((name, 0))).collect();
    let second = second.iter().copied().map(piece);
    let pair: Vec<Value> = single.iter().cloned().chain(second).collect();
    let special: serde_json::Map<String, Value> = special
        .iter()
        .map(|(token, id)| {
            let described = json!({"id": token, "ids": [id], "tokens": [token]});
            ((*token).to_owned(), described)
        })
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}
