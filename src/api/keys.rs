//! Clients' keys, from a file, compared in constant time.

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderName, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use crate::error::Refusal;
use intentd_base::input;

type KeyDigest = [u8; 32];

/// Carries a key in place of `Authorization`.
const HEADER: HeaderName = HeaderName::from_static("x-api-key");

/// The keys in a file, one a line. Empty lines and lines that begin with `#` do not count.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    /// Digests, so that the time of a comparison does not depend on a key's length.
    digests: RwLock<Vec<KeyDigest>>,
}

/// The reason why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--api-keys {}: {what}", path.display())]
pub struct KeysError {
    path: PathBuf,
    what: String,
}

impl Keys {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or holds no key and so would admit nobody.
    pub fn open(path: &Path) -> Result<Self, KeysError> {
        Ok(Self {
            path: path.to_owned(),
            digests: RwLock::new(read(path)?),
        })
    }

    /// Reads the file again and returns whether the keys changed. After an error the current keys stay in use.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reload(&self) -> Result<bool, KeysError> {
        let digests = read(&self.path)?;
        let mut current = self.digests.write().unwrap_or_else(PoisonError::into_inner);
        let changed = *current != digests;
        *current = digests;
        Ok(changed)
    }

    /// Checks that the request carries one of the keys, as `Authorization: Bearer KEY` (RFC 6750) or as
    /// `x-api-key: KEY`.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let found = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| bearer(value.as_bytes()))
            .or_else(|| headers.get(HEADER).map(|value| value.as_bytes()));
        let found: KeyDigest = Sha256::digest(found.unwrap_or_default()).into();
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        // All are compared, even after a match.
        let one_of = |any: Choice, digest: &KeyDigest| any | digest.ct_eq(&found);
        if digests.iter().fold(Choice::from(0), one_of).into() {
            Ok(())
        } else {
            Err(Refusal::Unauthorized)
        }
    }
}

/// The key in `Bearer KEY`. The scheme is case-insensitive (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| key.trim_ascii())
}

fn read(path: &Path) -> Result<Vec<KeyDigest>, KeysError> {
    let wrong = |what: String| KeysError {
        path: path.to_owned(),
        what,
    };
    let text = input::read_text(path, input::SMALL).map_err(|error| wrong(error.to_string()))?;
    let keys = text.lines().map(str::trim);
    let keys = keys.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let digests: Vec<KeyDigest> = keys.map(|key| Sha256::digest(key).into()).collect();
    if digests.is_empty() {
        let what = "the file has no key; write one a line, or leave the flag out";
        return Err(wrong(what.to_owned()));
    }
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_a_key_of_the_file_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        // A byte order mark, which some editors write, does not turn a comment into a key.
        std::fs::write(&path, "\u{feff}# ours\n\n  secret-1 \nsecret-2\r\n").unwrap();
        let keys = Keys::open(&path).unwrap();
        for (name, value) in [
            ("authorization", "Bearer secret-1"),
            ("authorization", "bearer  secret-2"),
            ("x-api-key", "secret-2"),
        ] {
            assert_eq!(keys.check(&headers(name, value)), Ok(()), "{name}: {value}");
        }
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("authorization", "Bearer "),
            ("authorization", "Bearer # ours"),
            ("authorization", "Bearer \u{feff}# ours"),
            ("authorization", "Basic secret-1"),
            ("authorization", "secret-1"),
            ("x-api-key", "secret-1 secret-2"),
            ("x-api-key", ""),
        ] {
            let checked = keys.check(&headers(name, value));
            assert_eq!(checked, Err(Refusal::Unauthorized), "{name}: {value}");
        }
        assert!(keys.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn a_bad_file_leaves_the_keys_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        assert!(Keys::open(&path).is_err());
        std::fs::write(&path, "old").unwrap();
        let keys = Keys::open(&path).unwrap();
        assert!(!keys.reload().unwrap());
        std::fs::write(&path, "# none left").unwrap();
        assert!(keys.reload().is_err());
        assert!(keys.check(&headers("x-api-key", "old")).is_ok());
        std::fs::write(&path, "new").unwrap();
        assert!(keys.reload().unwrap());
        assert!(keys.check(&headers("x-api-key", "new")).is_ok());
        assert!(keys.check(&headers("x-api-key", "old")).is_err());
    }
}
