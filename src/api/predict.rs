//! `/predict`: GET with a query string, POST with our own JSON, with a form, or with the JSON of Hugging
//! Face's clients. Events come here too; what is theirs is [`cloudevents`].

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};

use super::accept::{Form, choose};
use super::answer::{OwnAnswers, encode};
use super::openapi::{EventRequest, FormRequest, PredictAnswer, PredictRequest, Refusals};
use super::request::{Decoded, List, Shape, decode, query_of, single};
use super::tei::Stopwatch;
use super::{Shared, cloudevents, decode_query};
use crate::error::Refusal;
use crate::metrics::Surface;

/// The intent of a text in the address.
#[utoipa::path(get, path = "/predict", tag = "predict", operation_id = "predict_query",
    params(
        ("query" = String, Query, description = "What to classify", example = "play some jazz"),
        ("truncate" = Option<bool>, Query, description = "Whether a text that is too long is cut; true by itself"),
    ),
    responses(
        (status = 200, description = "The best class as text, or all classes as JSON, as Accept says", content(
            (String = "text/html"), (String = "text/plain"), (OwnAnswers = "application/json"))),
        Refusals,
    ))]
pub(super) async fn get(State(shared): State<Shared>, uri: Uri, headers: HeaderMap) -> Response {
    let response = answer_query(&shared, &uri, &headers).await.into_response();
    shared.finish(Surface::Predict, &headers, response)
}

async fn answer_query(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let offer = shared.offer(Surface::Predict, headers)?;
    let form = choose(headers, &[Form::Html, Form::Json, Form::Plain]);
    let request = match decode_query(uri.query().unwrap_or_default()) {
        Ok(request) => request,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let predictions = offer.classify(request).await?;
    Ok(encode(&predictions, form, List::No))
}

/// The intents of the texts in a body: our own JSON, that of text-embeddings-inference, a form, or CloudEvents.
#[utoipa::path(post, path = "/predict", tag = "predict", operation_id = "predict",
    params(
        ("query" = Option<String>, Query, description = "What to classify, in place of the body's text"),
    ),
    request_body(content(
        (PredictRequest = "application/json"),
        (FormRequest = "application/x-www-form-urlencoded"),
        (EventRequest = "application/cloudevents+json"),
        (Vec<EventRequest> = "application/cloudevents-batch+json"),
    )),
    responses(
        (status = 200, description = "The answer in the shape of the request; a CloudEvent with Prefer: reply", content(
            (PredictAnswer = "application/json"), (String = "text/html"), (String = "text/plain"))),
        Refusals,
    ))]
pub(super) async fn post(
    State(shared): State<Shared>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if cloudevents::is_event(&headers) {
        let response = cloudevents::answer(&shared, &uri, &headers, body).await;
        return shared.finish(Surface::CloudEvents, &headers, response);
    }
    let mut surface = Surface::Predict;
    let answered = answer_body(&shared, &mut surface, (&uri, &headers), body).await;
    shared.finish(surface, &headers, answered.into_response())
}

/// Answers a body that is no event, and says by which surface it has come.
pub(super) async fn answer_body(
    shared: &Shared,
    surface: &mut Surface,
    (uri, headers): (&Uri, &HeaderMap),
    body: Body,
) -> Result<Response, Refusal> {
    let mut offer = shared.offer(*surface, headers)?;
    let form = choose(headers, &[Form::Json, Form::Html, Form::Plain]);
    let read = |body: Bytes| match query_of(uri)? {
        // A text in the address is the text: whoever wrote it there meant it.
        Some((query, too_long)) => Ok(Decoded {
            request: single(query, too_long),
            shape: Shape::Own(List::No),
        }),
        None => decode(headers, &body),
    };
    let received = shared.receive(&mut offer, headers, body, read).await;
    // Held until the answer is there: the texts take as much memory as the body did.
    let (Decoded { request, shape }, held) = match received {
        Ok(decoded) => decoded,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let response = match shape {
        Shape::Own(list) => encode(&offer.classify(request).await?, form, list),
        Shape::Tei(shape) => {
            *surface = Surface::Tei;
            offer.set_surface(*surface);
            let stopwatch = Stopwatch::start(&request);
            let predictions = offer.classify(request).await?;
            shape.encode(&predictions, &stopwatch, shared)
        }
    };
    Ok(held.carry(response))
}
