//! Reads topics as a member of a consumer group, on a thread of its own.
//!
//! librdkafka calls back from its poll, and a revoked partition has to be finished inside that callback. On a
//! runtime's thread, waiting there could block the very tasks that it waits for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::runtime::Handle;

use super::callbacks::{ReaderContext, set_paused};
use super::client::{ClientError, consumer_settings};
use super::commit::{commit, keep_committing};
use super::connect::wait_for_topics;
use super::lag;
use super::metrics::KafkaMetrics;
use super::record::Record;
use super::settings::{SourceSettings, Start};
use super::state::{ReaderState, RecordHandler};

/// Duration of one poll, after which the thread notices other events.
const POLL: Duration = Duration::from_millis(100);

/// Time for records in flight to finish before reading pauses. A pause discards what was fetched ahead.
const PAUSE_AFTER: Duration = Duration::from_millis(200);

/// Time after which a member without an assignment counts as joined. A group need not notify a member that gets no
/// partitions.
const JOINED: Duration = Duration::from_secs(5);

/// The bound on records that cannot be committed: those of a partition that are read behind an unfinished one, and all
/// that are finished while commits fail. A multiple of the records that may be in flight, and a minimum.
const UNCOMMITTED_WINDOWS: usize = 64;
const UNCOMMITTED_MIN: usize = 10_000;

/// Time to leave the group after the deadline.
const LEAVING: Duration = Duration::from_secs(1);

/// A reader and its thread.
#[derive(Debug)]
pub(super) struct Reader<H> {
    state: Arc<ReaderState<H>>,
    thread: JoinHandle<()>,
}

impl<H: RecordHandler> Reader<H> {
    /// Begins to read.
    ///
    /// # Errors
    /// When the settings are invalid or a thread cannot be started. Unreachable brokers are no error; the reader
    /// retries until they answer.
    pub(super) fn start(
        settings: SourceSettings,
        handler: H,
        metrics: KafkaMetrics,
    ) -> Result<Self, ClientError> {
        let config = consumer_settings(&settings)?;
        let begins_at_end = match settings.start {
            Start::Latest => settings.topics.clone(),
            Start::Earliest => Vec::new(),
        };
        let state = Arc::new(ReaderState::new(handler, metrics, begins_at_end));
        let context = ReaderContext(Arc::clone(&state));
        let consumer: BaseConsumer<_> = config.create_with_context(context)?;
        let reader = ReaderThread {
            consumer: Arc::new(consumer),
            state: Arc::clone(&state),
            settings,
            runtime: Handle::current(),
            subscribed: Instant::now(),
            is_reading: false,
            has_read: false,
            is_stuck: false,
        };
        let thread = std::thread::Builder::new().name("kafka".to_owned());
        let thread = thread.spawn(move || reader.run());
        let thread = thread.map_err(ClientError::Thread)?;
        Ok(Self { state, thread })
    }

    /// Ready with the reason when this process cannot read any more.
    pub(super) fn failed(&self) -> impl Future<Output = String> + use<H> {
        let mut fatal = self.state.fatal.subscribe();
        async move {
            let failed = fatal.wait_for(Option::is_some).await;
            let reason = failed.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason,
                // The reader has stopped as requested.
                None => std::future::pending().await,
            }
        }
    }

    /// Stops reading, finishes records in flight until `deadline`, commits, and leaves the group.
    pub(super) async fn stop(self, deadline: Instant) {
        self.state.stop(deadline);
        let join = tokio::task::spawn_blocking(move || self.thread.join());
        // Leaving needs a response of a broker, which may not come.
        let late = deadline + LEAVING;
        if tokio::time::timeout_at(late.into(), join).await.is_err() {
            tracing::warn!(
                "the consumer group was not left in time; its members wait for the session's end"
            );
        }
    }
}

/// The reader's thread.
struct ReaderThread<H: RecordHandler> {
    consumer: Arc<BaseConsumer<ReaderContext<H>>>,
    state: Arc<ReaderState<H>>,
    settings: SourceSettings,
    runtime: Handle,
    subscribed: Instant,
    /// Whether the topics can be read and answers written, as far as is known.
    is_reading: bool,
    /// Whether a record or the end of a partition was read.
    has_read: bool,
    /// Whether an unfinished record keeps too many behind it from being committed.
    is_stuck: bool,
}

impl<H: RecordHandler> ReaderThread<H> {
    fn run(mut self) {
        if wait_for_topics(&self.consumer, &self.state, &self.settings) && self.wait_for_handler() {
            let topic = self.settings.topics.first().cloned().unwrap_or_default();
            let helpers = [
                self.spawn("kafka-lag", move |consumer, state| {
                    lag::track(consumer, state, &topic);
                }),
                self.spawn("kafka-commit", keep_committing),
            ];
            self.subscribe();
            while !self.state.is_stopping() {
                self.poll_once();
            }
            // They stop by themselves, and have to end before the consumer that they use.
            for helper in helpers.into_iter().flatten() {
                let _ = helper.join();
            }
            self.drain();
        }
        tracing::info!("reading of Kafka has ended");
    }

    /// Waits until the handler is ready. Before that, this member should get no partitions.
    fn wait_for_handler(&self) -> bool {
        while !self.state.handler.is_ready() {
            if !self.state.sleep(POLL) {
                return false;
            }
        }
        true
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&BaseConsumer<ReaderContext<H>>, &ReaderState<H>) + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        let (consumer, state) = (Arc::clone(&self.consumer), Arc::clone(&self.state));
        let thread = std::thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(move || work(&consumer, &state));
        let spawned = spawned
            .map_err(|error| self.report_fatal(&format!("a thread cannot be started: {error}")));
        spawned.ok()
    }

    fn subscribe(&mut self) {
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            self.report_fatal(&error.to_string());
        }
        self.subscribed = Instant::now();
    }

    /// Reports that this process cannot read any more.
    fn report_fatal(&self, why: &str) {
        tracing::error!("Kafka cannot be read any more: {why}");
        self.state.fatal.send_replace(Some(why.to_owned()));
    }

    /// Processes one poll: a record, an error, or neither.
    fn poll_once(&mut self) {
        self.update_pause();
        let is_paused = self.state.is_paused.load(Ordering::Relaxed);
        let timeout = if is_paused { POLL / 4 } else { POLL };
        match self.consumer.poll(timeout) {
            None => {}
            Some(Ok(message)) => {
                let is_stuck = self.start_record(&message);
                drop(message);
                self.is_stuck |= is_stuck;
                self.note_read();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => self.note_read(),
            Some(Err(error)) => self.handle_error(&error),
        }
        self.update_reading();
    }

    fn note_read(&mut self) {
        self.has_read = true;
        self.state.note_access();
    }

    /// Tells the handler when reading begins, and when access is denied or granted again.
    fn update_reading(&mut self) {
        // The process ends after a fatal error, and that is reported already.
        if self.state.fatal.borrow().is_some() {
            return;
        }
        let is_denied = self.state.is_denied() || !self.state.handler.can_write();
        // What was read before says nothing about access that is denied now.
        self.has_read &= !self.state.is_denied();
        let is_reading = !is_denied && (self.is_reading || self.has_joined());
        if is_reading == self.is_reading {
            return;
        }
        self.is_reading = is_reading;
        self.state.handler.set_reading(is_reading);
        let log = &self.state.log;
        let (topics, group) = (&self.settings.topics, &self.settings.group);
        if is_reading {
            if let Some(times) = log.reading.event() {
                tracing::info!(?topics, group, times, "reading Kafka");
            }
        } else if let Some(times) = log.denied.event() {
            let denial = self.state.complaint().clone().unwrap_or_default();
            tracing::error!(
                ?topics,
                group,
                denial,
                times,
                "Kafka denies access, so this process is not ready"
            );
        }
    }

    /// Whether this process is a member of the group and can read the partitions that it has.
    fn has_joined(&self) -> bool {
        if self.has_read {
            return true;
        }
        let is_member = !matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::None);
        let is_assigned = self.state.is_assigned.load(Ordering::Relaxed);
        let has_partitions = !self.state.partitions.all().is_empty();
        let is_idle = is_assigned || (is_member && self.subscribed.elapsed() >= JOINED);
        is_idle && !has_partitions
    }

    /// Pauses reading when enough records are in flight or cannot be committed, and resumes it later.
    fn update_pause(&mut self) {
        let (state, in_flight) = (&self.state, &self.state.in_flight);
        let max = state.handler.in_flight_max();
        state.set_in_flight_max(max);
        if self.is_stuck {
            self.is_stuck = state.partitions.longest() > uncommitted_max(max) / 2;
        }
        // A group may be without a coordinator for long, while the partitions can be read.
        let is_behind = state.uncommitted() > uncommitted_max(max);
        let is_full = in_flight.is_full(max);
        state.metrics.in_flight.set(in_flight.len() as i64);
        if state.is_paused.load(Ordering::Relaxed) {
            if !self.is_stuck && !is_behind && in_flight.wait_until_low(Duration::ZERO) {
                self.pause(false);
            }
        } else if self.is_stuck || is_behind || (is_full && !in_flight.wait_until_low(PAUSE_AFTER))
        {
            self.pause(true);
        }
    }

    fn pause(&self, is_paused: bool) {
        self.state.is_paused.store(is_paused, Ordering::Relaxed);
        self.state.metrics.paused.set(i64::from(is_paused));
        set_paused(&self.consumer, &self.state, is_paused);
    }

    /// Checks whether an error is fatal. The context has already reported it with its reason.
    fn handle_error(&self, error: &KafkaError) {
        tracing::debug!(%error, "Kafka");
        self.state.note_denial(error);
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
        if is_fatal && self.state.fatal.borrow().is_none() {
            let fatal = self.consumer.client().fatal_error();
            let why = fatal.map_or_else(|| error.to_string(), |(_, why)| why);
            self.report_fatal(&why);
        }
    }

    /// Starts to process a record. Returns whether its partition has too many records behind an unfinished one.
    fn start_record(&self, message: &BorrowedMessage<'_>) -> bool {
        let partitions = &self.state.partitions;
        let (topic, number) = (message.topic(), message.partition());
        // A partition that was revoked meanwhile belongs to another member.
        let Some(mut partition) = partitions.get(topic, number) else {
            return false;
        };
        let (offset, written) = (message.offset(), message.timestamp().to_millis());
        if !partition.begin(offset, written) {
            // Reading went back, because the topic was created anew. Earlier records do not count.
            partition = partitions.renew(topic, number);
            partition.begin(offset, written);
        }
        let max = uncommitted_max(self.state.in_flight_max());
        let is_stuck = partition.ledger().len() > max;
        let record = Record::new(partition, message);
        let state = Arc::clone(&self.state);
        state.in_flight.enter();
        self.runtime.spawn(async move {
            let handled = std::panic::AssertUnwindSafe(state.handler.handle(&record));
            if handled.catch_unwind().await.is_err() {
                if let Some(times) = state.log.panic.event() {
                    tracing::error!(%record, times, "working on a record panicked");
                }
                let given_up = std::panic::AssertUnwindSafe(state.handler.give_up(&record));
                // A record that panics twice is finished as well: it would block its partition for good.
                let _ = Box::pin(given_up.catch_unwind()).await;
            }
            state.finish(&record);
        });
        is_stuck
    }

    /// Finishes records in flight until the deadline.
    fn drain(&mut self) {
        let deadline = self.state.deadline().unwrap_or_else(Instant::now);
        let in_flight = &self.state.in_flight;
        while in_flight.len() > 0 && Instant::now() < deadline {
            in_flight.wait_until_low(POLL / 10);
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = in_flight.len();
        if left > 0 {
            tracing::warn!(left, "records are left unfinished, and will be read again");
        }
        commit(&self.consumer, &self.state);
    }
}

/// The number of records of a partition that may be begun and not committed.
fn uncommitted_max(in_flight_max: usize) -> usize {
    let windows = in_flight_max.saturating_mul(UNCOMMITTED_WINDOWS);
    windows.max(UNCOMMITTED_MIN)
}
