//! What librdkafka calls back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::commit::commit;
use super::metrics::Trouble;
use super::state::{Handler, State};

/// Time to finish what is under way when partitions are taken away. Heartbeats go on meanwhile.
const REVOKED: Duration = Duration::from_secs(10);

/// What librdkafka calls back.
pub(super) struct Context<H>(pub(super) Arc<State<H>>);

impl<H: Handler> ClientContext for Context<H> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Self(state) = self;
        state.metrics.fail(Trouble::Read);
        let text = format!("{error}: {reason}");
        let is_summary = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if is_summary {
            state.metrics.connected.set(0);
        }
        let mut complaint = state.complaint();
        // That all are down says less than why the last one was.
        if !is_summary || complaint.is_none() {
            // Brokers may take turns with what is wrong.
            if complaint.as_ref() != Some(&text)
                && let Some(times) = state.said.complaint.now()
            {
                tracing::warn!(times, "Kafka: {text}");
            }
            *complaint = Some(text);
        }
    }
}

impl<H: Handler> ConsumerContext for Context<H> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Self(state) = self;
        match rebalance {
            // Records may come as soon as they are assigned.
            Rebalance::Assign(list) => state.partitions.add(list),
            Rebalance::Revoke(list) => {
                // What was lost is somebody else's by now.
                if !consumer.assignment_lost() {
                    let until = state.stop().unwrap_or_else(|| Instant::now() + REVOKED);
                    while state.partitions.unfinished(list) > 0 && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    commit(consumer, state);
                }
                state.partitions.remove(list);
            }
            Rebalance::Error(error) => {
                if let Some(times) = state.said.rebalance.now() {
                    tracing::error!(%error, times, "Kafka");
                }
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Self(state) = self;
        state.metrics.rebalances.inc();
        let assigned = state.partitions.all().len();
        state.metrics.partitions.set(assigned as i64);
        if let Rebalance::Assign(_) = rebalance {
            state.is_assigned.store(true, Ordering::Relaxed);
            hold(consumer, state, state.is_paused.load(Ordering::Relaxed));
        }
        tracing::debug!(assigned, ?rebalance, "partitions");
    }
}

/// Pauses or resumes everything that is assigned. A partition that comes back is as it was left.
pub(super) fn hold<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    state: &State<H>,
    is_paused: bool,
) {
    let held = consumer.assignment().and_then(|assigned| {
        if is_paused {
            consumer.pause(&assigned)
        } else {
            consumer.resume(&assigned)
        }
    });
    if let Err(error) = held
        && let Some(times) = state.said.hold.now()
    {
        tracing::warn!(%error, is_paused, times, "Kafka");
    }
}

/// What librdkafka has to say goes where everything else does.
pub(super) fn log_librdkafka(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => tracing::debug!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::trace!(facility, "librdkafka: {message}");
        }
    }
}
