//! Messages and services of `proto/` to Rust. `protox` reads them, so nothing has to be installed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 2] = [
    "proto/inference/inference.proto",
    "proto/xds/data/orca/v3/orca_load_report.proto",
];

#[expect(clippy::disallowed_methods, reason = "this is not the server")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    // For the reflection service, which tells clients what the inference service is.
    let inference = protox::compile([FILES[0]], ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("inference.bin"), inference.encode_to_vec())?;
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
