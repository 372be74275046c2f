//! The server's side of SCRAM, RFC 5802, without channel binding.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

/// The minimum of RFC 7677, and Kafka's default.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("not zero");

/// Verifies that a client knows a password, without keeping the password.
pub(super) struct Verifier {
    hash: hmac::Algorithm,
    salt: String,
    stored_key: digest::Digest,
    server_key: hmac::Key,
}

impl Verifier {
    pub(super) fn new(hash: hmac::Algorithm, password: &str, salt: &[u8]) -> Self {
        let derivation = if hash == hmac::HMAC_SHA256 {
            pbkdf2::PBKDF2_HMAC_SHA256
        } else {
            pbkdf2::PBKDF2_HMAC_SHA512
        };
        let mut salted = vec![0; hash.digest_algorithm().output_len()];
        pbkdf2::derive(
            derivation,
            ITERATIONS,
            salt,
            password.as_bytes(),
            &mut salted,
        );
        let salted = hmac::Key::new(hash, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let server_key = hmac::sign(&salted, b"Server Key");
        Self {
            hash,
            salt: STANDARD.encode(salt),
            stored_key: digest::digest(hash.digest_algorithm(), client_key.as_ref()),
            server_key: hmac::Key::new(hash, server_key.as_ref()),
        }
    }

    /// The challenge for the client's first message. `None` if that is invalid or has another name.
    pub(super) fn challenge(&self, name: &str, first: &str, nonce: &str) -> Option<Challenge> {
        // "n" or "y" for no channel binding, then the authorization identity: the client itself.
        let (binding, rest) = first.split_once(',')?;
        let (acts_as, bare) = rest.split_once(',')?;
        let escaped = name.replace('=', "=3D").replace(',', "=2C");
        let itself = acts_as.is_empty() || acts_as.strip_prefix("a=") == Some(escaped.as_str());
        if !matches!(binding, "n" | "y") || !itself {
            return None;
        }
        let mut attributes = bare.split(',');
        let named = attributes.next()?.strip_prefix("n=")?;
        let theirs = attributes.next()?.strip_prefix("r=")?;
        if named != escaped || theirs.is_empty() {
            return None;
        }
        let nonce = format!("{theirs}{nonce}");
        Some(Challenge {
            message: format!("r={nonce},s={},i={ITERATIONS}", self.salt),
            nonce,
            header: STANDARD.encode(format!("{binding},{acts_as},")),
            bare: bare.to_owned(),
        })
    }

    /// The server's signature, which proves that the gate knows the password too. `None` if the client's last message
    /// is not a valid proof.
    pub(super) fn verify(&self, challenge: &Challenge, last: &str) -> Option<String> {
        let (without, proof) = last.rsplit_once(",p=")?;
        let mut attributes = without.split(',');
        let header = attributes.next()?.strip_prefix("c=")?;
        let nonce = attributes.next()?.strip_prefix("r=")?;
        if header != challenge.header || nonce != challenge.nonce {
            return None;
        }
        let message = format!("{},{},{without}", challenge.bare, challenge.message);
        let stored_key = hmac::Key::new(self.hash, self.stored_key.as_ref());
        let signature = hmac::sign(&stored_key, message.as_bytes());
        let mut client_key = STANDARD.decode(proof).ok()?;
        if client_key.len() != signature.as_ref().len() {
            return None;
        }
        for (byte, signed) in client_key.iter_mut().zip(signature.as_ref()) {
            *byte ^= signed;
        }
        let key = digest::digest(self.hash.digest_algorithm(), &client_key);
        // The timing of this comparison reveals only hashes.
        if key.as_ref() != self.stored_key.as_ref() {
            return None;
        }
        let signature = hmac::sign(&self.server_key, message.as_bytes());
        Some(format!("v={}", STANDARD.encode(signature)))
    }
}

/// A challenge, and the messages that the proof covers.
#[derive(Debug)]
pub(super) struct Challenge {
    message: String,
    nonce: String,
    header: String,
    bare: String,
}

impl Challenge {
    /// The gate's message to the client.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The exchange of RFC 7677, section 3.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn verifier() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::new(hmac::HMAC_SHA256, "pencil", &salt)
    }

    #[test]
    fn the_exchange_of_the_rfc_proves_both_sides() {
        let challenge = verifier().challenge("user", FIRST, NONCE).unwrap();
        assert_eq!(
            challenge.message(),
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            verifier().verify(&challenge, LAST).unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn any_other_last_message_is_refused() {
        let verifier = verifier();
        let challenge = verifier.challenge("user", FIRST, NONCE).unwrap();
        for wrong in [
            "",
            "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            &LAST.replace("biws", "eSws"),
            &LAST.replace("r=rO", "r=r0"),
            &LAST.replace("p=dH", "p=dI"),
            &LAST.replace("dVQ=", "d"),
            &LAST.replace("dHzb", ""),
            &LAST.replace("p=", "q="),
        ] {
            assert_eq!(verifier.verify(&challenge, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_first_message_has_the_right_name_and_no_channel_binding() {
        let verifier = verifier();
        let challenge = |first| verifier.challenge("user", first, NONCE);
        assert!(challenge("y,,n=user,r=x").is_some());
        assert!(challenge("n,a=user,n=user,r=x,tokenauth=true").is_some());
        for wrong in [
            "",
            "n",
            "n,,",
            "n,,n=user",
            "n,,n=user,r=",
            "n,,r=x,n=user",
            "n,,n=other,r=x",
            "n,a=other,n=user,r=x",
            "p=tls-exporter,,n=user,r=x",
            "n,,m=ext,n=user,r=x",
        ] {
            assert!(challenge(wrong).is_none(), "{wrong}");
        }
    }
}
