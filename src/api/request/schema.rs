//! OpenAPI schemas of the JSON that `/predict` takes.

use utoipa::ToSchema;

/// A text or a list of texts.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(crate) enum Texts {
    One(String),
    List(Vec<String>),
}

/// A pair of texts, as the pipelines of transformers take it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(crate) struct TextPair {
    text: String,
    text_pair: Option<String>,
}

/// A text or a pair.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(crate) enum TextOrPair {
    Text(String),
    Pair(TextPair),
}

/// A text, a pair, or a list of these.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(crate) enum TextsOrPairs {
    One(TextOrPair),
    List(Vec<TextOrPair>),
}

/// Our own request.
#[derive(ToSchema)]
#[schema(example = json!({"query": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(crate) struct OwnRequest {
    /// What to classify.
    query: TextsOrPairs,
    /// Whether a text that is too long is cut; true by default.
    truncate: Option<bool>,
}

/// A text, a pair of texts, or a list of either.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(crate) enum TeiInputs {
    /// A text.
    One(String),
    /// Two are a pair; one or more than two are a list.
    Texts(Vec<String>),
    /// A list of texts in lists of one, and of pairs in lists of two.
    Batch(Vec<Vec<String>>),
    /// A pair.
    Pair(TextPair),
}

/// The request of text-embeddings-inference and of `huggingface_hub`.
#[derive(ToSchema)]
#[schema(example = json!({"inputs": "play some jazz"}))]
#[expect(dead_code, reason = "a description")]
pub(crate) struct TeiRequest {
    /// What to classify.
    inputs: TeiInputs,
    /// Whether a text that is too long is cut; true by default.
    truncate: Option<bool>,
    /// Whether logits are wanted in place of scores.
    raw_scores: Option<bool>,
    /// Only "right": the beginning is kept.
    truncation_direction: Option<String>,
    /// Makes it a request of the hub: a list is a list of texts, and the answer a list of lists.
    parameters: Option<HubParameters>,
}

/// Parameters of `huggingface_hub`.
#[derive(ToSchema)]
#[expect(dead_code, reason = "a description")]
pub(crate) struct HubParameters {
    /// "softmax", "sigmoid" or "none".
    function_to_apply: Option<String>,
    /// How many of the best classes are wanted.
    #[schema(minimum = 1)]
    top_k: Option<u32>,
}

/// What `/predict` takes as JSON.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(crate) enum PredictRequest {
    Own(OwnRequest),
    Texts(Vec<TextOrPair>),
    Tei(TeiRequest),
}
