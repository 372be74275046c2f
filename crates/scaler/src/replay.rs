//! The scaler's parsers and its logic without tasks and sockets, on responses from the caller, such as a
//! fuzz target.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::Resolution;
use super::prometheus::parse_prometheus;
use super::report::DemandReport;
use super::tally::{PollFailure, ReplicaCounts};
use super::trigger::{ActivityThresholds, Defaults, Trigger};
use super::view::{Staleness, WorkloadState};

/// The content of a trigger's metadata, completed by the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedTrigger {
    /// Demand for each replica that the autoscaler aims at.
    pub target: f64,
    /// Demand, in replicas, above which the workload is active.
    pub activation: f64,
    /// Values of the wake signals above which the workload is active.
    pub wake_thresholds: Vec<f64>,
    /// The number of watched endpoints.
    pub endpoints: usize,
    /// Identifies what is watched; triggers that share a workload have the same key.
    pub key: String,
}

/// Parses the metadata of a trigger.
///
/// # Errors
/// All mistakes at once, up to a limit.
pub fn parse_trigger(
    metadata: &HashMap<String, String>,
    defaults: &Defaults,
) -> Result<ParsedTrigger, Vec<String>> {
    let Trigger {
        watch,
        target,
        thresholds,
    } = Trigger::parse(metadata, defaults)?;
    Ok(ParsedTrigger {
        target,
        activation: thresholds.demand,
        wake_thresholds: thresholds.wake,
        endpoints: watch.endpoints.len(),
        key: watch.key(),
    })
}

/// The results of one polling round.
#[derive(Debug, Clone)]
pub struct ReplayRound<'a> {
    /// End of the round, counted from the start of the replay.
    pub at: Duration,
    /// For each endpoint, in order: its addresses, or why they are unknown.
    pub endpoints: Vec<Result<Vec<SocketAddr>, String>>,
    /// Response bodies by address; `None` if connections are refused. An address without an entry does not
    /// answer in time.
    pub responses: BTreeMap<SocketAddr, Option<&'a [u8]>>,
    /// Response bodies of Prometheus, with the index of the wake signal, for those that were read.
    pub signals: Vec<(usize, Result<&'a [u8], String>)>,
}

/// The view after a round.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayState {
    /// Sum of the demand, in replicas, if it is known.
    pub demand: Option<f64>,
    /// Whether the workload should have a replica, if that is known.
    pub is_active: Option<bool>,
    /// The replicas by state.
    pub replicas: ReplicaCounts,
    /// Why something is not known; empty if everything is.
    pub unknown: String,
}

/// A workload whose polling results are given round by round.
#[derive(Debug)]
pub struct Replay {
    state: WorkloadState,
    thresholds: ActivityThresholds,
    replicas_max: usize,
    began: Instant,
}

impl Replay {
    /// A workload of `endpoints` endpoints, with a wake signal for each threshold. Nothing is known yet.
    pub fn new(
        endpoints: usize,
        replicas_max: usize,
        wake_thresholds: &[f64],
        staleness: Staleness,
    ) -> Self {
        Self {
            state: WorkloadState::new(endpoints, wake_thresholds.len(), staleness),
            thresholds: ActivityThresholds {
                demand: 0.0,
                wake: wake_thresholds.to_vec(),
            },
            replicas_max,
            began: Instant::now(),
        }
    }

    /// Applies the results of a round and returns the view after it. Responses that the round would not ask
    /// for are ignored.
    pub fn round(&mut self, round: ReplayRound<'_>) -> ReplayState {
        let now = self.began + round.at;
        let resolution = |endpoint| match endpoint {
            Ok(addresses) => Resolution::Addresses(addresses),
            Err(why) => Resolution::Failed(why),
        };
        let resolved = round.endpoints.into_iter().map(resolution).collect();
        let replicas = &mut self.state.replicas;
        for address in replicas.resolve(resolved, self.replicas_max, now) {
            let failure = |why: &str, is_refused| PollFailure {
                why: why.to_owned(),
                is_refused,
            };
            let report = match round.responses.get(&address) {
                Some(Some(body)) => DemandReport::parse(body).map_err(|why| failure(&why, false)),
                Some(None) => Err(failure("refused", true)),
                None => Err(failure("too late", false)),
            };
            replicas.record(address, report, now);
        }
        for (signal, response) in round.signals {
            if signal < self.thresholds.wake.len() {
                let value = response.and_then(parse_prometheus);
                self.state.read(signal, value, now);
            }
        }
        self.state.end_round(now);
        let view = self.state.view(now);
        ReplayState {
            demand: view.demand,
            is_active: view.is_active(&self.thresholds),
            replicas: view.replicas,
            unknown: view.unknown,
        }
    }
}
