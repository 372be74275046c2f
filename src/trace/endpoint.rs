//! The address of a collector.

use std::str::FromStr;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

/// The address of a collector, as in `--otlp-endpoint`: `http://host:4318` or `https://host`, with a name and a
/// password before the host if the collector requires them.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(super) url: Uri,
    /// The value of the header `authorization` (RFC 7617).
    pub(super) authorization: Option<String>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected a URL like http://localhost:4318 or https://host".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let scheme = uri.scheme().cloned().ok_or_else(wrong)?;
        let default_port = match scheme.as_str() {
            "http" => 4318,
            "https" => 443,
            _ => return Err(wrong()),
        };
        if uri.query().is_some() {
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
        let port = authority.port_u16().unwrap_or(default_port);
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let url = Uri::builder()
            .scheme(scheme)
            .authority(format!("{}:{port}", authority.host()))
            .path_and_query(format!("{}/v1/traces", uri.path().trim_end_matches('/')));
        Ok(Self {
            authorization: user.map(basic_authorization),
            url: url.build().map_err(|_| wrong())?,
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
        let endpoint = |text: &str| text.parse::<Endpoint>().map(|e| e.url.to_string());
        for (text, url) in [
            ("http://otel:4318", "http://otel:4318/v1/traces"),
            ("http://otel", "http://otel:4318/v1/traces"),
            ("http://[::1]:1/a/", "http://[::1]:1/a/v1/traces"),
            ("https://otel", "https://otel:443/v1/traces"),
            (
                "https://me:hush@otel:4318/b",
                "https://otel:4318/b/v1/traces",
            ),
        ] {
            assert_eq!(endpoint(text).as_deref(), Ok(url));
        }
        let with_password: Endpoint = "http://Aladdin:open%20sesame@otel".parse().unwrap();
        assert_eq!(with_password.url.authority().unwrap(), "otel:4318");
        // The example of RFC 7617.
        let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(with_password.authorization.as_deref(), Some(expected));
        assert!(!format!("{with_password:?}").contains("QWx"));
        for wrong in [
            "http://me:hu/sh@otel",
            "http://otel:port",
            "otel:4318",
            "ftp://otel:4318",
            "/v1/traces",
            "http://a?b",
            "",
        ] {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
