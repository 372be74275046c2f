//! Reads files that others wrote: regular files only, bounded in size and time.
//!
//! A path in a setting may name anything: a pipe without a writer, a device without an end, a folder, or a
//! file on a server that no longer answers. None of these may block a server or fill its memory, at the start
//! or when it reads the file again. (A model's weights are opened here and read elsewhere, in parts and without
//! a time limit.)

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

/// Limit for files that people write: settings, keys, certificates, passwords.
pub const SMALL: u64 = 1 << 20;

/// Limit for a checkpoint's small files, such as a `config.json` with many labels.
pub const CHECKPOINT: u64 = 16 << 20;

/// Limit for vocabularies: the largest published ones have a third of it.
pub const VOCABULARY: u64 = 128 << 20;

/// Limit for sets of texts and traces of arrivals.
pub const TEXTS: u64 = 2 << 30;

/// The time to read a file of `limit` bytes. Even a slow remote disk reads eight megabytes a second; a file that
/// takes longer is on a storage that does not answer.
fn time_max(limit: u64) -> Duration {
    Duration::from_secs(30 + (limit >> 23))
}

/// Files whose reading timed out while a thread still waits for them. The thread cannot be interrupted, and no
/// second one is started for the same file.
static STUCK: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Opens a regular file, following links.
///
/// # Errors
/// When opening fails, or when it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Otherwise a pipe would wait for a writer, and a file for the holder of a lease on it.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "something else"
    };
    Err(io::Error::other(format!("{what}, not a regular file")))
}

/// The content of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`]; when the file is larger, or takes too long: half a minute, and more for large limits.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    within(time_max(limit), path, move |path| read_now(path, limit))
}

/// The content of a text file of at most `limit` bytes, without a leading byte order mark.
///
/// # Errors
/// As [`read`]; when it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, limit)?);
    let mut text = text.map_err(|_| io::Error::other("not a text in UTF-8"))?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn read_now(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut content = Vec::new();
    // One byte more reveals a larger file; it may grow while it is read.
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let what = format!("larger than the {} MiB that it may have", limit >> 20);
        return Err(io::Error::other(what));
    }
    Ok(content)
}

/// Runs `work` on a thread of its own, because a wait for a disk cannot be interrupted. After `time`, the thread
/// is abandoned; nothing waits for what it holds.
fn within<T: Send + 'static>(
    time: Duration,
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let late = |what| Err(io::Error::new(io::ErrorKind::TimedOut, what));
    if stuck().contains(path) {
        return late("an earlier attempt to read it still waits".to_owned());
    }
    let (done, outcome) = mpsc::sync_channel(1);
    let read = path.to_owned();
    let work = move || {
        // The receiver may have given up, and marked the file as stuck.
        let _ = done.send(work(&read));
        stuck().remove(&read);
    };
    std::thread::Builder::new()
        .name("read".to_owned())
        .spawn(work)?;
    match outcome.recv_timeout(time) {
        Ok(found) => found,
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("reading it panicked")),
        Err(RecvTimeoutError::Timeout) => {
            stuck().insert(path.to_owned());
            // The outcome may have arrived in between.
            if let Ok(found) = outcome.try_recv() {
                stuck().remove(path);
                return found;
            }
            late(format!("not read within {} s", time.as_secs()))
        }
    }
}

fn stuck() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    STUCK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_read_through_a_link_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&path, "\u{feff}text").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 7).unwrap(), "\u{feff}text".as_bytes());
        assert_eq!(read_text(&link, 7).unwrap(), "text");
    }

    #[test]
    fn anything_but_a_regular_file_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for (path, expected) in [
            (directory.path(), "a folder, not a regular file"),
            (&pipe, "a pipe, not a regular file"),
            (Path::new("/dev/zero"), "a device, not a regular file"),
        ] {
            assert_eq!(read(path, SMALL).unwrap_err().to_string(), expected);
        }
        let none = read(&directory.path().join("none"), SMALL).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_beyond_its_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_len(SMALL).unwrap();
        assert_eq!(read(&path, SMALL).unwrap().len() as u64, SMALL);
        file.set_len(SMALL + 1).unwrap();
        let error = read(&path, SMALL).unwrap_err().to_string();
        assert_eq!(error, "larger than the 1 MiB that it may have");
        assert!(read_text(&path, 2 * SMALL).is_ok());
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path, SMALL).is_err());
    }

    #[test]
    fn a_read_without_an_answer_is_given_up() {
        let short = Duration::from_millis(1);
        let stuck = |_: &Path| {
            std::thread::park();
            Ok(())
        };
        let path = Path::new("a file on a server that is gone");
        for expected in [
            "not read within 0 s",
            "an earlier attempt to read it still waits",
        ] {
            let error = within(short, path, stuck).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let other = Path::new("another");
        within(Duration::from_secs(60), other, |_| Ok(())).unwrap();
    }
}
