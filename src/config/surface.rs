//! The flags of what those who ask have to know.

use crate::api::{EventSource, TextPointer};

/// What those who ask have to know.
#[derive(Debug, Clone, clap::Args)]
pub struct SurfaceArgs {
    /// What the model is called in the Open Inference Protocol (/v2/models/NAME) and in Triton's metrics.
    #[arg(
        long,
        env = "INTENTD_MODEL_NAME",
        value_name = "NAME",
        default_value = "intentd",
        value_parser = model_name
    )]
    pub model_name: String,
    /// Where the text is in the data of a CloudEvent, as a JSON pointer like /message/text [default: the
    /// data, or its query, text or inputs].
    #[arg(long, env = "INTENTD_EVENT_TEXT_POINTER", value_name = "POINTER")]
    pub event_text_pointer: Option<TextPointer>,
    /// The source of the CloudEvents that answer events.
    #[arg(
        long,
        env = "INTENTD_EVENT_SOURCE",
        value_name = "URI",
        default_value = "/intentd"
    )]
    pub event_source: EventSource,
    /// CloudEvents whose answers are kept: one that is delivered again is answered from there. 0 for none.
    #[arg(
        long,
        env = "INTENTD_EVENTS_KEPT",
        value_name = "N",
        default_value = "0"
    )]
    pub events_kept: usize,
}

fn model_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('/') {
        return Err("expected a name without slashes".to_owned());
    }
    Ok(text.to_owned())
}
