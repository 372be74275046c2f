//! Knative's queue-proxy in front of the server, and the decisions of Knative's autoscaler.
//!
//! Built from Go modules by `install.sh` beside this file, which takes minutes; `.ci/knative` runs these tests.

mod decisions;
mod proxy;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder of this file.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parties/knative")
}

/// The program of this name.
fn program(name: &str) -> PathBuf {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| {
        let output = Command::new(folder().join("install.sh")).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        PathBuf::from(text.trim())
    });
    programs.join(name)
}
