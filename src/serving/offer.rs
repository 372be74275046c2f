//! One request of a client from its arrival to its end.

use std::time::Duration;

use tokio::time::Instant;

use super::account::{Entry, Latency, Ledger};
use super::admission::{Admission, Admitted, Clock, Work};
use super::lifecycle::{Generation, Lifecycle};
use super::predict::Predictor;
use super::queue::Ticket;
use super::request::{Predictions, Request};
use crate::error::Refusal;
use crate::metrics::Surface;

/// A large request without an objective or a deadline should be read within this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that has arrived and is not answered yet.
#[derive(Debug)]
pub struct Offer<'a> {
    ledger: &'a Ledger,
    admission: &'a Admission,
    lifecycle: &'a Lifecycle,
    entry: Entry<'a>,
    since: Instant,
    clock: Clock,
    /// The turn of a large request, from when its body is there until its texts are tokens.
    work: Option<Work>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(
        (ledger, admission, lifecycle): (&'a Ledger, &'a Admission, &'a Lifecycle),
        entry: Entry<'a>,
        timeout: Option<Duration>,
    ) -> Self {
        let since = Instant::now();
        // A deadline beyond what the clock can express is none.
        let deadline = timeout.and_then(|timeout| since.checked_add(timeout));
        Self {
            ledger,
            admission,
            lifecycle,
            entry,
            since,
            clock: Clock {
                whole: None,
                deadline,
            },
            work: None,
        }
    }

    /// When nobody wants the answer any more.
    pub fn deadline(&self) -> Option<Instant> {
        self.clock.deadline
    }

    /// Gives the request no more than `timeout` from its arrival.
    pub fn hurry(&mut self, timeout: Duration) {
        let until = self.since.checked_add(timeout);
        self.clock.deadline = match (self.clock.deadline, until) {
            (Some(deadline), Some(until)) => Some(deadline.min(until)),
            (deadline, until) => deadline.or(until),
        };
    }

    /// Says that what looked like a request of one surface is one of another.
    pub fn came_by(&mut self, surface: Surface) {
        self.entry.set_surface(surface);
    }

    /// Ends the request with `refusal`.
    pub fn refuse(mut self, refusal: Refusal) -> Refusal {
        self.entry.refuse(&refusal);
        refusal
    }

    /// Ends the request as answered without the engine: nothing that more replicas would change.
    pub fn settle(mut self) {
        self.entry.answer_without_engine();
    }

    /// Whether it makes sense to read the rest of the request, of so many bytes if that is known: what
    /// would be refused whatever it asks is refused before time is spent on a body.
    ///
    /// # Errors
    /// The refusal that [`receive`](Self::receive) or [`classify`](Self::classify) would give now.
    pub fn welcome(&mut self, bytes: Option<usize>) -> Result<(), Refusal> {
        let generation = self.lifecycle.serving()?;
        self.clock.check()?;
        let forecast = &generation.forecast;
        if let Some(bytes) = bytes {
            self.note_size(&generation, bytes);
            self.admission.check_body(forecast, bytes, self.clock)?;
        }
        self.admission.check_concurrency(forecast)
    }

    /// The body of the request is there. A large one waits for its turn, which it has from then on until its
    /// texts are tokens.
    ///
    /// # Errors
    /// That it cannot be read in time any more.
    pub async fn receive(&mut self, bytes: usize) -> Result<(), Refusal> {
        let now = Instant::now();
        self.clock.whole = Some(now);
        let generation = self.lifecycle.serving()?;
        if !generation.forecast.is_large(bytes) {
            return Ok(());
        }
        self.note_size(&generation, bytes);
        self.ledger.arrivals.read_large(bytes);
        self.clock.check()?;
        let admission = self.admission;
        admission.check_body(&generation.forecast, bytes, self.clock)?;
        let objective = generation.pipeline.timing.objective();
        let patience = objective.map_or(PATIENCE, Duration::from_secs_f64);
        let deadline = self.clock.deadline;
        let objective = now + patience;
        let until = deadline.map_or(objective, |deadline| deadline.min(objective));
        let work = admission.host().begin(bytes, until);
        let work = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, work).await,
            None => Ok(work.await),
        };
        self.work = Some(work.map_err(|_| Refusal::Deadline)?);
        Ok(())
    }

    /// Does what reading the request takes, on the account of its turn if it has one.
    pub fn decode<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match &mut self.work {
            Some(account) => account.spend(work),
            None => work(),
        }
    }

    /// Notes the size of the body, as announced or read, if it is a large one.
    fn note_size(&mut self, generation: &Generation, bytes: usize) {
        if generation.forecast.is_large(bytes) {
            self.entry.set_large(bytes);
        }
    }

    /// Classifies a list of texts: all of them, or one refusal for the list.
    ///
    /// Dropping the future takes the texts that still wait out of the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn classify(mut self, request: Request) -> Result<Predictions, Refusal> {
        let whole = *self.clock.whole.get_or_insert_with(Instant::now);
        match self.answer(request).await {
            Ok(predictions) => {
                self.entry.answer(Latency {
                    total: self.since.elapsed(),
                    whole: whole.elapsed(),
                    inside: predictions.inside,
                });
                Ok(predictions)
            }
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Predictions, Refusal> {
        self.admission.check_texts(&request.texts)?;
        let generation = self.lifecycle.serving()?;
        self.clock.check()?;
        let Admitted {
            tickets,
            expected,
            permit,
        } = self
            .admission
            .admit(&generation.forecast, &request.texts, self.clock)?;
        let admitted = Instant::now();
        let deadline = self.clock.deadline;
        let predictor = Predictor {
            lifecycle: self.lifecycle,
            host: self.admission.host(),
            metrics: &self.ledger.metrics,
        };
        let forecasting = std::sync::Arc::clone(&generation);
        let work = self.work.take();
        let predict = predictor.predict(generation, request, &tickets, deadline, work);
        let result = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, predict)
                .await
                .unwrap_or(Err(Refusal::Deadline)),
            None => predict.await,
        };
        match &result {
            Ok(_) => forecasting.forecast.learn(&expected, admitted.elapsed()),
            // The client is still there: its texts are refused, not abandoned.
            Err(_) => tickets.into_iter().for_each(Ticket::release),
        }
        drop(permit);
        result
    }
}
