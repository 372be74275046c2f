//! Requests that nobody waits for: records of a log. They have no objective and no deadline; where others
//! are refused for the load, they wait.

use std::time::Duration;

use super::Classifier;
use super::generation::Generation;
use super::messages::{Predictions, Request};
use super::slots::{Class, Ticket};
use crate::error::{Blame, Refusal};
use crate::metrics::{Outcome, Surface};
use crate::model::Text;

/// Between two looks whether there is room: as long as some batches take, at most.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(50)];

impl Classifier {
    /// Classifies the texts of a record, however long there is no room for them.
    ///
    /// The caller bounds how many of these are under way at once. They do not count as load when they come,
    /// but when they are written to the log ([`Arrivals`](super::Arrivals)).
    ///
    /// # Errors
    /// What is wrong with the record, and what is wrong with the server; never that there is too much to do.
    pub async fn classify_record(&self, request: Request) -> Result<Predictions, Refusal> {
        let metrics = self.metrics();
        metrics.offered.inc();
        let mut ending = Ending {
            classifier: self,
            outcome: Outcome::Abandoned,
        };
        let result = self.answer_record(request).await;
        match &result {
            Ok(_) => {
                ending.outcome = Outcome::Answered;
                self.arrivals.answer_from_log();
            }
            Err(refusal) => {
                ending.outcome = Outcome::Refused;
                let reason = refusal.reason();
                metrics.refused.with_label_values(&[reason]).inc();
                if refusal.blame() == Blame::Server {
                    self.arrivals.fail_from_log();
                }
            }
        }
        result
    }

    /// Texts of so many tokens that a batch holds; 1 where no model is loaded.
    pub fn texts_a_batch(&self, tokens: u64) -> usize {
        self.current().map_or(1, |generation| {
            let budget = generation.shared.forecast.batch_tokens() as u64 / tokens.max(1);
            let budget = usize::try_from(budget).unwrap_or(usize::MAX);
            budget.clamp(1, self.limits.batch.texts_max)
        })
    }

    async fn answer_record(&self, request: Request) -> Result<Predictions, Refusal> {
        let generation = self.serving()?;
        let tickets = self.wait_for_room(&generation, &request).await?;
        let result = self
            .predict(generation, request, &tickets, (None, None))
            .await;
        if result.is_err() {
            tickets.into_iter().for_each(Ticket::release);
        }
        result
    }

    async fn wait_for_room(
        &self,
        generation: &Generation,
        request: &Request,
    ) -> Result<Vec<Ticket>, Refusal> {
        let found = request.texts.len();
        if found == 0 {
            return Err(Refusal::Empty);
        }
        // Both what is configured and what a list may take of the queue: more would wait for ever.
        let class = Class::of(found);
        let max = self.limits.texts_max.min(self.slots.max(class));
        if found > max {
            return Err(Refusal::TooManyTexts { found, max });
        }
        let forecast = &generation.shared.forecast;
        let tokens_max = generation.tokenizer.max_tokens();
        let tokens_of = |text: &Text| forecast.tokens_of(text.bytes(), tokens_max);
        let tokens: Vec<usize> = request.texts.iter().map(tokens_of).collect();
        self.arrivals.size(found, tokens.iter().sum());
        loop {
            match self.slots.reserve(class, &tokens) {
                Ok(tickets) => return Ok(tickets),
                Err(_) if self.grow_limits(generation) => {}
                Err(_) => {
                    let [least, most] = LOOK;
                    tokio::time::sleep(forecast.drain_time().clamp(least, most)).await;
                }
            }
        }
    }
}

/// Counts how a record ended, also when its task is dropped.
struct Ending<'a> {
    classifier: &'a Classifier,
    outcome: Outcome,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.classifier.metrics().end(Surface::KAFKA, self.outcome);
    }
}
