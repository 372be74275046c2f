//! One HTTP request of a target, built once and sent many times.

use axum::body::Bytes;
use axum::http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;

/// The body of a request.
pub(super) type RequestBody = Full<Bytes>;

/// A request that can be sent repeatedly.
#[derive(Debug, Clone)]
pub(super) struct PreparedRequest {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl PreparedRequest {
    /// A copy to send; the body is shared.
    pub(super) fn to_http(&self) -> Request<RequestBody> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}
