//! Predictions for an admitted request: tokenizing, queueing, collecting the replies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission::{HostTurn, HostWork};
use super::lifecycle::{Generation, Lifecycle};
use super::queue::{QueuedText, Reply, TextOutput, Ticket};
use super::request::{Prediction, Predictions, Request};
use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::model::{Encoded, Text, Tokenizer, TooLong};

/// Time within which a large log record should be tokenized; more urgent requests go first.
const RECORD_TIME: Duration = Duration::from_secs(5);

/// Time after which tokenizing yields to other tasks: about a thousand words.
const SLICE: Duration = Duration::from_micros(200);

/// The length of a text and whether it was truncated.
#[derive(Debug, Clone, Copy)]
struct TextShape {
    tokens: usize,
    is_truncated: bool,
}

impl TextShape {
    fn of(encoded: &Encoded) -> Self {
        Self {
            tokens: encoded.ids.len(),
            is_truncated: encoded.truncated,
        }
    }
}

/// The parts of the classifier that predictions need.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextPredictor<'a> {
    pub(super) lifecycle: &'a Lifecycle,
    pub(super) host: &'a Arc<HostWork>,
    pub(super) metrics: &'a Metrics,
}

impl TextPredictor<'_> {
    /// Predictions for the texts of `request`, each of which holds a ticket. `turn` is that of a large
    /// request, if it already has one.
    pub(super) async fn predict(
        self,
        mut generation: Arc<Generation>,
        request: Request,
        tickets: &[Ticket],
        deadline: Option<Instant>,
        mut turn: Option<HostTurn>,
    ) -> Result<Predictions, Refusal> {
        let request = Arc::new(request);
        let since = Instant::now();
        let (replies, shapes) = loop {
            let encoded = self.encode(&generation, &request, deadline, turn.take());
            let encoded = encoded.await?;
            let shapes: Vec<TextShape> = encoded.iter().map(TextShape::of).collect();
            if let Some(replies) = enqueue(&generation, tickets, encoded, deadline) {
                break (replies, shapes);
            }
            // The model was replaced while the texts were tokenized. The new one has its own tokenizer.
            generation = match self.lifecycle.current() {
                Some(newer) if newer.number > generation.number => newer,
                _ => return Err(Refusal::Unhealthy),
            };
        };
        let queued = Instant::now();
        let answers = collect(replies, shapes);
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
        turn: Option<HostTurn>,
    ) -> Result<Vec<Encoded>, Refusal> {
        let since = Instant::now();
        let bytes: usize = request.texts.iter().map(Text::bytes).sum();
        let tokenizer = &generation.tokenizer;
        let is_large = generation.forecast.is_large(bytes);
        let mut turn = match turn {
            // It has not waited for its turn yet: it is a log record, or the model has been replaced.
            None if is_large => {
                let until = until.unwrap_or_else(|| Instant::now() + RECORD_TIME);
                Some(self.host.begin(bytes, until).await)
            }
            turn => turn,
        };
        let encoded = if tokenizer.reads_by_need() || !is_large {
            let encoded = encode_in_slices(tokenizer, request, turn.as_mut()).await?;
            if let Some(turn) = turn {
                turn.finish();
            }
            Ok(encoded)
        } else {
            let (tokenizer, request) = (Arc::clone(tokenizer), Arc::clone(request));
            let work = move || {
                let encode = || encode_all(&tokenizer, &request.texts, request.too_long);
                let Some(mut turn) = turn else {
                    return encode();
                };
                let encoded = turn.spend(encode)?;
                turn.finish();
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

/// Encodes one text after another and yields in between.
async fn encode_in_slices(
    tokenizer: &Tokenizer,
    request: &Request,
    mut turn: Option<&mut HostTurn>,
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
        let done = match &mut turn {
            Some(turn) => turn.spend(&mut guarded),
            None => guarded(),
        };
        done.unwrap_or_else(|_| Err(panicked()))?;
        if encoded.len() < request.texts.len() {
            tokio::task::yield_now().await;
        }
    }
    Ok(encoded)
}

/// Runs long work on a blocking thread.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let result = tokio::task::spawn_blocking(work).await;
    result.unwrap_or_else(|_| Err(panicked()))
}

fn panicked() -> Refusal {
    Refusal::Engine("its tokenizer panicked".to_owned())
}

/// Queues the texts; `None` if the queue is closed.
fn enqueue(
    generation: &Generation,
    tickets: &[Ticket],
    encoded: Vec<Encoded>,
    deadline: Option<Instant>,
) -> Option<Vec<oneshot::Receiver<Reply>>> {
    let since = Instant::now();
    let mut replies = Vec::with_capacity(encoded.len());
    let mut entries = Vec::with_capacity(encoded.len());
    for (ticket, encoded) in tickets.iter().zip(encoded) {
        let (reply, receiver) = oneshot::channel();
        entries.push(QueuedText::new(ticket, encoded, since, deadline, reply));
        replies.push(receiver);
    }
    generation.pipeline.queue.push(entries).ok()?;
    Some(replies)
}

/// Collects the predictions for texts of these shapes, in their order.
async fn collect(
    replies: Vec<oneshot::Receiver<Reply>>,
    shapes: Vec<TextShape>,
) -> Result<Vec<Prediction>, Refusal> {
    let mut items = Vec::with_capacity(replies.len());
    for (reply, shape) in replies.into_iter().zip(shapes) {
        let lost = || Refusal::Engine("its thread ended without an answer".to_owned());
        let TextOutput { logits, computed } = reply.await.unwrap_or_else(|_| Err(lost()))?;
        items.push(Prediction {
            logits,
            tokens: shape.tokens,
            truncated: shape.is_truncated,
            computed,
        });
    }
    Ok(items)
}
