//! The scaler's readers and its sums without its tasks: answers come from whoever calls, such as a fuzz
//! target.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::place::Resolution;
use super::report::Report;
use super::tally::Miss;
use super::trigger::{Defaults, Limits, Trigger};
use super::view::{Patience, State};
use super::wake;

/// What the metadata of a trigger asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Demand for each replica that the autoscaler aims at.
    pub target: f64,
    /// Demand, in replicas, above which the workload is active.
    pub activation: f64,
    /// Values above which the signs of work are such.
    pub thresholds: Vec<f64>,
    /// Places of replicas that are watched.
    pub places: usize,
    /// Names what is watched: the same for triggers that share it.
    pub key: String,
}

/// Reads the metadata of a trigger.
///
/// # Errors
/// All mistakes at once, up to some.
pub fn read_trigger(
    metadata: &HashMap<String, String>,
    defaults: &Defaults,
) -> Result<Asked, Vec<String>> {
    let Trigger {
        watch,
        target,
        limits,
    } = Trigger::read(metadata, defaults)?;
    Ok(Asked {
        target,
        activation: limits.activation,
        thresholds: limits.signs,
        places: watch.places.len(),
        key: watch.key(),
    })
}

/// What a replica says at `GET /autoscaling`: its demand, and whether it holds requests.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn read_report(body: &[u8]) -> Result<(f64, bool), String> {
    Report::read(body).map(|report| (report.demand, report.is_busy))
}

/// The one number in an answer of Prometheus.
///
/// # Errors
/// What is wrong with it, without repeating it.
pub fn read_prometheus(body: &[u8]) -> Result<f64, String> {
    wake::value(body)
}

/// What comes of one round of asking.
#[derive(Debug, Clone)]
pub struct Round<'a> {
    /// When the round ends, counted from the beginning.
    pub at: Duration,
    /// What each place is, in their order: its addresses, or why nobody could say.
    pub places: Vec<Result<Vec<SocketAddr>, String>>,
    /// Bodies of answers by address; `None` where connections are refused. Who is not in it does not answer
    /// in time.
    pub answers: BTreeMap<SocketAddr, Option<&'a [u8]>>,
    /// Bodies of Prometheus' answers by sign of work, as far as it was asked.
    pub signs: Vec<(usize, Result<&'a [u8], String>)>,
}

/// What is known after a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// Sum of the demand, in replicas, if it is known.
    pub demand: Option<f64>,
    /// Whether the workload should have a replica, if that is known.
    pub is_active: Option<bool>,
    /// Replicas that answered, that count with their last answer, and that do not count.
    pub replicas: [usize; 3],
    /// Why something is not known; empty when all is.
    pub unknown: String,
}

/// A workload that is followed from round to round.
#[derive(Debug)]
pub struct Followed {
    state: State,
    limits: Limits,
    replicas_max: usize,
    began: Instant,
}

impl Followed {
    /// Nothing known yet of so many places, with a sign of work for each number, which is its limit.
    pub fn new(places: usize, replicas_max: usize, signs: &[f64], patience: Patience) -> Self {
        Self {
            state: State::new(places, signs.len(), patience),
            limits: Limits {
                activation: 0.0,
                signs: signs.to_vec(),
            },
            replicas_max,
            began: Instant::now(),
        }
    }

    /// Takes the answers of a round, and says what is known then. What is not asked is passed over.
    pub fn round(&mut self, round: Round<'_>) -> Known {
        let now = self.began + round.at;
        let resolution = |place| match place {
            Ok(addresses) => Resolution::Addresses(addresses),
            Err(why) => Resolution::Failed(why),
        };
        let places = round.places.into_iter().map(resolution).collect();
        let replicas = &mut self.state.replicas;
        for address in replicas.resolve(places, self.replicas_max, now) {
            let miss = |why: &str, is_refused| Miss {
                why: why.to_owned(),
                is_refused,
            };
            let report = match round.answers.get(&address) {
                Some(Some(body)) => Report::read(body).map_err(|why| miss(&why, false)),
                Some(None) => Err(miss("refused", true)),
                None => Err(miss("too late", false)),
            };
            replicas.answer(address, report, now);
        }
        for (sign, answer) in round.signs {
            if sign < self.limits.signs.len() {
                self.state.read(sign, answer.and_then(wake::value), now);
            }
        }
        self.state.end_round(now);
        let view = self.state.view(now);
        Known {
            demand: view.demand,
            is_active: view.is_active(&self.limits),
            replicas: [view.fresh, view.kept, view.silent],
            unknown: view.unknown,
        }
    }
}
