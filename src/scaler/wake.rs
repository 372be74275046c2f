//! Signs of work from elsewhere: with no replica there is nobody to ask whether there is any.

use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;

#[cfg(feature = "kafka")]
use super::kafka::LagReader;
use super::link::{Link, LinkError, Peer};
use crate::error::shown;

/// Time for an answer: a query may take longer than a replica.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a sign of work is found. From what value on it is one, each trigger says for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wake {
    /// A query to Prometheus, or to what speaks its API.
    Prometheus {
        /// The server.
        server: PrometheusUrl,
        /// A query that gives one number.
        query: String,
    },
    /// The lag of a consumer group.
    Kafka(KafkaGroup),
}

/// A consumer group and the topic that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KafkaGroup {
    /// Brokers to begin with: `host:port`, separated by commas.
    pub(super) bootstrap: String,
    /// Topic.
    pub(super) topic: String,
    /// Consumer group.
    pub(super) group: String,
    /// Further settings of librdkafka, such as those of security.
    pub(super) settings: Vec<(String, String)>,
}

/// The address of a Prometheus server: `http://prometheus:9090`, with a path before `/api` if need be.
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

/// Reads one sign of work.
#[derive(Debug)]
pub(super) enum Reader {
    Prometheus {
        link: Link,
        path: String,
    },
    #[cfg(feature = "kafka")]
    Kafka(LagReader),
}

impl Reader {
    pub(super) fn new(wake: &Wake) -> Self {
        match wake {
            Wake::Prometheus { server, query } => {
                let query = form_urlencoded::Serializer::new(String::new())
                    .append_pair("query", query)
                    .finish();
                Self::Prometheus {
                    link: Link::new(Peer::Host {
                        host: server.host.clone(),
                        port: server.port,
                        is_tls: server.is_tls,
                    }),
                    path: format!("{}/api/v1/query?{query}", server.prefix),
                }
            }
            #[cfg(feature = "kafka")]
            Wake::Kafka(group) => Self::Kafka(LagReader::new(group.clone(), TIMEOUT)),
            #[cfg(not(feature = "kafka"))]
            Wake::Kafka(_) => unreachable!("refused where triggers are read"),
        }
    }

    /// The value now.
    ///
    /// # Errors
    /// Why it is not known, and the `kind` of that for metrics.
    pub(super) async fn read(&mut self) -> Result<f64, (String, &'static str)> {
        match self {
            Self::Prometheus { link, path } => {
                let wrong = |why: &LinkError| (format!("Prometheus: {why}"), "wake");
                let body = link.get(path, TIMEOUT).await.map_err(|why| wrong(&why))?;
                value(&body).map_err(|why| (format!("Prometheus: {why}"), "wake"))
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => {
                let lag = reader.lag().await;
                lag.map_err(|why| (format!("Kafka: {why}"), "wake"))
            }
        }
    }
}

/// The answer of Prometheus to an instant query (its HTTP API, "Instant queries").
#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Sample {
    value: (f64, String),
}

/// The one number in an answer; an empty one is 0, as where nothing has been counted yet.
pub(super) fn value(body: &[u8]) -> Result<f64, String> {
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|_| "the answer is not a vector and not a scalar".to_owned())?;
    let text = match answer.data {
        Data::Scalar((_, text)) => text,
        Data::Vector(samples) => match <[Sample; 1]>::try_from(samples) {
            Ok([sample]) => sample.value.1,
            Err(samples) if samples.is_empty() => return Ok(0.0),
            Err(samples) => {
                let count = samples.len();
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
    fn an_answer_is_one_number() {
        let vector = |result: &str| {
            let data = format!(r#"{{"resultType": "vector", "result": [{result}]}}"#);
            value(format!(r#"{{"status": "success", "data": {data}}}"#).as_bytes())
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
        assert_eq!(value(scalar), Ok(3.0));
        for wrong in [
            &br#"{"status": "error", "errorType": "bad_data", "error": "parse error"}"#[..],
            br#"{"status": "success", "data": {"resultType": "matrix", "result": []}}"#,
            b"<html>",
        ] {
            assert!(value(wrong).is_err());
        }
    }

    #[test]
    fn addresses_of_prometheus() {
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
