//! gRPC's standard health service (`grpc.health.v1.Health`), for probes of Kubernetes and for clients that balance
//! load themselves.

use std::pin::Pin;
use std::time::Duration;

use futures_util::{FutureExt as _, Stream, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::framing::MESSAGE_MAX;
use super::inference::SERVICE;
use crate::api::state::ApiState;

/// The interval at which a watch looks for changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The service.
pub(super) fn service(state: &ApiState) -> HealthServer<HealthService> {
    HealthServer::new(HealthService(state.clone())).max_decoding_message_size(MESSAGE_MAX)
}

/// Answers health checks by the state of the classifier.
pub(super) struct HealthService(ApiState);

impl HealthService {
    fn status(state: &ApiState) -> ServingStatus {
        if state.classifier.is_ready() {
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
impl Health for HealthService {
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

    /// Streams changes until the ports close. It does not end earlier: a client whose stream ends asks again at once.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = Self::is_known(&request);
        let state = self.0.clone();
        let closing = state.clone().closing().shared();
        let changes = stream::unfold(None, move |sent: Option<ServingStatus>| {
            let (state, closing) = (state.clone(), closing.clone());
            async move {
                loop {
                    let closes = closing.peek().is_some();
                    let status = if known {
                        Self::status(&state)
                    } else {
                        ServingStatus::ServiceUnknown
                    };
                    if sent != Some(status) {
                        return Some((Ok(answer(status)), Some(status)));
                    }
                    if closes {
                        return None;
                    }
                    // Either way it is time to look again.
                    let _ = tokio::time::timeout(INTERVAL, closing.clone()).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
