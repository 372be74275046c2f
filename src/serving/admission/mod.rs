//! The one place that decides whether a request is worked on, before any work is done for it.
//!
//! A client's request is refused at once if there is no permit, no slot or no time for it. A record of a log has no
//! deadline and waits for slots instead. Limits that follow from the measured capacity are raised before anybody is
//! refused because of them.

mod concurrency;
mod forecast;
mod host;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::concurrency::Permit;
use self::concurrency::{Concurrency, Crowded};
pub(crate) use self::forecast::{Expected, Forecast, PROMISE};
use self::forecast::{TimeLeft, Verdict};
pub(crate) use self::host::{Host, Work};
use super::account::Ledger;
use super::limits::Limits;
use super::queue::{Class, Full, Slots, Ticket};
use crate::error::Refusal;
use crate::model::Text;
use crate::turns::Turns;

/// Tokens of a request by which limits are derived from the capacity: a short question.
const REQUEST_TOKENS: f64 = 16.0;

/// Permits, slots and the host's time, and how much of each there is.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<Limits>,
    ledger: Arc<Ledger>,
    concurrency: Arc<Concurrency>,
    slots: Arc<Slots>,
    /// What large requests ask of the host.
    host: Arc<Host>,
}

/// When a client's request arrived and when it has to be answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// When its body was complete.
    pub(crate) whole: Option<Instant>,
    /// When nobody wants the answer any more.
    pub(crate) deadline: Option<Instant>,
}

impl Clock {
    fn left(self) -> TimeLeft {
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        TimeLeft {
            remaining: self.deadline.map(|deadline| left(deadline).as_secs_f64()),
            spent: self.whole.map_or(0.0, |whole| (now - whole).as_secs_f64()),
        }
    }

    /// # Errors
    /// If the deadline has passed.
    pub(crate) fn check(self) -> Result<(), Refusal> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Refusal::Deadline),
            _ => Ok(()),
        }
    }
}

/// What an admitted request holds until its answer.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// One for each text.
    pub(crate) tickets: Vec<Ticket>,
    /// What was forecast for it.
    pub(crate) expected: Expected,
    /// Dropping it admits the next request.
    pub(crate) permit: Permit,
}

impl Admission {
    /// With limits for a server that has not measured anything yet.
    pub(crate) fn new(limits: Arc<Limits>, ledger: Arc<Ledger>) -> Arc<Self> {
        // Raised once a model is loaded and measured.
        let unknown = limits.slo.map(|_| 0.0);
        let (concurrency, room) = limits.for_capacity(unknown);
        let metrics = &ledger.metrics;
        let depth = metrics.queue_depth.clone();
        let abandoned = metrics.abandoned_texts.clone();
        Arc::new(Self {
            concurrency: Concurrency::new(concurrency, metrics.clone()),
            slots: Slots::new(room, depth, abandoned),
            host: Host::new(Turns::beside_one_core()),
            limits,
            ledger,
        })
    }

    /// The slots of all models.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The account of large requests.
    pub(crate) fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// Raises the limits to what a newly loaded model can do.
    ///
    /// A measurement on a busy machine is no reason to lower them.
    pub(crate) fn begin(&self, forecast: &Forecast) {
        let timing = forecast.timing();
        let is_measured = self.limits.slo.is_some() && timing.curve.batches() > 0;
        let capacity = is_measured.then(|| timing.capacity(REQUEST_TOKENS));
        let (concurrency, room) = self.limits.for_capacity(capacity);
        tracing::info!(
            requests_a_second = capacity.map(|capacity| capacity as u64),
            batch_tokens = timing.batch_tokens(),
            concurrency,
            queue = room.slots,
            "limits"
        );
        self.concurrency.grow(concurrency);
        self.slots.grow(room);
    }

    /// Raises the limits to the capacity as it is known by now: what was measured at the start may have been a busy
    /// machine. Whether they are higher than before.
    fn grow(&self, forecast: &Forecast) -> bool {
        if self.limits.slo.is_none() {
            return false;
        }
        let capacity = forecast.timing().capacity(REQUEST_TOKENS);
        let (concurrency, room) = self.limits.for_capacity(Some(capacity));
        let concurrency = self.concurrency.grow(concurrency);
        let slots = self.slots.grow(room);
        concurrency || slots
    }

    /// Tries `attempt`, and once more if the limits have grown meanwhile.
    fn try_to<T, E>(
        &self,
        forecast: &Forecast,
        attempt: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        match attempt() {
            Err(_) if self.grow(forecast) => attempt(),
            result => result,
        }
    }

    /// Whether one more request would get a permit now.
    ///
    /// # Errors
    /// The refusal that [`admit`](Self::admit) would give.
    pub(crate) fn check_concurrency(&self, forecast: &Forecast) -> Result<(), Refusal> {
        let has_room = self.try_to(forecast, || self.concurrency.has_room());
        has_room.map_err(|crowded| crowded_refusal(crowded, forecast))
    }

    /// Whether a body of `bytes` can be read and its texts tokenized in time.
    ///
    /// # Errors
    /// The refusal of a large body behind others that leave no time for it.
    pub(crate) fn check_body(
        &self,
        forecast: &Forecast,
        bytes: usize,
        clock: Clock,
    ) -> Result<(), Refusal> {
        if !forecast.is_large(bytes) {
            return Ok(());
        }
        let (expected, is_behind) = self.host.forecast(bytes);
        match forecast.allowed(clock.left().remaining) {
            // Nothing could be sooner than with nothing before it.
            Some(allowed) if is_behind && expected > allowed => Err(Refusal::Overloaded {
                expected: duration(expected),
                retry_after: duration(expected - allowed),
            }),
            _ => Ok(()),
        }
    }

    /// Admits the request of a client, or says why not.
    ///
    /// # Errors
    /// If there is no permit, no slot or no time for it.
    pub(crate) fn admit(
        &self,
        forecast: &Forecast,
        texts: &[Text],
        clock: Clock,
    ) -> Result<Admitted, Refusal> {
        let permit = self.try_to(forecast, || self.concurrency.admit());
        let permit = permit.map_err(|crowded| crowded_refusal(crowded, forecast))?;
        let tokens = self.size(forecast, texts);
        let class = Class::of(texts.len());
        let expected = judge(forecast, class, tokens.iter().sum(), clock)?;
        let tickets = self.try_to(forecast, || self.slots.reserve(class, &tokens));
        let tickets = tickets.map_err(|full| full_refusal(full, texts.len(), forecast))?;
        Ok(Admitted {
            tickets,
            expected,
            permit,
        })
    }

    /// Waits until there are slots for the texts of a record, which nobody waits for.
    ///
    /// # Errors
    /// If there never can be: no text, or more texts than a request may have.
    pub(crate) async fn admit_in_time(
        &self,
        forecast: &Forecast,
        texts: &[Text],
    ) -> Result<Vec<Ticket>, Refusal> {
        // Both the configured limit and the slots that a list may take: more would wait for ever.
        let class = Class::of(texts.len());
        let max = self.limits.texts_max.min(self.slots.max(class));
        check_count(texts, max)?;
        let tokens = self.size(forecast, texts);
        let grow = || self.grow(forecast);
        Ok(self.slots.wait(class, &tokens, grow).await)
    }

    /// Checks the number of texts of a client's request.
    ///
    /// # Errors
    /// If there is none, or more than a request may have.
    pub(crate) fn check_texts(&self, texts: &[Text]) -> Result<(), Refusal> {
        check_count(texts, self.limits.texts_max)
    }

    /// The expected tokens of each text, which are counted.
    fn size(&self, forecast: &Forecast, texts: &[Text]) -> Vec<usize> {
        let tokens_of = |text: &Text| forecast.tokens_of(text.bytes());
        let tokens: Vec<usize> = texts.iter().map(tokens_of).collect();
        let arrivals = &self.ledger.arrivals;
        arrivals.size(tokens.len(), tokens.iter().sum());
        tokens
    }
}

fn check_count(texts: &[Text], max: usize) -> Result<(), Refusal> {
    match texts.len() {
        0 => Err(Refusal::Empty),
        found if found > max => Err(Refusal::TooManyTexts { found, max }),
        _ => Ok(()),
    }
}

/// What a request should take, or the refusal of one that would take too long.
fn judge(
    forecast: &Forecast,
    class: Class,
    tokens: usize,
    clock: Clock,
) -> Result<Expected, Refusal> {
    match forecast.judge(class, tokens, clock.left()) {
        Verdict::InTime(expected) => Ok(expected),
        Verdict::Never { alone } => Err(Refusal::Hopeless {
            alone: duration(alone),
        }),
        Verdict::TooLate { expected, late } => Err(Refusal::Overloaded {
            expected: duration(expected),
            retry_after: duration(late),
        }),
    }
}

fn crowded_refusal(Crowded { max }: Crowded, forecast: &Forecast) -> Refusal {
    let retry_after = forecast.drain_time();
    Refusal::Concurrency { max, retry_after }
}

fn full_refusal(full: Full, count: usize, forecast: &Forecast) -> Refusal {
    let retry_after = forecast.drain_time();
    match full {
        Full::Slots { max } => Refusal::QueueFull {
            count,
            max,
            retry_after,
        },
        Full::Lists { max } => Refusal::ListsFull {
            count,
            max,
            retry_after,
        },
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
