//! Errors in checkpoints, in one form: the file, the key, the expected value, and the found value.

use std::fmt::Display;

/// A checkpoint that cannot be used, and the reason.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file exists but cannot be read.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// Path of the file, as the user would name it.
        file: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A required file does not exist.
    #[error("{file}: missing; expected {expected}")]
    Missing {
        /// Path of the file, as the user would name it.
        file: String,
        /// Description of the required file.
        expected: String,
    },
    /// A file's content contradicts the format or another file.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Invalid {
        /// Path of the file, as the user would name it.
        file: String,
        /// JSON key or tensor name.
        key: String,
        /// The accepted values.
        expected: String,
        /// The value in the file.
        found: String,
    },
}

impl CheckpointError {
    /// An [`Invalid`](Self::Invalid) from anything printable.
    pub fn invalid(
        file: impl Display,
        key: impl Display,
        expected: impl Display,
        found: impl Display,
    ) -> Self {
        Self::Invalid {
            file: file.to_string(),
            key: key.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
        }
    }

    /// A [`Missing`](Self::Missing) from anything printable.
    pub fn missing(file: impl Display, expected: impl Display) -> Self {
        Self::Missing {
            file: file.to_string(),
            expected: expected.to_string(),
        }
    }
}
