//! What a replica says at `GET /autoscaling`, as far as it matters here.

use serde::Deserialize;

/// The version of the JSON that is understood.
const SCHEMA_VERSION: f64 = 1.0;

/// More than any replica's load needs: what says so is wrong, and would start all the replicas there may be.
const DEMAND_MAX: f64 = 1e6;

/// A replica's demand.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Report {
    /// Name of the pod, by which its IPv4 and its IPv6 address are known to be one.
    pub(super) pod: Option<Box<str>>,
    /// Replicas that its load needs. Neither negative nor beyond all measure.
    pub(super) demand: f64,
    /// Whether requests are in it, whatever its demand says.
    pub(super) is_busy: bool,
}

#[derive(Deserialize)]
struct Raw {
    schema_version: Option<f64>,
    pod: Option<Box<str>>,
    demand_replicas: Option<f64>,
    in_flight: Option<f64>,
    queue_depth: Option<f64>,
}

impl Report {
    /// Reads the body of an answer. Keys that are not known are ignored.
    ///
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        // The parser's own words may repeat what it found, and a trigger may name any server.
        let raw: Raw = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("not the JSON of /autoscaling (line {line}, column {column})")
        })?;
        if let Some(version) = raw.schema_version.filter(|found| *found != SCHEMA_VERSION) {
            return Err(format!(
                "schema_version {version} is not understood, only 1"
            ));
        }
        let demand = raw.demand_replicas.ok_or("demand_replicas is missing")?;
        if !(0.0..=DEMAND_MAX).contains(&demand) {
            return Err(format!(
                "demand_replicas is {demand}, expected a number from 0 to {DEMAND_MAX}"
            ));
        }
        let holds = |count: Option<f64>| count.is_some_and(|count| count > 0.0);
        Ok(Self {
            pod: raw.pod.filter(|name| !name.is_empty()),
            demand,
            is_busy: holds(raw.in_flight) || holds(raw.queue_depth),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_are_ignored() {
        let body = br#"{"schema_version": 1, "pod": "a", "model": "m", "demand_replicas": 1.25,
            "in_flight": 3, "queue_depth": 0, "new": {"deep": [1]}}"#;
        let report = Report::read(body).unwrap();
        assert_eq!(report.demand, 1.25);
        assert_eq!(report.pod.as_deref(), Some("a"));
        assert!(report.is_busy);
        let least = Report::read(b"{\"demand_replicas\": 0}").unwrap();
        assert_eq!((least.demand, least.is_busy), (0.0, false));
    }

    #[test]
    fn what_is_no_demand_is_an_error() {
        let secret = Report::read(b"{\"demand_replicas\": \"secret\"}").unwrap_err();
        assert!(!secret.contains("secret"), "{secret}");
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            "{\"demand_replicas\": null}",
            "{\"demand_replicas\": \"1\"}",
            "{\"demand_replicas\": -0.1}",
            "{\"demand_replicas\": 1000001}",
            "{\"demand_replicas\": NaN}",
            "{\"demand_replicas\": 1e999}",
            "{\"schema_version\": 2, \"demand_replicas\": 1}",
        ] {
            assert!(Report::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
