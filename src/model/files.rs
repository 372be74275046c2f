//! Where a checkpoint's files come from: a directory, or the binary itself.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// A set of named files, read whole.
#[derive(Debug, Clone)]
pub enum Files {
    /// A Hugging Face directory.
    Directory(PathBuf),
    /// Files compiled into the binary: `(name, content)`.
    Embedded(&'static str, &'static [(&'static str, &'static [u8])]),
}

impl Files {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`CheckpointError::Missing`] when `directory` is not a directory.
    pub fn directory(directory: &Path) -> Result<Self, CheckpointError> {
        if directory.is_dir() {
            return Ok(Self::Directory(directory.to_owned()));
        }
        let found = if directory.exists() {
            " (this is a file)"
        } else {
            ""
        };
        Err(CheckpointError::missing(
            format!("{}{found}", directory.display()),
            "a directory with config.json, tokenizer.json or vocab.txt, and model.safetensors",
        ))
    }

    /// The content of `name`, or `None` when there is no such file.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`] when the file exists but cannot be read.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        match self {
            Self::Directory(directory) => match std::fs::read(directory.join(name)) {
                Ok(content) => Ok(Some(Cow::Owned(content))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CheckpointError::Unreadable {
                    file: self.path(name),
                    source,
                }),
            },
            Self::Embedded(_, files) => Ok(files
                .iter()
                .find(|(file, _)| *file == name)
                .map(|(_, c)| Cow::Borrowed(*c))),
        }
    }

    /// Whether `name` exists.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).exists(),
            Self::Embedded(_, files) => files.iter().any(|(file, _)| *file == name),
        }
    }

    /// How a user would name the file `name` of this checkpoint.
    pub fn path(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::Embedded(origin, _) => format!("{origin}/{name}"),
        }
    }

    /// How a user would name the checkpoint.
    pub fn origin(&self) -> String {
        match self {
            Self::Directory(directory) => directory.display().to_string(),
            Self::Embedded(origin, _) => (*origin).to_owned(),
        }
    }
}
