//! The callbacks of librdkafka.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{
    BaseConsumer, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::commit::commit;
use super::metrics::FailedOperation;
use super::start;
use super::state::{ReaderState, RecordHandler};

/// Time to finish records in flight when their partitions are revoked. Heartbeats continue meanwhile.
const REVOKED: Duration = Duration::from_secs(10);

/// Time for the offsets of partitions that are assigned. Without them, records that are gone are not counted.
const COMMITTED: Duration = Duration::from_secs(2);

/// Receives the callbacks of a consumer.
pub(super) struct ReaderContext<H>(pub(super) Arc<ReaderState<H>>);

impl<H: RecordHandler> ClientContext for ReaderContext<H> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The library reports the end of a partition here too; the reader gets it as well.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let Self(state) = self;
        state.metrics.count_error(FailedOperation::Read);
        state.note_denial(&error);
        let text = format!("{error}: {reason}");
        let is_summary = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if is_summary {
            state.metrics.connected.set(0);
        }
        let mut complaint = state.complaint();
        // "All brokers down" says less than the error of the last broker.
        if !is_summary || complaint.is_none() {
            // Before reading begins, `connect.rs` reports complaints. Brokers may alternate between errors.
            if state.is_connected.load(Ordering::Relaxed)
                && complaint.as_ref() != Some(&text)
                && let Some(times) = state.log.complaint.event()
            {
                tracing::warn!(times, "Kafka: {text}");
            }
            *complaint = Some(text);
        }
    }
}

impl<H: RecordHandler> ConsumerContext for ReaderContext<H> {
    /// As the library does it, but partitions of topics that the group has not read may begin at their end.
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let is_cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            start::move_to_ends(consumer, &self.0.begins_at_end, list);
        }
        let list = &*list;
        let rebalance = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(list),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Rebalance::Revoke(list),
            other => Rebalance::Error(KafkaError::Rebalance(other.into())),
        };
        self.pre_rebalance(consumer, &rebalance);
        let done = match (&rebalance, is_cooperative) {
            (Rebalance::Assign(_), true) => consumer.incremental_assign(list),
            (Rebalance::Assign(_), false) => consumer.assign(list),
            (Rebalance::Revoke(_) | Rebalance::Error(_), true) => {
                consumer.incremental_unassign(list)
            }
            (Rebalance::Revoke(_) | Rebalance::Error(_), false) => consumer.unassign(),
        };
        if let Err(error) = done
            && let Some(times) = self.0.log.rebalance.event()
        {
            tracing::error!(%error, times, "Kafka");
        }
        self.post_rebalance(consumer, &rebalance);
    }

    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Self(state) = self;
        match rebalance {
            // Records may arrive as soon as partitions are assigned.
            Rebalance::Assign(list) => {
                // Asked before anything of ours is committed.
                let committed = consumer.committed_offsets((*list).clone(), COMMITTED);
                state.partitions.add(list);
                if let Ok(committed) = committed {
                    state.partitions.set_starts(&committed);
                }
                state.note_access();
            }
            Rebalance::Revoke(list) => {
                // A lost partition belongs to another member by now.
                if !consumer.assignment_lost() {
                    let until = state.deadline().unwrap_or_else(|| Instant::now() + REVOKED);
                    while state.partitions.unfinished(list) > 0 && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    commit(consumer, state);
                }
                state.partitions.remove(list);
            }
            Rebalance::Error(error) => {
                if let Some(times) = state.log.rebalance.event() {
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
            set_paused(consumer, state, state.is_paused.load(Ordering::Relaxed));
        }
        tracing::debug!(assigned, ?rebalance, "partitions");
    }
}

/// Pauses or resumes all assigned partitions. A partition that is assigned again keeps its earlier setting.
pub(super) fn set_paused<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    is_paused: bool,
) {
    let outcome = consumer.assignment().and_then(|assigned| {
        if is_paused {
            consumer.pause(&assigned)
        } else {
            consumer.resume(&assigned)
        }
    });
    if let Err(error) = outcome
        && let Some(times) = state.log.pause.event()
    {
        tracing::warn!(%error, is_paused, times, "Kafka");
    }
}

/// Writes a line of librdkafka's log to ours.
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
