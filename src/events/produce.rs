//! Writes texts to a topic at given times: the article's client, and any other load.

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

/// What is written, and when.
#[derive(Debug, Clone)]
pub struct Production {
    /// The brokers.
    pub connection: Connection,
    /// The topic.
    pub topic: String,
    /// When.
    pub load: Load,
    /// How long.
    pub duration: Duration,
    /// Values of the records, in turns.
    pub texts: Vec<String>,
    /// Of random times.
    pub seed: u64,
    /// Time for the last records to be acknowledged.
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Produced {
    /// Records that were handed to the client.
    pub sent: u64,
    /// Records that brokers have.
    pub acknowledged: u64,
    /// Records that they have not, by why.
    pub failed: BTreeMap<String, u64>,
    /// From the first record to the last acknowledgement.
    pub elapsed: Duration,
    /// The longest that a record was written after its time.
    pub behind: Duration,
    /// From a record's time to its acknowledgement, in microseconds.
    pub latencies: Histogram<u64>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// The settings make no sense.
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

/// Writes until the load is over and everything is acknowledged. Keys are the records' numbers.
///
/// # Errors
/// See [`ProduceError`]; records that fail later are counted.
pub fn produce(production: &Production) -> Result<Produced, ProduceError> {
    let tally = Tally::default();
    let producer: Producer = producer_settings(&production.connection)?
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(tally.clone())?;
    find_topic(&producer, &production.topic, &tally)?;
    let start = Instant::now();
    let (mut sent, mut behind) = (0, Duration::ZERO);
    // A record without a value is a tombstone, and no text.
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
        // A full queue waits for the brokers; everything else is an answer.
        while let Err((error, again)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                tally.locked().fail(&error);
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            record = again;
        }
        sent += 1;
    }
    let flushed = producer.flush(production.timeout);
    let elapsed = start.elapsed();
    let tally = tally.locked();
    let mut failed = tally.failed.clone();
    let unanswered = sent - tally.latencies.len() - failed.values().sum::<u64>();
    if let (Err(error), 1..) = (flushed, unanswered) {
        failed.insert(format!("not acknowledged in time: {error}"), unanswered);
    }
    Ok(Produced {
        sent,
        acknowledged: tally.latencies.len(),
        failed,
        elapsed,
        behind,
        latencies: tally.latencies.clone(),
    })
}

type Producer = ThreadedProducer<Tally>;

fn find_topic(producer: &Producer, topic: &str, tally: &Tally) -> Result<(), ProduceError> {
    let metadata = producer.client().fetch_metadata(Some(topic), METADATA);
    let metadata = metadata.map_err(|error| {
        let complaint = tally.locked().complaint.take();
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

/// What brokers have answered.
#[derive(Debug, Clone)]
struct Tally(Arc<Mutex<Answers>>);

#[derive(Debug)]
struct Answers {
    latencies: Histogram<u64>,
    failed: BTreeMap<String, u64>,
    complaint: Option<String>,
}

impl Answers {
    fn fail(&mut self, error: &KafkaError) {
        *self.failed.entry(error.to_string()).or_default() += 1;
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Answers {
            latencies: Histogram::new(3).expect("three digits are allowed"),
            failed: BTreeMap::new(),
            complaint: None,
        })))
    }
}

impl Tally {
    fn locked(&self) -> MutexGuard<'_, Answers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Tally {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_librdkafka(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut answers = self.locked();
        // That all are down says less than why the last one was.
        let is_summary = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown);
        if !is_summary || answers.complaint.is_none() {
            answers.complaint = Some(format!("{error}: {reason}"));
        }
    }
}

impl ProducerContext for Tally {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, due: Self::DeliveryOpaque) {
        let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut answers = self.locked();
        match result {
            // It grows by itself, up to what a u64 holds.
            Ok(_) => answers.latencies.saturating_record(took),
            Err((error, _)) => answers.fail(error),
        }
    }
}
