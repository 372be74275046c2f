//! The standard health service of gRPC (`grpc.health.v1.Health`), for probes of Kubernetes and for clients
//! that balance the load themselves.

use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use axum::routing::post_service;
use futures_util::{FutureExt as _, Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::super::inference::grpc::SERVICE;
use super::super::{Shared, write_method};
use super::MESSAGE_MAX;

/// How often those who watch are looked for something new.
const INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn routes(shared: &Shared) -> Router<Shared> {
    let health = HealthServer::new(Service(shared.clone())).max_decoding_message_size(MESSAGE_MAX);
    let health = post_service(health).fallback(write_method);
    Router::new().route("/grpc.health.v1.Health/{method}", health)
}

struct Service(Shared);

impl Service {
    fn status(shared: &Shared) -> ServingStatus {
        if shared.classifier.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    fn is_known(request: &Request<HealthCheckRequest>) -> bool {
        let name = &request.get_ref().service;
        name.is_empty() || name == SERVICE
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl Health for Service {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !Self::is_known(&request) {
            let what = format!("no such service; there are \"\" and {SERVICE:?}");
            return Err(Status::not_found(what));
        }
        Ok(Response::new(answer(Self::status(&self.0))))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    /// What changes, until the ports close. Not earlier: a client that is told the end of the stream asks
    /// again at once.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = Self::is_known(&request);
        let shared = self.0.clone();
        let closing = shared.clone().closing().shared();
        let changes = stream::unfold(None, move |said: Option<ServingStatus>| {
            let (shared, closing) = (shared.clone(), closing.clone());
            async move {
                loop {
                    let closes = closing.peek().is_some();
                    let status = if known {
                        Self::status(&shared)
                    } else {
                        ServingStatus::ServiceUnknown
                    };
                    if said != Some(status) {
                        return Some((Ok(answer(status)), Some(status)));
                    }
                    if closes {
                        return None;
                    }
                    // Either way it is time to look.
                    let _ = tokio::time::timeout(INTERVAL, closing.clone()).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
