//! Meets the brokers for the first time: what cannot work is said before anything is read.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;

use super::callbacks::Context;
use super::metrics::Trouble;
use super::settings::SourceSettings;
use super::state::{Handler, State};

/// Time for an answer.
const METADATA: Duration = Duration::from_secs(2);

/// Time between two tries.
const AGAIN: Duration = Duration::from_secs(1);

/// Time for what librdkafka has to complain of.
const COMPLAINTS: Duration = Duration::from_millis(10);

/// Meets the brokers and finds the topics; whether to go on.
pub(super) fn meet<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    state: &State<H>,
    settings: &SourceSettings,
) -> bool {
    let mut said = None;
    while let Err(why) = find_topics(consumer, state, settings) {
        state.metrics.fail(Trouble::Read);
        if said.as_ref() != Some(&why) {
            tracing::error!("Kafka cannot be read, so this process is not ready: {why}");
            said = Some(why);
        }
        if !state.sleep(AGAIN) {
            return false;
        }
    }
    state.metrics.connected.set(1);
    !state.is_stopping()
}

/// All topics, with the flags that name them.
fn topics(settings: &SourceSettings) -> impl Iterator<Item = (&str, &String)> {
    let read = settings.topics.iter().map(|topic| ("--kafka-topic", topic));
    let results = settings.results_topic.iter();
    let letters = settings.dead_letter_topic.iter();
    read.chain(results.map(|topic| ("--kafka-results-topic", topic)))
        .chain(letters.map(|topic| ("--kafka-dead-letter-topic", topic)))
}

fn find_topics<H: Handler>(
    consumer: &BaseConsumer<Context<H>>,
    state: &State<H>,
    settings: &SourceSettings,
) -> Result<(), String> {
    for (flag, topic) in topics(settings) {
        let metadata = consumer.fetch_metadata(Some(topic), METADATA);
        if metadata.is_err() {
            // It says more than that time is up.
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
