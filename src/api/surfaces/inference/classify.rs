//! Inference: the steps that both forms of the protocol share.

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;

use super::outputs::tensors;
use super::protocol::VERSION;
use super::request::Inference;
use super::tensor::Tensor;
use crate::api::body::BodyReservation;
use crate::api::state::ApiState;
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;

/// Refuses the name or the version of any model but ours. An empty version is any version.
pub(crate) fn check_model(state: &ApiState, name: &str, version: &str) -> Result<(), Refusal> {
    if name == &*state.model_name && (version.is_empty() || version == VERSION) {
        return Ok(());
    }
    let name = state.model_name.to_string();
    Err(Refusal::UnknownModel { name })
}

/// The number of classes of the model in use.
pub(crate) fn class_count(state: &ApiState) -> Result<usize, Refusal> {
    let model = state.classifier.model().ok_or(Refusal::Loading)?;
    Ok(model.labels.len())
}

/// The answer to a request for inference.
pub(crate) struct Inferred<T> {
    pub(crate) tensors: Vec<Tensor>,
    /// What the decoder gave for the encoder.
    pub(crate) context: T,
    pub(crate) reservation: BodyReservation,
}

/// Answers a request for inference. `model` is the check of the model that its address names; `decode` also gives what
/// the encoder needs to know of the request.
pub(crate) async fn infer<T>(
    state: &ApiState,
    surface: SurfaceLabel,
    headers: &HeaderMap,
    body: Body,
    model: Result<(), Refusal>,
    decode: impl FnOnce(Bytes) -> Result<(Inference, T), Refusal>,
) -> Result<Inferred<T>, Refusal> {
    let mut offer = state.offer(surface, headers)?;
    let received = match model {
        Ok(()) => state.receive(&mut offer, headers, body, decode).await,
        Err(refusal) => Err(refusal),
    };
    let ((inference, context), reservation) = match received {
        Ok(received) => received,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    if let Some(timeout) = inference.timeout {
        offer.limit_time(timeout);
    }
    let predictions = offer.classify(inference.request).await?;
    Ok(Inferred {
        tensors: tensors(&predictions, &inference.outputs),
        context,
        reservation,
    })
}
