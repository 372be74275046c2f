//! Finds out why a connection to a broker fails. librdkafka reports every bad certificate as "could not be verified", and
//! a broker that expects TLS as "down". A TLS handshake of our own says more.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, Error, RootCertStore};

use super::settings::Connection;

/// Time to connect, and for each message of the handshake.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is wrong with the connection to the first broker, if a handshake shows it.
pub(super) fn explain(connection: &Connection) -> Option<String> {
    let is_of_flags =
        |(key, _): &(String, String)| key != "security.protocol" && !key.starts_with("ssl.");
    if !connection.properties.iter().all(is_of_flags) {
        return None;
    }
    let outcome = handshake(connection)?;
    if !connection.security.has_tls() {
        // A certificate that we do not trust is still an answer in TLS.
        let speaks_tls = !matches!(outcome, Err(Error::InvalidMessage(_)));
        let what = "the broker expects TLS: set --kafka-security ssl or sasl-ssl";
        return speaks_tls.then(|| what.to_owned());
    }
    match outcome {
        Err(Error::InvalidMessage(_)) => {
            Some("the broker's port speaks no TLS: set another port or --kafka-security".to_owned())
        }
        Err(error @ Error::InvalidCertificate(_)) => Some(error.to_string()),
        Ok(()) | Err(_) => None,
    }
}

/// The outcome of a TLS handshake with the first broker; `None` where none took place.
fn handshake(connection: &Connection) -> Option<Result<(), Error>> {
    let broker = connection.brokers.split(',').next()?.trim();
    let (host, _) = broker.rsplit_once(':')?;
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).ok()?;
    let address = broker.to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_root_certificates(roots(connection))
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), name).ok()?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut stream) {
            return of_tls(error).map(Err);
        }
    }
    Some(Ok(()))
}

fn of_tls(error: io::Error) -> Option<Error> {
    error
        .into_inner()?
        .downcast::<Error>()
        .ok()
        .map(|error| *error)
}

fn roots(connection: &Connection) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    match &connection.ca {
        Some(path) => {
            let found = CertificateDer::pem_file_iter(path).into_iter().flatten();
            roots.add_parsable_certificates(found.flatten());
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    roots
}
