//! The address of a collector.

use std::str::FromStr;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

/// The address of a collector, as in `--otlp-endpoint`: `http://host:4318`, with a name and a password before the
/// host if the collector requires them.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) authority: String,
    pub(super) path: String,
    /// The value of the header `authorization` (RFC 7617).
    pub(super) authorization: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("authority", &self.authority)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a URL like http://localhost:4318 (there is no TLS)".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.as_str();
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        // A port is a number. An @ after the host belongs to a password with a slash in it.
        let has_port = host.len() > authority.host().len();
        if (has_port && authority.port_u16().is_none()) || uri.path().contains('@') {
            return Err(
                "expected http://name:password@host:port, with %2F for a slash in the password"
                    .to_owned(),
            );
        }
        let port = authority.port_u16().unwrap_or(4318);
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        Ok(Self {
            authorization: user.map(basic_authorization),
            authority: format!("{}:{port}", authority.host()),
            path: format!("{}/v1/traces", uri.path().trim_end_matches('/')),
        })
    }
}

/// HTTP's basic authentication with the name and password of a URL.
fn basic_authorization(user: &str) -> String {
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut pair: Vec<u8> = percent_decode_str(name).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    format!("Basic {}", STANDARD.encode(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_http_url() {
        let endpoint = |text: &str| text.parse::<Endpoint>().map(|e| (e.authority, e.path));
        let of = |authority: &str, path: &str| Ok((authority.to_owned(), path.to_owned()));
        assert_eq!(endpoint("http://otel:4318"), of("otel:4318", "/v1/traces"));
        assert_eq!(endpoint("http://otel"), of("otel:4318", "/v1/traces"));
        assert_eq!(endpoint("http://[::1]:1/a/"), of("[::1]:1", "/a/v1/traces"));
        let with_password: Endpoint = "http://Aladdin:open%20sesame@otel".parse().unwrap();
        assert_eq!(with_password.authority, "otel:4318");
        // The example of RFC 7617.
        let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(with_password.authorization.as_deref(), Some(expected));
        assert!(!format!("{with_password:?}").contains("QWx"));
        for wrong in [
            "http://me:hu/sh@otel",
            "http://otel:port",
            "otel:4318",
            "https://otel:4318",
            "/v1/traces",
            "http://a?b",
            "",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
