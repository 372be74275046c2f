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

fn source_tree() -> SourceTree {
    SourceTree::read(
        root(),
        &[
            ("intentd", "src/lib.rs"),
            ("intentd_kernels", "kernels/src/lib.rs"),
            ("intentd_broker", "broker/src/lib.rs"),
        ],
    )
}

#[test]
fn no_file_is_too_long() {
    let mut long = String::new();
    for folder in [
        "src",
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
    let files: Vec<PathBuf> = ["src", "kernels", "broker/src"]
        .iter()
        .flat_map(|folder| rust_files(&root().join(folder)))
        .collect();
    let missing = documents::missing(root(), &files);
    assert!(missing.is_empty(), "{missing:#?}");
}
