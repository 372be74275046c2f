//! One workload that is watched: tasks that ask its replicas and the signs of work, each interval, and
//! what is known from that.

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

use super::link::{Link, LinkError, Peer};
use super::metrics::Metrics;
use super::place::{Place, RESOLVE_TIMEOUT, Resolver};
use super::report::Report;
use super::tally::Miss;
use super::trigger::Watch;
use super::view::{Patience, State, View};
use super::wake::Reader;
use crate::log_throttle::LogThrottle;

/// Replicas of one workload that are asked at once: those of another do not wait for them.
const ASKED_AT_ONCE: usize = 256;

/// What all workloads have in common.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) interval: Duration,
    pub(super) wake_interval: Duration,
    pub(super) timeout: Duration,
    pub(super) patience: Patience,
    pub(super) replicas_max: usize,
    pub(super) metrics: Metrics,
}

impl Common {
    pub(super) fn new(
        (interval, wake_interval, timeout): (Duration, Duration, Duration),
        patience: Patience,
        replicas_max: usize,
        metrics: Metrics,
    ) -> Self {
        Self {
            interval,
            wake_interval,
            timeout,
            patience,
            replicas_max,
            metrics,
        }
    }
}

/// Lines of the log about one workload, which come of others: addresses, and who writes triggers.
#[derive(Debug, Default)]
struct Said {
    lost: LogThrottle,
    found: LogThrottle,
    sign_lost: LogThrottle,
    sign_found: LogThrottle,
}

/// Some of a list of places: as a whole it may have tens of kilobytes, in each line.
fn short(places: &[String]) -> String {
    match places {
        [first, second, third, _, rest @ ..] => {
            let more = rest.len() + 1;
            format!("{first},{second},{third} and {more} more")
        }
        few => few.join(","),
    }
}

/// A workload and what is known about it.
#[derive(Debug)]
pub(super) struct Workload {
    /// How logs call it.
    name: String,
    said: Said,
    state: Mutex<State>,
    view: watch::Sender<View>,
    is_warned: AtomicBool,
}

impl Workload {
    /// Begins to watch. The tasks end when the set is dropped.
    pub(super) fn start(watched: &Watch, common: &Arc<Common>) -> (Arc<Self>, JoinSet<()>) {
        let (places, signs) = (watched.places.len(), watched.wakes.len());
        let names: Vec<String> = watched.places.iter().map(Place::to_string).collect();
        let workload = Arc::new(Self {
            name: short(&names),
            said: Said::default(),
            state: Mutex::new(State::new(places, signs, common.patience)),
            view: watch::Sender::new(View::default()),
            is_warned: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        let replicas = ReplicaTask {
            workload: Arc::clone(&workload),
            common: Arc::clone(common),
            resolvers: watched.places.iter().cloned().map(Resolver::new).collect(),
            links: HashMap::new(),
        };
        tasks.spawn(replicas.run());
        for (index, wake) in watched.wakes.iter().enumerate() {
            let (workload, common) = (Arc::clone(&workload), Arc::clone(common));
            tasks.spawn(workload.watch_sign(index, Reader::new(wake), common));
        }
        (workload, tasks)
    }

    /// What is known, now and from now on.
    pub(super) fn views(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// What is known now.
    pub(super) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Whether somebody waits for what it becomes.
    pub(super) fn is_watched(&self) -> bool {
        self.view.receiver_count() > 0
    }

    async fn watch_sign(self: Arc<Self>, index: usize, mut reader: Reader, common: Arc<Common>) {
        let mut ticks = ticks(common.wake_interval);
        loop {
            ticks.tick().await;
            let value = reader.read().await;
            let value = value.map_err(|(why, kind)| {
                common.metrics.poll_failed(kind);
                why
            });
            let failure = value.as_ref().err().cloned();
            let is_news = self.state().read(index, value, Instant::now());
            match failure {
                Some(why) if is_news => {
                    if let Some(times) = self.said.sign_lost.event() {
                        let workload = &self.name;
                        tracing::warn!(workload, why, times, "a sign of work is not known");
                    }
                }
                None if is_news => {
                    if let Some(times) = self.said.sign_found.event() {
                        let workload = &self.name;
                        tracing::info!(workload, times, "the sign of work is known again");
                    }
                }
                _ => {}
            }
            self.publish();
        }
    }

    /// Tells what is known now, to those who wait for a change.
    fn publish(&self) {
        let view = self.state().view(Instant::now());
        if view.is_asleep_for_good && !self.is_warned.swap(true, Ordering::Relaxed) {
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

    /// One line for all replicas of a round, and not one for each round.
    fn say(&self, news: &News) {
        let workload = &self.name;
        if let Some((replicas, address, why)) = &news.lost
            && let Some(times) = self.said.lost.events(*replicas)
        {
            tracing::warn!(workload, replicas, %address, why, times, "a replica does not answer");
        }
        if let Some((replicas, address)) = &news.found
            && let Some(times) = self.said.found.events(*replicas)
        {
            tracing::info!(workload, replicas, %address, times, "the replica answers again");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    // After a round that took longer than the interval there is nothing to catch up on.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Asks the replicas of a workload.
struct ReplicaTask {
    workload: Arc<Workload>,
    common: Arc<Common>,
    resolvers: Vec<Resolver>,
    links: HashMap<SocketAddr, Link>,
}

impl ReplicaTask {
    async fn run(mut self) {
        let mut ticks = ticks(self.common.interval);
        loop {
            ticks.tick().await;
            self.round().await;
            self.workload.publish();
        }
    }

    async fn round(&mut self) {
        let lookups = self.resolvers.iter_mut();
        let found = join_all(lookups.map(|resolver| resolver.resolve(RESOLVE_TIMEOUT))).await;
        for _ in found.iter().filter(|found| found.is_failure()) {
            self.common.metrics.poll_failed("resolve");
        }
        let (workload, common) = (&self.workload, &self.common);
        let (max, now) = (common.replicas_max, Instant::now());
        let addresses = workload.state().replicas.resolve(found, max, now);
        self.links
            .retain(|address, _| addresses.binary_search(address).is_ok());
        for address in addresses {
            self.links
                .entry(address)
                .or_insert_with(|| Link::new(Peer::Address(address)));
        }
        let news = Mutex::new(News::default());
        let found_out = &news;
        let asked = self.links.iter_mut().map(|(&address, link)| async move {
            let answer = ask(link, common).await;
            let failure = answer.as_ref().err().map(|miss| miss.why.clone());
            let now = Instant::now();
            let is_news = workload.state().replicas.answer(address, answer, now);
            if is_news {
                found_out
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .add(address, failure);
            }
        });
        stream::iter(asked)
            .for_each_concurrent(ASKED_AT_ONCE, |asked| asked)
            .await;
        workload.state().end_round(Instant::now());
        let news = news.into_inner().unwrap_or_else(PoisonError::into_inner);
        workload.say(&news);
    }
}

/// What a round found that was not so before: how many replicas, and one of them.
#[derive(Default)]
struct News {
    lost: Option<(u64, SocketAddr, String)>,
    found: Option<(u64, SocketAddr)>,
}

impl News {
    fn add(&mut self, address: SocketAddr, failure: Option<String>) {
        match failure {
            Some(why) => self.lost.get_or_insert((0, address, why)).0 += 1,
            None => self.found.get_or_insert((0, address)).0 += 1,
        }
    }
}

async fn ask(link: &mut Link, common: &Common) -> Result<Report, Miss> {
    let failed = |error: LinkError| {
        common.metrics.poll_failed(error.kind());
        Miss {
            why: error.to_string(),
            is_refused: matches!(error, LinkError::Refused(_)),
        }
    };
    let body = link.get("/autoscaling", common.timeout).await;
    let report = Report::read(&body.map_err(failed)?);
    report.map_err(|why| failed(LinkError::Answer(why)))
}
