//! Files that somebody else has written: regular ones only, up to a size, and within a time.
//!
//! A path in a setting may name anything: a pipe that nobody writes to, a device without an end, a
//! folder, a file on a server that no longer answers. None of these may hold a server up or fill its
//! memory, at the start or when it reads the file again. (The weights of a model are opened here and
//! read elsewhere, a part at a time and for as long as it takes.)

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;

/// For settings, keys, certificates, passwords: what people write.
pub(crate) const SMALL: u64 = 1 << 20;

/// For a checkpoint's other files, such as a `config.json` with many labels.
pub(crate) const CHECKPOINT: u64 = 16 << 20;

/// For vocabularies: the largest published are a third of it.
pub(crate) const VOCABULARY: u64 = 128 << 20;

/// For sets of texts and traces of arrivals.
pub(crate) const TEXTS: u64 = 2 << 30;

/// A file that takes longer lies on something that does not answer: even a slow disk far away reads
/// eight megabytes a second.
fn time_max(limit: u64) -> Duration {
    Duration::from_secs(30 + (limit >> 23))
}

/// Files that a thread still waits for, long after nobody else does: it cannot be interrupted, and
/// there shall be no second one.
static STUCK: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Opens a regular file, following links.
///
/// # Errors
/// What opening fails with; that it is something else than a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    // A pipe would wait for a writer otherwise, and a file for whoever holds a lease on it.
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
/// As [`open`]; that it is larger, or takes too long: half a minute, and more for large limits.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    within(time_max(limit), path, move |path| read_now(path, limit))
}

/// The same of a text, without the byte order mark that some editors begin a file with.
///
/// # Errors
/// As [`read`]; that it is not UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> io::Result<String> {
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
    // One byte more shows a file that is larger; it may grow while it is read.
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        let what = format!("larger than the {} MiB that it may have", limit >> 20);
        return Err(io::Error::other(what));
    }
    Ok(content)
}

/// Runs `work` in a thread of its own, since what waits for a disk cannot be interrupted. When the time
/// is over the thread is left to itself: it holds nothing that anybody waits for.
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
        // Nobody may be waiting any more, and has marked the file then.
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
            // It may have come in between.
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
    fn a_regular_file_is_read_also_through_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&path, "\u{feff}text").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read(&link, 7).unwrap(), "\u{feff}text".as_bytes());
        assert_eq!(read_text(&link, 7).unwrap(), "text");
    }

    #[test]
    fn whatever_is_no_regular_file_is_refused_at_once() {
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
    fn what_does_not_answer_is_given_up() {
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
