//! A query to Prometheus, or to any server with its API, whose result is a wake signal.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;

use super::link::{Link, LinkError, Peer};
use intentd_base::shown;

/// The base URL of a Prometheus server: `http://prometheus:9090`, optionally with a path before `/api`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrometheusUrl {
    is_tls: bool,
    host: String,
    port: u16,
    prefix: String,
}

impl FromStr for PrometheusUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let found = shown(text);
            format!("expected a URL like http://prometheus:9090, found {found}")
        };
        let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
        let (scheme, authority) = (uri.scheme_str(), uri.authority().ok_or_else(wrong)?);
        let (is_tls, port) = match scheme {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => return Err(wrong()),
        };
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let host = authority.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        Ok(Self {
            is_tls,
            host: bare.unwrap_or(host).to_owned(),
            port: authority.port_u16().unwrap_or(port),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

/// Evaluates one query on one server.
#[derive(Debug)]
pub(super) struct QueryReader {
    link: Link,
    path: String,
}

impl QueryReader {
    pub(super) fn new(server: &PrometheusUrl, query: &str) -> Self {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        Self {
            link: Link::new(Peer::Host {
                host: server.host.clone(),
                port: server.port,
                is_tls: server.is_tls,
            }),
            path: format!("{}/api/v1/query?{query}", server.prefix),
        }
    }

    /// The result of the query now.
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) async fn read(&mut self, timeout: Duration) -> Result<f64, String> {
        let body = self.link.get(&self.path, timeout).await;
        let body = body.map_err(|error: LinkError| error.to_string())?;
        parse_prometheus(&body)
    }
}

/// The response to an instant query (Prometheus' HTTP API, "Instant queries").
#[derive(Deserialize)]
struct QueryResponse {
    data: QueryResult,
}

/// A result. A sample is a time and a value.
#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum QueryResult {
    Vector(Vec<Series>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Series {
    value: (f64, String),
}

/// Parses the one number in a response to a query. An empty result is 0: nothing has been counted yet.
///
/// # Errors
/// The mistake in it, without repeating its content.
pub fn parse_prometheus(body: &[u8]) -> Result<f64, String> {
    let response: QueryResponse = serde_json::from_slice(body)
        .map_err(|_| "the answer is not a vector and not a scalar".to_owned())?;
    let text = match response.data {
        QueryResult::Scalar((_, text)) => text,
        QueryResult::Vector(series) => match <[Series; 1]>::try_from(series) {
            Ok([one]) => one.value.1,
            Err(series) if series.is_empty() => return Ok(0.0),
            Err(series) => {
                let count = series.len();
                return Err(format!(
                    "the query gives {count} series; make it one, as by sum()"
                ));
            }
        },
    };
    let value: f64 = text.parse().map_err(|_| "the value is no number")?;
    if value.is_nan() {
        return Err("the value is NaN".to_owned());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_one_number() {
        let vector = |result: &str| {
            let data = format!(r#"{{"resultType": "vector", "result": [{result}]}}"#);
            parse_prometheus(format!(r#"{{"status": "success", "data": {data}}}"#).as_bytes())
        };
        assert_eq!(
            vector(r#"{"metric": {"a": "b"}, "value": [1.5, "12.5"]}"#),
            Ok(12.5)
        );
        assert_eq!(
            vector(r#"{"metric": {}, "value": [1, "+Inf"]}"#),
            Ok(f64::INFINITY)
        );
        assert_eq!(vector(""), Ok(0.0));
        assert!(vector(r#"{"metric": {}, "value": [1, "NaN"]}"#).is_err());
        let two = r#"{"metric": {}, "value": [1, "1"]}, {"metric": {}, "value": [1, "2"]}"#;
        assert!(vector(two).unwrap_err().contains("2 series"));
        let scalar =
            br#"{"status": "success", "data": {"resultType": "scalar", "result": [1, "3"]}}"#;
        assert_eq!(parse_prometheus(scalar), Ok(3.0));
        for wrong in [
            &br#"{"status": "error", "errorType": "bad_data", "error": "parse error"}"#[..],
            br#"{"status": "success", "data": {"resultType": "matrix", "result": []}}"#,
            b"<html>",
        ] {
            assert!(parse_prometheus(wrong).is_err());
        }
    }

    #[test]
    fn base_urls_of_prometheus_are_parsed() {
        let url = |text: &str| text.parse::<PrometheusUrl>();
        let plain = url("http://prometheus.monitoring:9090/").unwrap();
        assert_eq!(
            (plain.port, plain.prefix.as_str(), plain.is_tls),
            (9090, "", false)
        );
        let tls = url("https://[::1]/select/0/prometheus").unwrap();
        assert_eq!(
            (tls.host.as_str(), tls.port, tls.is_tls),
            ("::1", 443, true)
        );
        assert_eq!(tls.prefix, "/select/0/prometheus");
        for wrong in [
            "",
            "prometheus:9090",
            "ftp://a",
            "http://u:p@a",
            "http://a/?b=c",
        ] {
            assert!(url(wrong).is_err(), "{wrong}");
        }
    }
}
