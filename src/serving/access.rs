//! What others see of a classifier, and how requests come to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::arrivals::{Arrivals, Try};
use super::classifier::{Classifier, Phase};
use super::messages::{Limits, ModelCard};
use super::offer::Offer;
use crate::metrics::{Metrics, Surface};
use crate::turns::Turns;

impl Classifier {
    /// The process's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether requests are answered, and well, and whether everything that feeds it has begun.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Ready && !self.is_unwell() && self.is_fed()
    }

    /// Says whether what feeds this classifier beside requests, such as a topic of Kafka, has begun.
    pub fn set_fed(&self, is_fed: bool) {
        self.is_fed.store(is_fed, Ordering::Release);
    }

    /// Whether what feeds this classifier beside requests has begun, or there is nothing else.
    pub fn is_fed(&self) -> bool {
        self.is_fed.load(Ordering::Acquire)
    }

    /// The turns that large requests take.
    pub(crate) fn turns(&self) -> &Arc<Turns> {
        self.host.turns()
    }

    /// Its bounds.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What is known of the model in use, if one is.
    pub fn model(&self) -> Option<ModelCard> {
        let generation = self.current()?;
        Some(ModelCard {
            origin: generation.origin.clone(),
            dtype: generation.dtype,
            labels: generation.labels.clone(),
            max_tokens: generation.tokenizer.max_tokens(),
            is_on_device: generation.is_on_device,
        })
    }

    /// Which of the models that this process has loaded is in use.
    pub fn generation(&self) -> Option<u64> {
        self.current().map(|generation| generation.number)
    }

    /// What has come so far.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// A request has come in; nobody wants its answer after `timeout`.
    pub fn offer(&self, surface: Surface, timeout: Option<Duration>, attempt: Try) -> Offer<'_> {
        Offer::new(self, surface, timeout, attempt)
    }
}
