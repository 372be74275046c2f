//! The commands of `intentd`, one file for each. Without a command, `intentd` serves.

mod batches;
#[cfg(feature = "bench")]
mod bench;
#[cfg(feature = "bench")]
mod bench_kafka;
#[cfg(feature = "bench")]
mod duration;
#[cfg(feature = "train")]
mod evaluate;
mod explain;
mod failure;
mod health;
mod inspect;
mod local_server;
mod log;
mod predict;
#[cfg(feature = "bench")]
mod profile;
mod relay;
#[cfg(feature = "scaler")]
mod scaler;
mod serve;
mod shutdown;
mod terminal;
#[cfg(feature = "train")]
mod train;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::failure::Failure;
#[cfg(feature = "scaler")]
use crate::config::ScalerArgs;
use crate::config::{CommandLine, CommandLineError, EffectiveSettings, RelayArgs, ServeArgs};

/// BERT intent detection server that batches under a concurrency limit and tells the autoscaler
/// the truth.
///
/// Without a command, it serves: `intentd --port 8080`, then
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
    /// Ask a server on this machine for its health; exit code 0 or 1.
    Health(health::HealthArgs),
    /// Say why a server on this machine asks for as many replicas as it does.
    Explain(explain::ExplainArgs),
    /// Classify texts from the command line, or lines of standard input.
    Predict(predict::PredictArgs),
    /// Describe a checkpoint: what it is, whether it will run, and how much memory it needs.
    Inspect(inspect::InspectArgs),
    /// Train a classifier on labelled texts and write a Hugging Face directory.
    #[cfg(feature = "train")]
    Train(Box<train::TrainArgs>),
    /// Send load to any HTTP server and measure its throughput and latency.
    #[cfg(feature = "bench")]
    Bench(Box<bench::BenchArgs>),
    /// Measure how long batches take on this machine, and derive the capacity of one server.
    #[cfg(feature = "bench")]
    Profile(Box<profile::ProfileArgs>),
    /// Run an external scaler for KEDA that sums the demand of replicas.
    #[cfg(feature = "scaler")]
    Scaler(Box<ScalerArgs>),
    /// Deliver the records of a Kafka topic to a URL, as Knative's KafkaSource does.
    Relay(Box<RelayArgs>),
    /// Measure the accuracy of a model on labelled texts.
    #[cfg(feature = "train")]
    Evaluate(evaluate::EvaluateArgs),
}

/// A command with what [`CommandLine`] knows about its settings.
struct Invocation {
    cli: Cli,
    /// The settings in force, if the command is `serve`.
    settings: Option<EffectiveSettings>,
    /// Mistakes that parsing found.
    mistakes: Vec<String>,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let result = parse().and_then(run);
    log::flush(log::EXIT_PATIENCE);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code: 0, .. }) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                log::print_error(&failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}

fn parse() -> Result<Invocation, Failure> {
    let line = std::env::args_os().collect();
    let parsed = CommandLine::read(&Cli::command(), line)
        .map_err(|CommandLineError(error)| Failure::answered(&error))?;
    Ok(Invocation {
        cli: Cli::from_arg_matches(&parsed.matches).map_err(Failure::usage)?,
        settings: parsed.settings,
        mistakes: parsed.mistakes,
    })
}

fn run(invocation: Invocation) -> Result<(), Failure> {
    let Invocation {
        cli,
        settings,
        mistakes,
    } = invocation;
    match cli.command {
        None => serve::run(cli.serve, settings.as_ref(), mistakes),
        Some(Command::Serve(args)) => serve::run(*args, settings.as_ref(), mistakes),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::Explain(args)) => explain::run(&args),
        Some(Command::Predict(args)) => predict::run(&args),
        Some(Command::Inspect(args)) => inspect::run(&args),
        #[cfg(feature = "train")]
        Some(Command::Train(args)) => train::run(&args).map_err(Failure::from),
        #[cfg(feature = "bench")]
        Some(Command::Bench(args)) => bench::run(&args),
        #[cfg(feature = "bench")]
        Some(Command::Profile(args)) => profile::run(&args),
        #[cfg(feature = "scaler")]
        Some(Command::Scaler(args)) => scaler::run(*args, mistakes),
        Some(Command::Relay(args)) => relay::run(*args, mistakes),
        #[cfg(feature = "train")]
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
        let is_model_flag = |name| {
            model
                .get_arguments()
                .any(|arg| arg.get_long() == Some(name))
        };
        let is_kafka_flag = |name: &str| name.starts_with("kafka-");
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
                // The variables of other commands must not change a server in the same environment, except for
                // those of the model, which all commands share.
                let prefix = match command.get_name() {
                    "relay" if !is_kafka_flag(name) => "INTENTD_RELAY",
                    "bench" => "INTENTD_BENCH",
                    "scaler" => "INTENTD_SCALER",
                    "profile" if !is_model_flag(name) => "INTENTD_PROFILE",
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
