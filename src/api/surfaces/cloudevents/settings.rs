//! The settings of events, and what all routes share of them.

use std::sync::Arc;

use super::answer_cache::AnswerCache;
use super::reply::EventSource;
use super::text::TextPointer;

/// How events are read and answered.
#[derive(Debug, Clone)]
pub struct EventSettings {
    /// The position of the text in an event's data, if it is configured.
    pub pointer: Option<TextPointer>,
    /// The source of the events that answer.
    pub source: EventSource,
    /// The number of answers kept so that a redelivered event costs nothing; 0 for none.
    pub kept: usize,
}

/// The settings of events with the cache of their answers.
#[derive(Debug)]
pub(crate) struct EventContext {
    pub(super) settings: EventSettings,
    pub(super) cache: AnswerCache,
}

impl EventContext {
    pub(crate) fn new(settings: &EventSettings) -> Arc<Self> {
        Arc::new(Self {
            settings: settings.clone(),
            cache: AnswerCache::new(settings.kept),
        })
    }
}
