//! The flags of the names that clients use.

use crate::api::{EventSource, TextPointer};

/// The names that clients use.
#[derive(Debug, Clone, clap::Args)]
pub struct SurfaceArgs {
    /// Name of the model in the Open Inference Protocol (/v2/models/NAME) and in Triton's metrics.
    #[arg(
        long,
        env = "INTENTD_MODEL_NAME",
        value_name = "NAME",
        default_value = "intentd",
        value_parser = parse_model_name
    )]
    pub model_name: String,
    /// Position of the text in the data of a CloudEvent, as a JSON pointer such as /message/text [default: the
    /// data, or its query, text or inputs].
    #[arg(long, env = "INTENTD_EVENT_TEXT_POINTER", value_name = "POINTER")]
    pub event_text_pointer: Option<TextPointer>,
    /// Source of the CloudEvents that answer events.
    #[arg(
        long,
        env = "INTENTD_EVENT_SOURCE",
        value_name = "URI",
        default_value = "/intentd"
    )]
    pub event_source: EventSource,
    /// CloudEvents whose answers are kept. An event that is delivered again gets the kept answer. 0 keeps none.
    #[arg(
        long,
        env = "INTENTD_EVENTS_KEPT",
        value_name = "N",
        default_value = "0"
    )]
    pub events_kept: usize,
}

fn parse_model_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') {
        return Err("expected a name without slashes".to_owned());
    }
    Ok(text.to_owned())
}
