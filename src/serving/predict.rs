//! From an admitted request to its predictions: tokens, queue, replies.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::classifier::Classifier;
use super::generation::Generation;
use super::messages::{Prediction, Predictions, Request};
use super::queue::{Answer, Waiting};
use super::slots::Ticket;
use crate::error::Refusal;
use crate::model::{Encoded, Text};

/// Texts longer than this together are tokenized off the async threads: one to two milliseconds.
const BLOCKING_BYTES: usize = 2 << 10;

impl Classifier {
    /// The predictions for the texts of `request`, which have their `tickets`, and the time that these
    /// spent in queue and engine.
    pub(super) async fn predict(
        &self,
        mut generation: Arc<Generation>,
        request: Request,
        tickets: &[Ticket],
        deadline: Option<Instant>,
    ) -> Result<(Predictions, Duration), Refusal> {
        let request = Arc::new(request);
        let (replies, shapes) = loop {
            let encoded = self.encode(&generation, &request).await?;
            let shapes: Vec<(usize, bool)> = encoded
                .iter()
                .map(|encoded| (encoded.ids.len(), encoded.truncated))
                .collect();
            if let Some(replies) = enqueue(&generation, tickets, encoded, deadline) {
                break (replies, shapes);
            }
            // Replaced while the texts were tokenized: the new model has a tokenizer of its own.
            generation = match self.current() {
                Some(newer) if newer.number > generation.number => newer,
                _ => return Err(Refusal::Unhealthy),
            };
        };
        let queued = Instant::now();
        let answers = answers(replies, shapes);
        let items = if generation.is_on_device {
            let mut given_up = generation.given_up.subscribe();
            tokio::select! {
                biased;
                items = answers => items?,
                // The sender lives as long as the generation.
                _ = given_up.wait_for(|given_up| *given_up) => return Err(Refusal::Unhealthy),
            }
        } else {
            answers.await?
        };
        let labels = generation.labels.clone();
        Ok((Predictions { labels, items }, queued.elapsed()))
    }

    async fn encode(
        &self,
        generation: &Generation,
        request: &Arc<Request>,
    ) -> Result<Vec<Encoded>, Refusal> {
        let since = Instant::now();
        let bytes: usize = request.texts.iter().map(Text::bytes).sum();
        let (tokenizer, texts) = (Arc::clone(&generation.tokenizer), Arc::clone(request));
        let work = move || -> Result<Vec<Encoded>, Refusal> {
            let encode = |text| Ok(tokenizer.encode(text, texts.too_long)?);
            texts.texts.iter().map(encode).collect()
        };
        let failed = || Refusal::Engine("its tokenizer panicked".to_owned());
        let encoded = if bytes > BLOCKING_BYTES {
            let permit = Arc::clone(&self.blocking).acquire_owned().await;
            let work = move || {
                let result = work();
                drop(permit);
                result
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| failed())?
        } else {
            let work = std::panic::AssertUnwindSafe(work);
            std::panic::catch_unwind(work).unwrap_or_else(|_| Err(failed()))
        }?;
        self.metrics()
            .tokenize_seconds
            .observe(since.elapsed().as_secs_f64());
        if !encoded.iter().any(|encoded| encoded.truncated) {
            let tokens = encoded
                .iter()
                .map(|encoded| encoded.ids.len())
                .sum::<usize>();
            let forecast = &generation.shared.forecast;
            forecast.learn_tokens(bytes / encoded.len().max(1), tokens / encoded.len().max(1));
        }
        Ok(encoded)
    }
}

/// Puts texts into the queue; `None` when it is closed.
fn enqueue(
    generation: &Generation,
    tickets: &[Ticket],
    encoded: Vec<Encoded>,
    deadline: Option<Instant>,
) -> Option<Vec<oneshot::Receiver<Answer>>> {
    let since = Instant::now();
    let mut replies = Vec::with_capacity(encoded.len());
    let mut entries = Vec::with_capacity(encoded.len());
    for (ticket, encoded) in tickets.iter().zip(encoded) {
        let (reply, receiver) = oneshot::channel();
        entries.push(Waiting::new(ticket, encoded, (since, deadline), reply));
        replies.push(receiver);
    }
    generation.shared.queue.push(entries).ok()?;
    Some(replies)
}

/// The predictions that come in for texts of these lengths, truncated or not, in their order.
async fn answers(
    replies: Vec<oneshot::Receiver<Answer>>,
    shapes: Vec<(usize, bool)>,
) -> Result<Vec<Prediction>, Refusal> {
    let mut items = Vec::with_capacity(replies.len());
    for (reply, (tokens, truncated)) in replies.into_iter().zip(shapes) {
        let lost = || Refusal::Engine("its thread ended without an answer".to_owned());
        let logits = reply.await.unwrap_or_else(|_| Err(lost()))?;
        items.push(Prediction {
            logits,
            tokens,
            truncated,
        });
    }
    Ok(items)
}
