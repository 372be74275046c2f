//! One watched workload: tasks that poll its replicas and wake signals, and the resulting view.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::endpoint::{Endpoint, RESOLVE_TIMEOUT, Resolution, Resolver};
use super::link::{Link, LinkError, Peer};
use super::metrics::ScalerMetrics;
use super::report::DemandReport;
use super::tally::{PollFailure, ReplicaChange};
use super::trigger::WatchSpec;
use super::view::{Staleness, View, WorkloadState};
use super::wake::WakeReader;
use intentd_base::LogThrottle;

/// Most replicas of one workload that are polled at once. Workloads do not wait for each other.
const POLLED_AT_ONCE: usize = 256;

/// How workloads are polled: the same for all.
#[derive(Debug)]
pub(super) struct Polling {
    /// Time between two rounds over the replicas.
    pub(super) interval: Duration,
    /// Time between two reads of a wake signal.
    pub(super) wake_interval: Duration,
    /// Time for a replica's response.
    pub(super) timeout: Duration,
    pub(super) staleness: Staleness,
    /// Most addresses of a workload.
    pub(super) replicas_max: usize,
    pub(super) metrics: ScalerMetrics,
}

/// Rate limits of log lines about one workload. Their number depends on addresses and authors of triggers.
#[derive(Debug, Default)]
struct LogLimits {
    replica_lost: LogThrottle,
    replica_back: LogThrottle,
    unresolved: LogThrottle,
    signal_lost: LogThrottle,
    signal_back: LogThrottle,
}

/// The first of a list of endpoints, for log lines: the complete list may have tens of kilobytes.
fn short(endpoints: &[String]) -> String {
    match endpoints {
        [first, second, third, _, rest @ ..] => {
            let more = rest.len() + 1;
            format!("{first},{second},{third} and {more} more")
        }
        few => few.join(","),
    }
}

/// A watched workload.
#[derive(Debug)]
pub(super) struct Workload {
    /// Its name in log lines.
    name: String,
    log: LogLimits,
    state: Mutex<WorkloadState>,
    view: watch::Sender<View>,
    is_warned: AtomicBool,
}

impl Workload {
    /// Starts to watch. The tasks end when the set is dropped.
    pub(super) fn start(spec: &WatchSpec, polling: &Arc<Polling>) -> (Arc<Self>, JoinSet<()>) {
        let (endpoints, signals) = (spec.endpoints.len(), spec.wake_sources.len());
        let names: Vec<String> = spec.endpoints.iter().map(Endpoint::to_string).collect();
        let workload = Arc::new(Self {
            name: short(&names),
            log: LogLimits::default(),
            state: Mutex::new(WorkloadState::new(endpoints, signals, polling.staleness)),
            view: watch::Sender::new(View::default()),
            is_warned: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let replicas = ReplicaTask {
            workload: Arc::clone(&workload),
            polling: Arc::clone(polling),
            resolvers: spec.endpoints.iter().cloned().map(Resolver::new).collect(),
            links: HashMap::new(),
        };
        tasks.spawn(replicas.run());
        for (index, source) in spec.wake_sources.iter().enumerate() {
            let (workload, polling) = (Arc::clone(&workload), Arc::clone(polling));
            tasks.spawn(workload.poll_signal(index, WakeReader::new(source), polling));
        }
        (workload, tasks)
    }

    /// Subscribes to the view, starting with the present one.
    pub(super) fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// The present view.
    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Whether the view has subscribers.
    pub(super) fn has_subscribers(&self) -> bool {
        self.view.receiver_count() > 0
    }

    async fn poll_signal(
        self: Arc<Self>,
        index: usize,
        mut reader: WakeReader,
        polling: Arc<Polling>,
    ) {
        let mut ticks = ticks(polling.wake_interval);
        loop {
            ticks.tick().await;
            let value = reader.read().await;
            let failure = value.as_ref().err().cloned();
            if failure.is_some() {
                polling.metrics.poll_failed("wake");
            }
            let has_changed = self.state().read(index, value, Instant::now());
            match failure {
                Some(why) if has_changed => {
                    if let Some(times) = self.log.signal_lost.event() {
                        let workload = &self.name;
                        tracing::warn!(workload, why, times, "cannot read a wake source");
                    }
                }
                None if has_changed => {
                    if let Some(times) = self.log.signal_back.event() {
                        let workload = &self.name;
                        tracing::info!(workload, times, "the wake source can be read again");
                    }
                }
                _ => {}
            }
            self.publish();
        }
    }

    /// Publishes the present view to the subscribers, if it has changed.
    fn publish(&self) {
        let view = self.state().view(Instant::now());
        if view.cannot_wake && !self.is_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                workload = self.name,
                "no replica, and nothing that could wake one: this trigger says inactive until \
                 something else starts a replica (see --wake-prometheus, --wake-kafka; or the name \
                 is wrong)"
            );
        }
        self.view.send_if_modified(|before| {
            let is_new = *before != view;
            *before = view;
            is_new
        });
    }

    /// Logs the changes of a round: at most one line for all replicas, at a limited rate.
    fn log(&self, changes: &RoundChanges) {
        let workload = &self.name;
        if let Some(LostReplicas {
            replicas,
            address,
            why,
        }) = &changes.lost
            && let Some(times) = self.log.replica_lost.events(*replicas)
        {
            tracing::warn!(workload, replicas, %address, why, times, "a replica does not answer");
        }
        if let Some(FoundReplicas { replicas, address }) = &changes.found
            && let Some(times) = self.log.replica_back.events(*replicas)
        {
            tracing::info!(workload, replicas, %address, times, "the replica answers again");
        }
    }

    fn state(&self) -> MutexGuard<'_, WorkloadState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    // A round that takes longer than the interval is not followed by extra rounds.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Polls the replicas of a workload.
struct ReplicaTask {
    workload: Arc<Workload>,
    polling: Arc<Polling>,
    resolvers: Vec<Resolver>,
    links: HashMap<SocketAddr, Link>,
}

impl ReplicaTask {
    async fn run(mut self) {
        let mut ticks = ticks(self.polling.interval);
        loop {
            ticks.tick().await;
            self.round().await;
            self.workload.publish();
        }
    }

    async fn round(&mut self) {
        let lookups = self.resolvers.iter_mut();
        let found = join_all(lookups.map(|resolver| resolver.resolve(RESOLVE_TIMEOUT))).await;
        for failed in found.iter().filter_map(Resolution::failure) {
            self.polling.metrics.poll_failed("resolve");
            if let Some(times) = self.workload.log.unresolved.event() {
                let workload = &self.workload.name;
                tracing::warn!(
                    workload,
                    why = failed,
                    times,
                    "the replicas' name cannot be resolved"
                );
            }
        }
        let (workload, polling) = (&self.workload, &self.polling);
        let (max, now) = (polling.replicas_max, Instant::now());
        let addresses = workload.state().replicas.resolve(found, max, now);
        self.links
            .retain(|address, _| addresses.binary_search(address).is_ok());
        for address in addresses {
            self.links
                .entry(address)
                .or_insert_with(|| Link::new(Peer::Address(address)));
        }
        let changes = Mutex::new(RoundChanges::default());
        let shared = &changes;
        let polls = self.links.iter_mut().map(|(&address, link)| async move {
            let response = poll(link, polling).await;
            let why = response.as_ref().err().map(|failure| failure.why.clone());
            let now = Instant::now();
            let change = workload.state().replicas.record(address, response, now);
            if let Some(change) = change {
                shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(address, change, why);
            }
        });
        stream::iter(polls)
            .for_each_concurrent(POLLED_AT_ONCE, |poll| poll)
            .await;
        workload.state().end_round(Instant::now());
        let changes = changes.into_inner().unwrap_or_else(PoisonError::into_inner);
        workload.log(&changes);
    }
}

/// The replicas that began or ceased to answer in a round.
#[derive(Default)]
struct RoundChanges {
    lost: Option<LostReplicas>,
    found: Option<FoundReplicas>,
}

/// Replicas that ceased to answer: their number, and the first with its failure.
struct LostReplicas {
    replicas: u64,
    address: SocketAddr,
    why: String,
}

/// Replicas that answer again: their number, and the first.
struct FoundReplicas {
    replicas: u64,
    address: SocketAddr,
}

impl RoundChanges {
    fn add(&mut self, address: SocketAddr, change: ReplicaChange, why: Option<String>) {
        match change {
            ReplicaChange::Lost => {
                let lost = self.lost.get_or_insert(LostReplicas {
                    replicas: 0,
                    address,
                    why: why.unwrap_or_default(),
                });
                lost.replicas += 1;
            }
            ReplicaChange::Found => {
                let found = self.found.get_or_insert(FoundReplicas {
                    replicas: 0,
                    address,
                });
                found.replicas += 1;
            }
        }
    }
}

/// Polls one replica.
async fn poll(link: &mut Link, polling: &Polling) -> Result<DemandReport, PollFailure> {
    let failed = |error: LinkError| {
        polling.metrics.poll_failed(error.kind());
        PollFailure {
            why: error.to_string(),
            is_refused: matches!(error, LinkError::Refused(_)),
        }
    };
    let body = link.get("/autoscaling", polling.timeout).await;
    let report = DemandReport::parse(&body.map_err(failed)?);
    report.map_err(|why| failed(LinkError::Answer(why)))
}
