//! A target of the load: a URL, or a TOML file that describes the requests.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use axum::body::Bytes;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::request::PreparedRequest;
use intentd_base::input;

/// The characters that a query string escapes: all but the unreserved ones of RFC 3986, section 2.3.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The version of HTTP that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1, one request at a time on a connection.
    #[default]
    Http1,
    /// HTTP/2 without TLS, from the first byte ("prior knowledge"); many requests on a connection.
    H2c,
}

/// A server and the template of a request to it.
///
/// In `url` and `body`, `{query}` is replaced by the percent-encoded text, `{json}` by the text as a
/// JSON string with its quotes, and `{text}` by the text itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The name in reports.
    #[serde(default)]
    pub name: String,
    /// `http://host[:port]/path?query`.
    pub url: String,
    /// The method. The default is GET without a body and POST with one.
    pub method: Option<String>,
    /// The body of each request.
    pub body: Option<String>,
    /// Headers of each request. Without a `content-type`, a body that begins like JSON is sent as JSON
    /// and any other as text.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON pointer (RFC 6901) to the label in a response. The default is the first member called
    /// "label".
    pub label: Option<String>,
    /// The version of HTTP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether the target was read from a file, which is then complete.
    #[serde(skip)]
    pub from_file: bool,
}

impl FromStr for Target {
    type Err = String;

    /// Parses a URL, or reads the file at that path.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            let target = Self {
                name: String::new(),
                url: text.to_owned(),
                method: None,
                body: None,
                headers: BTreeMap::new(),
                label: None,
                protocol: Protocol::Http1,
                from_file: false,
            };
            return target.named();
        }
        let path = Path::new(text);
        let content = input::read_text(path, input::SMALL).map_err(|error| {
            format!("expected http://… or a file that describes a target: {text}: {error}")
        })?;
        Self::read(path, &content)
    }
}

impl Target {
    /// Parses the content of a target file.
    ///
    /// # Errors
    /// The mistake in it, with the file's name.
    pub fn read(file: &Path, content: &str) -> Result<Self, String> {
        let wrong = |error: &dyn Display| format!("{}: {error}", file.display());
        let mut target: Self = toml::from_str(content).map_err(|error| wrong(&error))?;
        if target.name.is_empty() {
            let stem = file.file_stem().unwrap_or_default();
            target.name = stem.to_string_lossy().into_owned();
        }
        target.from_file = true;
        target.named().map_err(|error| wrong(&error))
    }

    /// Builds the request for one text.
    ///
    /// # Errors
    /// A mistake in the target, or a text that gives no valid request.
    pub fn request(&self, text: &str) -> Result<Request<Bytes>, String> {
        let prepared = self.prepare(text)?;
        let (parts, _) = prepared.to_http().into_parts();
        Ok(Request::from_parts(parts, prepared.body))
    }

    /// Checks that the target gives valid requests.
    ///
    /// # Errors
    /// The part that is wrong, and why.
    pub fn check(&self) -> Result<(), String> {
        self.prepare("music").map(drop)
    }

    /// Whether the request contains the text.
    pub fn has_text(&self) -> bool {
        let names = ["{query}", "{json}", "{text}"];
        let holds = |template: &str| names.iter().any(|name| template.contains(name));
        holds(&self.url) || self.body.as_deref().is_some_and(holds)
    }

    fn named(mut self) -> Result<Self, String> {
        self.check()?;
        if self.name.is_empty() {
            self.name = self.authority()?.to_string();
        }
        Ok(self)
    }

    /// Host and port.
    pub(super) fn authority(&self) -> Result<Authority, String> {
        let Some(rest) = self.url.strip_prefix("http://") else {
            return Err(format!(
                "expected a URL that begins with http:// (there is no TLS), found {:?}",
                self.url
            ));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = &rest[..end];
        if authority.contains('@') {
            return Err(format!("{:?}: send a user's name in a header", self.url));
        }
        authority
            .parse()
            .map_err(|error| format!("{:?}: host {authority:?}: {error}", self.url))
    }

    /// Builds the request for one text, to be sent repeatedly.
    pub(super) fn prepare(&self, text: &str) -> Result<PreparedRequest, String> {
        let authority = self.authority()?;
        let json = serde_json::Value::from(text).to_string();
        let query = utf8_percent_encode(text, QUERY).to_string();
        let fill = |template: &str| fill(template, &query, &json, text);
        let after_host = &self.url["http://".len() + authority.as_str().len()..];
        let path = match after_host.split('#').next().unwrap_or_default() {
            "" => "/".to_owned(),
            path if path.starts_with('?') => format!("/{path}"),
            path => path.to_owned(),
        };
        let path = fill(&path);
        let body = self.body.as_deref().map(fill);
        let uri = match self.protocol {
            Protocol::Http1 => path.clone(),
            Protocol::H2c => format!("http://{authority}{path}"),
        };
        let uri: Uri = uri.parse().map_err(|error| {
            let url = &self.url;
            format!("{url:?}: {error}; {{query}} is the text percent-encoded")
        })?;
        let method = match (&self.method, &body) {
            (Some(method), _) => Method::from_bytes(method.to_uppercase().as_bytes())
                .map_err(|_| format!("method: expected a method of HTTP, found {method:?}"))?,
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        let mut headers = HeaderMap::new();
        if self.protocol == Protocol::Http1 {
            let host = HeaderValue::from_str(authority.as_str());
            headers.insert(header::HOST, host.map_err(|error| error.to_string())?);
        }
        for (name, value) in &self.headers {
            let found = || format!("headers: {name}: {value:?} is no header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| found())?;
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| found())?);
        }
        if let Some(body) = &body
            && !headers.contains_key(header::CONTENT_TYPE)
        {
            let json = body.trim_start().starts_with(['{', '[', '"']);
            let kind = if json {
                "application/json"
            } else {
                "text/plain; charset=utf-8"
            };
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        let body = body.unwrap_or_default().into();
        Ok(PreparedRequest {
            method,
            uri,
            headers,
            body,
        })
    }
}

/// Replaces the placeholders in one pass, so that placeholders inside a text stay as they are.
fn fill(template: &str, query: &str, json: &str, text: &str) -> String {
    let names = [("{query}", query), ("{json}", json), ("{text}", text)];
    let mut filled = String::with_capacity(template.len() + json.len());
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        rest = &rest[start..];
        match names.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => {
                filled.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_toml(content: &str) -> Result<Target, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ours.toml");
        std::fs::write(&file, content).unwrap();
        file.to_str().unwrap().parse()
    }

    #[test]
    fn a_url_describes_a_target() {
        let target: Target = "http://[::1]:8080/predict?query={query}".parse().unwrap();
        assert_eq!(target.name, "[::1]:8080");
        let prepared = target.prepare("a b&c=ü{json}").unwrap();
        assert_eq!(prepared.uri, "/predict?query=a%20b%26c%3D%C3%BC%7Bjson%7D");
        assert_eq!(prepared.method, Method::GET);
        assert_eq!(prepared.headers["host"], "[::1]:8080");
        let target: Target = "http://localhost".parse().unwrap();
        assert_eq!(target.prepare("x").unwrap().uri, "/");
        let target: Target = "http://localhost?a=1#part".parse().unwrap();
        assert_eq!(target.prepare("x").unwrap().uri, "/?a=1");
    }

    #[test]
    fn a_file_describes_a_target() {
        let target = from_toml(
            r#"
            url = "http://localhost:3000/predict"
            body = '{"inputs": {json}, "raw_scores": false}'
            headers = { accept = "application/json" }
            protocol = "h2c"
            "#,
        )
        .unwrap();
        assert_eq!(target.name, "ours");
        let prepared = target.prepare("say \"{text}\"").unwrap();
        assert_eq!(prepared.method, Method::POST);
        assert_eq!(prepared.uri, "http://localhost:3000/predict");
        assert_eq!(
            prepared.body,
            r#"{"inputs": "say \"{text}\"", "raw_scores": false}"#
        );
        assert_eq!(prepared.headers["content-type"], "application/json");
        assert_eq!(prepared.headers["accept"], "application/json");
    }

    #[test]
    fn errors_name_the_mistake() {
        for (text, part) in [
            ("https://localhost/", "no TLS"),
            ("http://", "host"),
            ("http://local host/", "host"),
            ("http://localhost/{text} x", "percent-encode"),
            ("http://me:secret@localhost/", "header"),
            ("no-such-file.toml", "no-such-file.toml"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        for (content, part) in [
            ("url = 1", "url"),
            ("url = \"http://a/\"\nmethods = \"GET\"", "methods"),
            ("url = \"http://a/\"\nmethod = \"G T\"", "method"),
            ("url = \"http://a/\"\nheaders = { \"a b\" = \"c\" }", "a b"),
        ] {
            let error = from_toml(content).unwrap_err();
            assert!(
                error.contains(part) && error.contains("ours.toml"),
                "{error}"
            );
        }
    }
}
