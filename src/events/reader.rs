//! Reads topics as a member of a consumer group, on a thread of its own.
//!
//! A thread, because librdkafka calls back from its poll and a partition that is taken away has to be
//! finished in that call: waiting there must not keep what it waits for from running.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use tokio::runtime::Handle;

use super::callbacks::{Context, hold};
use super::client::{ClientError, consumer_settings};
use super::commit::{commit, keep_committing};
use super::lag;
use super::meeting::meet;
use super::metrics::KafkaMetrics;
use super::record::Record;
use super::settings::SourceSettings;
use super::state::{Handler, State};

/// Time that one poll may take: how soon the thread notices anything else.
const POLL: Duration = Duration::from_millis(100);

/// Time that a full window is waited for before reading pauses, which throws away what was fetched ahead.
const PATIENCE: Duration = Duration::from_millis(200);

/// Time after which a member that has heard of no partitions is taken to have joined: a group need not tell
/// one for which there are none.
const JOINED: Duration = Duration::from_secs(5);

/// How far reading goes on beyond a record that does not end, in windows and at least in records: what is
/// finished behind it cannot be committed.
const BEYOND: (usize, usize) = (64, 10_000);

/// Time to leave the group after the deadline.
const LEAVING: Duration = Duration::from_secs(1);

/// A reader at work.
#[derive(Debug)]
pub(super) struct Reader<H> {
    state: Arc<State<H>>,
    thread: JoinHandle<()>,
}

impl<H: Handler> Reader<H> {
    /// Begins to read.
    ///
    /// # Errors
    /// When the settings make no sense or there is no thread; not when brokers cannot be reached, which
    /// is tried until they can.
    pub(super) fn start(
        settings: SourceSettings,
        handler: H,
        metrics: KafkaMetrics,
    ) -> Result<Self, ClientError> {
        let config = consumer_settings(&settings)?;
        let state = Arc::new(State::new(handler, metrics));
        let context = Context(Arc::clone(&state));
        let consumer: BaseConsumer<_> = config.create_with_context(context)?;
        let work = Work {
            consumer: Arc::new(consumer),
            state: Arc::clone(&state),
            settings,
            runtime: Handle::current(),
            subscribed: Instant::now(),
            is_reading: false,
            is_stuck: false,
        };
        let thread = std::thread::Builder::new().name("kafka".to_owned());
        let thread = thread.spawn(move || work.run());
        let thread = thread.map_err(ClientError::Thread)?;
        Ok(Self { state, thread })
    }

    /// Ready when reading has come to an end that only another process can mend, with the reason.
    pub(super) fn failed(&self) -> impl Future<Output = String> + use<H> {
        let mut fatal = self.state.fatal.subscribe();
        async move {
            let told = fatal.wait_for(Option::is_some).await;
            let told = told.ok().and_then(|why| why.clone());
            match told {
                Some(why) => why,
                // It has ended as it was told to.
                None => std::future::pending().await,
            }
        }
    }

    /// Reads no more, finishes what is under way until `deadline`, commits, and leaves the group.
    pub(super) async fn stop(self, deadline: Instant) {
        *self.state.stop() = Some(deadline);
        self.state.changed.notify_all();
        let join = tokio::task::spawn_blocking(move || self.thread.join());
        // Leaving takes an answer of a broker's, which there may be none of.
        let late = deadline + LEAVING;
        if tokio::time::timeout_at(late.into(), join).await.is_err() {
            tracing::warn!(
                "the consumer group was not left in time; its members wait for the session's end"
            );
        }
    }
}

/// The reader's thread.
struct Work<H: Handler> {
    consumer: Arc<BaseConsumer<Context<H>>>,
    state: Arc<State<H>>,
    settings: SourceSettings,
    runtime: Handle,
    subscribed: Instant,
    is_reading: bool,
    /// Whether a record that does not end keeps too much behind it from being committed.
    is_stuck: bool,
}

impl<H: Handler> Work<H> {
    fn run(mut self) {
        if meet(&self.consumer, &self.state, &self.settings) && self.wait_for_the_handler() {
            let start = self.settings.start;
            let topic = self.settings.topics.first().cloned().unwrap_or_default();
            let helpers = [
                self.spawn("kafka-lag", move |consumer, state| {
                    lag::follow(consumer, state, (&topic, start));
                }),
                self.spawn("kafka-commit", keep_committing),
            ];
            self.subscribe();
            while !self.state.is_stopping() {
                self.turn();
            }
            // They end as soon as they notice, before the consumer that they use.
            for helper in helpers.into_iter().flatten() {
                let _ = helper.join();
            }
            self.finish();
        }
        tracing::info!("reading of Kafka has ended");
    }

    /// Partitions are not taken on by somebody who cannot work on them yet.
    fn wait_for_the_handler(&self) -> bool {
        while !self.state.handler.is_willing() {
            if !self.state.sleep(POLL) {
                return false;
            }
        }
        true
    }

    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce(&BaseConsumer<Context<H>>, &State<H>) + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        let (consumer, state) = (Arc::clone(&self.consumer), Arc::clone(&self.state));
        let thread = std::thread::Builder::new().name(name.to_owned());
        let spawned = thread.spawn(move || work(&consumer, &state));
        let spawned = spawned.map_err(|error| self.fail(&format!("no thread to be had: {error}")));
        spawned.ok()
    }

    fn subscribe(&mut self) {
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        if let Err(error) = self.consumer.subscribe(&topics) {
            self.fail(&error.to_string());
        }
        self.subscribed = Instant::now();
    }

    /// Says that only another process can mend it.
    fn fail(&self, why: &str) {
        tracing::error!("Kafka cannot be read any more: {why}");
        self.state.fatal.send_replace(Some(why.to_owned()));
    }

    /// One look at everything.
    fn turn(&mut self) {
        self.hold_back();
        let is_paused = self.state.is_paused.load(Ordering::Relaxed);
        let timeout = if is_paused { POLL / 4 } else { POLL };
        match self.consumer.poll(timeout) {
            None => {}
            Some(Ok(message)) => {
                let is_stuck = self.take(&message);
                drop(message);
                self.is_stuck |= is_stuck;
            }
            Some(Err(error)) => self.look_at(&error),
        }
        if !self.is_reading && self.has_joined() {
            self.is_reading = true;
            self.state.handler.begin();
            tracing::info!(topics = ?self.settings.topics, group = self.settings.group, "reading Kafka");
        }
    }

    fn has_joined(&self) -> bool {
        let is_member = !matches!(self.consumer.rebalance_protocol(), RebalanceProtocol::None);
        let is_assigned = self.state.is_assigned.load(Ordering::Relaxed);
        let is_well = self.state.fatal.borrow().is_none();
        is_well && (is_assigned || (is_member && self.subscribed.elapsed() >= JOINED))
    }

    /// Pauses reading where enough is under way, and goes on where it is not any more.
    fn hold_back(&mut self) {
        let (state, window) = (&self.state, &self.state.window);
        let room = state.handler.room();
        state.room.store(room, Ordering::Relaxed);
        if self.is_stuck {
            self.is_stuck = state.partitions.longest() > beyond(room) / 2;
        }
        let is_full = window.is_full(room);
        state.metrics.in_flight.set(window.len() as i64);
        if state.is_paused.load(Ordering::Relaxed) {
            if !self.is_stuck && window.wait(Duration::ZERO) {
                self.pause(false);
            }
        } else if self.is_stuck || (is_full && !window.wait(PATIENCE)) {
            self.pause(true);
        }
    }

    fn pause(&self, is_paused: bool) {
        self.state.is_paused.store(is_paused, Ordering::Relaxed);
        self.state.metrics.paused.set(i64::from(is_paused));
        hold(&self.consumer, &self.state, is_paused);
    }

    /// What the context has heard of, with the reason; here it matters whether it is the last.
    fn look_at(&self, error: &KafkaError) {
        tracing::debug!(%error, "Kafka");
        let is_fatal = matches!(error, KafkaError::MessageConsumptionFatal(_))
            || error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal);
        if is_fatal && self.state.fatal.borrow().is_none() {
            let told = self.consumer.client().fatal_error();
            let why = told.map_or_else(|| error.to_string(), |(_, why)| why);
            self.fail(&why);
        }
    }

    /// Begins to work on a record; whether its partition has too much behind one that does not end.
    fn take(&self, message: &BorrowedMessage<'_>) -> bool {
        let partitions = &self.state.partitions;
        let (topic, number) = (message.topic(), message.partition());
        // One that was taken away meanwhile is somebody else's.
        let Some(mut partition) = partitions.get(topic, number) else {
            return false;
        };
        let (offset, written) = (message.offset(), message.timestamp().to_millis());
        if !partition.ledger().begin(offset, written) {
            // Reading went back, as where a topic was made anew: nothing of before counts.
            partition = partitions.renew(topic, number);
            partition.ledger().begin(offset, written);
        }
        let is_stuck = partition.ledger().len() > beyond(self.state.room());
        let record = Record::new(partition, message);
        let state = Arc::clone(&self.state);
        state.window.enter();
        self.runtime.spawn(async move {
            let handled = std::panic::AssertUnwindSafe(state.handler.handle(&record));
            if handled.catch_unwind().await.is_err() {
                if let Some(times) = state.said.panic.now() {
                    tracing::error!(%record, times, "working on a record panicked");
                }
                let given_up = std::panic::AssertUnwindSafe(state.handler.give_up(&record));
                // What panics twice is done with as well: it would stop its partition for good.
                let _ = Box::pin(given_up.catch_unwind()).await;
            }
            state.finish(&record);
        });
        is_stuck
    }

    /// Finishes what is under way, as far as there is time.
    fn finish(&mut self) {
        let deadline = self.state.stop().unwrap_or_else(Instant::now);
        let window = &self.state.window;
        while window.len() > 0 && Instant::now() < deadline {
            window.wait(POLL / 10);
            std::thread::sleep(Duration::from_millis(1));
        }
        let left = window.len();
        if left > 0 {
            tracing::warn!(left, "records are left unfinished, and will be read again");
        }
        commit(&self.consumer, &self.state);
    }
}

/// Records of a partition that may be begun and not committed.
fn beyond(room: usize) -> usize {
    let (windows, records) = BEYOND;
    room.saturating_mul(windows).max(records)
}
