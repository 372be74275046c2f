//! One request from its arrival to its end, whatever that is.
//!
//! An offer is counted when it is made and when it ends: answered, refused, or, when it is dropped
//! without either, abandoned by its client. So the three always add up to the requests offered.

use std::time::Duration;

use tokio::time::Instant;

use super::Classifier;
use super::admission::{Crowded, Permit};
use super::arrivals::Try;
use super::forecast::{Expected, Verdict};
use super::generation::Generation;
use super::host::{Work, large};
use super::messages::{Predictions, Request};
use super::slots::{Class, Full, Ticket};
use crate::error::{Blame, Refusal};
use crate::metrics::{Metrics, Outcome, Surface};
use crate::model::Text;

/// A large request without an objective or a deadline should be read within that.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request that has come in and is not answered yet.
#[derive(Debug)]
pub struct Offer<'a> {
    classifier: &'a Classifier,
    since: Instant,
    deadline: Option<Instant>,
    attempt: Try,
    /// Whether it counts as load; a retry does not.
    counts: bool,
    surface: Surface,
    outcome: Outcome,
    /// Bytes that its body says it has, or has, where that is much and the client's doing is not what ends it.
    large: usize,
    /// When its body was there as a whole.
    whole: Option<Instant>,
    /// Where the request is a large one, from then until its texts are tokens.
    work: Option<Work>,
}

impl<'a> Offer<'a> {
    pub(super) fn new(
        classifier: &'a Classifier,
        surface: Surface,
        timeout: Option<Duration>,
        attempt: Try,
    ) -> Self {
        classifier.metrics().offered.inc();
        let counts = classifier.arrivals.arrive(attempt);
        let since = Instant::now();
        Self {
            classifier,
            since,
            // A time too far away to be told is none.
            deadline: timeout.and_then(|timeout| since.checked_add(timeout)),
            attempt,
            counts,
            surface,
            outcome: Outcome::Abandoned,
            large: 0,
            whole: None,
            work: None,
        }
    }

    fn metrics(&self) -> &Metrics {
        self.classifier.metrics()
    }

    /// When nobody wants the answer any more.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Gives the request no more than `timeout` from its arrival.
    pub fn hurry(&mut self, timeout: Duration) {
        let until = self.since.checked_add(timeout);
        self.deadline = match (self.deadline, until) {
            (Some(deadline), Some(until)) => Some(deadline.min(until)),
            (deadline, until) => deadline.or(until),
        };
    }

    /// Says that what looked like a request of one surface is one of another.
    pub fn came_by(&mut self, surface: Surface) {
        self.surface = surface;
    }

    /// Ends the request with `refusal`.
    pub fn refuse(mut self, refusal: Refusal) -> Refusal {
        self.metrics()
            .refused
            .with_label_values(&[refusal.reason()])
            .inc();
        let arrivals = &self.classifier.arrivals;
        arrivals.refuse(&refusal, self.attempt, self.counts);
        if refusal.blame() == Blame::Client {
            // Nothing that more replicas would change.
            self.large = 0;
        }
        self.outcome = Outcome::Refused;
        refusal
    }

    /// Ends the request as answered without the engine: nothing that more replicas would change.
    pub fn settle(mut self) {
        self.classifier.arrivals.settle(self.counts);
        self.large = 0;
        self.outcome = Outcome::Answered;
    }

    /// Whether it makes sense to read the rest of the request, of so many bytes if that is known: what
    /// would be refused whatever it asks is refused before time is spent on a body.
    ///
    /// # Errors
    /// The refusal that [`receive`](Self::receive) or [`classify`](Self::classify) would give now.
    pub fn welcome(&mut self, bytes: Option<usize>) -> Result<(), Refusal> {
        let generation = self.classifier.serving()?;
        self.in_time()?;
        if let Some(bytes) = bytes {
            self.weigh(&generation, bytes);
            self.judge_host(&generation, bytes)?;
        }
        match self.classifier.admission.has_room() {
            Err(crowded) if !self.classifier.grow_limits(&generation) => {
                Err(crowded_refusal(crowded, &generation))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The body of the request is there. A large one waits for its turn, which it has from then on until its
    /// texts are tokens.
    ///
    /// # Errors
    /// That it cannot be read in time any more.
    pub async fn receive(&mut self, bytes: usize) -> Result<(), Refusal> {
        let now = Instant::now();
        self.whole = Some(now);
        let generation = self.classifier.serving()?;
        if bytes < large(&generation.tokenizer) {
            return Ok(());
        }
        self.weigh(&generation, bytes);
        self.classifier.arrivals.read_large(bytes);
        self.in_time()?;
        self.judge_host(&generation, bytes)?;
        let slo = self.classifier.limits.slo;
        let objective = now.checked_add(slo).filter(|_| !slo.is_zero());
        let objective = objective.unwrap_or(now + PATIENCE);
        let until = self
            .deadline
            .map_or(objective, |deadline| deadline.min(objective));
        let work = self.classifier.host.begin(bytes, until);
        let work = match self.deadline {
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

    /// The body has so many bytes, or says so.
    fn weigh(&mut self, generation: &Generation, bytes: usize) {
        if bytes >= large(&generation.tokenizer) {
            self.large = bytes;
        }
    }

    /// Whether a body of so many bytes can be read in time.
    fn judge_host(&self, generation: &Generation, bytes: usize) -> Result<(), Refusal> {
        if bytes < large(&generation.tokenizer) {
            return Ok(());
        }
        let (expected, is_behind) = self.classifier.host.forecast(bytes);
        let allowed = generation.shared.forecast.allowed(self.remaining());
        match allowed {
            // Whoever finds nothing before it is let in: nothing could be sooner.
            Some(allowed) if is_behind && expected > allowed => Err(Refusal::Overloaded {
                expected: duration(expected),
                retry_after: duration(expected - allowed),
            }),
            _ => Ok(()),
        }
    }

    /// Seconds until nobody wants the answer any more.
    fn remaining(&self) -> Option<f64> {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.deadline.map(|deadline| left(deadline).as_secs_f64())
    }

    /// Classifies a list of texts: all of them, or one refusal for the list.
    ///
    /// Dropping the future takes the texts that still wait out of the queue.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn classify(mut self, request: Request) -> Result<Predictions, Refusal> {
        // How long its body took to come is its client's doing.
        let whole = *self.whole.get_or_insert_with(Instant::now);
        match self.answer(request).await {
            Ok(predictions) => {
                let took = self.since.elapsed();
                self.metrics().request_seconds.observe(took.as_secs_f64());
                let took = whole.elapsed();
                let outside = took.saturating_sub(predictions.inside);
                self.classifier.arrivals.answer(took, outside);
                self.outcome = Outcome::Answered;
                Ok(predictions)
            }
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Predictions, Refusal> {
        let count = request.texts.len();
        if count == 0 {
            return Err(Refusal::Empty);
        }
        let max = self.classifier.limits.texts_max;
        if count > max {
            return Err(Refusal::TooManyTexts { found: count, max });
        }
        let generation = self.classifier.serving()?;
        self.in_time()?;
        let (tickets, expected, permit) = self.admit(&generation, &request)?;
        let admitted = Instant::now();
        let shared = std::sync::Arc::clone(&generation.shared);
        let work = self.work.take();
        let predict = self
            .classifier
            .predict(generation, request, &tickets, (self.deadline, work));
        let result = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, predict)
                .await
                .unwrap_or(Err(Refusal::Deadline)),
            None => predict.await,
        };
        match &result {
            Ok(_) => shared.forecast.learn(&expected, admitted.elapsed()),
            // The client is still there: its texts are refused, not abandoned.
            Err(_) => tickets.into_iter().for_each(Ticket::release),
        }
        drop(permit);
        result
    }

    /// Everything that a request needs to be worked on, or why it is not: the one place that decides.
    fn admit(
        &self,
        generation: &Generation,
        request: &Request,
    ) -> Result<(Vec<Ticket>, Expected, Permit), Refusal> {
        let admission = &self.classifier.admission;
        let permit = match admission.admit() {
            Err(_) if self.classifier.grow_limits(generation) => admission.admit(),
            permit => permit,
        };
        let permit = permit.map_err(|crowded| crowded_refusal(crowded, generation))?;
        let forecast = &generation.shared.forecast;
        let tokens_max = generation.tokenizer.max_tokens();
        let tokens_of = |text: &Text| forecast.tokens_of(text.bytes(), tokens_max);
        let tokens: Vec<usize> = request.texts.iter().map(tokens_of).collect();
        let arrivals = &self.classifier.arrivals;
        arrivals.size(tokens.len(), tokens.iter().sum());
        let class = Class::of(tokens.len());
        let expected = self.judge(generation, class, tokens.iter().sum())?;
        let slots = &self.classifier.slots;
        let tickets = match slots.reserve(class, &tokens) {
            Err(_) if self.classifier.grow_limits(generation) => slots.reserve(class, &tokens),
            tickets => tickets,
        };
        let tickets = tickets.map_err(|full| full_refusal(full, tokens.len(), generation))?;
        Ok((tickets, expected, permit))
    }

    /// What a request should take, or the refusal of one that would take too long.
    fn judge(
        &self,
        generation: &Generation,
        class: Class,
        tokens: usize,
    ) -> Result<Expected, Refusal> {
        let spent = self.whole.map_or(Duration::ZERO, |whole| whole.elapsed());
        let time = (self.remaining(), spent.as_secs_f64());
        match generation.shared.forecast.judge(class, tokens, time) {
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

    fn in_time(&self) -> Result<(), Refusal> {
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(Refusal::Deadline),
            _ => Ok(()),
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if self.outcome == Outcome::Abandoned {
            self.classifier.arrivals.abandon(self.attempt);
        }
        if self.counts {
            self.classifier.arrivals.ask_large(self.large);
        }
        self.metrics().end(self.surface, self.outcome);
    }
}

fn crowded_refusal(Crowded { max }: Crowded, generation: &Generation) -> Refusal {
    let retry_after = generation.shared.forecast.drain_time();
    Refusal::Concurrency { max, retry_after }
}

fn full_refusal(full: Full, count: usize, generation: &Generation) -> Refusal {
    let retry_after = generation.shared.forecast.drain_time();
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
