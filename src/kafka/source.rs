//! Classifies the records of topics, and writes predictions and dead letters to other topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::ClientError;
use super::metrics::{KafkaMetrics, RecordOutcome};
use super::reader::Reader;
use super::record::Record;
use super::settings::SourceSettings;
use super::state::{LogArrivals, RecordHandler};
use super::topic_writer::{OutgoingRecord, RecordError, TopicWriter};
use crate::api::{EventQuestion as Question, EventRecord as Message, EventSettings};
use crate::error::{Blame, Refusal};
use crate::model::{Text, TooLong};
use crate::serving::{Classifier, Phase, Predictions, Request};
use intentd_base::LogThrottle;

/// Batches that the records in flight may fill: one in the engine, one that waits for it.
const BATCHES: usize = 2;

/// Tokens of a record before the first has been read.
const TOKENS: u64 = 16;

/// Pauses before the retries of a record on which the engine failed; after the last it is a dead letter.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// Pause before a retry while the server cannot process any record.
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);

/// The topics that a server reads.
#[derive(Debug)]
pub(crate) struct Source(Reader<ClassifierHandler>);

impl Source {
    /// Begins to read. The classifier is not ready until the topics can be read.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub(crate) fn start(
        settings: &SourceSettings,
        (events, bytes_max): (&EventSettings, usize),
        classifier: &Arc<Classifier>,
    ) -> Result<Self, ClientError> {
        let metrics = KafkaMetrics::new(classifier.metrics().registry());
        let writes = settings.results_topic.is_some() || settings.dead_letter_topic.is_some();
        let writer = writes.then(|| TopicWriter::new(&settings.connection, metrics.clone()));
        let handler = ClassifierHandler {
            classifier: Arc::clone(classifier),
            events: events.clone(),
            writer: writer.transpose()?,
            results_topic: settings.results_topic.clone(),
            dead_letter_topic: settings.dead_letter_topic.clone(),
            in_flight_max: settings.in_flight_max,
            metrics: metrics.clone(),
            bytes_max,
            skip_log: LogThrottle::new(),
        };
        classifier.set_fed(false);
        Reader::start(settings.clone(), handler, metrics).map(Self)
    }

    /// Ready with the reason when this process cannot read any more.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + use<> {
        self.0.failed()
    }

    /// Stops reading, finishes records in flight until `deadline`, commits, and leaves the group.
    pub(crate) async fn stop(self, deadline: Instant) {
        self.0.stop(deadline).await;
    }
}

/// Classifies records.
#[derive(Debug)]
struct ClassifierHandler {
    classifier: Arc<Classifier>,
    events: EventSettings,
    writer: Option<TopicWriter>,
    results_topic: Option<String>,
    dead_letter_topic: Option<String>,
    in_flight_max: Option<usize>,
    metrics: KafkaMetrics,
    /// The limit of a record's value in bytes.
    bytes_max: usize,
    skip_log: LogThrottle,
}

impl RecordHandler for ClassifierHandler {
    async fn handle(&self, record: &Record) {
        let message = record.message(self.results_topic.is_some());
        let outcome = match self.process(record, &message).await {
            Ok(()) => RecordOutcome::Done,
            Err(refusal) => Box::pin(self.dead_letter(record, &refusal)).await,
        };
        self.metrics.count_record(outcome);
    }

    async fn give_up(&self, record: &Record) {
        let refusal = Refusal::Engine("working on it panicked".to_owned());
        let outcome = self.dead_letter(record, &refusal).await;
        self.metrics.count_record(outcome);
    }

    fn is_ready(&self) -> bool {
        matches!(self.classifier.phase(), Phase::Ready)
    }

    fn in_flight_max(&self) -> usize {
        self.in_flight_max.unwrap_or_else(|| {
            let counts = self.classifier.arrivals().counts();
            let tokens = counts.tokens.checked_div(counts.sized).unwrap_or(TOKENS);
            BATCHES * self.classifier.texts_a_batch(tokens.max(1))
        })
    }

    fn can_write(&self) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| !writer.is_denied())
    }

    fn set_reading(&self, is_reading: bool) {
        self.classifier.set_fed(is_reading);
    }

    fn observe(&self, LogArrivals { written, unread }: LogArrivals) {
        let arrivals = self.classifier.arrivals();
        arrivals.arrive_in_log(written);
        arrivals.set_backlog(unread);
    }
}

impl ClassifierHandler {
    /// Classifies a record, and writes its predictions.
    ///
    /// # Errors
    /// What is wrong with the record, or with the first invalid one of its events.
    async fn process(&self, record: &Record, message: &Message) -> Result<(), Refusal> {
        let max = self.bytes_max;
        if record.value.as_ref().is_some_and(|value| value.len() > max) {
            return Err(Refusal::BodyTooLarge { max });
        }
        let (mut questions, wrong) = message.questions(self.events.pointer.as_ref())?;
        // The usual record is one event that succeeds at once. It needs no copy of its text and only a small task.
        if let ([question], None) = (&mut questions[..], wrong) {
            let request = Request {
                texts: question.take_texts(),
                too_long: TooLong::Truncate,
            };
            match self.classifier.classify_record(request).await {
                Ok(_) if self.results_topic.is_none() => return Ok(()),
                Ok(predictions) => {
                    let publish = self.publish(record, question, &predictions);
                    return Box::pin(publish).await;
                }
                Err(refusal) if refusal.blame() == Blame::Client => return Err(refusal),
                Err(_) => {}
            }
        }
        Box::pin(self.process_all(record, message)).await
    }

    /// Classifies any number of events, with retries.
    async fn process_all(&self, record: &Record, message: &Message) -> Result<(), Refusal> {
        let (mut questions, mut wrong) = message.questions(self.events.pointer.as_ref())?;
        let texts: Vec<Vec<Text>> = questions.iter_mut().map(Question::take_texts).collect();
        let all: Vec<Text> = texts.iter().flatten().cloned().collect();
        let together = match all.is_empty() {
            true => Ok(Predictions::default()),
            false => self.classify(&all).await,
        };
        match together {
            Ok(mut predictions) => {
                for (question, texts) in questions.iter().zip(&texts) {
                    let predictions = predictions.take(texts.len());
                    self.publish(record, question, &predictions).await?;
                }
            }
            // One invalid event may have failed the others.
            Err(refusal) if questions.len() > 1 && refusal.blame() == Blame::Client => {
                for (question, texts) in questions.iter().zip(&texts) {
                    match self.classify(texts).await {
                        Ok(predictions) => self.publish(record, question, &predictions).await?,
                        Err(refusal) => wrong = wrong.or(Some(refusal)),
                    }
                }
            }
            Err(refusal) => wrong = wrong.or(Some(refusal)),
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The predictions for texts, with retries.
    ///
    /// # Errors
    /// What is wrong with the texts. Failures of the engine after the last retry, if there is a dead-letter topic.
    async fn classify(&self, texts: &[Text]) -> Result<Predictions, Refusal> {
        let mut pauses = RETRIES.iter();
        loop {
            let request = Request {
                texts: texts.to_vec(),
                too_long: TooLong::Truncate,
            };
            let refusal = match self.classifier.classify_record(request).await {
                Ok(predictions) => return Ok(predictions),
                Err(refusal) => refusal,
            };
            let pause = match refusal.blame() {
                Blame::Client => return Err(refusal),
                // The overload passes, or the process is about to end and another reads the record. If the
                // engine fails on everything, the record is not the cause.
                Blame::Load if refusal != Refusal::OutOfMemory => UNAVAILABLE_PAUSE,
                Blame::Server if self.classifier.is_unwell() => UNAVAILABLE_PAUSE,
                Blame::Load | Blame::Server => match pauses.next() {
                    Some(pause) => *pause,
                    None if self.dead_letter_topic.is_some() => return Err(refusal),
                    None => RETRIES[RETRIES.len() - 1],
                },
            };
            tracing::debug!(%refusal, "a record is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes the predictions for a question to the results topic, if there is one.
    async fn publish(
        &self,
        record: &Record,
        question: &Question,
        predictions: &Predictions,
    ) -> Result<(), Refusal> {
        let (Some(writer), Some(topic)) = (&self.writer, &self.results_topic) else {
            return Ok(());
        };
        let prediction = question.answer(predictions, &self.events.source)?;
        let Some(prediction) = prediction else {
            return Ok(());
        };
        let headers = prediction.headers.into_iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| (name, value.into_bytes()))
            .collect();
        let outgoing = OutgoingRecord {
            topic,
            key: record.key.as_deref(),
            headers: &headers,
            value: Some(&prediction.value),
        };
        let written = writer.write(outgoing).await;
        written
            .map_err(|error| Refusal::Engine(format!("its prediction cannot be written: {error}")))
    }

    /// Writes a record and its error to the dead-letter topic, if there is one.
    async fn dead_letter(&self, record: &Record, refusal: &Refusal) -> RecordOutcome {
        if refusal.blame() == Blame::Client {
            // The record counted as load when it was written, but is none.
            self.classifier.arrivals().dismiss_from_log();
        }
        let (Some(writer), Some(topic)) = (&self.writer, &self.dead_letter_topic) else {
            if let Some(times) = self.skip_log.event() {
                tracing::warn!(%record, %refusal, times, "a record is passed over (no --kafka-dead-letter-topic)");
            }
            return RecordOutcome::Dropped;
        };
        let error = RecordError {
            kind: refusal.error_type(),
            reason: refusal.to_string(),
            answer: None,
        };
        writer.write_dead_letter(topic, record, &error).await;
        RecordOutcome::DeadLettered
    }
}
