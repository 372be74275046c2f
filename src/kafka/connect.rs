//! Connects to the brokers for the first time, and reports what cannot work before anything is read.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use super::callbacks::ReaderContext;
use super::diagnosis::explain;
use super::metrics::FailedOperation;
use super::settings::{SourceSettings, Start};
use super::start::commit_ends;
use super::state::{ReaderState, RecordHandler};
use intentd_base::LogThrottle;

/// Time for a response.
const METADATA: Duration = Duration::from_secs(2);

/// Pause between two attempts.
const RETRY: Duration = Duration::from_secs(1);

/// Time for pending errors of librdkafka.
const COMPLAINTS: Duration = Duration::from_millis(10);

/// The number of different complaints that are logged at once. Further ones appear in the line every ten seconds.
const KINDS_MAX: usize = 8;

/// Waits until the brokers answer, all topics exist, and the group has an offset to begin at. Returns false when the
/// reader stops first.
pub(super) fn wait_for_topics<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    settings: &SourceSettings,
) -> bool {
    let mut reported = BTreeSet::new();
    let repeated = LogThrottle::new();
    let ready = || {
        find_topics(consumer, state, settings)?;
        if settings.start == Start::Latest {
            let begun = commit_ends(consumer, &settings.topics);
            begun.map_err(|error| {
                format!("the group cannot begin at the end (--kafka-start): {error}")
            })?;
        }
        Ok::<(), String>(())
    };
    while let Err(why) = ready() {
        state.metrics.count_error(FailedOperation::Read);
        // Times and ports differ from one attempt to the next, and librdkafka's summary follows its reasons.
        let kind = why.replace(|c: char| c.is_ascii_digit(), "");
        let is_known = reported.contains(&kind) || (is_summary(&why) && !reported.is_empty());
        let is_new = !is_known && reported.len() < KINDS_MAX;
        if repeated.event().is_some() || is_new {
            match explain(&settings.connection) {
                Some(reason) => tracing::error!(
                    "Kafka cannot be read, so this process is not ready: {why}: {reason}"
                ),
                None => {
                    tracing::error!("Kafka cannot be read, so this process is not ready: {why}")
                }
            }
            if is_new {
                reported.insert(kind);
            }
        }
        if !state.sleep(RETRY) {
            return false;
        }
    }
    state.metrics.connected.set(1);
    state.is_connected.store(true, Ordering::Relaxed);
    !state.is_stopping()
}

/// Whether a complaint says nothing but that no broker can be reached.
fn is_summary(why: &str) -> bool {
    why.contains("AllBrokersDown") || why.contains("timed out")
}

/// All topics, with the flags that name them.
fn topics(settings: &SourceSettings) -> impl Iterator<Item = (&str, &String)> {
    let read = settings.topics.iter().map(|topic| ("--kafka-topic", topic));
    let results = settings.results_topic.iter();
    let letters = settings.dead_letter_topic.iter();
    read.chain(results.map(|topic| ("--kafka-results-topic", topic)))
        .chain(letters.map(|topic| ("--kafka-dead-letter-topic", topic)))
}

fn find_topics<H: RecordHandler>(
    consumer: &BaseConsumer<ReaderContext<H>>,
    state: &ReaderState<H>,
    settings: &SourceSettings,
) -> Result<(), String> {
    for (flag, topic) in topics(settings) {
        let metadata = consumer.fetch_metadata(Some(topic), METADATA);
        if metadata.is_err() {
            // A pending error says more than the timeout.
            while consumer.poll(COMPLAINTS).is_some() {}
        }
        let metadata = metadata.map_err(|error| {
            let complaint = state.complaint().take();
            complaint.unwrap_or_else(|| error.to_string())
        })?;
        for found in metadata.topics() {
            if let Some(error) = found.error() {
                let error = KafkaError::MetadataFetch(error.into());
                return Err(format!("topic {topic:?} ({flag}): {error}"));
            }
            if found.partitions().is_empty() {
                return Err(format!("topic {topic:?} ({flag}) has no partitions"));
            }
        }
    }
    Ok(())
}
