//! Rules of the code style that a program can check: no import cycles between files or folders, a maximum file length,
//! and documents that name only existing files.

mod documents;
mod graph;
mod modules;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use self::graph::Graph;
use self::modules::SourceTree;

/// Maximum lines of a file, including its tests.
const LINES_MAX: usize = 400;

/// The repository root: Cargo runs tests in the package's folder.
fn root() -> &'static Path {
    Path::new("")
}

/// The Rust files below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                let name = path.file_name().expect("a name");
                if name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The folders of the packages in `crates/`.
fn crates() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("crates")).expect("the folder is there");
    let mut crates: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    crates.sort();
    crates
}

/// The root file of a package's library.
fn library(folder: &Path) -> PathBuf {
    folder.join("src/lib.rs")
}

fn source_tree() -> SourceTree {
    let mut packages = vec![
        ("intentd".to_owned(), library(Path::new(""))),
        ("intentd_kernels".to_owned(), library(Path::new("kernels"))),
        ("intentd_broker".to_owned(), library(Path::new("broker"))),
    ];
    for folder in crates() {
        let name = folder.file_name().expect("a name").to_string_lossy();
        packages.push((format!("intentd_{name}"), library(&folder)));
    }
    SourceTree::read(root(), &packages)
}

#[test]
fn no_file_is_too_long() {
    let mut long = String::new();
    for folder in [
        "src",
        "crates",
        "kernels/src",
        "broker/src",
        "tests",
        "benches",
        "fuzz",
        "examples",
    ] {
        for file in rust_files(&root().join(folder)) {
            let text = std::fs::read_to_string(&file).expect("a file of ours");
            let lines = text.lines().count();
            if lines > LINES_MAX {
                let _ = writeln!(long, "{}: {lines} lines", file.display());
            }
        }
    }
    assert!(long.is_empty(), "at most {LINES_MAX} lines:\n{long}");
}

#[test]
fn files_have_no_import_cycles() {
    let tree = source_tree();
    let graph = Graph::of_files(&tree);
    let cycles = graph.cycles();
    assert!(cycles.is_empty(), "{}", graph.describe(&cycles));
}

#[test]
fn folders_have_no_import_cycles() {
    let tree = source_tree();
    let graph = Graph::of_folders(&tree);
    let cycles = graph.cycles();
    assert!(cycles.is_empty(), "{}", graph.describe(&cycles));
}

#[test]
fn documents_name_existing_files() {
    let files: Vec<PathBuf> = ["src", "crates", "kernels", "broker/src"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .collect();
    let missing = documents::missing(root(), &files);
    assert!(missing.is_empty(), "{missing:#?}");
}
