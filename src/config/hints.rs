//! The flags of the hints for autoscalers and load balancers.

use std::path::PathBuf;
use std::time::Duration;

use super::time;
use crate::autoscale::Trend;
use crate::autoscale::orca::OrcaMode;

/// The hints for autoscalers and load balancers.
#[derive(Debug, Clone, clap::Args)]
pub struct HintArgs {
    /// Percentage of its capacity that each replica should use; demand is computed for it.
    #[arg(
        long,
        env = "INTENTD_TARGET_UTILIZATION",
        value_name = "PERCENT",
        default_value = "80"
    )]
    pub target_utilization: f64,
    /// Time in which the replicas added for a backlog should clear it.
    #[arg(
        long,
        env = "INTENTD_BACKLOG_DRAIN",
        value_name = "TIME",
        default_value = "30s",
        value_parser = time::parse
    )]
    pub backlog_drain: Duration,
    /// How far demand looks ahead while load rises: a time, "startup" for the time that this server took to
    /// start, or "off".
    #[arg(
        long,
        env = "INTENTD_TREND",
        value_name = "TIME",
        default_value = "off",
        value_parser = parse_trend
    )]
    pub trend: Trend,
    /// Time a few batches of a loaded model before it serves, for at most about 200 ms.
    #[arg(
        long,
        env = "INTENTD_CALIBRATION",
        value_name = "BOOL",
        default_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub calibration: bool,
    /// File from `intentd profile --json`. It replaces the measurement at startup; one or two batches check
    /// it.
    #[arg(long, env = "INTENTD_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// When answers carry a load report for load balancers (ORCA, header endpoint-load-metrics).
    #[arg(long, env = "INTENTD_ORCA", value_enum, default_value = "on-request")]
    pub orca: OrcaMode,
    /// Also export metrics under the names of Triton, for inference gateways.
    #[arg(
        long,
        env = "INTENTD_TRITON_METRICS",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub triton_metrics: bool,
    /// Also serve /metrics and /autoscaling on --port.
    #[arg(
        long,
        env = "INTENTD_HINTS_ON_MAIN_PORT",
        value_name = "BOOL",
        num_args = 0..=1,
        default_value = "false",
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        action = clap::ArgAction::Set
    )]
    pub hints_on_main_port: bool,
}

fn parse_trend(text: &str) -> Result<Trend, String> {
    if text == "startup" {
        return Ok(Trend::Startup);
    }
    match time::parse_or_off(text) {
        Ok(time) if time.is_zero() => Ok(Trend::Off),
        Ok(time) => Ok(Trend::Seconds(time.as_secs_f64())),
        Err(_) => Err("expected a time such as 30s or 2m, \"startup\" or \"off\"".to_owned()),
    }
}
