//! The five calls of KEDA, answered from what is known; none waits for a replica, save the first about
//! a workload.

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

use super::metrics::Metrics;
use super::proto::external_scaler_server::{ExternalScaler, ExternalScalerServer};
use super::proto::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use super::trigger::{Defaults, Trigger};
use super::view::View;
use super::watches::Watches;
use crate::error::shown;
use crate::transport::Life;

/// The one metric there is.
const METRIC: &str = "demand";

/// Time that the first call about a workload waits for its replicas: DNS and an answer.
const FIRST: Duration = Duration::from_secs(8);

/// Time for a call to arrive and to be answered, or for a stream to begin.
const CALL: Duration = Duration::from_secs(15);

/// Bytes of a call: the metadata of a trigger.
const CALL_BYTES_MAX: usize = 64 << 10;

/// Answers KEDA.
#[derive(Debug)]
pub(super) struct Scaler {
    pub(super) watches: std::sync::Arc<Watches>,
    pub(super) defaults: Defaults,
    pub(super) life: watch::Receiver<Life>,
}

/// The routes of the gRPC service.
pub(super) fn routes(scaler: Scaler, metrics: Metrics) -> axum::Router {
    let server = ExternalScalerServer::new(scaler).max_decoding_message_size(CALL_BYTES_MAX);
    let counted = axum::middleware::from_fn_with_state(metrics, count);
    Routes::new(server).into_axum_router().layer(counted)
}

/// Bounds a call in time and counts it.
async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    // gRPC is HTTP/2 alone. On HTTP/1.1 a stream of a client that is gone without a word would be held
    // for ever, since nothing is sent on it that could fail.
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
    let answer = tokio::time::timeout(CALL, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| {
        let status = Status::deadline_exceeded("the call did not arrive in time");
        status.into_http()
    });
    // What fails says so in its head; all else goes well to its end.
    let code = answer.headers().get("grpc-status");
    let code = code
        .map(HeaderValue::as_bytes)
        .map_or(Code::Ok, Code::from_bytes);
    let code = i32::from(code).to_string();
    metrics.rpcs.with_label_values(&[method, &*code]).inc();
    answer
}

impl Scaler {
    fn trigger(&self, object: &ScaledObjectRef) -> Result<Trigger, Status> {
        Trigger::read(&object.scaler_metadata, &self.defaults).map_err(|mistakes| {
            let (namespace, name) = (&object.namespace, &object.name);
            tracing::debug!(namespace, name, ?mistakes, "bad metadata");
            Status::invalid_argument(mistakes.join("; "))
        })
    }

    /// What is known about the workload of `trigger`, of which something is known then.
    async fn view(&self, trigger: &Trigger) -> Result<View, Status> {
        let mut views = self.views(trigger)?;
        // Late, what there is has to do.
        let _ = tokio::time::timeout(FIRST, views.wait_for(|view| view.is_settled)).await;
        let view = views.borrow().clone();
        Ok(view)
    }

    fn views(&self, trigger: &Trigger) -> Result<watch::Receiver<View>, Status> {
        let workload = self.watches.get(&trigger.watch);
        let workload = workload.map_err(|full| Status::resource_exhausted(full.to_string()))?;
        Ok(workload.views())
    }

    async fn closes(mut life: watch::Receiver<Life>) {
        // An error means that the sender is gone, and then it is time to end as well.
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

/// The demand of the whole workload, in replicas, if it is known.
///
/// Woken, a workload has no replica that could report yet: then it is worth one replica, which is what
/// KEDA starts it with, so that the autoscaler sees its target met and not a workload without demand.
/// That is no guess in the place of a number that is missing: where replicas run and none answers,
/// nothing is given at all, since one replica's worth would shrink a large workload.
fn total(view: &View, trigger: &Trigger) -> Option<f64> {
    let demand = view.demand?;
    let has_none = view.fresh + view.kept == 0;
    Some(if has_none && view.is_awake(&trigger.limits) {
        demand.max(trigger.target)
    } else {
        demand
    })
}

/// Rounded up, for KEDA of old, which knows whole numbers alone.
fn whole(value: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "it saturates")]
    let whole = value.ceil() as i64;
    whole
}

fn specification(trigger: &Trigger) -> GetMetricSpecResponse {
    GetMetricSpecResponse {
        metric_specs: vec![MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: whole(trigger.target),
            target_size_float: trigger.target,
        }],
    }
}

#[tonic::async_trait]
impl ExternalScaler for Scaler {
    async fn is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<IsActiveResponse>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        let view = self.view(&trigger).await?;
        let result = view.is_active(&trigger.limits);
        let result = result.ok_or_else(|| unknown("whether there is work", &view))?;
        Ok(IsActiveResponse { result }.into())
    }

    type StreamIsActiveStream = BoxStream<IsActiveResponse>;

    /// The activity once it is known, then each change of it. While it is unknown nothing is said.
    async fn stream_is_active(
        &self,
        request: tonic::Request<ScaledObjectRef>,
    ) -> Result<tonic::Response<Self::StreamIsActiveStream>, Status> {
        let trigger = self.trigger(request.get_ref())?;
        let mut views = self.views(&trigger)?;
        // Seen as new, so that the stream begins with it.
        views.mark_changed();
        let closes = Box::pin(Self::closes(self.life.clone()));
        let changes = stream::unfold(
            (views, None, closes, trigger.limits),
            |(mut views, said, mut closes, limits)| async move {
                loop {
                    tokio::select! {
                        changed = views.changed() => changed.ok()?,
                        () = &mut closes => return None,
                    }
                    let is_active = views.borrow_and_update().is_active(&limits);
                    match is_active {
                        Some(result) if said != Some(result) => {
                            let response = Ok(IsActiveResponse { result });
                            return Some((response, (views, Some(result), closes, limits)));
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
        // Asked about for the first time: by the next call there may be something to say.
        self.views(&trigger)?;
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
        let value = total(&view, &trigger).ok_or_else(|| unknown("the demand", &view))?;
        let values = GetMetricsResponse {
            metric_values: vec![MetricValue {
                metric_name,
                metric_value: whole(value),
                metric_value_float: value,
            }],
        };
        Ok(values.into())
    }

    type StreamMetricSpecStream = BoxStream<GetMetricSpecResponse>;

    /// The target, which never changes while the trigger is what it is: said once, and then held open.
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
    use super::*;
    use crate::scaler::trigger::{Limits, Watch};
    use crate::scaler::view::Seen;

    fn view(demand: Option<f64>, sign: f64, fresh: usize) -> View {
        View {
            demand,
            signs: vec![Seen {
                now: Some(sign),
                held: Some(sign),
            }],
            fresh,
            ..View::default()
        }
    }

    #[test]
    fn a_workload_that_wakes_is_worth_one_replica_until_it_says_itself() {
        let trigger = Trigger {
            watch: Watch {
                places: Vec::new(),
                wakes: Vec::new(),
            },
            target: 0.8,
            limits: Limits {
                activation: 0.0,
                signs: vec![5.0],
            },
        };
        let total = |view: View| total(&view, &trigger);
        assert_eq!(total(view(Some(0.0), 5.0, 0)), Some(0.0));
        assert_eq!(total(view(Some(0.0), 6.0, 0)), Some(0.8));
        assert_eq!(total(view(Some(0.1), 6.0, 1)), Some(0.1));
        assert_eq!(
            total(view(Some(7.0), 6.0, 0)),
            Some(7.0),
            "kept from before"
        );
        assert_eq!(total(view(None, 6.0, 0)), None);
    }

    #[test]
    fn whole_numbers_are_rounded_up() {
        assert_eq!(whole(0.0), 0);
        assert_eq!(whole(0.001), 1);
        assert_eq!(whole(3.0), 3);
        assert_eq!(whole(f64::MAX), i64::MAX);
    }
}
