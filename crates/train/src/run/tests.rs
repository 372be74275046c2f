//! Whole runs on data small enough for seconds.

use std::path::Path;

use super::super::data;
use super::*;

/// Two intents that share no word, a third that is the background.
fn write_data(dir: &Path) {
    let mut lines = Vec::new();
    let topics = ["jazz", "rock", "blues", "folk", "soul", "funk"];
    let places = ["rome", "oslo", "lima", "cairo", "delhi", "perth"];
    for (topic, place) in topics.iter().zip(places) {
        for (text, label) in [
            (format!("play some {topic} music"), "Play"),
            (format!("i want to hear {topic}"), "Play"),
            (format!("will it rain in {place}"), "Weather"),
            (format!("weather for {place} today"), "Weather"),
            (format!("turn the lights on near {place}"), "Zero"),
            (format!("my alarm about {topic}"), "Zero"),
        ] {
            let example = Example {
                text,
                label: label.to_owned(),
            };
            lines.push(serde_json::to_string(&example).expect("serialises"));
        }
    }
    std::fs::write(dir.join("data.jsonl"), lines.join("\n")).expect("writes");
}

fn options(dir: &Path, output: &str) -> TrainOptions {
    let recipe = toml::from_str(
        "seed = 3\nbackground = 'Zero'\ndtype = 'f16'\n[[train]]\nfile = 'data.jsonl'\n\
         [model]\nlayers = 2\nhidden = 32\nheads = 2\nintermediate = 64\nmax_positions = 32\n\
         vocabulary = 200\n[schedule]\nepochs = 12\nbatch = 8\nlearning_rate = 0.003\n\
         [augmentation]\nfragments = 0.3\nforeign = 0.2\njoined = 0.1\nfragment_count_min = 2\n\
         typos = 0.1\npunctuation = 0.2\nunknown = 0.05\n",
    )
    .expect("a valid recipe");
    TrainOptions {
        recipe,
        data_dir: dir.to_path_buf(),
        output: dir.join(output),
        resume: false,
        stop_after: None,
        test: false,
    }
}

fn weights(options: &TrainOptions) -> Vec<u8> {
    std::fs::read(options.output.join("model.safetensors")).expect("exported")
}

#[test]
fn a_separable_set_is_learned_and_survives_export() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_data(dir.path());
    let mut options = options(dir.path(), "model");
    options.recipe.schedule.epochs = 40;
    let report = run(&options, &mut |_| {}).expect("trains");
    assert!(report.finished);
    let (first, last) = (report.losses[0], report.losses[report.losses.len() - 1]);
    assert!(last < first * 0.6, "loss went from {first} to {last}");
    let classifier = Classifier::read(&options.output).expect("the export can be read");
    let examples = data::read_examples(&dir.path().join("data.jsonl")).expect("reads");
    let evaluation = evaluate(&examples, |texts| classifier.classify(texts)).expect("classifies");
    assert!(evaluation.accuracy() > 0.95, "{evaluation}");
    assert!(!options.output.join("checkpoint.safetensors").exists());
}

#[test]
fn the_same_seed_gives_the_same_files_and_another_does_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_data(dir.path());
    let mut all = [
        options(dir.path(), "a"),
        options(dir.path(), "b"),
        options(dir.path(), "c"),
    ];
    all[2].recipe.seed = 4;
    for options in &mut all {
        options.recipe.schedule.epochs = 2;
        run(options, &mut |_| {}).expect("trains");
    }
    assert_eq!(weights(&all[0]), weights(&all[1]));
    assert_ne!(weights(&all[0]), weights(&all[2]));
    let tokenizer = |options: &TrainOptions| std::fs::read(options.output.join("tokenizer.json"));
    assert_eq!(
        tokenizer(&all[0]).expect("exported"),
        tokenizer(&all[1]).expect("exported")
    );
}

#[test]
fn a_resumed_run_ends_where_an_uninterrupted_one_does() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_data(dir.path());
    let mut whole = options(dir.path(), "whole");
    whole.recipe.schedule.epochs = 4;
    run(&whole, &mut |_| {}).expect("trains");

    let mut halves = TrainOptions {
        output: dir.path().join("halves"),
        ..whole.clone()
    };
    halves.stop_after = Some(2);
    let report = run(&halves, &mut |_| {}).expect("trains two epochs");
    assert!(!report.finished);
    assert!(!halves.output.join("model.safetensors").exists());
    halves.stop_after = None;
    halves.resume = true;
    let report = run(&halves, &mut |_| {}).expect("trains the other two");
    assert_eq!((report.summary.resumed, report.losses.len()), (2, 2));
    assert_eq!(weights(&whole), weights(&halves));
}

#[test]
fn a_checkpoint_of_another_recipe_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_data(dir.path());
    let mut options = options(dir.path(), "model");
    options.stop_after = Some(1);
    run(&options, &mut |_| {}).expect("trains one epoch");
    options.resume = true;
    options.recipe.schedule.learning_rate = 0.004;
    let error = run(&options, &mut |_| {}).expect_err("another recipe");
    assert!(matches!(error, TrainError::OtherRun(_)), "{error}");
}

fn default_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/intent-snips")
}

#[test]
fn the_default_model_is_the_one_its_checksums_name() {
    use sha2::{Digest, Sha256};
    let sums = std::fs::read_to_string(default_model().join("SHA256SUMS")).expect("in the tree");
    let mut names = Vec::new();
    for line in sums.lines() {
        let (sum, name) = line
            .split_once("  ")
            .expect("a checksum, two blanks and a name");
        let bytes = std::fs::read(default_model().join(name)).expect("in the tree");
        let hex: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, sum, "{name} was changed");
        names.push(name);
    }
    names.sort_unstable();
    let files = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, files);
}

#[test]
fn the_default_model_answers_its_probes_and_the_front_page() {
    let classifier = Classifier::read(&default_model()).expect("the default model can be read");
    let answers = classifier
        .classify(&["music", "weather", "", "asdf qwer"])
        .expect("classifies");
    assert_eq!(answers, ["PlayMusic", "GetWeather", "None", "None"]);
    let probes = data::read_examples(&default_model().join("probes.jsonl")).expect("reads");
    assert!(probes.len() >= 120);
    let evaluation = evaluate(&probes, |texts| classifier.classify(texts)).expect("classifies");
    assert!(evaluation.accuracy() >= 0.95, "{evaluation}");
}

#[test]
fn the_default_models_recipe_can_be_read() {
    let recipe = Recipe::read(&default_model().join("recipe.toml")).expect("a valid recipe");
    assert_eq!(recipe.background.as_deref(), Some("None"));
    // The data is not in the repository. If it is next to it, the recipe must fit it.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    if !data.join("snips/train.jsonl").exists() {
        println!("skipped: no data folder beside the tree");
        return;
    }
    let corpus = Corpus::assemble(&recipe, &data).expect("the data fits the recipe");
    assert_eq!(corpus.labels.len(), 8);
    let protected: BTreeSet<String> = corpus
        .test
        .iter()
        .flat_map(|set| &set.examples)
        .map(|row| text_key(&row.text))
        .collect();
    let leaked = |row: &&Example| {
        let key = text_key(&row.text);
        !key.is_empty() && protected.contains(&key)
    };
    assert_eq!(corpus.train.iter().find(leaked), None);
}
