//! The demand report of a replica: the part of `GET /autoscaling` that the scaler uses.

use serde::Deserialize;

/// The supported version of the JSON.
const SCHEMA_VERSION: f64 = 1.0;

/// Largest demand that is accepted. A larger one is a mistake that would start as many replicas as allowed.
const DEMAND_MAX: f64 = 1e6;

/// A replica's demand.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandReport {
    /// Name of the pod, which relates its IPv4 and its IPv6 address.
    pub pod: Option<Box<str>>,
    /// Replicas that the load of this one needs, from 0 to a million.
    pub demand: f64,
    /// Whether the replica holds requests, whatever its demand is.
    pub is_busy: bool,
}

#[derive(Deserialize)]
struct ReportBody {
    schema_version: Option<f64>,
    pod: Option<Box<str>>,
    demand_replicas: Option<f64>,
    in_flight: Option<f64>,
    queue_depth: Option<f64>,
}

impl DemandReport {
    /// Parses the body of a response. Unknown keys are ignored.
    ///
    /// # Errors
    /// The mistake in it, without repeating its content.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        // The parser's own message may repeat the content, and a trigger may name any server.
        let raw: ReportBody = serde_json::from_slice(body).map_err(|error| {
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
        let report = DemandReport::parse(body).unwrap();
        assert_eq!(report.demand, 1.25);
        assert_eq!(report.pod.as_deref(), Some("a"));
        assert!(report.is_busy);
        let least = DemandReport::parse(b"{\"demand_replicas\": 0}").unwrap();
        assert_eq!((least.demand, least.is_busy), (0.0, false));
    }

    #[test]
    fn anything_but_a_demand_is_an_error() {
        let secret = DemandReport::parse(b"{\"demand_replicas\": \"secret\"}").unwrap_err();
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
            assert!(DemandReport::parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
