//! `intentd inspect`: describes a checkpoint and whether it will run.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use serde_json::{Value, json};

use super::failure::Failure;
use super::terminal;
use crate::engine::{self, DeviceChoice};
use crate::model::{Activation, Checkpoint, Labels, ModelConfig, Scoring, Tokenizer, WeightsSize};

/// The flags of `intentd inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Directory of a Hugging Face classifier of the BERT family [default: the embedded model].
    dir: Option<PathBuf>,
    /// The same directory, as a flag like that of the other commands.
    #[arg(long, env = "INTENTD_MODEL", value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, env = "INTENTD_JSON", value_parser = BoolishValueParser::new())]
    json: bool,
}

pub(super) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let checkpoint = Checkpoint::open_or_embedded(args.dir.as_deref().or(args.model.as_deref()))?;
    let text = if args.json {
        format!("{:#}\n", as_json(&checkpoint))
    } else {
        describe(&checkpoint)
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Tokens in the batch whose memory is estimated: the server's default limit.
const BATCH_TOKENS: usize = 4096;

/// The facts about a checkpoint, one on each line.
fn describe(checkpoint: &Checkpoint) -> String {
    let Checkpoint {
        origin,
        config,
        labels,
        tokenizer,
        weights,
    } = checkpoint;
    let device = engine::place(DeviceChoice::Auto).unwrap_or_else(|error| error.to_string());
    let WeightsSize {
        parameters,
        bytes: stored,
    } = weights.size();
    // f32 activations of the CPU engine: six buffers as wide as a token, one of the feed-forward.
    let activations = BATCH_TOKENS * 4 * (6 * config.hidden_size + config.intermediate_size);
    // The CUDA engine has f16 activations: seven buffers of the hidden size, one of the feed-forward size, and
    // the workspace of matrix products.
    let cuda_activations =
        BATCH_TOKENS * 2 * (7 * config.hidden_size + config.intermediate_size) + (32 << 20);
    let mut lines = vec![("checkpoint", origin.clone()), ("shape", shape(config))];
    lines.extend(tokenizer_lines(tokenizer));
    lines.extend([
        ("labels", names(labels)),
        ("scores", scoring(labels.scoring()).to_owned()),
        (
            "weights",
            format!(
                "{parameters} parameters, {} {} on disk",
                mib(stored),
                weights.dtype()
            ),
        ),
        (
            "memory",
            format!(
                "cpu engine: {} of f32 weights, up to {} for a batch of {BATCH_TOKENS} tokens",
                mib(parameters * 4),
                mib(activations)
            ),
        ),
        (
            "",
            format!(
                "cuda engine: {} of f16 weights, up to {} for a batch of {BATCH_TOKENS} tokens",
                mib(parameters * 2),
                mib(cuda_activations)
            ),
        ),
        ("device", device),
        (
            "will run",
            "yes: every tensor is there in the shape that config.json gives".to_owned(),
        ),
    ]);
    lines
        .iter()
        .map(|(name, value)| format!("{name:<11} {}\n", terminal::line(value)))
        .collect()
}

/// The tokenizer, and what its files said.
fn tokenizer_lines(tokenizer: &Tokenizer) -> Vec<(&'static str, String)> {
    let report = tokenizer.report();
    let class = format!(
        "{} (from {}), {} tokens, up to {} a text",
        report.class,
        report.class_from,
        tokenizer.vocab_size(),
        tokenizer.max_tokens()
    );
    let mut lines = vec![("tokenizer", class)];
    for (name, parts) in [
        ("files", &report.files),
        ("read", &report.read),
        ("defaults", &report.defaults),
        ("overridden", &report.overridden),
        ("no effect", &report.ignored),
    ] {
        if !parts.is_empty() {
            lines.push(("", format!("{name}: {}", parts.join("; "))));
        }
    }
    lines
}

/// The facts that do not depend on this machine.
fn as_json(checkpoint: &Checkpoint) -> Value {
    let Checkpoint {
        origin,
        config,
        labels,
        tokenizer,
        weights,
    } = checkpoint;
    let WeightsSize { parameters, bytes } = weights.size();
    json!({
        "checkpoint": origin,
        "family": config.family.model_type,
        "layers": config.layers,
        "layers_with_own_weights": config.layer_groups,
        "hidden_size": config.hidden_size,
        "embedding_size": config.embedding_size,
        "heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "max_positions": config.max_positions,
        "vocab_size": config.vocab_size,
        "tokenizer": tokenizer.report(),
        "tokens": tokenizer.vocab_size(),
        "max_tokens": tokenizer.max_tokens(),
        "labels": labels.names().collect::<Vec<_>>(),
        "scores": match labels.scoring() {
            Scoring::Softmax => "softmax",
            Scoring::Sigmoid => "sigmoid",
            Scoring::Identity => "none",
        },
        "parameters": parameters,
        "bytes": bytes,
        "dtype": weights.dtype(),
    })
}

fn shape(config: &ModelConfig) -> String {
    let activation = match config.activation {
        Activation::Gelu => "gelu (erf)",
        Activation::GeluTanh => "gelu (tanh)",
        Activation::Relu => "relu",
        Activation::Tanh => "tanh",
    };
    let shared = match config.layer_groups {
        groups if groups == config.layers => String::new(),
        1 => " that share their weights".to_owned(),
        groups => format!(" with {groups} sets of weights"),
    };
    format!(
        "{}, {} layers{shared}, {} wide, {} heads of {}, feed-forward {}, {activation}",
        config.family.model_type,
        config.layers,
        config.hidden_size,
        config.heads,
        config.head_size(),
        config.intermediate_size
    )
}

fn names(labels: &Labels) -> String {
    const SHOWN: usize = 20;
    let names: Vec<&str> = labels.names().take(SHOWN).collect();
    let more = if labels.len() > SHOWN { ", …" } else { "" };
    format!("{}: {}{more}", labels.len(), names.join(", "))
}

fn scoring(scoring: Scoring) -> &'static str {
    match scoring {
        Scoring::Softmax => "softmax (one label is right)",
        Scoring::Sigmoid => "sigmoid (each label by itself)",
        Scoring::Identity => "none (regression)",
    }
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
