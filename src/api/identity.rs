//! The identity of a request, by which its retries are recognized.

use axum::http::HeaderMap;

use crate::serving::{Attempt, Identity};

/// Sets of headers that stay the same over all attempts of a request. All headers of a set have to be present:
/// CloudEvents' source and id (HTTP binding, section 3.1.3), idempotency keys, and the id that Envoy gives to a
/// request and its retries.
const NAMES: [&[&str]; 3] = [
    &["ce-source", "ce-id"],
    &["idempotency-key"],
    &["x-request-id"],
];

/// The number of this attempt, from 1 (Envoy, `include_request_attempt_count`).
const ATTEMPT: &str = "x-envoy-attempt-count";

/// The number of earlier attempts (gRPC).
const PREVIOUS: &str = "grpc-previous-rpc-attempts";

/// The request's identity, and whether its headers call it a retry.
pub(super) fn attempt_of(headers: &HeaderMap) -> Attempt {
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse().ok();
    let is_retry = number(ATTEMPT).unwrap_or(1_u32) > 1 || number(PREVIOUS).unwrap_or(0_u32) > 0;
    Attempt {
        identity: identity_of(headers),
        is_retry,
    }
}

/// The request's identity, if its headers give one.
fn identity_of(headers: &HeaderMap) -> Option<Identity> {
    NAMES.iter().find_map(|names| {
        let values: Option<Vec<&[u8]>> = names
            .iter()
            .map(|name| Some(headers.get(*name)?.as_bytes()))
            .collect();
        Some(Identity::of(values?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(headers: &[(&'static str, &str)]) -> Option<Identity> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        identity_of(&headers.collect())
    }

    #[test]
    fn an_event_is_identified_by_source_and_id() {
        let event = identity(&[("ce-source", "/a"), ("ce-id", "1"), ("x-request-id", "x")]);
        assert!(event.is_some());
        let again = identity(&[("ce-source", "/a"), ("ce-id", "1"), ("x-request-id", "y")]);
        assert_eq!(event, again);
        assert_ne!(event, identity(&[("ce-source", "/b"), ("ce-id", "1")]));
        assert_eq!(identity(&[("ce-id", "1")]), None);
        assert_eq!(identity(&[]), None);
        assert!(identity(&[("x-request-id", "x")]).is_some());
        let is_retry = |name: &'static str, value: &str| {
            let header = (name.parse().unwrap(), value.parse().unwrap());
            attempt_of(&HeaderMap::from_iter([header])).is_retry
        };
        assert!(is_retry(ATTEMPT, "2") && is_retry(PREVIOUS, "1"));
        assert!(!is_retry(ATTEMPT, "1") && !is_retry(ATTEMPT, "x"));
        assert_ne!(
            identity(&[("ce-source", "ab"), ("ce-id", "c")]),
            identity(&[("ce-source", "a"), ("ce-id", "bc")])
        );
    }
}
