//! Paths of the repository that its documents name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Paths in code spans of documents that do not exist, each with its document. `files` may be named without their
/// folder.
pub(crate) fn missing(root: &Path, files: &[PathBuf]) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    let mut names: BTreeMap<String, u32> = BTreeMap::new();
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy();
        *names.entry(name.into_owned()).or_default() += 1;
    }
    let mut documents: Vec<_> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
        .map(|name| root.join(name))
        .into();
    for folder in ["docs", "docs/adr", "fuzz", "kernels", "deploy"] {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else {
            continue;
        };
        let paths = entries.map(|entry| entry.expect("an entry").path());
        documents.extend(paths.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).expect("a document");
        let beside = document.parent().expect("a folder");
        for span in text.split('`').skip(1).step_by(2) {
            let is_file = || [root, beside].iter().any(|base| base.join(span).exists());
            // A name without a folder must be unique.
            let is_there = || is_file() || names.get(span) == Some(&1);
            if is_path(span) && !is_there() {
                missing.insert(format!("{}: {span}", document.display()));
            }
        }
    }
    missing
}

fn is_path(span: &str) -> bool {
    let folders = [
        "src/",
        "crates/",
        "kernels/",
        "tests/",
        "benches/",
        "fuzz/",
        "broker/",
        "deploy/",
        "docs/",
        ".ci/",
        "examples/",
        "models/",
    ];
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    span.chars().all(plain)
        && (folders.iter().any(|folder| span.starts_with(folder)) || span.ends_with(".rs"))
}
