//! A topic as a source of texts for the classifier, and topics for what becomes of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::ClientError;
use super::metrics::{Fate, KafkaMetrics};
use super::outlet::{Letter, Outlet};
use super::reader::Reader;
use super::record::Record;
use super::settings::SourceSettings;
use super::state::Handler;
use crate::api::{EventQuestion as Question, EventRecord as Message, EventSettings};
use crate::error::{Blame, Refusal};
use crate::model::{Text, TooLong};
use crate::seldom::Seldom;
use crate::serving::{Classifier, Phase, Predictions, Request};

/// Batches that the records under way may fill: one in the engine, one that waits for it.
const BATCHES: usize = 2;

/// Tokens of a record before one has come.
const TOKENS: u64 = 16;

/// Pauses before a record that the engine failed on is tried again; after the last it is a dead letter.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(10),
];

/// Pause before a record is tried again that nobody will take instead, or that has to wait for the server.
const WAIT: Duration = Duration::from_secs(1);

/// A topic that is being read.
#[derive(Debug)]
pub(crate) struct Source(Reader<Desk>);

impl Source {
    /// Begins to read; the classifier is not ready until the topic can be read.
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
        let outlet = writes.then(|| Outlet::new(&settings.connection, metrics.clone()));
        let desk = Desk {
            classifier: Arc::clone(classifier),
            events: events.clone(),
            outlet: outlet.transpose()?,
            results_topic: settings.results_topic.clone(),
            dead_letter_topic: settings.dead_letter_topic.clone(),
            in_flight_max: settings.in_flight_max,
            metrics: metrics.clone(),
            bytes_max,
            warned: Seldom::new(),
        };
        classifier.set_fed(false);
        Reader::start(settings.clone(), desk, metrics).map(Self)
    }

    /// Ready when reading has come to an end that only another process can mend, with the reason.
    pub(crate) fn failed(&self) -> impl Future<Output = String> + use<> {
        self.0.failed()
    }

    /// Reads no more, finishes what is under way until `deadline`, commits, and leaves the group.
    pub(crate) async fn stop(self, deadline: Instant) {
        self.0.stop(deadline).await;
    }
}

/// What is done with the records of a topic.
#[derive(Debug)]
struct Desk {
    classifier: Arc<Classifier>,
    events: EventSettings,
    outlet: Option<Outlet>,
    results_topic: Option<String>,
    dead_letter_topic: Option<String>,
    in_flight_max: Option<usize>,
    metrics: KafkaMetrics,
    /// Bytes of a record's value.
    bytes_max: usize,
    warned: Seldom,
}

impl Handler for Desk {
    async fn handle(&self, record: &Record) {
        let message = record.message(self.results_topic.is_some());
        let fate = match self.answer(record, &message).await {
            Ok(()) => Fate::Done,
            Err(refusal) => Box::pin(self.bury(record, &refusal)).await,
        };
        self.metrics.end(fate);
    }

    async fn give_up(&self, record: &Record) {
        let refusal = Refusal::Engine("working on it panicked".to_owned());
        let fate = self.bury(record, &refusal).await;
        self.metrics.end(fate);
    }

    fn is_willing(&self) -> bool {
        matches!(self.classifier.phase(), Phase::Ready)
    }

    fn room(&self) -> usize {
        self.in_flight_max.unwrap_or_else(|| {
            let counts = self.classifier.arrivals().counts();
            let tokens = counts.tokens.checked_div(counts.sized).unwrap_or(TOKENS);
            BATCHES * self.classifier.texts_a_batch(tokens.max(1))
        })
    }

    fn begin(&self) {
        self.classifier.set_fed(true);
    }

    fn see(&self, written: u64, unread: u64) {
        let arrivals = self.classifier.arrivals();
        arrivals.arrive_in_log(written);
        arrivals.set_backlog(unread);
    }
}

impl Desk {
    /// Classifies a record, and writes what came of it.
    ///
    /// # Errors
    /// What is wrong with the record, or with the first of its events with which anything is.
    async fn answer(&self, record: &Record, message: &Message) -> Result<(), Refusal> {
        let max = self.bytes_max;
        if record.value.as_ref().is_some_and(|value| value.len() > max) {
            return Err(Refusal::BodyTooLarge { max });
        }
        let (mut questions, wrong) = message.questions(self.events.pointer.as_ref())?;
        // The usual record is one event that is answered at once: without copies of its text, and in a task
        // that is as small as can be.
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
        Box::pin(self.answer_all(record, message)).await
    }

    /// The same for any number of events, and for what takes more than one try.
    async fn answer_all(&self, record: &Record, message: &Message) -> Result<(), Refusal> {
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
            // One of them may have spoilt it for the others.
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

    /// The predictions for texts, however long that takes.
    ///
    /// # Errors
    /// What is wrong with the texts; what is wrong with the engine, when that has been tried often enough
    /// and there is somewhere to put the record.
    async fn classify(&self, texts: &[Text]) -> Result<Predictions, Refusal> {
        let mut pauses = AGAIN.iter();
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
                // It passes, or the process is about to end and another reads the record. An engine that fails
                // on everything is none of the record's doing.
                Blame::Load if refusal != Refusal::OutOfMemory => WAIT,
                Blame::Server if self.classifier.is_unwell() => WAIT,
                Blame::Load | Blame::Server => match pauses.next() {
                    Some(pause) => *pause,
                    None if self.dead_letter_topic.is_some() => return Err(refusal),
                    None => AGAIN[AGAIN.len() - 1],
                },
            };
            tracing::debug!(%refusal, "a record is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn publish(
        &self,
        record: &Record,
        question: &Question,
        predictions: &Predictions,
    ) -> Result<(), Refusal> {
        let (Some(outlet), Some(topic)) = (&self.outlet, &self.results_topic) else {
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
        let letter = Letter {
            topic,
            key: record.key.as_deref(),
            headers: &headers,
            value: Some(&prediction.value),
        };
        let written = outlet.write(letter).await;
        written
            .map_err(|error| Refusal::Engine(format!("its prediction cannot be written: {error}")))
    }

    /// Puts a record where somebody can look at it, with the reason why it was not classified.
    async fn bury(&self, record: &Record, refusal: &Refusal) -> Fate {
        if refusal.blame() == Blame::Client {
            // It counted as load when it was written, and was none.
            self.classifier.arrivals().dismiss_from_log();
        }
        let (Some(outlet), Some(topic)) = (&self.outlet, &self.dead_letter_topic) else {
            if let Some(times) = self.warned.now() {
                tracing::warn!(%record, %refusal, times, "a record is passed over (no --kafka-dead-letter-topic)");
            }
            return Fate::Dropped;
        };
        outlet
            .write_dead_letter(topic, record, (refusal.error_type(), &refusal.to_string()))
            .await;
        Fate::Buried
    }
}
