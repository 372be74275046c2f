//! SASL authentication, one token of the client after the other.

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scram::{Challenge, Verifier};
use crate::{BrokerError, Login, Mechanism};

/// The login that the gate accepts.
pub(super) struct Credentials {
    login: Login,
    /// For SCRAM, what verifies the password.
    verifier: Option<Verifier>,
    random: SystemRandom,
}

impl Credentials {
    /// # Errors
    /// When a name or password is not printable ASCII, or when there are no random bytes.
    pub(super) fn new(login: &Login) -> Result<Self, BrokerError> {
        for text in [&login.username, &login.password] {
            if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                let what = "a login's name and password have to be printable ASCII";
                return Err(BrokerError::Setting(what.to_owned()));
            }
        }
        let random = SystemRandom::new();
        let verifier = match login.mechanism {
            Mechanism::Plain => None,
            Mechanism::ScramSha256 => Some(hmac::HMAC_SHA256),
            Mechanism::ScramSha512 => Some(hmac::HMAC_SHA512),
        };
        let verifier = verifier.map(|hash| {
            let mut salt = [0; 16];
            random.fill(&mut salt).map_err(|_| BrokerError::Random)?;
            Ok::<_, BrokerError>(Verifier::new(hash, &login.password, &salt))
        });
        Ok(Self {
            login: login.clone(),
            verifier: verifier.transpose()?,
            random,
        })
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.login.mechanism
    }

    /// Whether a token of PLAIN has the right name and password.
    fn is_plain(&self, token: &[u8]) -> bool {
        let mut parts = token.split(|byte| *byte == 0);
        let (Some(acts_as), Some(name), Some(password), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let ours = self.login.username.as_bytes();
        (acts_as.is_empty() || acts_as == ours)
            && name == ours
            && password == self.login.password.as_bytes()
    }

    /// A value that no client can predict.
    fn nonce(&self) -> Option<String> {
        let mut bytes = [0; 18];
        self.random.fill(&mut bytes).ok()?;
        Some(STANDARD.encode(bytes))
    }
}

/// The gate's reply to a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SaslStep {
    /// Another token is needed.
    Challenge(Vec<u8>),
    /// The client has proved that it knows the password.
    Proven(Vec<u8>),
    /// The client has not proved it.
    Refused,
}

/// The authentication of one client.
pub(super) struct Exchange<'a> {
    credentials: &'a Credentials,
    challenge: Option<Challenge>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(credentials: &'a Credentials) -> Self {
        Self {
            credentials,
            challenge: None,
        }
    }

    /// Processes the client's next token.
    pub(super) fn step(&mut self, token: &[u8]) -> SaslStep {
        let credentials = self.credentials;
        let Some(verifier) = &credentials.verifier else {
            return if credentials.is_plain(token) {
                SaslStep::Proven(Vec::new())
            } else {
                SaslStep::Refused
            };
        };
        let Ok(token) = str::from_utf8(token) else {
            return SaslStep::Refused;
        };
        if let Some(challenge) = self.challenge.take() {
            return match verifier.verify(&challenge, token) {
                Some(signature) => SaslStep::Proven(signature.into_bytes()),
                None => SaslStep::Refused,
            };
        }
        let name = &credentials.login.username;
        let nonce = credentials.nonce();
        let challenge = nonce.and_then(|nonce| verifier.challenge(name, token, &nonce));
        let Some(challenge) = challenge else {
            return SaslStep::Refused;
        };
        let said = challenge.message().as_bytes().to_vec();
        self.challenge = Some(challenge);
        SaslStep::Challenge(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(mechanism: Mechanism, username: &str, password: &str) -> Login {
        Login {
            mechanism,
            username: username.to_owned(),
            password: password.to_owned(),
        }
    }

    #[test]
    fn a_plain_token_is_a_name_and_a_password() {
        let credentials = Credentials::new(&login(Mechanism::Plain, "app", "s3cret")).unwrap();
        let step = |token: &[u8]| Exchange::new(&credentials).step(token);
        assert_eq!(step(b"\0app\0s3cret"), SaslStep::Proven(Vec::new()));
        assert_eq!(step(b"app\0app\0s3cret"), SaslStep::Proven(Vec::new()));
        for wrong in [
            b"".as_slice(),
            b"\0",
            b"\0app",
            b"\0app\0",
            b"\0app\0s3cre",
            b"\0app\0s3cret\0",
            b"\0ap\0s3cret",
            b"other\0app\0s3cret",
            b"app\0s3cret",
        ] {
            assert_eq!(step(wrong), SaslStep::Refused, "{wrong:?}");
        }
    }

    #[test]
    fn a_challenge_is_used_once() {
        let credentials = Credentials::new(&login(Mechanism::ScramSha256, "a,b", "x")).unwrap();
        let mut exchange = Exchange::new(&credentials);
        let first = b"n,,n=a=2Cb,r=nonce";
        let SaslStep::Challenge(said) = exchange.step(first) else {
            panic!("no challenge");
        };
        assert!(said.starts_with(b"r=nonce"));
        assert_eq!(exchange.step(b"c=biws,r=nonce,p="), SaslStep::Refused);
        assert!(matches!(exchange.step(first), SaslStep::Challenge(again) if again != said));
        assert_eq!(Exchange::new(&credentials).step(b"\xff"), SaslStep::Refused);
    }

    #[test]
    fn a_login_that_would_need_preparation_is_refused() {
        for (username, password) in [("", "x"), ("x", ""), ("\u{fb01}", "x"), ("x", "a\0b")] {
            for mechanism in Mechanism::ALL {
                assert!(Credentials::new(&login(mechanism, username, password)).is_err());
            }
        }
    }
}
