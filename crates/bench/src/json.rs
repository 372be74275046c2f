//! A report as JSON, for programs.

use serde_json::{Value, json};

use super::ratio::{Ratio, ratios};
use super::report::Report;
use super::run::Options;

impl Report {
    /// The report as JSON.
    pub fn json(&self) -> Value {
        let Options {
            warm_up,
            duration,
            timeout,
            connections,
            streams,
            workers,
            seed,
        } = self.options;
        let series = self.series.iter().map(|series| {
            let rounds = series.rounds.iter();
            let rounds = rounds.map(|round| {
                json!({
                    "runs": &round.runs,
                    "highest_per_second": round.highest,
                })
            });
            json!({
                "name": series.name,
                "url": series.url,
                "highest_per_second": series.highest(),
                "rounds": rounds.collect::<Vec<_>>(),
            })
        });
        json!({
            "intentd": env!("CARGO_PKG_VERSION"),
            "objective": self.objective.map(|objective| json!({
                "latency_ms": objective.latency.as_secs_f64() * 1000.0,
                "percentile": objective.percentile,
            })),
            "broken_off": self.broken_off,
            "options": {
                "warm_up_seconds": warm_up.as_secs_f64(),
                "duration_seconds": duration.as_secs_f64(),
                "timeout_seconds": timeout.as_secs_f64(),
                "connections": connections,
                "streams": streams,
                "workers": workers,
                "seed": seed,
            },
            "targets": series.collect::<Vec<_>>(),
            "ratios": ratios(self).iter().map(Ratio::json).collect::<Vec<_>>(),
        })
    }
}
