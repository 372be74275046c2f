//! The files of a checkpoint: in a directory, in the binary, or in memory.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::CheckpointError;
use intentd_base::input;

/// A set of named files.
#[derive(Debug, Clone)]
pub enum Files {
    /// A Hugging Face directory.
    Directory(PathBuf),
    /// Files compiled into the binary: `(name, content)`.
    Embedded(&'static str, &'static [(&'static str, &'static [u8])]),
    /// Files in memory, such as those of a fuzz target.
    Memory {
        /// Name of the checkpoint in errors.
        origin: String,
        /// Each file's name and content. The first file of a name counts.
        files: Vec<(String, Arc<[u8]>)>,
    },
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

    /// The content of `name`, or `None` if there is no such file.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`] when the file exists but cannot be read, is not a regular file,
    /// or exceeds the size limit for its name.
    pub fn read(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        let content = self.content(name)?;
        if content
            .as_ref()
            .is_some_and(|content| content.starts_with(LFS_POINTER))
        {
            return Err(self.is_pointer(name));
        }
        Ok(content)
    }

    fn is_pointer(&self, name: &str) -> CheckpointError {
        CheckpointError::invalid(
            self.path(name),
            "(file)",
            "the file itself",
            "a pointer of Git LFS in its place; fetch it with `git lfs pull`, or download it",
        )
    }

    fn content(&self, name: &str) -> Result<Option<Cow<'static, [u8]>>, CheckpointError> {
        match self {
            Self::Directory(directory) => match input::read(&directory.join(name), limit(name)) {
                Ok(content) => Ok(Some(Cow::Owned(content))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(CheckpointError::Unreadable {
                    file: self.path(name),
                    source,
                }),
            },
            Self::Embedded(_, files) => Ok(files
                .iter()
                .find(|(file, _)| *file == name)
                .map(|(_, c)| Cow::Borrowed(*c))),
            Self::Memory { files, .. } => {
                Ok(find(files, name).map(|content| Cow::Owned(content.to_vec())))
            }
        }
    }

    /// Opens `name` for reading at offsets. `None` if there is no such file.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`] when the file exists but cannot be opened or is not a regular
    /// file.
    pub fn open(&self, name: &str) -> Result<Option<StoredFile>, CheckpointError> {
        let path = self.path(name);
        let (content, len) = match self {
            Self::Directory(directory) => {
                let opened = input::open(&directory.join(name));
                match opened.and_then(|file| file.metadata().map(|meta| (file, meta.len()))) {
                    Ok((file, len)) => (FileContent::File(file), len),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(source) => return Err(CheckpointError::Unreadable { file: path, source }),
                }
            }
            Self::Embedded(_, files) => {
                let Some((_, content)) = files.iter().find(|(file, _)| *file == name) else {
                    return Ok(None);
                };
                (FileContent::Embedded(content), content.len() as u64)
            }
            Self::Memory { files, .. } => {
                let Some(content) = find(files, name) else {
                    return Ok(None);
                };
                (
                    FileContent::Memory(Arc::clone(content)),
                    content.len() as u64,
                )
            }
        };
        let file = StoredFile { path, len, content };
        let mut start = [0; LFS_POINTER.len()];
        if file.len() > start.len() as u64 {
            file.read_at(0, &mut start)?;
        }
        if start == *LFS_POINTER {
            return Err(self.is_pointer(name));
        }
        Ok(Some(file))
    }

    /// Whether `name` exists.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::Directory(directory) => directory.join(name).exists(),
            Self::Embedded(_, files) => files.iter().any(|(file, _)| *file == name),
            Self::Memory { files, .. } => find(files, name).is_some(),
        }
    }

    /// The path of the file `name`, as a user would write it.
    pub fn path(&self, name: &str) -> String {
        match self {
            Self::Directory(directory) => directory.join(name).display().to_string(),
            Self::Embedded(origin, _) => format!("{origin}/{name}"),
            Self::Memory { origin, .. } => format!("{origin}/{name}"),
        }
    }

    /// The name of the checkpoint, as a user would write it.
    pub fn origin(&self) -> String {
        match self {
            Self::Directory(directory) => directory.display().to_string(),
            Self::Embedded(origin, _) => (*origin).to_owned(),
            Self::Memory { origin, .. } => origin.clone(),
        }
    }
}

/// The beginning of the small file that a repository has in the place of a large one until Git LFS fetches it.
const LFS_POINTER: &[u8; 42] = b"version https://git-lfs.github.com/spec/v1";

/// The size limit of a file of this name, in bytes.
fn limit(name: &str) -> u64 {
    match name {
        "tokenizer.json" | "vocab.txt" | "vocab.json" | "merges.txt" | "added_tokens.json" => {
            input::VOCABULARY
        }
        _ => input::CHECKPOINT,
    }
}

fn find<'a>(files: &'a [(String, Arc<[u8]>)], name: &str) -> Option<&'a Arc<[u8]>> {
    let found = files.iter().find(|(file, _)| file == name);
    found.map(|(_, content)| content)
}

/// A file that is read at offsets. The tensors of a model are read directly from
/// the operating system's cache into the engine's memory.
#[derive(Debug)]
pub struct StoredFile {
    path: String,
    len: u64,
    content: FileContent,
}

#[derive(Debug)]
enum FileContent {
    File(File),
    Embedded(&'static [u8]),
    Memory(Arc<[u8]>),
}

impl StoredFile {
    /// The path, as a user would write it.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Size in bytes when it was opened.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills `bytes` from byte `offset` on. Threads may read concurrently.
    ///
    /// # Errors
    /// [`CheckpointError::Unreadable`], also when the file is too short.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), CheckpointError> {
        let mut copy = |content: &[u8]| {
            let end = io::ErrorKind::UnexpectedEof;
            usize::try_from(offset)
                .ok()
                .and_then(|offset| content.get(offset..)?.get(..bytes.len()))
                .map(|part| bytes.copy_from_slice(part))
                .ok_or_else(|| end.into())
        };
        let read = match &self.content {
            FileContent::File(file) => file.read_exact_at(bytes, offset),
            FileContent::Embedded(content) => copy(content),
            FileContent::Memory(content) => copy(content),
        };
        read.map_err(|source| {
            let became_shorter = source.kind() == io::ErrorKind::UnexpectedEof;
            let shorter = || io::Error::other("the file became shorter while it was read");
            CheckpointError::Unreadable {
                file: self.path.clone(),
                source: if became_shorter { shorter() } else { source },
            }
        })
    }
}
