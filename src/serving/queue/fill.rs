//! Selects the waiting texts of the next batch. Pure policy, which the queue follows.

use super::slots::Class;

/// The size limits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Tokens in a batch. A longer text makes a batch of its own.
    pub tokens_max: usize,
    /// Texts in a batch.
    pub texts_max: usize,
}

/// Lead of one class over the other in tokens taken while both waited: positive for single texts. Kept from
/// batch to batch, because a batch may hold only one text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lead(i64);

/// A batch that is being filled.
#[derive(Debug)]
pub(crate) struct Filling {
    limits: BatchLimits,
    texts: usize,
    tokens: usize,
}

impl Filling {
    pub(crate) fn new(limits: BatchLimits) -> Self {
        Self {
            limits,
            texts: 0,
            tokens: 0,
        }
    }

    /// The class whose oldest text is next; `None` when the batch is full. `single` and `list` are the tokens
    /// of the oldest text in each class.
    ///
    /// Within a class, first come, first served: a text that does not fit ends the batch, so that a long one
    /// cannot be overtaken for ever. Between classes, the one that is behind is next.
    pub(crate) fn next(
        &self,
        lead: Lead,
        single: Option<usize>,
        list: Option<usize>,
    ) -> Option<Class> {
        let (class, tokens) = match (single, list) {
            (Some(single), Some(_)) if lead.0 <= 0 => (Class::Single, single),
            (Some(single), None) => (Class::Single, single),
            (_, Some(list)) => (Class::List, list),
            (None, None) => return None,
        };
        let fits = self.tokens + tokens <= self.limits.tokens_max
            && self.texts < self.limits.texts_max.max(1);
        (fits || self.texts == 0).then_some(class)
    }

    /// Adds a text of `tokens`. `contested` says whether the other class waits too.
    pub(crate) fn add(&mut self, class: Class, tokens: usize, contested: bool, lead: &mut Lead) {
        self.texts += 1;
        self.tokens += tokens;
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX / 4);
        match (contested, class) {
            // A class that waits alone takes nothing from the other.
            (false, _) => lead.0 = 0,
            (true, Class::Single) => lead.0 += tokens,
            (true, Class::List) => lead.0 -= tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of single texts and list texts in a batch filled from these.
    fn fill(
        singles: &[usize],
        lists: &[usize],
        tokens_max: usize,
        lead: &mut Lead,
    ) -> (usize, usize) {
        let limits = BatchLimits {
            tokens_max,
            texts_max: 3,
        };
        let mut filling = Filling::new(limits);
        let (mut s, mut l) = (0, 0);
        while let Some(class) = filling.next(*lead, singles.get(s).copied(), lists.get(l).copied())
        {
            let (tokens, contested) = match class {
                Class::Single => (singles[s], l < lists.len()),
                Class::List => (lists[l], s < singles.len()),
            };
            filling.add(class, tokens, contested, lead);
            match class {
                Class::Single => s += 1,
                Class::List => l += 1,
            }
        }
        (s, l)
    }

    #[test]
    fn a_batch_takes_what_fits_and_at_least_one_text() {
        let fill = |singles: &[usize]| fill(singles, &[], 10, &mut Lead::default()).0;
        assert_eq!(fill(&[]), 0);
        assert_eq!(fill(&[4, 4, 4]), 2);
        assert_eq!(fill(&[4, 4, 2]), 3);
        assert_eq!(fill(&[1, 1, 1, 1]), 3);
        assert_eq!(
            fill(&[11, 1]),
            1,
            "a text larger than a batch makes one of its own"
        );
        assert_eq!(fill(&[1, 11, 1]), 1, "no text overtakes a long one");
    }

    #[test]
    fn two_classes_take_turns_across_batches() {
        let mut lead = Lead::default();
        assert_eq!(fill(&[2; 9], &[2; 9], 100, &mut lead), (2, 1));
        assert_eq!(fill(&[2; 9], &[2; 9], 100, &mut lead), (1, 2));
        let mut lead = Lead::default();
        let batches: Vec<_> = (0..4)
            .map(|_| fill(&[5; 9], &[5; 9], 5, &mut lead))
            .collect();
        assert_eq!(batches, [(1, 0), (0, 1), (1, 0), (0, 1)]);
    }

    #[test]
    fn a_class_that_waits_alone_gains_no_lead() {
        let mut lead = Lead::default();
        for _ in 0..10 {
            fill(&[], &[5; 9], 100, &mut lead);
        }
        assert_eq!(fill(&[5], &[5], 5, &mut lead), (1, 0));
        assert_eq!(fill(&[5], &[5], 5, &mut lead), (0, 1));
    }
}
