//! `intentd bench`: sends load to a server and measures its answers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::bench_kafka::{self, BenchKafkaArgs};
use super::duration;
use super::failure::Failure;
use crate::bench::plot;
use crate::bench::{self, Load, Loads, Objective, Options, Plan, Protocol, Runner, Target};

/// A server on this machine with default settings.
const DEFAULT_TARGET: &str = "http://127.0.0.1:8080/predict?query={query}";

/// Rounds of a comparison unless a flag says otherwise.
const ROUNDS: usize = 5;

/// Load for something other than HTTP.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Write texts to a Kafka topic: 50 at once each second for 100 seconds, or any other load.
    Kafka(Box<BenchKafkaArgs>),
}

/// The flags of `intentd bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// Targets: URLs with {query} for the text, or TOML files that describe a target
    /// [default: http://127.0.0.1:8080/predict?query={query}].
    targets: Vec<Target>,
    /// When requests are sent: constant:RATE, poisson:RATE, bursts:SIZE/SECONDS, ramp:FROM..TO,
    /// trace:FILE or article (50 at once each second). poisson:100,200,400 are three loads in sequence
    /// [default: poisson:10].
    #[arg(long, env = "INTENTD_BENCH_LOAD", value_name = "LOAD")]
    load: Vec<Loads>,
    /// Duration of the measurement of each load.
    #[arg(long, env = "INTENTD_BENCH_DURATION", value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    duration: Duration,
    /// Duration of each load before its measurement.
    #[arg(long, env = "INTENTD_BENCH_WARM_UP", value_name = "TIME", default_value = "1s", value_parser = duration::parse)]
    warm_up: Duration,
    /// Find the highest rate that keeps --slo.
    #[arg(long, env = "INTENTD_BENCH_FIND_MAX", value_parser = BoolishValueParser::new())]
    find_max: bool,
    /// Latency objective: the time in which --percentile of the requests must be answered.
    #[arg(long, env = "INTENTD_BENCH_SLO", value_name = "TIME", value_parser = duration::parse)]
    slo: Option<Duration>,
    /// Percentage of the requests that must meet --slo.
    #[arg(
        long,
        env = "INTENTD_BENCH_PERCENTILE",
        value_name = "PERCENT",
        default_value = "99"
    )]
    percentile: f64,
    /// Precision of --find-max in percent of the rate.
    #[arg(
        long,
        env = "INTENTD_BENCH_PRECISION",
        value_name = "PERCENT",
        default_value = "5"
    )]
    precision: f64,
    /// Report the ratios of the first target to the others. Several targets are measured in turns anyway.
    #[arg(long, env = "INTENTD_BENCH_COMPARE", value_parser = BoolishValueParser::new())]
    compare: bool,
    /// Repetitions of all measurements [default: 1; 5 with --compare].
    #[arg(long, env = "INTENTD_BENCH_ROUNDS", value_name = "N")]
    rounds: Option<usize>,
    /// File with texts to send: its lines, or the "text" of each line of a .jsonl file [default: short everyday
    /// requests in English].
    #[arg(long, env = "INTENTD_BENCH_TEXTS", value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Count an answer as wrong if its label differs from the one that the first target gives to the text
    /// alone.
    #[arg(long, env = "INTENTD_BENCH_CHECK", value_parser = BoolishValueParser::new())]
    check: bool,
    /// Body of the requests to targets given as URLs: {json} is the text as a JSON string, {query} is
    /// percent-encoded, {text} is unchanged.
    #[arg(long, env = "INTENTD_BENCH_BODY", value_name = "TEMPLATE")]
    body: Option<String>,
    /// HTTP method for targets given as URLs [default: GET; POST with --body].
    #[arg(long, env = "INTENTD_BENCH_METHOD", value_name = "METHOD")]
    method: Option<String>,
    /// Header of the requests to targets given as URLs; may be repeated.
    #[arg(long, env = "INTENTD_BENCH_HEADER", value_name = "NAME: VALUE", value_parser = parse_header)]
    header: Vec<(String, String)>,
    /// HTTP version for targets given as URLs.
    #[arg(
        long,
        env = "INTENTD_BENCH_PROTOCOL",
        value_enum,
        default_value = "http1"
    )]
    protocol: Protocol,
    /// Connections to each target.
    #[arg(
        long,
        env = "INTENTD_BENCH_CONNECTIONS",
        value_name = "N",
        default_value = "64"
    )]
    connections: usize,
    /// Requests in flight on one HTTP/2 connection.
    #[arg(
        long,
        env = "INTENTD_BENCH_STREAMS",
        value_name = "N",
        default_value = "16"
    )]
    streams: usize,
    /// Threads that send requests.
    #[arg(
        long,
        env = "INTENTD_BENCH_WORKERS",
        value_name = "N",
        default_value = "1"
    )]
    workers: usize,
    /// Time for an answer, counted from the scheduled time of its request.
    #[arg(long, env = "INTENTD_BENCH_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    timeout: Duration,
    /// Seed of random times: requests are sent at the same times with the same seed.
    #[arg(
        long,
        env = "INTENTD_BENCH_SEED",
        value_name = "N",
        default_value = "1"
    )]
    seed: u64,
    /// JSON file to write the figures to; - prints them instead of the table.
    #[arg(long, env = "INTENTD_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Chart to write: a .svg or .png file.
    #[arg(long, env = "INTENTD_BENCH_PLOT", value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Do not show progress.
    #[arg(long, env = "INTENTD_BENCH_QUIET", value_parser = BoolishValueParser::new())]
    quiet: bool,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "expected a name, a colon and a value".to_owned())?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Measures and prints the report.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(BenchCommand::Kafka(args)) = &args.command {
        return bench_kafka::run(args);
    }
    let (runner, plan) = checked(args)?;
    let targets = targets(args)?;
    // Before the measurement, whose figures would be lost.
    let json = match args.json.as_deref() {
        Some(file) if file == Path::new("-") => Some(JsonOutput::Standard),
        Some(file) => {
            let failed = |error| Failure::usage(format!("--json: {}: {error}", file.display()));
            Some(JsonOutput::File(File::create(file).map_err(failed)?))
        }
        None => None,
    };
    if let Some(file) = &args.plot {
        plot::check(file).map_err(Failure::usage)?;
    }
    for target in targets.iter().filter(|target| !target.has_text()) {
        eprintln!(
            "intentd: {}: all requests are the same: no {{query}}, {{json}} or {{text}} in them",
            target.name
        );
    }
    let bar = progress(args.quiet);
    let report = bench::measure(&runner, &targets, &plan, &bar).map_err(|message| {
        bar.finish_and_clear();
        Failure::other(message)
    })?;
    if !matches!(json, Some(JsonOutput::Standard)) {
        print!("{}", report.table());
    }
    match json {
        Some(JsonOutput::Standard) => println!("{:#}", report.json()),
        Some(JsonOutput::File(mut file)) => writeln!(file, "{:#}", report.json())?,
        None => {}
    }
    if let Some(file) = &args.plot {
        plot::save(file, &bench::draw(&report))?;
    }
    match report.broken_off {
        Some(why) => Err(Failure::other(format!("broken off: {why}"))),
        None => Ok(()),
    }
}

/// Destination of the figures as JSON.
enum JsonOutput {
    Standard,
    File(File),
}

/// Mistakes in the flags.
fn mistakes(args: &BenchArgs) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (flag, value) in [
        ("--connections", args.connections),
        ("--streams", args.streams),
        ("--workers", args.workers),
        ("--rounds", args.rounds.unwrap_or(1)),
    ] {
        if value == 0 {
            mistakes.push(format!("{flag}: expected at least 1, found 0"));
        }
    }
    for (flag, time) in [("--duration", args.duration), ("--timeout", args.timeout)] {
        if time.is_zero() {
            mistakes.push(format!("{flag}: expected a time above 0"));
        }
    }
    if !(args.percentile > 0.0 && args.percentile <= 100.0) {
        let found = args.percentile;
        mistakes.push(format!(
            "--percentile: expected above 0 up to 100, found {found}"
        ));
    }
    if !(args.precision >= 0.1 && args.precision <= 100.0) {
        let found = args.precision;
        mistakes.push(format!("--precision: expected 0.1 to 100, found {found}"));
    }
    if args.find_max && args.slo.is_none() {
        mistakes.push("--find-max: expected --slo, the objective that is to be held".to_owned());
    }
    if let Some(slo) = args.slo
        && (slo.is_zero() || slo > args.timeout)
    {
        let timeout = args.timeout;
        mistakes.push(format!(
            "--slo: expected above 0 up to --timeout ({timeout:?})"
        ));
    }
    let asks_otherwise = args.body.is_some() || args.method.is_some() || !args.header.is_empty();
    let files_alone = !args.targets.is_empty() && args.targets.iter().all(|t| t.from_file);
    if files_alone && (asks_otherwise || args.protocol != Protocol::Http1) {
        let flags = "--body, --method, --header, --protocol";
        mistakes.push(format!(
            "{flags}: expected a target that is a URL; a file says it all"
        ));
    }
    if args.compare && args.targets.len() < 2 {
        mistakes.push("--compare: expected two targets or more".to_owned());
    }
    mistakes
}

/// The runner and its plan; fails with all mistakes at once.
fn checked(args: &BenchArgs) -> Result<(Runner, Plan), Failure> {
    let mut mistakes = mistakes(args);
    let texts = bench::read_texts(args.texts.as_deref())
        .map_err(|error| mistakes.push(format!("--texts: {error}")))
        .unwrap_or_default();
    if !mistakes.is_empty() {
        return Err(Failure::usage(mistakes.join("\n")));
    }
    let mut loads: Vec<Load> = args
        .load
        .iter()
        .flat_map(|Loads(loads)| loads.clone())
        .collect();
    if loads.is_empty() && !args.find_max {
        loads.push(Load::Poisson(10.0));
    }
    let options = Options {
        warm_up: args.warm_up,
        duration: args.duration,
        timeout: args.timeout,
        connections: args.connections,
        streams: args.streams,
        workers: args.workers,
        seed: args.seed,
    };
    let plan = Plan {
        loads,
        objective: args.slo.map(|latency| Objective {
            latency,
            percentile: args.percentile,
        }),
        search: args.find_max.then_some(args.precision / 100.0),
        rounds: args.rounds.unwrap_or(if args.compare { ROUNDS } else { 1 }),
        check: args.check,
        compare: args.compare,
    };
    Ok((Runner { options, texts }, plan))
}

/// The targets. Those given as URLs get the flags of their requests.
fn targets(args: &BenchArgs) -> Result<Vec<Target>, Failure> {
    let mut targets = args.targets.clone();
    if targets.is_empty() {
        let default: Result<Target, String> = DEFAULT_TARGET.parse();
        targets.push(default.map_err(Failure::usage)?);
    }
    for target in targets.iter_mut().filter(|target| !target.from_file) {
        target.body.clone_from(&args.body);
        target.method.clone_from(&args.method);
        target.headers = args.header.iter().cloned().collect();
        target.protocol = args.protocol;
        target.check().map_err(Failure::usage)?;
    }
    for index in 1..targets.len() {
        let (before, rest) = targets.split_at_mut(index);
        if before.iter().any(|other| other.name == rest[0].name) {
            rest[0].name = format!("{} ({})", rest[0].name, index + 1);
        }
    }
    Ok(targets)
}

fn progress(quiet: bool) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len} {elapsed}");
    bar.set_style(style.expect("the template is one").progress_chars("=> "));
    bar
}
