//! The scaler behind TLS, with and without certificates of clients.

use std::path::{Path, PathBuf};

use intentd::scaler::proto::external_scaler_client::ExternalScalerClient;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::support::process::{failure, run};
use crate::support::scaler::{Answering, Scaler, demand, until};

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn signs(&self, usage: ExtendedKeyUsagePurpose) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        Pair {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    fn client(&self) -> Pair {
        self.signs(ExtendedKeyUsagePurpose::ClientAuth)
    }
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// Asks for the demand over TLS, as `client` if it is given.
async fn ask(scaler: &Scaler, ca: &Authority, client: Option<&Pair>) -> Result<f64, String> {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.certificate))
        .domain_name("localhost");
    if let Some(client) = client {
        tls = tls.identity(Identity::from_pem(&client.certificate, &client.key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{}", scaler.address)).unwrap();
    let channel: Channel = endpoint
        .tls_config(tls)
        .unwrap()
        .connect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    let mut client = ExternalScalerClient::new(channel);
    let answer = demand(&mut client, &[]).await;
    answer
        .map(|(value, _)| value)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn only_clients_of_the_authority_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let server = ours.signs(ExtendedKeyUsagePurpose::ServerAuth);
    let cert = write(directory.path(), "cert.pem", &server.certificate);
    let key = write(directory.path(), "key.pem", &server.key);
    let client_ca = write(directory.path(), "ca.pem", &ours.certificate);
    let replica = Answering::replica(1.5).await;
    let place = replica.place();
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (text(&cert), text(&key), text(&client_ca));
    let tls = ["--replicas", &place, "--tls-cert", &cert, "--tls-key", &key];

    let open = Scaler::start(&tls);
    assert_eq!(ask(&open, &ours, None).await, Ok(1.5));
    assert!(
        ask(&open, &other, None).await.is_err(),
        "its certificate is not of that one"
    );

    let scaler = Scaler::start(&[&tls[..], &["--tls-client-ca", &ca]].concat());
    let (right, wrong) = (ours.client(), other.client());
    assert_eq!(ask(&scaler, &ours, Some(&right)).await, Ok(1.5));
    assert!(ask(&scaler, &ours, None).await.is_err());
    assert!(ask(&scaler, &ours, Some(&wrong)).await.is_err());
    let for_servers = ours.signs(ExtendedKeyUsagePurpose::ServerAuth);
    assert!(ask(&scaler, &ours, Some(&for_servers)).await.is_err());

    // What cannot be used leaves the one before in use; the next one takes its place.
    write(directory.path(), "ca.pem", "none");
    scaler.kill("HUP");
    until(async || scaler.log(), |log| log.contains("--tls-client-ca")).await;
    assert_eq!(ask(&scaler, &ours, Some(&right)).await, Ok(1.5));
    write(directory.path(), "ca.pem", &other.certificate);
    scaler.kill("HUP");
    until(async || scaler.log(), |log| log.contains("reloaded")).await;
    assert_eq!(ask(&scaler, &ours, Some(&wrong)).await, Ok(1.5));
    assert!(ask(&scaler, &ours, Some(&right)).await.is_err());
}

#[test]
fn authorities_that_cannot_be_used_are_named_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let server = ours.signs(ExtendedKeyUsagePurpose::ServerAuth);
    let cert = write(directory.path(), "cert.pem", &server.certificate);
    let key = write(directory.path(), "key.pem", &server.key);
    let empty = write(directory.path(), "ca.pem", "");
    let paths = [&cert, &key, &empty].map(|path| path.to_str().unwrap());
    let [cert, key, empty] = paths;
    let flags = [
        "scaler",
        "--port",
        "0",
        "--admin-port",
        "off",
        "--tls-cert",
        cert,
        "--tls-key",
        key,
        "--tls-client-ca",
        empty,
    ];
    let output = run(&flags, "");
    let (code, error) = failure(&output);
    assert_eq!(code, Some(64), "{error}");
    assert!(
        error.contains("--tls-client-ca") && error.contains("ca.pem"),
        "{error}"
    );
}
