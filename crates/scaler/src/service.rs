//! The five calls of KEDA, answered from the view. Only the first call about a workload waits for replicas.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::watch;
use tonic::codegen::{BoxStream, tokio_stream::StreamExt as _};
use tonic::service::Routes;
use tonic::{Code, Status};

use super::metrics::ScalerMetrics;
use super::proto::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use super::proto::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use super::registry::WorkloadRegistry;
use super::trigger::{Defaults, Trigger};
use super::view::View;
use intentd_base::shown;
use intentd_transport::Life;

/// The only metric.
const METRIC: &str = "demand";

/// Time that the first call about a workload waits for its replicas: DNS and a response.
const FIRST_VIEW_TIMEOUT: Duration = Duration::from_secs(8);

/// Time for a call to arrive and to be answered, or for a stream to start.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Most bytes of a call, which holds the metadata of a trigger.
const CALL_BYTES_MAX: usize = 64 << 10;

/// KEDA's service.
#[derive(Debug)]
pub(super) struct ScalerService {
    pub(super) registry: std::sync::Arc<WorkloadRegistry>,
    pub(super) defaults: Defaults,
    pub(super) life: watch::Receiver<Life>,
}

/// The routes of the gRPC service.
pub(super) fn routes(service: ScalerService, metrics: ScalerMetrics) -> axum::Router {
    let server = ExternalScalerServer::new(service).max_decoding_message_size(CALL_BYTES_MAX);
    let bounded = axum::middleware::from_fn_with_state(metrics, bound_and_count);
    Routes::new(server).into_axum_router().layer(bounded)
}

/// Bounds a call in time and counts it.
async fn bound_and_count(
    State(metrics): State<ScalerMetrics>,
    request: Request,
    next: Next,
) -> Response {
    // gRPC needs HTTP/2. On HTTP/1.1, the stream of a client that vanished would stay open for ever, since
    // nothing is sent that could fail.
    if request.version() < Version::HTTP_2 {
        return StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response();
    }
    let path = request.uri().path();
    let method = match path.strip_prefix("/externalscaler.ExternalScaler/") {
        Some("IsActive") => "IsActive",
        Some("StreamIsActive") => "StreamIsActive",
        Some("GetMetricSpec") => "GetMetricSpec",
        Some("GetMetrics") => "GetMetrics",
        Some("StreamMetricSpec") => "StreamMetricSpec",
        _ => "other",
    };
    let answer = tokio::time::timeout(CALL_TIMEOUT, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| {
        let status = Status::deadline_exceeded("the call did not arrive in time");
        status.into_http()
    });
    // A failed call has its status in the headers; a call without one succeeds.
    let code = answer.headers().get("grpc-status");
    let code = code
        .map(HeaderValue::as_bytes)
        .map_or(Code::Ok, Code::from_bytes);
    let code = i32::from(code).to_string();
    metrics.rpcs.with_label_values(&[method, &*code]).inc();
    answer
}

impl ScalerService {
    fn trigger(&self, object: &ScaledObjectRef) -> Result<Trigger, Status> {
        Trigger::parse(&object.scaler_metadata, &self.defaults).map_err(|mistakes| {
            let (namespace, name) = (&object.namespace, &object.name);
            tracing::debug!(namespace, name, ?mistakes, "bad metadata");
            Status::invalid_argument(mistakes.join("; "))
        })
    }

    /// The view of the trigger's workload. A new workload is polled first.
    async fn view(&self, trigger: &Trigger) -> Result<View, Status> {
        let mut views = self.subscribe(trigger)?;
        let settled = views.wait_for(|view| view.is_settled);
        // After the timeout, the call is answered from the incomplete view.
        let _ = tokio::time::timeout(FIRST_VIEW_TIMEOUT, settled).await;
        let view = views.borrow().clone();
        Ok(view)
    }

    fn subscribe(&self, trigger: &Trigger) -> Result<watch::Receiver<View>, Status> {
        let workload = self.registry.get(&trigger.watch);
        let workload = workload.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        Ok(workload.subscribe())
    }

    /// Waits until the scaler drains.
    async fn closes(mut life: watch::Receiver<Life>) {
        // An error means that the sender is gone, which is an end, too.
        let _ = life.wait_for(|life| *life == Life::Closing).await;
    }
}

fn unknown(what: &str, view: &View) -> Status {
    let why = match view.unknown.as_str() {
        "" => "no answer yet",
        why => why,
    };
    Status::unavailable(format!("{what} is not known: {why}"))
}

/// The demand of the whole workload to report, in replicas, if it is known.
///
/// A workload that has just been woken has no replica that could report demand. Its demand is then one
/// replica, the number that KEDA starts with, so that the autoscaler sees its target met instead of a
/// workload without demand. This does not replace an unknown number: while replicas run and none answers,
/// nothing is reported, since a demand of one replica would shrink a large workload.
fn reported_demand(view: &View, trigger: &Trigger) -> Option<f64> {
    let demand = view.demand?;
    let has_none = view.replicas.fresh + view.replicas.kept == 0;
    Some(if has_none && view.is_woken(&trigger.thresholds) {
        demand.max(trigger.target)
    } else {
        demand
    })
}

/// A value rounded up, for old versions of KEDA, which support only whole numbers.
fn rounded_up(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let rounded = value.ceil() as i64;
    rounded
}

fn specification(trigger: &Trigger) -> GetMetricSpecResponse {
    GetMetricSpecResponse {
        metric_specs: vec![MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: rounded_up(trigger.target),
            target_size_float: trigger.target,
        }],
    }
}

#[tonic::async_trait]
impl ExternalScaler for ScalerService {
    async fn is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<IsActiveResponse>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        let view = self.view(&trigger).await?;
        let result = view.is_active(&trigger.thresholds);
        let result = result.ok_or_else(|| unknown("whether there is work", &view))?;
        Ok(IsActiveResponse { result }.into())
    }

    type StreamIsActiveStream = BoxStream<IsActiveResponse>;

    /// Sends the activity once it is known, then each change of it. Nothing is sent while it is unknown.
    async fn stream_is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<Self::StreamIsActiveStream>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        let mut views = self.subscribe(&trigger)?;
        // The stream starts with the present view.
        views.mark_changed();
        let closes = Box::pin(Self::closes(self.life.clone()));
        let changes = stream::unfold(
            (views, None, closes, trigger.thresholds),
            |(mut views, sent, mut closes, thresholds)| async move {
                loop {
                    tokio::select! {
                        changed = views.changed() => changed.ok()?,
                        () = &mut closes => return None,
                    }
                    let is_active = views.borrow_and_update().is_active(&thresholds);
                    match is_active {
                        Some(result) if sent != Some(result) => {
                            let response = Ok(IsActiveResponse { result });
                            return Some((response, (views, Some(result), closes, thresholds)));
                        }
                        _ => {}
                    }
                }
            },
        );
        Ok(tonic::Response::new(Box::pin(changes)))
    }

    async fn get_metric_spec(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<GetMetricSpecResponse>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        // Starts to watch a new workload, so that the next call has a view.
        self.subscribe(&trigger)?;
        Ok(specification(&trigger).into())
    }

    async fn get_metrics(
        &self,
        request: tonic::Request<GetMetricsRequest>,
    ) -> Result<tonic::Response<GetMetricsResponse>, Status> {
        let GetMetricsRequest {
            scaled_object_ref,
            metric_name,
        } = request.into_inner();
        if metric_name != METRIC {
            return Err(Status::invalid_argument(format!(
                "there is no metric {}, only {METRIC:?}",
                shown(&metric_name)
            )));
        }
        let object = scaled_object_ref
            .ok_or_else(|| Status::invalid_argument("scaledObjectRef is missing"))?;
        let trigger = self.trigger(&object)?;
        let view = self.view(&trigger).await?;
        let value = reported_demand(&view, &trigger);
        let value = value.ok_or_else(|| unknown("the demand", &view))?;
        let values = GetMetricsResponse {
            metric_values: vec![MetricValue {
                metric_name,
                metric_value: rounded_up(value),
                metric_value_float: value,
            }],
        };
        Ok(values.into())
    }

    type StreamMetricSpecStream = BoxStream<GetMetricSpecResponse>;

    /// Sends the target once and keeps the stream open: the target of a trigger never changes.
    async fn stream_metric_spec(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<Self::StreamMetricSpecStream>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        let life = self.life.clone();
        let first = stream::iter([Ok(specification(&trigger))]);
        let end = stream::unfold(Some(life), |life| async move {
            Self::closes(life?).await;
            None
        });
        Ok(tonic::Response::new(Box::pin(first.chain(end))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::ReplicaCounts;
    use super::super::trigger::{ActivityThresholds, WatchSpec};
    use super::*;

    fn view(demand: Option<f64>, signal: f64, fresh: usize) -> View {
        View {
            demand,
            signals: vec![Some(signal)],
            replicas: ReplicaCounts {
                fresh,
                ..ReplicaCounts::default()
            },
            ..View::default()
        }
    }

    #[test]
    fn a_woken_workload_has_a_demand_of_one_replica_until_it_reports_its_own() {
        let trigger = Trigger {
            watch: WatchSpec {
                endpoints: Vec::new(),
                wake_sources: Vec::new(),
            },
            target: 0.8,
            thresholds: ActivityThresholds {
                demand: 0.0,
                wake: vec![5.0],
            },
        };
        let demand = |view: View| reported_demand(&view, &trigger);
        assert_eq!(demand(view(Some(0.0), 5.0, 0)), Some(0.0));
        assert_eq!(demand(view(Some(0.0), 6.0, 0)), Some(0.8));
        assert_eq!(demand(view(Some(0.1), 6.0, 1)), Some(0.1));
        assert_eq!(
            demand(view(Some(7.0), 6.0, 0)),
            Some(7.0),
            "kept from before"
        );
        assert_eq!(demand(view(None, 6.0, 0)), None);
    }

    #[test]
    fn fractions_are_rounded_up() {
        assert_eq!(rounded_up(0.0), 0);
        assert_eq!(rounded_up(0.001), 1);
        assert_eq!(rounded_up(3.0), 3);
        assert_eq!(rounded_up(f64::MAX), i64::MAX);
    }
}
