//! TLS by rustls, with certificates that can be replaced while connections are open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use intentd_base::input;

/// The certificates or their key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or does not have the expected content.
    #[error("{flag} {}: {what}", path.display())]
    File {
        /// The flag that names the file.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The certificate and the key do not match.
    #[error("--tls-cert and --tls-key do not fit together: {0}")]
    Pair(tokio_rustls::rustls::Error),
}

/// The PEM files of a port with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, the server's certificate first.
    pub certificates: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// Authorities for client certificates. If set, a client without a certificate of one of them is rejected.
    pub client_ca: Option<PathBuf>,
}

/// The certificates and key of a port, from PEM files.
pub struct Tls {
    files: TlsFiles,
    current: RwLock<LoadedTls>,
}

/// The files in use, and the acceptor made of them.
struct LoadedTls {
    pem: Pem,
    acceptor: TlsAcceptor,
}

/// The contents of the files, to detect changes.
#[derive(PartialEq, Eq)]
struct Pem {
    certificates: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the key.
        f.debug_struct("Tls")
            .field("certificates", &self.files.certificates)
            .field("client_ca", &self.files.client_ca)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the certificate chain, the server's first, and the private key. Clients need no certificate.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open(certificates: &Path, key: &Path) -> Result<Self, TlsError> {
        Self::open_files(TlsFiles {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            client_ca: None,
        })
    }

    /// Reads the certificate chain, the private key, and the authorities for clients if they are set.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn open_files(files: TlsFiles) -> Result<Self, TlsError> {
        let pem = Pem::read(&files)?;
        let acceptor = acceptor(&files, &pem)?;
        Ok(Self {
            files,
            current: RwLock::new(LoadedTls { pem, acceptor }),
        })
    }

    /// Reads the files again, for new connections. Returns whether anything changed. On an error, the certificates
    /// in use stay.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn reload(&self) -> Result<bool, TlsError> {
        let pem = Pem::read(&self.files)?;
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        if current.pem == pem {
            return Ok(false);
        }
        drop(current);
        let acceptor = acceptor(&self.files, &pem)?;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = LoadedTls { pem, acceptor };
        Ok(true)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.acceptor.clone()
    }
}

impl Pem {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let read = |flag, path: &Path| {
            input::read(path, input::SMALL)
                .map_err(|error| file_error(flag, path, error.to_string()))
        };
        let client_ca = files.client_ca.as_deref();
        Ok(Self {
            certificates: read("--tls-cert", &files.certificates)?,
            key: read("--tls-key", &files.key)?,
            client_ca: client_ca
                .map(|path| read("--tls-client-ca", path))
                .transpose()?,
        })
    }
}

fn file_error(flag: &'static str, path: &Path, what: String) -> TlsError {
    TlsError::File {
        flag,
        path: path.to_owned(),
        what,
    }
}

/// The certificates, at least one, in the PEM file that `flag` names.
fn certificates(
    flag: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| file_error(flag, path, error.to_string()))?;
    if found.is_empty() {
        let what = "expected certificates in PEM, found none".to_owned();
        return Err(file_error(flag, path, what));
    }
    Ok(found)
}

/// Accepts clients with a certificate of one of the authorities in `pem`.
fn verifier(path: &Path, pem: &[u8]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let flag = "--tls-client-ca";
    let mut roots = RootCertStore::empty();
    for authority in certificates(flag, path, pem)? {
        let added = roots.add(authority);
        added.map_err(|error| file_error(flag, path, error.to_string()))?;
    }
    let provider = Arc::new(ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = builder.build();
    verifier.map_err(|error| file_error(flag, path, error.to_string()))
}

fn acceptor(files: &TlsFiles, pem: &Pem) -> Result<TlsAcceptor, TlsError> {
    let chain = certificates("--tls-cert", &files.certificates, &pem.certificates)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|error| file_error("--tls-key", &files.key, error.to_string()))?;
    let clients = match (&files.client_ca, &pem.client_ca) {
        (Some(path), Some(pem)) => verifier(path, pem)?,
        _ => WebPkiClientVerifier::no_client_auth(),
    };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(clients)
                .with_single_cert(chain, secret)
        });
    let mut config = config.map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
