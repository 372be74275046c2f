//! The replicas of one workload and the sum of their demand. Pure: time is an argument.
//!
//! A replica that answers counts with its report. One that does not counts for a while with its last report,
//! since a replica that is too slow to answer has work. Where connections are refused, nobody listens: the load of
//! that replica is with the others by now, so it only keeps the sum from falling, and after a while it is absent. A
//! replica whose address has left DNS is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::Resolution;
use super::report::DemandReport;

/// Replicas by their addresses.
#[derive(Debug)]
pub(super) struct Replicas {
    endpoints: Vec<ResolvedEndpoint>,
    by_address: BTreeMap<SocketAddr, Replica>,
    /// When all endpoints were last resolved.
    resolved: Option<Instant>,
}

/// The last known addresses of an endpoint, and why the last resolution failed, if it did.
#[derive(Debug, Default)]
struct ResolvedEndpoint {
    addresses: Vec<SocketAddr>,
    failure: Option<String>,
}

#[derive(Debug)]
struct Replica {
    /// Index of its endpoint.
    endpoint: usize,
    report: Option<(DemandReport, Instant)>,
    failure: Option<String>,
    /// When it stopped answering, and whether that was logged.
    failing: Option<FailingSince>,
    /// Start of an unbroken series of refused connections.
    refuses_since: Option<Instant>,
    /// Whether it answered in the last round.
    is_fresh: bool,
}

#[derive(Debug, Clone, Copy)]
struct FailingSince {
    at: Instant,
    is_logged: bool,
}

/// Time without an answer after which a replica counts as lost. A pod that ends refuses connections before its address
/// leaves DNS.
const LOST: Duration = Duration::from_secs(10);

/// A change of a replica that is worth a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplicaChange {
    /// It has not answered for a while.
    Lost,
    /// It answers again.
    Found,
}

/// Why a replica did not answer a poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PollFailure {
    pub(super) why: String,
    /// Whether the connection was refused: nothing listens there. After other failures that is unknown.
    pub(super) is_refused: bool,
}

/// Numbers of replicas by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// Replicas that answered in the last round.
    pub fresh: usize,
    /// Replicas that did not answer and count with their last report.
    pub kept: usize,
    /// Replicas that did not answer and do not count.
    pub silent: usize,
}

/// The sum of the replicas at the end of a round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tally {
    /// Sum over the replicas that count, without those that refuse connections.
    pub(super) demand: f64,
    /// Sum of the last demands of those that do.
    pub(super) refusing_demand: f64,
    /// Whether a replica that counts holds requests.
    pub(super) is_busy: bool,
    pub(super) replicas: ReplicaCounts,
    /// Silent replicas on whose address nothing has listened for a while.
    pub(super) absent: usize,
    /// Why an endpoint could not be resolved, if so.
    pub(super) unresolved: Option<String>,
    /// When all endpoints were last resolved.
    pub(super) resolved: Option<Instant>,
    /// The failure of one replica that does not answer, if any.
    pub(super) failure: Option<String>,
}

impl Tally {
    /// The number of replicas that count.
    pub(super) fn reporting(&self) -> usize {
        self.replicas.fresh + self.replicas.kept
    }

    /// Whether all endpoints are resolved and all their replicas answered.
    pub(super) fn is_complete(&self) -> bool {
        self.unresolved.is_none() && self.is_summed()
    }

    /// Whether all known replicas answered, except absent ones.
    pub(super) fn is_summed(&self) -> bool {
        self.replicas.kept == 0 && self.replicas.silent == self.absent
    }

    /// The sum to report after `before`. The last report of a replica that refuses connections may be counted in the
    /// reports of the others already, so it raises the sum at most to what it was.
    pub(super) fn sum(&self, before: Option<f64>) -> f64 {
        let all = self.demand + self.refusing_demand;
        before
            .map_or(all, |before| all.min(before))
            .max(self.demand)
    }

    /// Whether it is known that there is no address at all.
    pub(super) fn is_empty(&self) -> bool {
        self.is_complete() && self.replicas.fresh == 0 && self.absent == 0
    }
}

impl Replicas {
    pub(super) fn new(endpoints: usize) -> Self {
        let endpoints = (0..endpoints).map(|_| ResolvedEndpoint::default());
        Self {
            endpoints: endpoints.collect(),
            by_address: BTreeMap::new(),
            resolved: None,
        }
    }

    /// Starts a round with the resolutions of the endpoints, in order, and returns the addresses to poll. An
    /// endpoint keeps its addresses if its resolution failed, or if it has more addresses than `max` leaves
    /// for it.
    pub(super) fn resolve(
        &mut self,
        found: Vec<Resolution>,
        max: usize,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let mut room = max;
        for (endpoint, found) in self.endpoints.iter_mut().zip(found) {
            match found {
                Resolution::Addresses(addresses) if addresses.len() > room => {
                    let count = addresses.len();
                    endpoint.failure = Some(format!(
                        "{count} addresses where there is room for {room} (--max-replicas)"
                    ));
                }
                Resolution::Addresses(addresses) => {
                    endpoint.addresses = addresses;
                    endpoint.failure = None;
                }
                Resolution::Failed(why) => endpoint.failure = Some(why),
            }
            room = room.saturating_sub(endpoint.addresses.len());
        }
        if self.endpoints.iter().all(|e| e.failure.is_none()) {
            self.resolved = Some(now);
        }
        let mut before = std::mem::take(&mut self.by_address);
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            for address in &endpoint.addresses {
                let new = || Replica {
                    endpoint: index,
                    report: None,
                    failure: None,
                    failing: None,
                    refuses_since: None,
                    is_fresh: false,
                };
                // An address of several endpoints is one replica.
                self.by_address
                    .entry(*address)
                    .or_insert_with(|| before.remove(address).unwrap_or_else(new));
            }
        }
        self.by_address.keys().copied().collect()
    }

    /// Records the result of polling `address`. Returns the change to log, if any.
    pub(super) fn record(
        &mut self,
        address: SocketAddr,
        result: Result<DemandReport, PollFailure>,
        now: Instant,
    ) -> Option<ReplicaChange> {
        let replica = self.by_address.get_mut(&address)?;
        match result {
            Ok(report) => {
                let failing = replica.failing.take();
                replica.report = Some((report, now));
                replica.failure = None;
                replica.refuses_since = None;
                replica.is_fresh = true;
                let was_logged = failing.is_some_and(|since| since.is_logged);
                was_logged.then_some(ReplicaChange::Found)
            }
            Err(PollFailure { why, is_refused }) => {
                replica.failure = Some(why);
                let since = replica.refuses_since.unwrap_or(now);
                replica.refuses_since = is_refused.then_some(since);
                replica.is_fresh = false;
                let failing = replica.failing.get_or_insert(FailingSince {
                    at: now,
                    is_logged: false,
                });
                let is_due = !failing.is_logged && now.duration_since(failing.at) >= LOST;
                failing.is_logged |= is_due;
                is_due.then_some(ReplicaChange::Lost)
            }
        }
    }

    /// Why an endpoint could not be resolved, if so. Then no replica is known to be gone.
    fn unresolved(&self) -> Option<String> {
        self.endpoints.iter().find_map(|e| e.failure.clone())
    }

    /// Sums up the replicas. One that does not answer counts for `keep` from its last report.
    pub(super) fn tally(&self, keep: Duration, now: Instant) -> Tally {
        let mut tally = Tally {
            unresolved: self.unresolved(),
            resolved: self.resolved,
            ..Tally::default()
        };
        let v4 = self.pods_with_v4(keep, now);
        let others_answer = self.by_address.values().any(|replica| replica.is_fresh);
        for (address, replica) in &self.by_address {
            let counted = replica.counted_report(keep, now);
            let pod = counted.and_then(|report| report.pod.as_deref());
            let has_v4 = |pod| v4.contains(&(replica.endpoint, pod));
            if address.is_ipv6() && pod.is_some_and(has_v4) {
                continue;
            }
            match counted {
                Some(_) if replica.is_fresh => tally.replicas.fresh += 1,
                Some(_) => tally.replicas.kept += 1,
                None => {
                    tally.replicas.silent += 1;
                    tally.absent += usize::from(replica.is_absent(keep, others_answer, now));
                }
            }
            if let Some(report) = counted {
                let sum = if replica.refuses_since.is_some() {
                    &mut tally.refusing_demand
                } else {
                    &mut tally.demand
                };
                *sum += report.demand;
                tally.is_busy |= report.is_busy;
            }
            if tally.failure.is_none() {
                let why = replica.failure.as_ref();
                tally.failure = why.map(|why| format!("{address}: {why}"));
            }
        }
        tally
    }

    /// The pods that count with an IPv4 address, by endpoint. A dual-stack Service lists each pod twice, and
    /// only this address is counted.
    fn pods_with_v4(&self, keep: Duration, now: Instant) -> BTreeSet<(usize, &str)> {
        let all = self.by_address.iter();
        all.filter(|(address, _)| address.is_ipv4())
            .filter_map(|(_, replica)| {
                let report = replica.counted_report(keep, now)?;
                Some((replica.endpoint, report.pod.as_deref()?))
            })
            .collect()
    }
}

impl Replica {
    /// The report that it counts with, if it counts.
    fn counted_report(&self, keep: Duration, now: Instant) -> Option<&DemandReport> {
        let (report, at) = self.report.as_ref()?;
        (self.is_fresh || now.duration_since(*at) <= keep).then_some(report)
    }

    /// Whether it has refused connections for `keep`. One that has answered is absent only if others answer, which have
    /// its load: a workload whose only replica crashes must not look idle.
    fn is_absent(&self, keep: Duration, others_answer: bool, now: Instant) -> bool {
        let may_be = self.report.is_none() || others_answer;
        let since = self.refuses_since.filter(|_| may_be);
        since.is_some_and(|since| now.duration_since(since) >= keep)
    }
}

#[cfg(test)]
mod tests;
