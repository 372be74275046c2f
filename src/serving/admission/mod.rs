//! Admission: decides whether a request is accepted, before any work is done for it.
//!
//! A client's request is refused at once if there is no permit, no slot or no time for it. A log record has no
//! deadline and waits for slots instead. Limits derived from the measured capacity are raised before a request is
//! refused because of them.

mod concurrency;
mod forecast;
mod host;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::concurrency::Permit;
use self::concurrency::{Concurrency, NoPermit};
pub(crate) use self::forecast::{ExpectedLatency, Forecast, PROMISE};
use self::forecast::{Feasibility, TimeLeft};
pub use self::host::ByteCost;
use self::host::HostForecast;
pub(crate) use self::host::{HostTurn, HostWork};
use super::account::RequestLedger;
use super::limits::Limits;
use super::queue::{Class, QueueFull, Slots, Ticket};
use crate::error::Refusal;
use crate::model::Text;
use intentd_base::turns::Turns;

/// Tokens of the request for which limits are derived from the capacity: a short question.
const REQUEST_TOKENS: f64 = 16.0;

/// Permits, slots and host time, and their limits.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Arc<Limits>,
    ledger: Arc<RequestLedger>,
    concurrency: Arc<Concurrency>,
    slots: Arc<Slots>,
    /// Host time for large requests.
    host: Arc<HostWork>,
}

/// When a client's request was complete and when its answer is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestClock {
    /// When its body was complete, once it is.
    pub(crate) body_complete: Option<Instant>,
    /// When the answer is due, if there is a deadline.
    pub(crate) deadline: Option<Instant>,
}

impl RequestClock {
    fn time_left(self) -> TimeLeft {
        let now = Instant::now();
        let left = |deadline: Instant| deadline.saturating_duration_since(now);
        TimeLeft {
            remaining: self.deadline.map(|deadline| left(deadline).as_secs_f64()),
            spent: self
                .body_complete
                .map_or(0.0, |complete| (now - complete).as_secs_f64()),
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

/// The resources that an admitted request holds until its answer.
#[derive(Debug)]
pub(crate) struct Admitted {
    /// One per text.
    pub(crate) tickets: Vec<Ticket>,
    /// Its forecast.
    pub(crate) expected: ExpectedLatency,
    /// Its permit. Dropping it frees the permit for another request.
    pub(crate) permit: Permit,
}

impl Admission {
    /// Admission with limits for a server without a measured capacity.
    pub(crate) fn new(limits: Arc<Limits>, ledger: Arc<RequestLedger>) -> Arc<Self> {
        // Raised once a model is loaded and measured.
        let unknown = limits.slo.map(|_| 0.0);
        let (concurrency, slots) = limits.for_capacity(unknown);
        let metrics = &ledger.metrics;
        let depth = metrics.queue_depth.clone();
        let abandoned = metrics.abandoned_texts.clone();
        Arc::new(Self {
            concurrency: Concurrency::new(concurrency, metrics.clone()),
            slots: Slots::new(slots, depth, abandoned),
            host: HostWork::new(Turns::beside_one_core()),
            limits,
            ledger,
        })
    }

    /// The slots, shared by all models.
    pub(crate) fn slots(&self) -> &Arc<Slots> {
        &self.slots
    }

    /// The host time of large requests.
    pub(crate) fn host(&self) -> &Arc<HostWork> {
        &self.host
    }

    /// Raises the limits to the capacity of a newly loaded model.
    ///
    /// Never lowers them: the measurement may have been disturbed by a busy machine.
    pub(crate) fn begin(&self, forecast: &Forecast) {
        let timing = forecast.timing();
        let is_measured = self.limits.slo.is_some() && timing.curve.batches() > 0;
        let capacity = is_measured.then(|| timing.capacity(REQUEST_TOKENS));
        let (concurrency, slots) = self.limits.for_capacity(capacity);
        tracing::info!(
            requests_a_second = capacity.map(|capacity| capacity as u64),
            batch_tokens = timing.batch_tokens(),
            concurrency,
            queue = slots.slots,
            "limits"
        );
        self.concurrency.grow(concurrency);
        self.slots.grow(slots);
    }

    /// Raises the limits to the capacity as known now; the first measurement may have been disturbed by a busy
    /// machine. Returns whether they were raised.
    fn grow(&self, forecast: &Forecast) -> bool {
        if self.limits.slo.is_none() {
            return false;
        }
        let capacity = forecast.timing().capacity(REQUEST_TOKENS);
        let (concurrency, slots) = self.limits.for_capacity(Some(capacity));
        let concurrency = self.concurrency.grow(concurrency);
        let slots = self.slots.grow(slots);
        concurrency || slots
    }

    /// Runs `attempt`, and once more if it fails and the limits can be raised.
    fn try_or_grow<T, E>(
        &self,
        forecast: &Forecast,
        attempt: impl Fn() -> Result<T, E>,
    ) -> Result<T, E> {
        match attempt() {
            Err(_) if self.grow(forecast) => attempt(),
            result => result,
        }
    }

    /// Checks whether one more request would get a permit now.
    ///
    /// # Errors
    /// The refusal that [`admit`](Self::admit) would give.
    pub(crate) fn check_concurrency(&self, forecast: &Forecast) -> Result<(), Refusal> {
        let check = self.try_or_grow(forecast, || self.concurrency.check());
        check.map_err(|no_permit| concurrency_refusal(no_permit, forecast))
    }

    /// Checks whether a body of `bytes` can be decoded and tokenized in time.
    ///
    /// # Errors
    /// If it is large and others before it leave no time.
    pub(crate) fn check_body(
        &self,
        forecast: &Forecast,
        bytes: usize,
        clock: RequestClock,
    ) -> Result<(), Refusal> {
        if !forecast.is_large(bytes) {
            return Ok(());
        }
        let HostForecast { seconds, is_behind } = self.host.forecast(bytes);
        match forecast.allowed(clock.time_left().remaining) {
            // With nothing ahead of it, no server could be faster.
            Some(allowed) if is_behind && seconds > allowed => Err(Refusal::Overloaded {
                expected: duration(seconds),
                retry_after: duration(seconds - allowed),
                keeps_objective: forecast
                    .allowed(None)
                    .is_some_and(|allowed| seconds <= allowed),
            }),
            _ => Ok(()),
        }
    }

    /// Admits a client's request.
    ///
    /// # Errors
    /// If there is no permit, no slot or no time for it.
    pub(crate) fn admit(
        &self,
        forecast: &Forecast,
        texts: &[Text],
        clock: RequestClock,
    ) -> Result<Admitted, Refusal> {
        let permit = self.try_or_grow(forecast, || self.concurrency.admit());
        let permit = permit.map_err(|no_permit| concurrency_refusal(no_permit, forecast))?;
        let tokens = self.expected_tokens(forecast, texts);
        let class = Class::of(texts.len());
        let expected = assess(forecast, class, tokens.iter().sum(), clock)?;
        let tickets = self.try_or_grow(forecast, || self.slots.reserve(class, &tokens));
        let tickets = tickets.map_err(|full| full_refusal(full, texts.len(), forecast))?;
        Ok(Admitted {
            tickets,
            expected,
            permit,
        })
    }

    /// Admits a log record: waits until there are slots for its texts.
    ///
    /// # Errors
    /// If there is no text, or more than a request may have.
    pub(crate) async fn admit_record(
        &self,
        forecast: &Forecast,
        texts: &[Text],
    ) -> Result<Vec<Ticket>, Refusal> {
        // More texts than the slots that a list may take would wait for ever.
        let class = Class::of(texts.len());
        let max = self.limits.texts_max.min(self.slots.max(class));
        check_count(texts, max)?;
        let tokens = self.expected_tokens(forecast, texts);
        let grow = || self.grow(forecast);
        Ok(self.slots.wait(class, &tokens, grow).await)
    }

    /// Checks the number of texts of a client's request.
    ///
    /// # Errors
    /// If there is no text, or more than a request may have.
    pub(crate) fn check_texts(&self, texts: &[Text]) -> Result<(), Refusal> {
        check_count(texts, self.limits.texts_max)
    }

    /// The expected tokens of each text. Counts the request's size.
    fn expected_tokens(&self, forecast: &Forecast, texts: &[Text]) -> Vec<usize> {
        let tokens_of = |text: &Text| forecast.tokens_of(text.bytes());
        let tokens: Vec<usize> = texts.iter().map(tokens_of).collect();
        let arrivals = &self.ledger.arrivals;
        arrivals.record_size(tokens.len(), tokens.iter().sum());
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

/// The forecast for a request, or its refusal.
fn assess(
    forecast: &Forecast,
    class: Class,
    tokens: usize,
    clock: RequestClock,
) -> Result<ExpectedLatency, Refusal> {
    match forecast.assess(class, tokens, clock.time_left()) {
        Feasibility::InTime(expected) => Ok(expected),
        Feasibility::Unreachable { alone } => Err(Refusal::DeadlineUnreachable {
            alone: duration(alone),
        }),
        Feasibility::TooLate {
            expected,
            late,
            keeps_objective,
        } => Err(Refusal::Overloaded {
            expected: duration(expected),
            retry_after: duration(late),
            keeps_objective,
        }),
    }
}

fn concurrency_refusal(NoPermit { max }: NoPermit, forecast: &Forecast) -> Refusal {
    let retry_after = forecast.drain_time();
    Refusal::Concurrency { max, retry_after }
}

fn full_refusal(full: QueueFull, count: usize, forecast: &Forecast) -> Refusal {
    let retry_after = forecast.drain_time();
    match full {
        QueueFull::Slots { max } => Refusal::QueueFull {
            count,
            max,
            retry_after,
        },
        QueueFull::Lists { max } => Refusal::ListsFull {
            count,
            max,
            retry_after,
        },
    }
}

fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
