//! The accuracy of a classifier, and its confusions.
//!
//! The classifier is a closure, so that the training network, an exported directory and the server's engine
//! can be evaluated alike.

use std::collections::BTreeMap;
use std::fmt;

use super::data::Example;

/// Texts handed to the classifier at once.
const BATCH: usize = 256;

/// A text that was answered with the wrong label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The text.
    pub text: String,
    /// Its label.
    pub expected: String,
    /// The label that the classifier gave.
    pub answered: String,
}

/// The result of classifying labelled texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// The number of texts.
    pub total: usize,
    /// The number of right answers.
    pub correct: usize,
    /// Counts by expected label and then by given label.
    pub confusion: BTreeMap<String, BTreeMap<String, usize>>,
    /// Every wrong answer, in the order of the texts.
    pub mistakes: Vec<Mistake>,
}

/// Classifies all texts in batches and counts.
///
/// # Errors
/// The first error of the classifier. If it returns fewer labels than texts, only those are counted.
pub fn evaluate<E>(
    examples: &[Example],
    mut classify: impl FnMut(&[&str]) -> Result<Vec<String>, E>,
) -> Result<Evaluation, E> {
    let mut evaluation = Evaluation::default();
    for batch in examples.chunks(BATCH) {
        let texts: Vec<&str> = batch.iter().map(|example| example.text.as_str()).collect();
        for (example, answered) in batch.iter().zip(classify(&texts)?) {
            evaluation.add(example, answered);
        }
    }
    Ok(evaluation)
}

impl Evaluation {
    fn add(&mut self, example: &Example, answered: String) {
        self.total += 1;
        let row = self.confusion.entry(example.label.clone()).or_default();
        *row.entry(answered.clone()).or_default() += 1;
        if example.label == answered {
            self.correct += 1;
        } else {
            let (text, expected) = (example.text.clone(), example.label.clone());
            self.mistakes.push(Mistake {
                text,
                expected,
                answered,
            });
        }
    }

    /// The share of right answers, 0 to 1; 0 without texts.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.total.max(1) as f64
    }

    /// The number of texts of other labels that were given `label`.
    pub fn wrongly_answered(&self, label: &str) -> usize {
        self.mistakes
            .iter()
            .filter(|mistake| mistake.answered == label)
            .count()
    }
}

impl fmt::Display for Evaluation {
    /// Writes a line with the accuracy, then a line for each expected label with the labels given to its texts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = 100.0 * self.accuracy();
        writeln!(f, "{}/{} right, {percent:.2} %", self.correct, self.total)?;
        let width = self
            .confusion
            .keys()
            .map(|label| label.chars().count())
            .max();
        let width = width.unwrap_or(0);
        for (expected, row) in &self.confusion {
            let total: usize = row.values().sum();
            let right = row.get(expected).copied().unwrap_or(0);
            let mut line = format!("  {expected:width$}  {right:>5}/{total:<5}");
            for (answered, count) in row.iter().filter(|(answered, _)| *answered != expected) {
                line.push_str(&format!("  {answered} {count}"));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracy_and_confusion_are_counted() {
        let example = |text: &str, label: &str| Example {
            text: text.into(),
            label: label.into(),
        };
        let examples = [example("a", "A"), example("b", "B"), example("c", "B")];
        let evaluation = evaluate(&examples, |texts| {
            Ok::<_, std::convert::Infallible>(
                texts
                    .iter()
                    .map(|text| if *text == "b" { "B".into() } else { "A".into() })
                    .collect(),
            )
        })
        .expect("infallible");
        assert_eq!((evaluation.total, evaluation.correct), (3, 2));
        assert_eq!(evaluation.confusion["B"]["A"], 1);
        assert_eq!(evaluation.wrongly_answered("A"), 1);
        assert_eq!(evaluation.mistakes[0].text, "c");
        assert!(evaluation.to_string().contains("66.67 %"));
    }

    #[test]
    fn the_first_error_ends_the_evaluation() {
        let examples = [Example {
            text: "a".into(),
            label: "A".into(),
        }];
        assert_eq!(
            evaluate(&examples, |_| Err::<Vec<String>, _>("broken")),
            Err("broken")
        );
    }
}
