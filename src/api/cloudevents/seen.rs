//! Answers to events that may be delivered again.
//!
//! Knative delivers at least once: an answer that was lost on its way, or a consumer that was moved, brings
//! the same event once more. What names an event is its source with its id (CloudEvents 1.0.2, section
//! 3.1.1).

use std::fmt::Write as _;
use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::event::Cause;
use crate::model::{Text, TooLong};
use crate::serving::Predictions;

/// What names an event and what is asked for it: a sender that gives two events one name gets no
/// wrong answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
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

    /// A name for the event that answers: the same each time, so that whoever gets two can tell.
    pub(super) fn id(&self) -> String {
        self.0[..16].iter().fold(String::new(), |mut id, byte| {
            // Writing to a string does not fail.
            let _ = write!(id, "{byte:02x}");
            id
        })
    }
}

/// The answers that are kept.
#[derive(Debug)]
pub(super) struct Seen(Option<Cache<Key, Arc<Predictions>>>);

impl Seen {
    /// Keeps so many.
    pub(super) fn new(kept: usize) -> Self {
        Self((kept > 0).then(|| Cache::new(kept)))
    }

    /// The answer that was given by this generation of the model.
    pub(super) fn recall(&self, key: &Key, generation: Option<u64>) -> Option<Arc<Predictions>> {
        let known = self.0.as_ref()?.get(key)?;
        (Some(known.generation) == generation).then_some(known)
    }

    pub(super) fn remember(&self, key: &Key, predictions: &Arc<Predictions>) {
        // A list may be long, and the memory is counted in events.
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

    fn key(source: &str, id: &str, text: &str) -> Key {
        let cause = Cause {
            id: id.to_owned(),
            source: source.to_owned(),
            carried: Vec::new(),
        };
        Key::new(&cause, &[Text::Single(text.to_owned())], TooLong::Truncate)
    }

    #[test]
    fn an_event_is_known_by_source_id_and_text() {
        assert_eq!(key("a", "b", "c"), key("a", "b", "c"));
        assert_ne!(key("a", "bc", ""), key("ab", "c", ""));
        assert_ne!(key("a", "b", "c"), key("a", "b", "d"));
        assert_eq!(key("a", "b", "c").id().len(), 32);
    }

    #[test]
    fn another_model_has_answered_nothing_yet() {
        let seen = Seen::new(10);
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
        assert!(seen.recall(&key, Some(3)).is_none());
        seen.remember(&key, &predictions);
        assert!(seen.recall(&key, Some(3)).is_some());
        assert!(seen.recall(&key, Some(4)).is_none());
        let none = Seen::new(0);
        none.remember(&key, &predictions);
        assert!(none.recall(&key, Some(3)).is_none());
    }
}
