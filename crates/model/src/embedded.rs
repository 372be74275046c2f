//! The default model, compiled into the binary. See `models/intent-snips/README.md`.

use super::files::Files;

macro_rules! model_file {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("../../../models/intent-snips/", $name)).as_slice(),
        )
    };
}

/// Seven intents of a voice assistant, and `None`.
pub(crate) const INTENT_SNIPS: Files = Files::Embedded(
    "embedded:intent-snips",
    &[
        model_file!("config.json"),
        model_file!("tokenizer.json"),
        model_file!("tokenizer_config.json"),
        model_file!("model.safetensors"),
    ],
);
