//! The cost of a long text compared with a short one of the same kind: in the tokenizer, and of the request.

use std::time::Instant;

use intentd::model::{Checkpoint, Text, TooLong};

use crate::client::{Client, Outcome, post};
use crate::support::long_texts::bodies;
use crate::support::process::Server;
use crate::{runtime, verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Sizes of a short and a long text in bytes.
    #[arg(
        long,
        default_value = "4000,2000000",
        value_delimiter = ',',
        num_args = 2
    )]
    bytes: Vec<usize>,
    /// Requests with each text.
    #[arg(long, default_value = "200")]
    requests: usize,
    /// Additional flags of the server, as one word.
    #[arg(long, default_value = "--slo off", allow_hyphen_values = true)]
    server: String,
}

/// Largest cost of a long text as a multiple of a short one's.
const RATIO_MAX: f64 = 3.0;

/// Rounds, whose median counts.
const ROUNDS: usize = 5;

/// Runs the measurement. Returns whether the expectation held.
pub(crate) fn run(flags: &Flags) -> bool {
    let mut arguments = vec!["--port", "0"];
    arguments.extend(flags.server.split_whitespace());
    let server = Server::start(&arguments, &[]);
    runtime().block_on(server.ready());
    let tokenizer = Checkpoint::embedded().unwrap().tokenizer;
    let [short, long] = [flags.bytes[0], flags.bytes[1]].map(bodies);
    println!(
        "| text | tokenizer µs short, long | by each other | request's CPU µs short, long | by each other |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut held = true;
    for (short, long) in short.into_iter().zip(long) {
        let kind = short.kind;
        let both = [&short.bytes, &long.bytes];
        let of_text = both.map(|body| text(body));
        let cut = of_text.map(|text| {
            let text = text?;
            Some(median(|| {
                let since = Instant::now();
                for _ in 0..20 {
                    tokenizer.encode(&text, TooLong::Truncate).unwrap();
                }
                since.elapsed().as_secs_f64() / 20.0
            }))
        });
        let whole = both.map(|body| {
            let request = post(body);
            median(|| ask(&server, &request, flags.requests / ROUNDS))
        });
        let ratio = whole[1] / whole[0];
        let (cut, by_each_other) = match cut {
            [Some(short), Some(long)] => (
                format!("{:.1}, {:.1}", short * 1e6, long * 1e6),
                format!("{:.2}", long / short),
            ),
            _ => ("–".to_owned(), "–".to_owned()),
        };
        println!(
            "| {kind} | {cut} | {by_each_other} | {:.0}, {:.0} | {ratio:.2} |",
            whole[0] * 1e6,
            whole[1] * 1e6
        );
        held &= ratio <= RATIO_MAX;
    }
    verdict(
        &format!("a long text costs at most {RATIO_MAX} times a short one"),
        held,
    )
}

/// The text in a body, if it has one.
fn text(body: &[u8]) -> Option<Text> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(Text::Single(value["query"].as_str()?.to_owned()))
}

fn median(mut measure: impl FnMut() -> f64) -> f64 {
    let mut found: Vec<f64> = (0..ROUNDS).map(|_| measure()).collect();
    found.sort_by(f64::total_cmp);
    found[ROUNDS / 2]
}

/// CPU seconds of the server for one request, of `requests` in sequence.
fn ask(server: &Server, request: &[u8], requests: usize) -> f64 {
    let before = cpu(server.child.id());
    runtime().block_on(async {
        let mut client = Client::open(server.address).await.unwrap();
        for _ in 0..requests {
            if !matches!(client.ask(request).await, Outcome::Answered(_, true)) {
                client = Client::open(server.address).await.unwrap();
            }
        }
    });
    (cpu(server.child.id()) - before) / requests as f64
}

/// CPU seconds of all threads of a process (Linux, `Documentation/scheduler/sched-stats`).
fn cpu(process: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let ran = |task: std::fs::DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.flatten().filter_map(ran).sum::<f64>() / 1e9
}
