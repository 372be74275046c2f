//! What a surface declares: its routes, its part of the OpenAPI document, its label and its fuzz targets.
//!
//! Everything else that a surface needs follows from this, or a test in `surfaces/mod.rs` says what is missing.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodRouter;
use utoipa::openapi::OpenApi;

use super::state::ApiState;
use crate::metrics::SurfaceLabel;
use crate::trace::{self, Tracing};

/// An interface by which clients ask for predictions.
pub(super) struct Surface {
    /// The label of its requests in metrics and traces.
    pub(super) label: SurfaceLabel,
    /// Its name in documents, as in the table of `docs/surfaces.md`.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "a test compares it with the documents")
    )]
    pub(super) title: &'static str,
    /// Its routes; empty for a surface on the routes of another.
    pub(super) routes: &'static [Route],
    /// Middleware around all of its routes.
    pub(super) guard: Option<fn(Router<ApiState>) -> Router<ApiState>>,
    /// Its part of the OpenAPI document; `None` where OpenAPI cannot describe it.
    pub(super) openapi: Option<fn() -> OpenApi>,
    /// The fuzz targets of its decoders.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test looks for their files"))]
    pub(super) fuzz_targets: &'static [&'static str],
}

impl Surface {
    /// The routes, each in its layer of tracing if requests are traced.
    pub(super) fn router(&self, state: &ApiState, tracing: Option<&Tracing>) -> Router<ApiState> {
        let mut router = Router::new();
        for route in self.routes {
            let mut methods = (route.methods)(state);
            if let Some(tracing) = tracing.filter(|_| route.is_traced) {
                let traced = (tracing.clone(), route.path);
                methods = methods.layer(from_fn_with_state(traced, trace::layer));
            }
            router = router.route(route.path, methods);
        }
        match self.guard {
            Some(guard) => guard(router),
            None => router,
        }
    }
}

/// A path and what answers there.
pub(super) struct Route {
    pub(super) path: &'static str,
    /// The path whose OpenAPI description holds for this one too.
    pub(super) alias_of: Option<&'static str>,
    methods: fn(&ApiState) -> MethodRouter<ApiState>,
    is_traced: bool,
}

impl Route {
    /// A path whose requests have no spans.
    pub(super) const fn new(
        path: &'static str,
        methods: fn(&ApiState) -> MethodRouter<ApiState>,
    ) -> Self {
        Self {
            path,
            alias_of: None,
            methods,
            is_traced: false,
        }
    }

    /// The same route with a span for each request.
    pub(super) const fn traced(mut self) -> Self {
        self.is_traced = true;
        self
    }

    /// The same route, described in the OpenAPI document as `path` is.
    pub(super) const fn alias_of(mut self, path: &'static str) -> Self {
        self.alias_of = Some(path);
        self
    }
}
