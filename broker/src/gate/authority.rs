//! A certificate authority for one gate, and the gate's certificate.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

use crate::BrokerError;

/// An authority and a TLS acceptor with its certificate.
pub(super) struct Authority {
    /// The certificate of the authority.
    pub(super) ca_pem: String,
    /// TLS with a certificate of this authority.
    pub(super) acceptor: TlsAcceptor,
}

impl Authority {
    /// Makes an authority and a certificate for `host`. The authority's key is discarded.
    pub(super) fn new(host: &str) -> Result<Self, BrokerError> {
        let mut own = CertificateParams::new(Vec::new())?;
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        own.distinguished_name
            .push(DnType::CommonName, "intentd-broker's authority");
        let key = KeyPair::generate()?;
        let ca_pem = own.self_signed(&key)?.pem();
        let issuer = Issuer::new(own, key);

        let mut server = CertificateParams::new([host.to_owned(), "127.0.0.1".to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, host);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())?;
        Ok(Self {
            ca_pem,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}
