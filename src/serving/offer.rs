//! A client's request from its arrival to its outcome.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::account::{Latency, LedgerEntry, RequestLedger};
use super::admission::{Admission, Admitted, HostTurn, RequestClock};
use super::lifecycle::{Generation, Lifecycle};
use super::predict::TextPredictor;
use super::queue::Ticket;
use super::request::{Predictions, Request};
use crate::error::Refusal;
use crate::metrics::SurfaceLabel;

/// Time within which a large request should be decoded if there is no objective and no deadline.
const DECODE_TIME: Duration = Duration::from_secs(1);

/// The stages that a request passes through.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stages<'a> {
    pub(super) ledger: &'a RequestLedger,
    pub(super) admission: &'a Admission,
    pub(super) lifecycle: &'a Lifecycle,
}

/// A request that has arrived and has no outcome yet.
#[derive(Debug)]
pub struct Offer<'a> {
    stages: Stages<'a>,
    entry: LedgerEntry<'a>,
    since: Instant,
    clock: RequestClock,
    /// The turn of a large request, from the complete body until its texts are tokenized.
    turn: Option<HostTurn>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(
        stages: Stages<'a>,
        entry: LedgerEntry<'a>,
        timeout: Option<Duration>,
    ) -> Self {
        let since = Instant::now();
        // A deadline that the clock cannot express is no deadline.
        let deadline = timeout.and_then(|timeout| since.checked_add(timeout));
        Self {
            stages,
            entry,
            since,
            clock: RequestClock {
                body_complete: None,
                deadline,
            },
            turn: None,
        }
    }

    /// When the answer is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.clock.deadline
    }

    /// Limits the time of the request to `timeout` from its arrival.
    pub fn limit_time(&mut self, timeout: Duration) {
        let until = self.since.checked_add(timeout);
        self.clock.deadline = match (self.clock.deadline, until) {
            (Some(deadline), Some(until)) => Some(deadline.min(until)),
            (deadline, until) => deadline.or(until),
        };
    }

    /// Corrects the surface that the request is counted for.
    pub fn set_surface(&mut self, surface: SurfaceLabel) {
        self.entry.set_surface(surface);
    }

    /// Refuses the request.
    pub fn refuse(mut self, refusal: Refusal) -> Refusal {
        self.entry.refuse(&refusal);
        refusal
    }

    /// Ends the request as answered without the engine. It then does not count as demand.
    pub fn answer_without_engine(mut self) {
        self.entry.answer_without_engine();
    }

    /// Refuses early, before the body is read, a request that would be refused in any case. `bytes` is the size
    /// of the body, if known.
    ///
    /// # Errors
    /// The refusal that [`receive`](Self::receive) or [`classify`](Self::classify) would give now.
    pub fn check_early(&mut self, bytes: Option<usize>) -> Result<(), Refusal> {
        let generation = self.stages.lifecycle.serving()?;
        self.clock.check()?;
        let forecast = &generation.forecast;
        if let Some(bytes) = bytes {
            self.note_size(&generation, bytes);
            self.stages
                .admission
                .check_body(forecast, bytes, self.clock)?;
        }
        self.stages.admission.check_concurrency(forecast)
    }

    /// Records that the body is complete. A large one then waits for its turn and keeps it until its texts are
    /// tokenized.
    ///
    /// # Errors
    /// If it can no longer be decoded in time.
    pub async fn receive(&mut self, bytes: usize) -> Result<(), Refusal> {
        let now = Instant::now();
        self.clock.body_complete = Some(now);
        let generation = self.stages.lifecycle.serving()?;
        if !generation.forecast.is_large(bytes) {
            return Ok(());
        }
        self.note_size(&generation, bytes);
        self.stages.ledger.arrivals.read_large(bytes);
        self.clock.check()?;
        let admission = self.stages.admission;
        admission.check_body(&generation.forecast, bytes, self.clock)?;
        let objective = generation.pipeline.timing.objective();
        let patience = objective.map_or(DECODE_TIME, Duration::from_secs_f64);
        let deadline = self.clock.deadline;
        let objective = now + patience;
        let until = deadline.map_or(objective, |deadline| deadline.min(objective));
        let turn = admission.host().begin(bytes, until);
        let turn = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, turn).await,
            None => Ok(turn.await),
        };
        match turn {
            Ok(turn) => self.turn = Some(turn),
            Err(_) => {
                self.entry.set_expired();
                return Err(Refusal::Deadline);
            }
        }
        Ok(())
    }

    /// Runs `work`, the decoding of the request. Its CPU time counts for the request's turn, if it has one.
    pub fn decode<T>(&mut self, work: impl FnOnce() -> T) -> T {
        match &mut self.turn {
            Some(turn) => turn.spend(work),
            None => work(),
        }
    }

    /// Records the size of a large body, as announced or read.
    fn note_size(&mut self, generation: &Generation, bytes: usize) {
        if generation.forecast.is_large(bytes) {
            self.entry.set_large(bytes);
        }
    }

    /// Classifies a list of texts as a whole.
    ///
    /// Dropping the future removes the waiting texts from the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn classify(mut self, request: Request) -> Result<Predictions, Refusal> {
        let whole = *self.clock.body_complete.get_or_insert_with(Instant::now);
        match self.answer(request).await {
            Ok(predictions) => {
                self.entry.answer(Latency {
                    total: self.since.elapsed(),
                    whole: whole.elapsed(),
                    inside: predictions.inside,
                });
                Ok(predictions)
            }
            Err(refusal) => {
                if refusal == Refusal::Deadline {
                    self.entry.set_expired();
                }
                Err(self.refuse(refusal))
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Predictions, Refusal> {
        self.stages.admission.check_texts(&request.texts)?;
        let generation = self.stages.lifecycle.serving()?;
        self.clock.check()?;
        let Admitted {
            tickets,
            expected,
            permit,
        } = self
            .stages
            .admission
            .admit(&generation.forecast, &request.texts, self.clock)?;
        self.entry
            .set_tokens(tickets.iter().map(Ticket::tokens).sum());
        let admitted = Instant::now();
        let deadline = self.clock.deadline;
        let predictor = TextPredictor {
            lifecycle: self.stages.lifecycle,
            host: self.stages.admission.host(),
            metrics: &self.stages.ledger.metrics,
        };
        let forecasting = Arc::clone(&generation);
        let turn = self.turn.take();
        let predict = predictor.predict(generation, request, &tickets, deadline, turn);
        let result = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, predict)
                .await
                .unwrap_or(Err(Refusal::Deadline)),
            None => predict.await,
        };
        match &result {
            Ok(_) => forecasting.forecast.learn(&expected, admitted.elapsed()),
            // The client has not left: its texts are refused, not abandoned.
            Err(_) => tickets.into_iter().for_each(Ticket::release),
        }
        drop(permit);
        result
    }
}
