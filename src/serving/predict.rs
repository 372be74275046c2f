//! From an admitted request to its predictions: tokens, queue, replies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission::{Host, Work};
use super::lifecycle::{Generation, Lifecycle};
use super::queue::{Answer, Answered, Ticket, Waiting};
use super::request::{Prediction, Predictions, Request};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::{Encoded, Text, Tokenizer, TooLong};

/// A record of a log should be cut within that: others go first, and not for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// A thread that serves others too is not kept longer than that by one request's texts: some thousand words.
const SLICE: Duration = Duration::from_micros(200);

/// What predicting needs beside an admitted request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predictor<'a> {
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) host: &'a Arc<Host>,
    pub(super) metrics: &'a Metrics,
}

impl Predictor<'_> {
    /// The predictions for the texts of `request`, each of which holds a ticket. A large request may have its turn
    /// on the host already: `work`.
    pub(super) async fn predict(
        self,
        mut generation: Arc<Generation>,
        request: Request,
        tickets: &[Ticket],
        deadline: Option<Instant>,
        mut work: Option<Work>,
    ) -> Result<Predictions, Refusal> {
        let request = Arc::new(request);
        let since = Instant::now();
        let (replies, shapes) = loop {
            let encoded = self.encode(&generation, &request, deadline, work.take());
            let encoded = encoded.await?;
            let shapes: Vec<(usize, bool)> = encoded
                .iter()
                .map(|encoded| (encoded.ids.len(), encoded.truncated))
                .collect();
            if let Some(replies) = enqueue(&generation, tickets, encoded, deadline) {
                break (replies, shapes);
            }
            // Replaced while the texts were tokenized: the new model has a tokenizer of its own.
            generation = match self.lifecycle.current() {
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
        Ok(Predictions {
            labels: generation.labels.clone(),
            items,
            tokenized: queued - since,
            inside: queued.elapsed(),
            generation: generation.number,
        })
    }

    async fn encode(
        &self,
        generation: &Generation,
        request: &Arc<Request>,
        until: Option<Instant>,
        work: Option<Work>,
    ) -> Result<Vec<Encoded>, Refusal> {
        let since = Instant::now();
        let bytes: usize = request.texts.iter().map(Text::bytes).sum();
        let tokenizer = &generation.tokenizer;
        let is_large = generation.forecast.is_large(bytes);
        let mut account = match work {
            // Nobody has let it wait for its turn yet: it came from a log, or the model is another by now.
            None if is_large => {
                let until = until.unwrap_or_else(|| Instant::now() + PATIENCE);
                Some(self.host.begin(bytes, until).await)
            }
            work => work,
        };
        let encoded = if tokenizer.reads_by_need() || !is_large {
            let encoded = encode_in_slices(tokenizer, request, account.as_mut()).await?;
            if let Some(account) = account {
                account.finish();
            }
            Ok(encoded)
        } else {
            let (tokenizer, request) = (Arc::clone(tokenizer), Arc::clone(request));
            let work = move || {
                let encode = || encode_all(&tokenizer, &request.texts, request.too_long);
                let Some(mut account) = account else {
                    return encode();
                };
                let encoded = account.spend(encode)?;
                account.finish();
                Ok(encoded)
            };
            off_thread(work).await
        }?;
        self.metrics
            .tokenize_seconds
            .observe(since.elapsed().as_secs_f64());
        if !encoded.iter().any(|encoded| encoded.truncated) {
            let tokens = encoded
                .iter()
                .map(|encoded| encoded.ids.len())
                .sum::<usize>();
            let forecast = &generation.forecast;
            forecast.learn_tokens(bytes / encoded.len().max(1), tokens / encoded.len().max(1));
        }
        Ok(encoded)
    }
}

fn encode_all(
    tokenizer: &Tokenizer,
    texts: &[Text],
    too_long: TooLong,
) -> Result<Vec<Encoded>, Refusal> {
    let encode = |text| Ok(tokenizer.encode(text, too_long)?);
    texts.iter().map(encode).collect()
}

/// Encodes text after text, and lets others pass between them.
async fn encode_in_slices(
    tokenizer: &Tokenizer,
    request: &Request,
    mut account: Option<&mut Work>,
) -> Result<Vec<Encoded>, Refusal> {
    let mut encoded = Vec::with_capacity(request.texts.len());
    while encoded.len() < request.texts.len() {
        let mut slice = || {
            let since = Instant::now();
            for text in &request.texts[encoded.len()..] {
                encoded.push(tokenizer.encode(text, request.too_long)?);
                if since.elapsed() > SLICE {
                    break;
                }
            }
            Ok(())
        };
        let mut guarded = || catch_unwind(AssertUnwindSafe(&mut slice));
        let done = match &mut account {
            Some(account) => account.spend(&mut guarded),
            None => guarded(),
        };
        done.unwrap_or_else(|_| Err(panicked()))?;
        if encoded.len() < request.texts.len() {
            tokio::task::yield_now().await;
        }
    }
    Ok(encoded)
}

/// Runs what would keep an async thread for long.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Refusal {
    Refusal::Engine("its tokenizer panicked".to_owned())
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
    generation.pipeline.queue.push(entries).ok()?;
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
        let Answered { logits, computed } = reply.await.unwrap_or_else(|_| Err(lost()))?;
        items.push(Prediction {
            logits,
            tokens,
            truncated,
            computed,
        });
    }
    Ok(items)
}
