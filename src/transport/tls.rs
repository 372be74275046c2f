//! TLS by rustls, with certificates that may be replaced while connections are open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Certificates and their key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not hold what it should.
    #[error("{flag} {}: {what}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The two do not fit.
    #[error("--tls-cert and --tls-key do not fit together: {0}")]
    Pair(tokio_rustls::rustls::Error),
}

/// Certificates and their key, from two PEM files.
pub struct Tls {
    certificates: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

struct Current {
    /// The files' contents, to see whether they have changed.
    pem: [Vec<u8>; 2],
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Tls")
            .field("certificates", &self.certificates)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads certificates (the server's first) and the private key.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        let pem = read(certificates, key)?;
        let acceptor = acceptor(certificates, key, &pem)?;
        Ok(Self {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(Current { pem, acceptor }),
        })
    }

    /// Reads the files again, for the connections to come; those in use stay when they cannot be
    /// used. Whether anything changed.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn reload(&self) -> Result<bool, TlsError> {
        let pem = read(&self.certificates, &self.key)?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.pem == pem {
            return Ok(false);
        }
        drop(current);
        let acceptor = acceptor(&self.certificates, &self.key, &pem)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { pem, acceptor };
        Ok(true)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.acceptor.clone()
    }
}

fn read(certificates: &Path, key: &Path) -> Result<[Vec<u8>; 2], TlsError> {
    let read = |flag, path: &Path| {
        std::fs::read(path).map_err(|error| TlsError::File {
            flag,
            path: path.to_owned(),
            what: error.to_string(),
        })
    };
    Ok([read("--tls-cert", certificates)?, read("--tls-key", key)?])
}

fn acceptor(
    certificates: &Path,
    key: &Path,
    [certificates_pem, key_pem]: &[Vec<u8>; 2],
) -> Result<TlsAcceptor, TlsError> {
    let wrong = |flag, path: &Path, what: String| TlsError::File {
        flag,
        path: path.to_owned(),
        what,
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificates_pem).collect();
    let chain = chain.map_err(|error| wrong("--tls-cert", certificates, error.to_string()))?;
    if chain.is_empty() {
        let what = "expected certificates in PEM, found none".to_owned();
        return Err(wrong("--tls-cert", certificates, what));
    }
    let secret = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| wrong("--tls-key", key, error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(chain, secret)
        });
    let mut config = config.map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
