//! The OpenAPI document (3.1): the parts that the surfaces and the other routes declare, merged, and the page to
//! browse it with.

use std::sync::LazyLock;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::Value;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{PathItem, Required};

use super::admin::HealthDocument;
use super::fallback::only_get;
#[cfg(feature = "swagger-ui")]
use super::page;
use super::refusal::ErrorAnswer;
use super::state::ApiState;
use super::surface::Route;
use super::surfaces::SURFACES;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "intentd",
        description = "Intent detection: a BERT classifier behind a queue. The same port speaks gRPC \
                       (inference.GRPCInferenceService, grpc.health.v1.Health, reflection). Metrics and \
                       autoscaling hints are on the operators' port."
    ),
    paths(get_document)
)]
struct Document;

/// The routes of the document and of its page.
pub(super) fn routes() -> Router<ApiState> {
    let routes = Router::new().route("/openapi.json", get(get_document).fallback(only_get));
    #[cfg(feature = "swagger-ui")]
    let routes = routes.merge(page::routes());
    routes
}

/// How a client sends its key to a server that has keys (--api-keys).
fn key() -> SecurityScheme {
    SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build())
}

/// Merges the parts into one document.
fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for surface in SURFACES {
        let Some(part) = surface.openapi else {
            continue;
        };
        document.merge(part());
        for route in surface.routes {
            describe_alias(&mut document, route);
        }
    }
    document.merge(HealthDocument::openapi());
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("key", key());
    document.security = Some(vec![
        // A server without --api-keys requires none.
        SecurityRequirement::default(),
        SecurityRequirement::new::<_, [&str; 0], _>("key", []),
    ]);
    document
}

/// Copies the description of the path that `route` is an alias of. Operations that the alias describes itself stay.
fn describe_alias(document: &mut utoipa::openapi::OpenApi, route: &Route) {
    let paths = &mut document.paths.paths;
    let described = route.alias_of.and_then(|path| paths.get(path));
    if let Some(mut item) = described.cloned() {
        rename(&mut item, route.path);
        paths
            .entry(route.path.to_owned())
            .or_default()
            .merge_operations(item);
    }
}

/// Gives the operations of an alias their own names, and its parameter `version` if it has one.
fn rename(item: &mut PathItem, path: &str) {
    for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
        let suffix = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let id = operation.operation_id.take().unwrap_or_default();
        operation.operation_id = Some(format!("{id}{suffix}"));
        if path.contains("{version}") {
            let parameter = utoipa::openapi::path::Parameter::builder()
                .name("version")
                .parameter_in(utoipa::openapi::path::ParameterIn::Path)
                .required(Required::True)
                .description(Some("\"1\""))
                .schema(Some(
                    utoipa::openapi::Object::builder()
                        .schema_type(utoipa::openapi::schema::Type::String),
                ))
                .build();
            operation
                .parameters
                .get_or_insert_default()
                .push(parameter.into());
        }
    }
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // It is made of constants, and a test shows that it can be serialized.
    let mut value = serde_json::to_value(document()).unwrap_or_default();
    any_of(&mut value);
    format!("{value:#}")
});

/// Replaces `oneOf` by `anyOf`: shapes that exclude each other are rare here, as an empty list fits every list.
fn any_of(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(shapes) = map.remove("oneOf") {
                map.insert("anyOf".to_owned(), shapes);
            }
            map.values_mut().for_each(any_of);
        }
        Value::Array(items) => items.iter_mut().for_each(any_of),
        _ => {}
    }
}

/// The description of all this.
#[utoipa::path(get, path = "/openapi.json", tag = "health", operation_id = "openapi",
    responses((status = 200, description = "This document", body = Value), (status = 405, description = "The route exists, the method does not", body = ErrorAnswer)))]
async fn get_document() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (content_type, DOCUMENT.as_str()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_descriptions_agree() {
        let document = document();
        for surface in SURFACES {
            let Some(part) = surface.openapi else {
                continue;
            };
            for Route { path, .. } in surface.routes {
                let is_described = document.paths.paths.contains_key(*path);
                assert!(is_described, "the OpenAPI document has no {path}");
            }
            for path in part().paths.paths.keys() {
                let is_routed = surface.routes.iter().any(|route| route.path == path);
                assert!(is_routed, "{} has no route {path}", surface.title);
            }
        }
    }

    #[test]
    fn operations_have_unique_ids() {
        let value: Value = serde_json::from_str(&DOCUMENT).unwrap();
        assert_eq!(value["openapi"], "3.1.0");
        let paths = value["paths"].as_object().unwrap();
        for path in ["/", "/predict", "/v2/models/{model}/infer", "/tokenize"] {
            assert!(paths.contains_key(path), "{path}");
        }
        let mut ids: Vec<&str> = paths
            .values()
            .flat_map(|item| item.as_object().unwrap().values())
            .filter_map(|operation| operation["operationId"].as_str())
            .collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(paths["/"].get("post").is_some() && paths["/"].get("get").is_some());
    }
}
