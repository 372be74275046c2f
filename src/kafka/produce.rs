//! Writes texts to a topic at scheduled times: the article's client, and any other load.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};

use super::callbacks::log_librdkafka;
use super::client::{ClientError, producer_settings};
use super::settings::Connection;
use crate::bench::Load;

/// Time for the brokers to answer before anything is written.
const METADATA: Duration = Duration::from_secs(10);

/// A load of records to write.
#[derive(Debug, Clone)]
pub struct Production {
    /// The brokers.
    pub connection: Connection,
    /// The topic.
    pub topic: String,
    /// The schedule.
    pub load: Load,
    /// The duration of the load.
    pub duration: Duration,
    /// The values of the records, cycled.
    pub texts: Vec<String>,
    /// The seed of random times.
    pub seed: u64,
    /// Time for the last acknowledgements.
    pub timeout: Duration,
}

/// The outcome of a [`Production`].
#[derive(Debug, Clone)]
pub struct Produced {
    /// Records given to the client library.
    pub sent: u64,
    /// Records that brokers acknowledged.
    pub acknowledged: u64,
    /// Records that failed, by error.
    pub failed: BTreeMap<String, u64>,
    /// From the first record to the last acknowledgement.
    pub elapsed: Duration,
    /// The longest delay of a record behind its scheduled time.
    pub behind: Duration,
    /// From a record's scheduled time to its acknowledgement, in microseconds.
    pub latencies: Histogram<u64>,
}

/// Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The settings are invalid.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The brokers cannot be reached, or have no such topic.
    #[error("Kafka: {0}")]
    Unreachable(String),
}

impl From<KafkaError> for ProduceError {
    fn from(error: KafkaError) -> Self {
        Self::Client(error.into())
    }
}

/// Writes until the load is over and all records are acknowledged. Keys are the records' numbers.
///
/// # Errors
/// See [`ProduceError`]; records that fail later are counted.
pub fn produce(production: &Production) -> Result<Produced, ProduceError> {
    let reports = DeliveryReports::default();
    let producer: Producer = producer_settings(&production.connection)?
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(reports.clone())?;
    find_topic(&producer, &production.topic, &reports)?;
    let start = Instant::now();
    let (mut sent, mut behind) = (0, Duration::ZERO);
    // A record without a value is a tombstone, not a text.
    let texts = production
        .texts
        .iter()
        .filter(|text| !text.is_empty())
        .cycle();
    let times = production
        .load
        .times(Duration::ZERO, production.duration, production.seed);
    for (time, text) in times.zip(texts) {
        let due = start + time;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        behind = behind.max(due.elapsed());
        let key = sent.to_string();
        let mut record = BaseRecord::with_opaque_to(&production.topic, Box::new(due));
        record = record.key(&key).payload(text);
        // If the queue is full, wait for the brokers. Any other error is final.
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                reports.locked().count_failure(&error);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
        sent += 1;
    }
    let flushed = producer.flush(production.timeout);
    let elapsed = start.elapsed();
    let reports = reports.locked();
    let mut failed = reports.failed.clone();
    let unanswered = sent - reports.latencies.len() - failed.values().sum::<u64>();
    if let (Err(error), 1..) = (flushed, unanswered) {
        failed.insert(format!("not acknowledged in time: {error}"), unanswered);
    }
    Ok(Produced {
        sent,
        acknowledged: reports.latencies.len(),
        failed,
        elapsed,
        behind,
        latencies: reports.latencies.clone(),
    })
}

type Producer = ThreadedProducer<DeliveryReports>;

fn find_topic(
    producer: &Producer,
    topic: &str,
    reports: &DeliveryReports,
) -> Result<(), ProduceError> {
    let metadata = producer.client().fetch_metadata(Some(topic), METADATA);
    let metadata = metadata.map_err(|error| {
        let complaint = reports.locked().complaint.take();
        ProduceError::Unreachable(complaint.unwrap_or_else(|| error.to_string()))
    })?;
    for found in metadata.topics() {
        if let Some(error) = found.error() {
            let error = KafkaError::MetadataFetch(error.into());
            return Err(ProduceError::Unreachable(format!(
                "topic {topic:?}: {error}"
            )));
        }
    }
    Ok(())
}

/// The brokers' reports on deliveries.
#[derive(Debug, Clone)]
struct DeliveryReports(Arc<Mutex<DeliveryCounts>>);

#[derive(Debug)]
struct DeliveryCounts {
    latencies: Histogram<u64>,
    failed: BTreeMap<String, u64>,
    complaint: Option<String>,
}

impl DeliveryCounts {
    fn count_failure(&mut self, error: &KafkaError) {
        *self.failed.entry(error.to_string()).or_default() += 1;
    }
}

/// A histogram of microseconds, up to the range of a `u64`. Without `auto`, it would count everything above its first
/// two buckets, 2 ms, as 2 ms.
fn resizing_histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are allowed");
    histogram.auto(true);
    histogram
}

impl Default for DeliveryReports {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(DeliveryCounts {
            latencies: resizing_histogram(),
            failed: BTreeMap::new(),
            complaint: None,
        })))
    }
}

impl DeliveryReports {
    fn locked(&self) -> MutexGuard<'_, DeliveryCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for DeliveryReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut counts = self.locked();
        // "All brokers down" says less than the error of the last broker.
        let is_summary = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if !is_summary || counts.complaint.is_none() {
            counts.complaint = Some(format!("{error}: {reason}"));
        }
    }
}

impl ProducerContext for DeliveryReports {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, due: Self::DeliveryOpaque) {
        let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut counts = self.locked();
        match result {
            // It resizes itself for any `u64`; only `record` does so.
            Ok(_) => drop(counts.latencies.record(took)),
            Err((error, _)) => counts.count_failure(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_not_clamped() {
        let mut histogram = resizing_histogram();
        for micros in [100, 5_000, 90_000_000] {
            histogram.record(micros).unwrap();
        }
        let longest = histogram.max();
        assert!((90_000_000..90_100_000).contains(&longest), "{longest}");
    }
}
