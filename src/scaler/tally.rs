//! The replicas of one workload and what they add up to. Pure: time is an argument.
//!
//! A replica that answers counts with what it says. One that does not counts for a while with what it
//! said last: whoever is too slow to answer has work. One whose address is gone from DNS is gone, and one
//! that refuses connections and never answered is not there yet: a pod that crashes again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::place::Resolution;
use super::report::Report;

/// Replicas by their addresses.
#[derive(Debug)]
pub(super) struct Replicas {
    places: Vec<Known>,
    by_address: BTreeMap<SocketAddr, Replica>,
    /// When all places were resolved last.
    resolved: Option<Instant>,
}

/// What is known of a place.
#[derive(Debug, Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    failure: Option<String>,
}

#[derive(Debug)]
struct Replica {
    place: usize,
    report: Option<(Report, Instant)>,
    failure: Option<String>,
    /// Since when it refuses connections, where it does nothing else.
    refuses_since: Option<Instant>,
    /// Whether it answered in the round that ended last.
    is_fresh: bool,
}

/// Why a replica did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Miss {
    pub(super) why: String,
    /// Whether nobody listens there, which is known, rather than nothing being known.
    pub(super) is_refused: bool,
}

/// What the replicas add up to at the end of a round.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tally {
    /// Sum over the replicas that count.
    pub(super) demand: f64,
    /// Whether one of them holds requests.
    pub(super) is_busy: bool,
    /// Replicas that answered.
    pub(super) fresh: usize,
    /// Replicas that did not and count with what they said last.
    pub(super) kept: usize,
    /// Replicas that did not and do not count.
    pub(super) silent: usize,
    /// Those of them on whose address nobody has ever listened.
    pub(super) absent: usize,
    /// Why the places could not be resolved, if so.
    pub(super) unresolved: Option<String>,
    /// When all places were resolved last.
    pub(super) resolved: Option<Instant>,
    /// What is wrong with a replica that does not answer, where there is one.
    pub(super) failure: Option<String>,
}

impl Tally {
    /// Replicas that count.
    pub(super) fn reporting(&self) -> usize {
        self.fresh + self.kept
    }

    /// Whether every replica there is answered, and nobody is left out of account.
    pub(super) fn is_complete(&self) -> bool {
        self.unresolved.is_none() && self.is_summed()
    }

    /// Whether the sum has every replica that is known.
    pub(super) fn is_summed(&self) -> bool {
        self.kept == 0 && self.silent == self.absent
    }

    /// Whether it is known that there is no address at all.
    pub(super) fn is_empty(&self) -> bool {
        self.is_complete() && self.fresh == 0 && self.absent == 0
    }
}

impl Replicas {
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: (0..places).map(|_| Known::default()).collect(),
            by_address: BTreeMap::new(),
            resolved: None,
        }
    }

    /// Begins a round with what the places are now, in their order; a place that is not resolved is
    /// what it was, and so is one with more addresses than fit into `max` for all places. Gives the
    /// addresses to ask.
    pub(super) fn resolve(
        &mut self,
        found: Vec<Resolution>,
        max: usize,
        now: Instant,
    ) -> Vec<SocketAddr> {
        let mut room = max;
        for (place, found) in self.places.iter_mut().zip(found) {
            match found {
                Resolution::Addresses(addresses) if addresses.len() > room => {
                    let count = addresses.len();
                    place.failure = Some(format!(
                        "{count} addresses where there is room for {room} (--max-replicas)"
                    ));
                }
                Resolution::Addresses(addresses) => {
                    place.addresses = addresses;
                    place.failure = None;
                }
                Resolution::Failed(why) => place.failure = Some(why),
            }
            room = room.saturating_sub(place.addresses.len());
        }
        if self.places.iter().all(|place| place.failure.is_none()) {
            self.resolved = Some(now);
        }
        let mut before = std::mem::take(&mut self.by_address);
        for (index, place) in self.places.iter().enumerate() {
            for address in &place.addresses {
                let fresh = || Replica {
                    place: index,
                    report: None,
                    failure: None,
                    refuses_since: None,
                    is_fresh: false,
                };
                // An address that several places name is one replica.
                self.by_address
                    .entry(*address)
                    .or_insert_with(|| before.remove(address).unwrap_or_else(fresh));
            }
        }
        self.by_address.keys().copied().collect()
    }

    /// What came of asking `address`. Whether that is news: it fails where it did not, or the other
    /// way round.
    pub(super) fn answer(
        &mut self,
        address: SocketAddr,
        answer: Result<Report, Miss>,
        now: Instant,
    ) -> bool {
        let Some(replica) = self.by_address.get_mut(&address) else {
            return false;
        };
        let failed_before = replica.failure.is_some();
        match answer {
            Ok(report) => {
                replica.report = Some((report, now));
                replica.failure = None;
                replica.refuses_since = None;
                replica.is_fresh = true;
            }
            Err(Miss { why, is_refused }) => {
                replica.failure = Some(why);
                let since = replica.refuses_since.unwrap_or(now);
                replica.refuses_since = is_refused.then_some(since);
                replica.is_fresh = false;
            }
        }
        failed_before != replica.failure.is_some()
    }

    /// Whether a place could not be resolved, in which case nothing is known to be gone.
    fn unresolved(&self) -> Option<String> {
        let mut failures = self
            .places
            .iter()
            .filter_map(|place| place.failure.as_ref());
        failures.next().cloned()
    }

    /// What they add up to; those that do not answer count for `keep` from their last answer.
    pub(super) fn tally(&self, keep: Duration, now: Instant) -> Tally {
        let mut tally = Tally {
            unresolved: self.unresolved(),
            resolved: self.resolved,
            ..Tally::default()
        };
        let v4 = self.pods_with_v4(keep, now);
        for (address, replica) in &self.by_address {
            let said = replica.said(keep, now);
            let twin = said.and_then(|report| report.pod.as_deref());
            if address.is_ipv6() && twin.is_some_and(|pod| v4.contains(&(replica.place, pod))) {
                continue;
            }
            match said {
                Some(_) if replica.is_fresh => tally.fresh += 1,
                Some(_) => tally.kept += 1,
                None => {
                    tally.silent += 1;
                    tally.absent += usize::from(replica.is_absent(keep, now));
                }
            }
            if let Some(report) = said {
                tally.demand += report.demand;
                tally.is_busy |= report.is_busy;
            }
            if tally.failure.is_none() {
                let why = replica.failure.as_ref();
                tally.failure = why.map(|why| format!("{address}: {why}"));
            }
        }
        tally
    }

    /// Pods that count with an IPv4 address. A dual-stack Service names each pod twice; it is counted
    /// by the one.
    fn pods_with_v4(&self, keep: Duration, now: Instant) -> BTreeSet<(usize, &str)> {
        let all = self.by_address.iter();
        all.filter(|(address, _)| address.is_ipv4())
            .filter_map(|(_, replica)| {
                Some((replica.place, replica.said(keep, now)?.pod.as_deref()?))
            })
            .collect()
    }
}

impl Replica {
    /// What it counts with.
    fn said(&self, keep: Duration, now: Instant) -> Option<&Report> {
        let (report, at) = self.report.as_ref()?;
        (self.is_fresh || now.duration_since(*at) <= keep).then_some(report)
    }

    /// Whether it never answered since its address was found, and nobody has listened there for `keep`.
    fn is_absent(&self, keep: Duration, now: Instant) -> bool {
        let since = self.refuses_since.filter(|_| self.report.is_none());
        since.is_some_and(|since| now.duration_since(since) >= keep)
    }
}

#[cfg(test)]
mod tests;
