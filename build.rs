//! Messages and services of `proto/` to Rust. `protox` reads them, so nothing has to be installed.

use std::error::Error;

const FILES: [&str; 2] = [
    "proto/externalscaler/externalscaler.proto",
    "proto/xds/data/orca/v3/orca_load_report.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
