//! The decoders as functions of what was sent, for whoever has it without a server, such as a fuzz target.

use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};

use super::cloudevents::record::{Message, Place, Prediction, Question};
use super::cloudevents::{self, AskedEvents, EventSource, TextPointer};
use super::inference::{self, Infer, grpc};
use super::request;
use crate::error::Refusal;
use crate::model::Text;
use crate::serving::{Predictions, Request};

/// What a `POST /predict` with these headers and this body asks for.
///
/// # Errors
/// A body that is encoded, of a type that is not read, or not what its type says; a [`Refusal`]
/// that never repeats the text.
pub fn decode_body(headers: &HeaderMap, body: &[u8]) -> Result<Request, Refusal> {
    request::decode(headers, body).map(|decoded| decoded.request)
}

/// What a `GET /predict` with this query string asks for.
///
/// # Errors
/// [`Refusal::Malformed`] where `query` is missing or stands there twice, `truncate` is neither
/// true nor false, or the text is not UTF-8.
pub fn decode_query(query: &str) -> Result<Request, Refusal> {
    let (text, too_long) =
        request::parameters_of(query.as_bytes(), "the query string", "/predict?query=music")?;
    Ok(request::single(text, too_long))
}

/// What the events of a `POST /predict` ask for, and what to do with texts that are too long: one event
/// each, with what is wrong with it. `pointer` says where the text is in an event's data.
///
/// # Errors
/// What is wrong with all of them, among it more than `texts_max`; a [`Refusal`] that never repeats
/// their data.
pub fn decode_events(
    request: (&Uri, &HeaderMap, Bytes),
    pointer: Option<&TextPointer>,
    texts_max: usize,
) -> Result<AskedEvents, Refusal> {
    cloudevents::asked(request, pointer, texts_max)
}

/// What a record of Kafka's asks for: the texts of each event that can be read, with the event that answers
/// it where nothing was predicted, and what is wrong with the first of the others, if there are such.
///
/// # Errors
/// What is wrong with all of them; a [`Refusal`] that never repeats their data.
pub fn decode_record(
    record: &Message,
    pointer: Option<&TextPointer>,
    source: &EventSource,
) -> Result<(Vec<RecordQuestion>, Option<Refusal>), Refusal> {
    let taken = |mut question: Question| {
        let answer = question.answer(&Predictions::default(), source)?;
        Ok((question.take_texts(), answer))
    };
    let (questions, wrong) = record.questions(pointer)?;
    let questions: Result<_, Refusal> = questions.into_iter().map(taken).collect();
    Ok((questions?, wrong))
}

/// The texts of one event of a record, and its answer, if it gets one.
type RecordQuestion = (Vec<Text>, Option<Prediction>);

/// The request by which Knative's KafkaSource would deliver a record: its headers and its body.
pub fn record_as_request(record: &Message, place: Place) -> (HeaderMap, Bytes) {
    record.delivery(place)
}

/// What a `POST /v2/models/…/infer` with these headers and this body asks for, and its id.
///
/// # Errors
/// A body that is encoded, is not JSON with the binary data that it names, or asks for what there is
/// not; a [`Refusal`] that never repeats a text.
pub fn decode_inference(
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(Infer, Option<String>), Refusal> {
    inference::decode(headers, body)
}

/// The same for the body of a call of `ModelInfer` over gRPC, whatever model it names.
///
/// # Errors
/// A body that is not one `ModelInferRequest`, uncompressed and behind its length, or asks for what
/// there is not; a [`Refusal`] that never repeats a text.
pub fn decode_inference_message(body: &Bytes) -> Result<(Infer, String), Refusal> {
    let message = grpc::read(body)?;
    let id = message.id.clone();
    Ok((grpc::decode(message)?, id))
}
