//! The names of the classes and the conversion of logits to scores.

use std::sync::Arc;

use super::config::Scoring;
use super::error::CheckpointError;
use super::files::Files;

/// Class names by row of the classifier, and the scoring function.
#[derive(Debug, Clone, Default)]
pub struct Labels {
    names: Arc<[Arc<str>]>,
    scoring: Scoring,
}

/// A class and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The class.
    pub label: Arc<str>,
    /// Probability (softmax, sigmoid) or raw logit (regression).
    pub score: f32,
}

impl Labels {
    /// Labels for `rows` classifier rows, named by `id2label`. A row without a name is
    /// `LABEL_<row>`, as in transformers.
    ///
    /// # Errors
    /// An id without a classifier row, or an id that is named twice (`"1"` and `"01"`).
    pub fn new(
        files: &Files,
        id2label: Option<&[(usize, String)]>,
        rows: usize,
        scoring: Option<Scoring>,
    ) -> Result<Self, CheckpointError> {
        let mut names: Vec<Option<Arc<str>>> = vec![None; rows];
        for (id, label) in id2label.unwrap_or_default() {
            let invalid = |expected: String| {
                CheckpointError::invalid(files.path("config.json"), "id2label", expected, id)
            };
            match names.get_mut(*id) {
                Some(slot @ None) => *slot = Some(label.as_str().into()),
                Some(Some(_)) => return Err(invalid("each id once".to_owned())),
                None => {
                    return Err(invalid(format!(
                        "ids below {rows} (classifier.weight has {rows} rows)"
                    )));
                }
            }
        }
        let named = |(row, name): (usize, Option<Arc<str>>)| {
            name.unwrap_or_else(|| format!("LABEL_{row}").into())
        };
        // A softmax of one output is constant. transformers' pipeline uses the sigmoid then, unless
        // problem_type is regression.
        let scoring = match scoring.unwrap_or(Scoring::Softmax) {
            Scoring::Softmax if rows == 1 => Scoring::Sigmoid,
            scoring => scoring,
        };
        Ok(Self {
            names: names.into_iter().enumerate().map(named).collect(),
            scoring,
        })
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no class. Never true for a loaded checkpoint.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Class names by row.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// The scoring function.
    pub fn scoring(&self) -> Scoring {
        self.scoring
    }

    /// All classes with their scores, best first. Equal scores keep the row order.
    ///
    /// `logits` has one value per class.
    pub fn scores(&self, logits: &[f32]) -> Vec<Score> {
        self.scored(self.scoring, logits)
    }

    /// Like [`scores`](Self::scores), with another scoring function.
    pub fn scored(&self, scoring: Scoring, logits: &[f32]) -> Vec<Score> {
        self.ranked(activate(scoring, logits))
    }

    /// Scores in row order.
    pub fn in_order(&self, logits: &[f32]) -> Vec<f32> {
        activate(self.scoring, logits)
    }

    fn ranked(&self, values: Vec<f32>) -> Vec<Score> {
        let score = |(label, score): (&Arc<str>, f32)| Score {
            label: Arc::clone(label),
            score,
        };
        let mut scores: Vec<Score> = self.names.iter().zip(values).map(score).collect();
        scores.sort_by(|a, b| b.score.total_cmp(&a.score));
        scores
    }

    /// The best class and its score, without ranking the others.
    pub fn best(&self, logits: &[f32]) -> Score {
        let mut best = 0;
        for (row, logit) in logits.iter().enumerate() {
            if *logit > logits[best] {
                best = row;
            }
        }
        let score = activate(self.scoring, logits).swap_remove(best);
        Score {
            label: Arc::clone(&self.names[best]),
            score,
        }
    }
}

/// Scores of one row of logits, in row order.
fn activate(scoring: Scoring, logits: &[f32]) -> Vec<f32> {
    match scoring {
        Scoring::Identity => logits.to_vec(),
        Scoring::Sigmoid => logits.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Scoring::Softmax => {
            // Subtracting the maximum keeps exp in range for all finite logits.
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut scores: Vec<f32> = logits.iter().map(|x| (x - max).exp()).collect();
            let sum: f32 = scores.iter().sum();
            scores.iter_mut().for_each(|score| *score /= sum);
            scores
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(rows: usize, scoring: Option<Scoring>) -> Labels {
        Labels::new(&Files::Embedded("test", &[]), None, rows, scoring).unwrap()
    }

    #[test]
    fn rows_without_names_get_defaults_and_ids_without_rows_are_refused() {
        let files = Files::Embedded("test", &[]);
        let given = [(1, "Yes".to_owned())];
        let labels = Labels::new(&files, Some(&given), 2, None).unwrap();
        assert_eq!(labels.names().collect::<Vec<_>>(), ["LABEL_0", "Yes"]);
        let error = Labels::new(&files, Some(&[(2, "No".to_owned())]), 2, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "test/config.json: id2label: expected ids below 2 (classifier.weight has 2 rows), \
             found 2"
        );
    }

    #[test]
    fn softmax_of_extreme_logits_is_finite() {
        let scores = labels(2, None).scores(&[1.0, -100.0]);
        assert_eq!((&*scores[0].label, scores[0].score), ("LABEL_0", 1.0));
        let scores = labels(3, None).scores(&[3e38, -3e38, 0.0]);
        assert!(scores.iter().all(|s| s.score.is_finite()));
    }

    #[test]
    fn sigmoid_scores_are_independent_and_sorted() {
        let scores = labels(3, Some(Scoring::Sigmoid)).scores(&[0.0, 2.0, -2.0]);
        let order: Vec<&str> = scores.iter().map(|s| &*s.label).collect();
        assert_eq!(order, ["LABEL_1", "LABEL_0", "LABEL_2"]);
        assert!((scores[0].score + scores[2].score - 1.0).abs() < 1e-6);
        assert_eq!(scores[1].score, 0.5);
    }

    #[test]
    fn best_equals_the_first_of_the_ranking_also_for_ties() {
        let labels = labels(4, None);
        for logits in [
            [0.0, 1.0, 1.0, -1.0],
            [5.0, 5.0, 5.0, 5.0],
            [-3.0, -2.0, -1.0, 0.0],
        ] {
            assert_eq!(labels.best(&logits), labels.scores(&logits)[0]);
        }
    }

    #[test]
    fn one_output_is_scored_by_the_sigmoid() {
        assert_eq!(labels(1, None).scoring(), Scoring::Sigmoid);
    }
}
