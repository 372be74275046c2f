//! The command line: one file a command. Without a command, `intentd` serves.

mod batches;
mod bench;
mod bench_kafka;
mod evaluate;
mod health;
mod inspect;
mod log;
mod predict;
mod process;
mod profile;
mod relay;
mod scaler;
mod serve;
mod terminal;
mod train;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::config::{RelayArgs, ScalerArgs, ServeArgs, Settings, Sources, SourcesError};

/// The flags or the input make no sense: `EX_USAGE` of sysexits.h.
const EX_USAGE: u8 = 64;

/// BERT intent detection server that batches under a concurrency limit and tells the autoscaler
/// the truth.
///
/// Without a command it serves: `intentd --port 8080`, then
/// `curl "localhost:8080/predict?query=music"`.
#[derive(Debug, Parser)]
#[command(name = "intentd", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(flatten)]
    serve: ServeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve predictions over HTTP (the default).
    Serve(Box<ServeArgs>),
    /// Ask a server on this machine whether it answers requests: exit code 0 or 1.
    Health(health::HealthArgs),
    /// Classify texts from the command line or from standard input, one a line.
    Predict(predict::PredictArgs),
    /// Say what a checkpoint is, whether it will run, and how much memory it takes.
    Inspect(inspect::InspectArgs),
    /// Train a classifier from labelled texts and write a Hugging Face directory.
    Train(Box<train::TrainArgs>),
    /// Send load to a server, this one or another, and measure what it makes of it.
    Bench(Box<bench::BenchArgs>),
    /// Measure how long batches take on this machine, and say what one server can do with that.
    Profile(Box<profile::ProfileArgs>),
    /// Tell KEDA how many replicas are needed: an external scaler that adds up their demand.
    Scaler(Box<ScalerArgs>),
    /// Deliver the records of a Kafka topic to a URL, as Knative's KafkaSource does.
    Relay(Box<RelayArgs>),
    /// Measure how often a model is right on labelled texts.
    Evaluate(evaluate::EvaluateArgs),
}

/// Something that ends the process with an error.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The flags or the input make no sense.
    fn usage(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: EX_USAGE,
        }
    }

    /// Something failed outside of this program, or in a measurement.
    fn other(error: impl std::fmt::Display) -> Self {
        Self {
            message: error.to_string(),
            code: 1,
        }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let io = (&error as &dyn std::error::Error).downcast_ref::<std::io::Error>();
        // Whoever reads our output has seen enough (`intentd predict < texts | head`): no failure.
        let enough = io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
        Self {
            message: error.to_string(),
            code: u8::from(!enough),
        }
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let result = parse().and_then(run);
    log::flush(log::LAST_WORDS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code: 0, .. }) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                log::say_last(&failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

/// The command and, for what serves, where its settings come from and what is wrong with them so far.
fn parse() -> Result<(Cli, Option<Settings>, Vec<String>), Failure> {
    let line = std::env::args_os().collect();
    let sources = Sources::read(&Cli::command(), line).map_err(|SourcesError(error)| {
        // Help goes to standard output and is no failure; it may have no reader.
        let _ = error.print();
        Failure {
            message: String::new(),
            code: if error.use_stderr() { EX_USAGE } else { 0 },
        }
    })?;
    let cli = Cli::from_arg_matches(&sources.matches).map_err(Failure::usage)?;
    Ok((cli, sources.settings, sources.mistakes))
}

fn run((cli, settings, mistakes): (Cli, Option<Settings>, Vec<String>)) -> Result<(), Failure> {
    match cli.command {
        None => serve::run(cli.serve, settings.as_ref(), mistakes),
        Some(Command::Serve(args)) => serve::run(*args, settings.as_ref(), mistakes),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::Predict(args)) => predict::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Train(args)) => train::run(&args).map_err(Failure::from),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Scaler(args)) => scaler::run(*args, mistakes),
        Some(Command::Relay(args)) => relay::run(*args, mistakes),
        Some(Command::Evaluate(args)) => evaluate::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, CommandFactory};

    use super::*;
    use crate::config::ModelArgs;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable() {
        let mut command = Cli::command();
        command.build();
        let model = ModelArgs::augment_args(clap::Command::new("model"));
        let is_of_model = |name| {
            model
                .get_arguments()
                .any(|arg| arg.get_long() == Some(name))
        };
        let is_of_kafka = |name: &str| name.starts_with("kafka-");
        let mut commands = vec![&command];
        commands.extend(command.get_subcommands().filter(|c| c.get_name() != "help"));
        for command in commands {
            for flag in command
                .get_arguments()
                .filter_map(|arg| Some((arg.get_long()?, arg)))
            {
                let (name, arg) = flag;
                if matches!(name, "help" | "version") {
                    continue;
                }
                // Those of a load generator, a scaler or a measurement must not change a server beside it;
                // which model runs where is the same for all.
                let prefix = match command.get_name() {
                    "relay" if !is_of_kafka(name) => "INTENTD_RELAY",
                    "bench" => "INTENTD_BENCH",
                    "scaler" => "INTENTD_SCALER",
                    "profile" if !is_of_model(name) => "INTENTD_PROFILE",
                    _ => "INTENTD",
                };
                let variable = format!("{prefix}_{}", name.replace('-', "_").to_uppercase());
                let found = arg.get_env().and_then(|env| env.to_str());
                assert_eq!(
                    found,
                    Some(&*variable),
                    "--{name} of {}",
                    command.get_name()
                );
            }
        }
    }
}
