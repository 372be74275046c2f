//! What can be wrong with a checkpoint, always in the same words: which file, which key, what
//! was expected, what was found.

use std::fmt::Display;

/// A checkpoint that cannot be used, and what to change about it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file exists but the operating system does not hand it out.
    #[error("{file}: cannot be read: {source}")]
    Unreadable {
        /// Path of the file, as the user would name it.
        file: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file that must be there is not.
    #[error("{file}: missing; expected {expected}")]
    Missing {
        /// Path of the file, as the user would name it.
        file: String,
        /// What should have been there.
        expected: String,
    },
    /// A file's content contradicts the format or another file.
    #[error("{file}: {key}: expected {expected}, found {found}")]
    Invalid {
        /// Path of the file, as the user would name it.
        file: String,
        /// JSON key or tensor name.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// What stands there.
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
