//! Writes one of the test checkpoints: `cargo run --example test_checkpoint -- base /tmp/base`.
//!
//! `tests/golden/make_golden.py` reads the directories; benchmarks can use `base`, which has the
//! shape of BERT-base.

use std::path::PathBuf;

#[path = "../tests/it/support/checkpoint/mod.rs"]
mod checkpoint;

/// Which checkpoint, and where to.
#[derive(Debug, clap::Parser)]
struct Arguments {
    /// The checkpoint's name.
    #[arg(value_parser = checkpoint::catalog::CATALOG.map(|(name, _)| name))]
    name: String,
    /// Directory to write to; created when missing.
    directory: PathBuf,
}

fn main() -> std::io::Result<()> {
    let Arguments { name, directory } = clap::Parser::parse();
    let spec = checkpoint::catalog::spec(&name).expect("clap accepts known names only");
    checkpoint::write(&spec, &directory)
}
