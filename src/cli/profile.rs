//! `intentd profile`: measures how long batches take, and derives objectives and scaler settings.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::duration;
use super::failure::Failure;
use crate::autoscale::cpu_limit::cores;
use crate::bench::plot;
use crate::config::ModelArgs;
use crate::engine;
use crate::model::Checkpoint;
use crate::profile::{
    Fit, Grid, ModelName, Outlook, Profile, SCHEMA_VERSION, draw, measure, table,
};
use crate::serving::BatchLimits;

/// The flags of `intentd profile`.
#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Duration of the measurement; batches that take too long for it are left out.
    #[arg(long, env = "INTENTD_PROFILE_DURATION", value_name = "TIME", default_value = "20s", value_parser = duration::parse)]
    duration: Duration,
    /// Tokens in the largest batch.
    #[arg(
        long,
        env = "INTENTD_PROFILE_MAX_BATCH_TOKENS",
        value_name = "N",
        default_value = "4096"
    )]
    max_batch_tokens: usize,
    /// Texts in the largest batch.
    #[arg(
        long,
        alias = "max-batch-requests",
        env = "INTENTD_PROFILE_MAX_BATCH_TEXTS",
        value_name = "N",
        default_value = "256"
    )]
    max_batch_texts: usize,
    /// Tokens in a mean request, which has one text.
    #[arg(
        long,
        env = "INTENTD_PROFILE_TOKENS",
        value_name = "N",
        default_value = "16"
    )]
    tokens: usize,
    /// Latency objectives for the 99th percentile, separated by commas.
    #[arg(
        long,
        env = "INTENTD_PROFILE_SLO",
        value_name = "TIME",
        default_value = "20ms,50ms,100ms,200ms",
        value_delimiter = ',',
        value_parser = duration::parse
    )]
    slo: Vec<Duration>,
    /// JSON file to write the profile to, for `intentd serve --profile`; - prints it instead of the tables.
    #[arg(long, env = "INTENTD_PROFILE_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Chart to write: a .svg or .png file.
    #[arg(long, env = "INTENTD_PROFILE_PLOT", value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// Measures and prints the profile.
pub(super) fn run(args: &ProfileArgs) -> Result<(), Failure> {
    check(args)?;
    // Before the measurement, whose figures would be lost.
    let is_standard = args.json.as_deref() == Some(Path::new("-"));
    let file = args.json.as_deref().filter(|_| !is_standard);
    let open = |file: &Path| {
        let failed = |error| Failure::usage(format!("--json: {}: {error}", file.display()));
        let file = File::options().append(true).create(true).open(file);
        file.map_err(failed)
    };
    let file = file.map(open).transpose()?;
    if let Some(file) = &args.plot {
        plot::check(file).map_err(Failure::usage)?;
    }
    let profile = profile(args)?;
    let objectives: Vec<f64> = args.slo.iter().map(Duration::as_secs_f64).collect();
    let outlook = Outlook::new(&profile, args.tokens, &objectives);
    let mut json = serde_json::to_value(&profile)?;
    json["outlook"] = serde_json::to_value(&outlook)?;
    let mut out = std::io::stdout().lock();
    match file {
        Some(mut file) => {
            // The old profile is kept until the new one is there.
            file.set_len(0)?;
            writeln!(file, "{json:#}")?;
        }
        None if is_standard => writeln!(out, "{json:#}")?,
        None => {}
    }
    if !is_standard {
        out.write_all(table(&profile, &outlook).as_bytes())?;
    }
    if let Some(file) = &args.plot {
        plot::save(file, &draw(&profile, &outlook))?;
    }
    Ok(())
}

/// Fails with all mistakes in the flags at once.
fn check(args: &ProfileArgs) -> Result<(), Failure> {
    let mut mistakes = Vec::new();
    for (flag, value) in [
        ("--max-batch-tokens", args.max_batch_tokens),
        ("--max-batch-texts", args.max_batch_texts),
        ("--tokens", args.tokens),
    ] {
        if value == 0 {
            mistakes.push(format!("{flag}: expected at least 1, found 0"));
        }
    }
    let times = args.slo.iter().map(|slo| ("--slo", slo));
    for (flag, time) in times.chain([("--duration", &args.duration)]) {
        if time.is_zero() {
            mistakes.push(format!("{flag}: expected a time above 0"));
        }
    }
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Failure::usage(mistakes.join("\n"))),
    }
}

fn profile(args: &ProfileArgs) -> Result<Profile, Failure> {
    let start = Instant::now();
    let directory = args.model.model.as_deref();
    let checkpoint = Checkpoint::open_or_embedded(directory)?;
    let limits = BatchLimits {
        tokens_max: args.max_batch_tokens,
        texts_max: args.max_batch_texts,
    };
    let options = args.model.engine_options(limits);
    let mut engine = engine::load(&checkpoint, options)?.engine;
    let startup = start.elapsed();
    let text_tokens = checkpoint.tokenizer.max_tokens();
    if args.tokens > text_tokens {
        return Err(Failure::usage(format!(
            "--tokens: expected at most {text_tokens}, which the model takes, found {}",
            args.tokens
        )));
    }
    let grid = Grid {
        batch_tokens: args.max_batch_tokens,
        batch_texts: args.max_batch_texts,
        text_tokens,
    };
    let grid = grid.within(engine.largest());
    let bar = progress(args.duration);
    let tick = |elapsed: Duration| bar.set_position(millis(elapsed));
    let measured = measure(
        &mut *engine,
        &checkpoint.tokenizer,
        grid,
        args.duration,
        tick,
    );
    bar.finish_and_clear();
    let (points, skipped) = measured?;
    if points.is_empty() {
        return Err(Failure::other(
            "no batch could be measured: the device has no memory for any",
        ));
    }
    Ok(Profile {
        schema_version: SCHEMA_VERSION,
        intentd: env!("CARGO_PKG_VERSION").to_owned(),
        model: ModelName {
            name: args.model.checkpoint_name(),
            sha256: checkpoint.digest()?,
        },
        engine: engine.description(),
        cores: cores().ceil() as usize,
        date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        startup_seconds: startup.as_secs_f64(),
        grid,
        fit: Fit::new(&points, args.tokens),
        points,
        skipped,
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A progress bar, shown if standard error is a terminal.
fn progress(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(millis(duration));
    let style = ProgressStyle::with_template("measuring [{bar:30}] {elapsed}");
    match style {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}
