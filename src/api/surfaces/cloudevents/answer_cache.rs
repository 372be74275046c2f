//! A cache of answers to events, which may be delivered again.
//!
//! Knative delivers at least once: it sends an event again after a lost answer or a rebalance of consumers. Source and
//! id together identify an event (CloudEvents 1.0.2, section 3.1.1).

use std::fmt::Write as _;
use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::event::Cause;
use crate::model::{Text, TooLong};
use crate::serving::Predictions;

/// A digest of an event's identity and of what it asks for. A sender that gives two events the same identity gets
/// no wrong answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EventKey([u8; 32]);

impl EventKey {
    pub(super) fn new(cause: &Cause, texts: &[Text], too_long: TooLong) -> Self {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        };
        part(match too_long {
            TooLong::Truncate => "truncate",
            TooLong::Refuse => "refuse",
        });
        part(&cause.source);
        part(&cause.id);
        for text in texts {
            match text {
                Text::Single(text) => {
                    part("single");
                    part(text);
                }
                Text::Pair(first, second) => {
                    part("pair");
                    part(first);
                    part(second);
                }
            }
        }
        Self(hash.finalize().into())
    }

    /// The id of the event that answers. It is the same each time, so receivers can recognize duplicates.
    pub(super) fn id(&self) -> String {
        self.0[..16].iter().fold(String::new(), |mut id, byte| {
            // Writing to a string does not fail.
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

/// The answers kept, by event.
#[derive(Debug)]
pub(super) struct AnswerCache(Option<Cache<EventKey, Arc<Predictions>>>);

impl AnswerCache {
    /// Keeps up to `kept` answers.
    pub(super) fn new(kept: usize) -> Self {
        Self((kept > 0).then(|| Cache::new(kept)))
    }

    /// The answer of this generation of the model, if it is kept.
    pub(super) fn recall(
        &self,
        key: &EventKey,
        generation: Option<u64>,
    ) -> Option<Arc<Predictions>> {
        let known = self.0.as_ref()?.get(key)?;
        (Some(known.generation) == generation).then_some(known)
    }

    /// Keeps the answer to an event with a single text.
    pub(super) fn remember(&self, key: &EventKey, predictions: &Arc<Predictions>) {
        // A list may be long, and the cache is bounded in events.
        if let (Some(cache), [_]) = (&self.0, &predictions.items[..]) {
            cache.insert(key.clone(), Arc::clone(predictions));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::serving::Prediction;

    fn key(source: &str, id: &str, text: &str) -> EventKey {
        let cause = Cause {
            id: id.to_owned(),
            source: source.to_owned(),
            carried: Vec::new(),
        };
        EventKey::new(&cause, &[Text::Single(text.to_owned())], TooLong::Truncate)
    }

    #[test]
    fn an_event_is_identified_by_source_id_and_text() {
        assert_eq!(key("a", "b", "c"), key("a", "b", "c"));
        assert_ne!(key("a", "bc", ""), key("ab", "c", ""));
        assert_ne!(key("a", "b", "c"), key("a", "b", "d"));
        assert_eq!(key("a", "b", "c").id().len(), 32);
    }

    #[test]
    fn answers_of_another_model_are_not_recalled() {
        let cache = AnswerCache::new(10);
        let predictions = Arc::new(Predictions {
            generation: 3,
            items: vec![Prediction {
                logits: vec![1.0],
                tokens: 3,
                truncated: false,
                computed: Duration::ZERO,
            }],
            ..Predictions::default()
        });
        let key = key("a", "b", "c");
        assert!(cache.recall(&key, Some(3)).is_none());
        cache.remember(&key, &predictions);
        assert!(cache.recall(&key, Some(3)).is_some());
        assert!(cache.recall(&key, Some(4)).is_none());
        let none = AnswerCache::new(0);
        none.remember(&key, &predictions);
        assert!(none.recall(&key, Some(3)).is_none());
    }
}
