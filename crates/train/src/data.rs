//! Labelled texts: read from JSONL, mapped to the model's labels, split, and cleared of test texts.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::random::{Purpose, chance, stream};
use super::recipe::{LabelMap, Recipe, Source};
use intentd_base::input;

/// One labelled text, and one line of a data file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Example {
    /// The text as a user would send it.
    pub text: String,
    /// The name of its intent.
    pub label: String,
}

/// Reads a JSONL file of `{"text": …, "label": …}` objects. Blank lines are skipped, other keys are
/// ignored.
///
/// # Errors
/// When the file cannot be read, or a line is malformed or has an empty label; the error names the
/// line.
pub fn read_examples(path: &Path) -> Result<Vec<Example>, TrainError> {
    let file = input::open(path).map_err(TrainError::io(path))?;
    let mut examples = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let wrong = |reason| TrainError::Line {
            path: path.to_path_buf(),
            line: index + 1,
            reason,
        };
        let line = line.map_err(|e| wrong(e.to_string()))?;
        // Some editors write a byte order mark.
        let line = line.strip_prefix('\u{feff}').unwrap_or(&line);
        if line.trim().is_empty() {
            continue;
        }
        let example: Example = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        if example.label.trim().is_empty() {
            return Err(wrong("the label is empty".to_owned()));
        }
        if example.label.trim() != example.label || example.label.contains(char::is_control) {
            let reason = "the label has blanks around it or control characters in it";
            return Err(wrong(reason.to_owned()));
        }
        examples.push(example);
    }
    Ok(examples)
}

/// A named set of texts to evaluate on.
#[derive(Debug, Clone)]
pub struct HeldOut {
    /// The name in reports.
    pub name: String,
    /// The texts, with the model's labels.
    pub examples: Vec<Example>,
}

/// All texts of a run.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The training texts.
    pub train: Vec<Example>,
    /// The sets to choose settings by.
    pub validation: Vec<HeldOut>,
    /// The sets to report on.
    pub test: Vec<HeldOut>,
    /// The model's labels in order of their ids (sorted by name).
    pub labels: Vec<String>,
    /// The number of training rows left out because a validation or test set has the same text.
    pub excluded: usize,
    /// Training rows kept back to validate with.
    pub held_out: usize,
    /// The [`text_key`]s of those rows.
    pub overlap: BTreeSet<String>,
}

impl Corpus {
    /// Reads all files of a recipe.
    ///
    /// # Errors
    /// When a file is missing or malformed, or fewer than two labels are left.
    pub fn assemble(recipe: &Recipe, data_dir: &Path) -> Result<Self, TrainError> {
        let mut protected = HashSet::new();
        let mut held = |sources: &[Source]| -> Result<Vec<HeldOut>, TrainError> {
            sources
                .iter()
                .map(|source| {
                    let rows = read_examples(&recipe.locate(source, data_dir))?;
                    protected.extend(rows.iter().map(|row| text_key(&row.text)));
                    let examples = map_rows(rows, source, recipe);
                    Ok(HeldOut {
                        name: source.title(),
                        examples,
                    })
                })
                .collect()
        };
        let mut validation = held(&recipe.validation)?;
        let test = held(&recipe.test)?;

        let (mut train, mut overlap) = (Vec::new(), BTreeSet::new());
        let (mut excluded, mut held_out) = (0, 0);
        let mut rng = stream(recipe.seed, Purpose::HoldOut, 0);
        for source in &recipe.train {
            let rows = read_examples(&recipe.locate(source, data_dir))?;
            let rows = map_rows(rows, source, recipe);
            let protected_row = |row: &Example| {
                let key = text_key(&row.text);
                // A text of only punctuation has an empty key.
                !key.is_empty() && protected.contains(&key)
            };
            let (known, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(protected_row);
            excluded += known.len();
            overlap.extend(known.iter().map(|row| text_key(&row.text)));
            let back = draw_held_out(&rows, source.hold_out, &mut rng);
            let mut kept_back = Vec::new();
            for (row, back) in rows.into_iter().zip(back) {
                if back {
                    kept_back.push(row);
                } else {
                    train.extend(std::iter::repeat_n(row, source.repeat));
                }
            }
            held_out += kept_back.len();
            if !kept_back.is_empty() {
                let name = format!("{} (held out)", source.title());
                validation.push(HeldOut {
                    name,
                    examples: kept_back,
                });
            }
        }
        drop_held_out_duplicates(&mut train, &validation);
        let labels = labels_of(&train)?;
        check_background(recipe, &labels)?;
        Ok(Self {
            train,
            validation,
            test,
            labels,
            excluded,
            held_out,
            overlap,
        })
    }
}

/// Draws the rows to keep back from training. At most half of a label's rows are kept back, and no text that
/// occurs so often that it must be learned.
fn draw_held_out(rows: &[Example], share: f64, rng: &mut impl Rng) -> Vec<bool> {
    const OFTEN: usize = 20;
    let mut copies: HashMap<String, usize> = HashMap::new();
    let mut room: HashMap<&str, usize> = HashMap::new();
    for row in rows {
        *copies.entry(text_key(&row.text)).or_default() += 1;
        *room.entry(&row.label).or_default() += 1;
    }
    room.values_mut().for_each(|rows| *rows /= 2);
    let mut back = Vec::with_capacity(rows.len());
    for row in rows {
        let drawn = chance(rng, share);
        let often = copies[&text_key(&row.text)] >= OFTEN;
        let room = room.entry(&row.label).or_default();
        let held = drawn && !often && *room > 0;
        *room -= usize::from(held);
        back.push(held);
    }
    back
}

/// The key by which two texts are the same: case-folded words without punctuation.
pub fn text_key(text: &str) -> String {
    words(text).join(" ")
}

/// The case-folded words of a text; punctuation separates or vanishes, apostrophes join.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace(['\'', '’'], "")
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Removes training rows with the text of a held-out row, which would make validation too easy.
fn drop_held_out_duplicates(train: &mut Vec<Example>, validation: &[HeldOut]) {
    let keys: HashSet<String> = validation
        .iter()
        .flat_map(|set| &set.examples)
        .map(|row| text_key(&row.text))
        .collect();
    train.retain(|row| {
        let key = text_key(&row.text);
        key.is_empty() || !keys.contains(&key)
    });
}

fn map_rows(rows: Vec<Example>, source: &Source, recipe: &Recipe) -> Vec<Example> {
    let keep_all = LabelMap::default();
    let map = source
        .map
        .as_ref()
        .and_then(|name| recipe.maps.get(name))
        .unwrap_or(&keep_all);
    rows.into_iter()
        .filter(|row| source.only.is_empty() || source.only.contains(&row.label))
        .filter(|row| !map.drop.contains(&row.label))
        .map(|row| {
            let renamed = map.rename.get(&row.label).or(map.default.as_ref());
            Example {
                label: renamed.cloned().unwrap_or(row.label),
                text: row.text,
            }
        })
        .collect()
}

fn check_background(recipe: &Recipe, labels: &[String]) -> Result<(), TrainError> {
    match &recipe.background {
        Some(background) if !labels.contains(background) => Err(TrainError::Recipe(format!(
            "no training text has the background label {background:?}"
        ))),
        _ => Ok(()),
    }
}

fn labels_of(train: &[Example]) -> Result<Vec<String>, TrainError> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in train {
        *counts.entry(&row.label).or_default() += 1;
    }
    let labels: Vec<String> = counts.into_keys().map(str::to_owned).collect();
    match labels.as_slice() {
        [] => Err(TrainError::Empty),
        [only] => Err(TrainError::OneLabel(only.clone())),
        _ => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(dir: &Path, name: &str, lines: &[&str]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, lines.join("\n")).expect("a temporary file can be written");
        path
    }

    fn assemble(lines: &[&str]) -> Result<Corpus, TrainError> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = file(dir.path(), "data.jsonl", lines);
        let mut recipe = Recipe::for_file(&path);
        recipe.train[0].hold_out = 0.0;
        Corpus::assemble(&recipe, dir.path())
    }

    #[test]
    fn a_frequent_text_and_a_rare_label_are_not_kept_back_entirely() {
        let row = |text: String, label: &str| Example {
            text,
            label: label.into(),
        };
        let mut rows: Vec<Example> = (0..50).map(|_| row("yes".into(), "Yes")).collect();
        rows.extend((0..50).map(|number| row(format!("no {number}"), "No")));
        rows.push(row("perhaps".into(), "Rare"));
        let back = draw_held_out(&rows, 1.0, &mut stream(1, Purpose::HoldOut, 0));
        let held = |label: &str| {
            rows.iter()
                .zip(&back)
                .filter(|(row, back)| **back && row.label == label)
                .count()
        };
        assert_eq!((held("Yes"), held("No"), held("Rare")), (0, 25, 0));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let good = r#"{"text":"a","label":"x"}"#;
        for bad in [r#"{"text":"a"}"#, "not json", r#"{"text":"a","label":" "}"#] {
            let error = assemble(&[good, "", bad])
                .expect_err("line 3 is wrong")
                .to_string();
            assert!(error.contains("data.jsonl:3:"), "{error}");
        }
    }

    #[test]
    fn missing_empty_and_single_label_data_are_refused() {
        let missing = Recipe::for_file(Path::new("absent.jsonl"));
        let error = Corpus::assemble(&missing, Path::new("nowhere")).expect_err("no such file");
        assert!(error.to_string().contains("absent.jsonl"), "{error}");
        assert!(matches!(assemble(&[]), Err(TrainError::Empty)));
        let error = assemble(&[r#"{"text":"a","label":"x"}"#]).expect_err("one label");
        assert!(matches!(error, TrainError::OneLabel(label) if label == "x"));
    }

    #[test]
    fn a_background_label_without_texts_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rows = [r#"{"text":"a","label":"x"}"#, r#"{"text":"b","label":"y"}"#];
        let path = file(dir.path(), "data.jsonl", &rows);
        let mut recipe = Recipe::for_file(&path);
        recipe.train[0].hold_out = 0.0;
        recipe.background = Some("none".into());
        let error = Corpus::assemble(&recipe, dir.path()).expect_err("nothing is labelled so");
        assert!(error.to_string().contains("none"), "{error}");
    }

    #[test]
    fn test_texts_are_removed_from_training_whatever_their_case() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let rows = [
            r#"{"text":"Play It!","label":"a"}"#,
            r#"{"text":"other","label":"b"}"#,
            r#"{"text":"third","label":"c"}"#,
            r#"{"text":"fourth","label":"d"}"#,
        ];
        file(dir.path(), "train.jsonl", &rows);
        file(
            dir.path(),
            "test.jsonl",
            &[r#"{"text":"play it","label":"a"}"#],
        );
        let recipe: Recipe = toml::from_str(
            "[maps.m]\ndefault='rest'\nrename={b='B'}\ndrop=['d']\n[[train]]\nfile='train.jsonl'\n\
             map='m'\n[[test]]\nfile='test.jsonl'\n",
        )
        .expect("a valid recipe");
        let corpus = Corpus::assemble(&recipe, dir.path()).expect("two labels are left");
        assert_eq!(corpus.excluded, 1);
        assert!(corpus.overlap.contains("play it"));
        assert_eq!(corpus.labels, ["B", "rest"]);
        assert_eq!(corpus.train.len(), 2);
    }
}
