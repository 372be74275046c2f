//! `intentd bench`: load for a server, and what it makes of it.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Failure;
use super::bench_kafka::{self, BenchKafkaArgs};
use crate::bench::{self, Load, Loads, Objective, Options, Plan, Protocol, Runner, Target};
use crate::plot;

/// A server on this machine, as `intentd` starts.
const DEFAULT_TARGET: &str = "http://127.0.0.1:8080/predict?query={query}";

/// Rounds of a comparison that is not told how many.
const ROUNDS: usize = 5;

/// What else than HTTP can be loaded.
#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Write texts to a topic of Kafka: 50 at once each second for 100 seconds, or any other load.
    Kafka(Box<BenchKafkaArgs>),
}

/// The flags of `intentd bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// What to ask: a URL with {query} in it, or a TOML file that describes a target
    /// [default: http://127.0.0.1:8080/predict?query={query}].
    targets: Vec<Target>,
    /// When requests are sent: constant:RATE, poisson:RATE, bursts:SIZE/SECONDS, ramp:FROM..TO,
    /// trace:FILE or article (50 at once each second). poisson:100,200,400 are three, one after the
    /// other [default: poisson:10].
    #[arg(long, env = "INTENTD_BENCH_LOAD", value_name = "LOAD")]
    load: Vec<Loads>,
    /// How long each load is measured.
    #[arg(long, env = "INTENTD_BENCH_DURATION", value_name = "TIME", default_value = "10s", value_parser = time)]
    duration: Duration,
    /// How long it runs before it is measured.
    #[arg(long, env = "INTENTD_BENCH_WARM_UP", value_name = "TIME", default_value = "1s", value_parser = time)]
    warm_up: Duration,
    /// Looks for the highest rate that holds --slo.
    #[arg(long, env = "INTENTD_BENCH_FIND_MAX", value_parser = BoolishValueParser::new())]
    find_max: bool,
    /// The objective: the time within which --percentile of the requests must be answered.
    #[arg(long, env = "INTENTD_BENCH_SLO", value_name = "TIME", value_parser = time)]
    slo: Option<Duration>,
    /// Percent of the requests that the objective is for.
    #[arg(
        long,
        env = "INTENTD_BENCH_PERCENTILE",
        value_name = "PERCENT",
        default_value = "99"
    )]
    percentile: f64,
    /// How closely --find-max looks, in percent of the rate.
    #[arg(
        long,
        env = "INTENTD_BENCH_PRECISION",
        value_name = "PERCENT",
        default_value = "5"
    )]
    precision: f64,
    /// Gives the ratios of the first target to the others; several targets take turns in any case.
    #[arg(long, env = "INTENTD_BENCH_COMPARE", value_parser = BoolishValueParser::new())]
    compare: bool,
    /// How often everything is measured [default: 1; 5 with --compare].
    #[arg(long, env = "INTENTD_BENCH_ROUNDS", value_name = "N")]
    rounds: Option<usize>,
    /// Texts to ask: each line, or the "text" of each line of a .jsonl; some short requests of
    /// everyday English when not given.
    #[arg(long, env = "INTENTD_BENCH_TEXTS", value_name = "FILE")]
    texts: Option<PathBuf>,
    /// Counts an answer as wrong when its label is not the one that the first target gives to the
    /// text alone.
    #[arg(long, env = "INTENTD_BENCH_CHECK", value_parser = BoolishValueParser::new())]
    check: bool,
    /// Body of the requests to targets given as URLs: {json} is the text as a JSON string, {query}
    /// percent-encoded, {text} as it is.
    #[arg(long, env = "INTENTD_BENCH_BODY", value_name = "TEMPLATE")]
    body: Option<String>,
    /// Method of the requests to targets given as URLs [default: GET; POST with --body].
    #[arg(long, env = "INTENTD_BENCH_METHOD", value_name = "METHOD")]
    method: Option<String>,
    /// A header of the requests to targets given as URLs; may come more than once.
    #[arg(long, env = "INTENTD_BENCH_HEADER", value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<(String, String)>,
    /// Version of HTTP for targets given as URLs.
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
    /// Requests at once on a connection of HTTP/2.
    #[arg(
        long,
        env = "INTENTD_BENCH_STREAMS",
        value_name = "N",
        default_value = "16"
    )]
    streams: usize,
    /// Threads that send.
    #[arg(
        long,
        env = "INTENTD_BENCH_WORKERS",
        value_name = "N",
        default_value = "1"
    )]
    workers: usize,
    /// Time for an answer, from when the request was to be sent.
    #[arg(long, env = "INTENTD_BENCH_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = time)]
    timeout: Duration,
    /// Of random times: the same seed sends at the same times.
    #[arg(
        long,
        env = "INTENTD_BENCH_SEED",
        value_name = "N",
        default_value = "1"
    )]
    seed: u64,
    /// File for the figures as JSON; - for standard output, instead of the table.
    #[arg(long, env = "INTENTD_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// File for a picture: .svg or .png.
    #[arg(long, env = "INTENTD_BENCH_PLOT", value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Shows no progress.
    #[arg(long, env = "INTENTD_BENCH_QUIET", value_parser = BoolishValueParser::new())]
    quiet: bool,
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "expected a time with its unit, such as 50ms, 10s or 2m".to_owned())
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "expected a name, a colon and a value".to_owned())?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Measures, and prints what came of it.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(BenchCommand::Kafka(args)) = &args.command {
        return bench_kafka::run(args);
    }
    let (runner, plan) = checked(args)?;
    let targets = targets(args)?;
    // Before anything is measured: what cannot be written would be lost.
    let json = match args.json.as_deref() {
        Some(file) if file == Path::new("-") => Some(Json::Standard),
        Some(file) => {
            let failed = |error| Failure::usage(format!("--json: {}: {error}", file.display()));
            Some(Json::File(File::create(file).map_err(failed)?))
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
    if !matches!(json, Some(Json::Standard)) {
        print!("{}", report.table());
    }
    match json {
        Some(Json::Standard) => println!("{:#}", report.json()),
        Some(Json::File(mut file)) => writeln!(file, "{:#}", report.json())?,
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

/// Where the figures go.
enum Json {
    Standard,
    File(File),
}

/// What makes no sense in the flags, one line each.
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

/// What is measured and how; all that is wrong with the flags, at once.
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

/// The targets, with the flags that say how those given as URLs are asked.
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
