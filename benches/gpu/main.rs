//! The CUDA engine on a GPU: its correctness and its times.
//!
//! ```text
//! cargo bench --features cuda --bench gpu -- check          logits and labels against the CPU
//! cargo bench --features cuda --bench gpu -- time           device times and shares of the floors
//! cargo bench --features cuda --bench gpu -- drive DIR      batches on demand, for torch_baseline.py
//! ```
//!
//! `check.sh` runs all commands on a machine with a GPU; `--emulate` tests this program on a machine
//! without one. The exit code is 1 when a result is wrong.

#![expect(clippy::unwrap_used, reason = "a bench may panic")]

mod check;
mod drive;
mod input;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use intentd_kernels::{Device, DeviceError, Emulation};

#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod support;

#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Command,
    /// Runs on the emulator, to test this program: slow and with small batches.
    #[arg(long, global = true)]
    emulate: bool,
    /// Cargo passes this to every bench.
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Logits and labels against those of the CPU engine.
    Check {
        /// Checks only the embedded model and the smallest batches.
        #[arg(long)]
        quick: bool,
        /// Checks a few batches without tuning and graphs, under a tool that slows every launch.
        #[arg(long, conflicts_with = "quick")]
        sanitize: bool,
    },
    /// Device times, and their share of the device's peak rates.
    Time,
    /// Reads a batch size from each line of standard input and answers with the seconds of one batch.
    Drive {
        /// Folder for the BERT-base checkpoint and the token ids of the batches.
        directory: PathBuf,
    },
}

impl Flags {
    fn device(&self) -> Result<Device, DeviceError> {
        if self.emulate {
            return Device::emulator(Emulation::default());
        }
        Device::cuda(0)
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let device = match flags.device() {
        Ok(device) => device,
        Err(error) => {
            eprintln!("gpu: {error}");
            return ExitCode::from(2);
        }
    };
    let facts = device.facts();
    eprintln!("{facts:?}");
    let right = match &flags.command {
        Command::Check { sanitize: true, .. } => check::sanitize(&device),
        Command::Check { quick, .. } => check::run(&device, *quick || flags.emulate),
        Command::Time => time::run(&device, flags.emulate),
        Command::Drive { directory } => drive::run(&device, directory, flags.emulate),
    };
    if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
