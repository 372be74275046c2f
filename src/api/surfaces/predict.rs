//! `/predict`: GET with a query string, and POST with our own JSON, a form, or the JSON of Hugging Face's clients.
//! Events come here too and are passed on to [`cloudevents`].

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use utoipa::openapi::{RefOr, Required};
use utoipa::{OpenApi, ToSchema};

use super::cloudevents::{self, EventAnswer, EventRequest};
use crate::api::accept::{AnswerFormat, choose};
use crate::api::answer::{OwnAnswers, Stopwatch, TeiAnswers, encode, encode_tei};
use crate::api::fallback::only_get_and_post;
use crate::api::refusal::{ErrorAnswer, Refusals};
use crate::api::request::{
    AnswerShape, Arity, DecodedBody, FormRequest, PredictRequest, TEI, TextParameters, decode,
    decode_query,
};
use crate::api::state::ApiState;
use crate::api::surface::{Route, Surface};
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;

/// The surface.
pub(super) static SURFACE: Surface = Surface {
    label: SurfaceLabel::new("predict"),
    title: "Our own `/predict`",
    routes: &[
        Route::new("/predict", |_| {
            get(get_prediction)
                .post(post_texts)
                .fallback(only_get_and_post)
        })
        .traced(),
        Route::new("/", |_| {
            get(home).post(post_texts).fallback(only_get_and_post)
        })
        .traced()
        .alias_of("/predict"),
    ],
    guard: None,
    openapi: Some(document),
    fuzz_targets: &["request_body"],
};

#[derive(OpenApi)]
#[openapi(
    paths(get_prediction, post_texts, home),
    tags((name = "predict", description = "Predictions, by curl or from a browser, and for CloudEvents"))
)]
struct PredictDocument;

fn document() -> utoipa::openapi::OpenApi {
    let mut document = PredictDocument::openapi();
    let predict = document.paths.paths.get_mut("/predict");
    let post = predict.and_then(|item| item.post.as_mut());
    if let Some(RefOr::T(body)) = post.and_then(|post| post.request_body.as_mut()) {
        // The text may be in the address.
        body.required = Some(Required::False);
    }
    document
}

/// What `/predict` answers: our own shape, that of text-embeddings-inference, or one for a batch of events.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub(super) enum PredictAnswer {
    Own(OwnAnswers),
    Tei(TeiAnswers),
    Events(Vec<EventAnswer>),
}

/// A page for people.
#[utoipa::path(get, path = "/", tag = "health", operation_id = "home",
    responses((status = 303, description = "To /docs/, where this document can be browsed"),
        (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
async fn home() -> Redirect {
    Redirect::to("/docs/")
}

/// The intent of a text in the address.
#[utoipa::path(get, path = "/predict", tag = "predict", operation_id = "predict_query",
    params(
        ("query" = String, Query, description = "What to classify", example = "play some jazz"),
        ("truncate" = Option<bool>, Query, description = "Whether a text that is too long is cut; true by default"),
    ),
    responses(
        (status = 200, description = "The best class as text, or all classes as JSON, as Accept says", content(
            (String = "text/html"), (String = "text/plain"), (OwnAnswers = "application/json"))),
        Refusals,
    ))]
async fn get_prediction(State(state): State<ApiState>, uri: Uri, headers: HeaderMap) -> Response {
    let response = answer_query(&state, &uri, &headers).await.into_response();
    state.finish(SURFACE.label, &headers, response)
}

async fn answer_query(
    state: &ApiState,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let offer = state.offer(SURFACE.label, headers)?;
    let formats = [AnswerFormat::Html, AnswerFormat::Json, AnswerFormat::Plain];
    let format = choose(headers, &formats);
    let request = match decode_query(uri.query().unwrap_or_default()) {
        Ok(request) => request,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let predictions = offer.classify(request).await?;
    Ok(encode(&predictions, format, Arity::Single))
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
async fn post_texts(
    State(state): State<ApiState>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if cloudevents::is_event(&headers) {
        return cloudevents::answer(&state, &uri, &headers, body).await;
    }
    let mut surface = SURFACE.label;
    let answered = answer_body(&state, &mut surface, &uri, &headers, body).await;
    state.finish(surface, &headers, answered.into_response())
}

/// Answers a body that is not an event. `surface` becomes that of TEI if the body is in TEI's format.
pub(super) async fn answer_body(
    state: &ApiState,
    surface: &mut SurfaceLabel,
    uri: &Uri,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let mut offer = state.offer(*surface, headers)?;
    let formats = [AnswerFormat::Json, AnswerFormat::Html, AnswerFormat::Plain];
    let format = choose(headers, &formats);
    let read = |body: Bytes| match TextParameters::of(uri)? {
        // A text in the address takes precedence over the body.
        Some(parameters) => Ok(DecodedBody::from(parameters)),
        None => decode(headers, &body),
    };
    let received = state.receive(&mut offer, headers, body, read).await;
    // The reservation lasts until the answer is sent: the texts take as much memory as the body did.
    let (DecodedBody { request, shape }, reservation) = match received {
        Ok(received) => received,
        Err(refusal) => return Err(offer.refuse(refusal)),
    };
    let response = match shape {
        AnswerShape::Own(arity) => encode(&offer.classify(request).await?, format, arity),
        AnswerShape::Tei(shape) => {
            *surface = TEI;
            offer.set_surface(*surface);
            let stopwatch = Stopwatch::start(&request);
            let predictions = offer.classify(request).await?;
            let model = state.classifier.model();
            let on_device = model.is_some_and(|model| model.is_on_device);
            encode_tei(shape, &predictions, &stopwatch, on_device)
        }
    };
    Ok(reservation.carry(response))
}
