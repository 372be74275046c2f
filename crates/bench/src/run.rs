//! Running one load against one target.
//!
//! Each worker is a thread with its own runtime. It waits until the next request is due and puts it into
//! a queue, from which a free connection takes it. A request waits in that queue because the server is
//! slow, so the wait is part of its latency.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer::Expected;
use super::connection::{Connection, TargetAddress};
use super::cpu::CpuShare;
use super::load::Load;
use super::measured::{Measured, Outcome};
use super::request::PreparedRequest;
use super::target::{Protocol, Target};
use super::timer::Timer;
use super::workers::{StartGate, run_workers};

/// Most requests in one run.
const REQUESTS_MAX: f64 = 1e8;

/// Requests that are queued before the worker yields to its connections.
const PUSHES_AT_ONCE: usize = 64;

/// The options of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Duration of the load before the measurement.
    pub warm_up: Duration,
    /// Duration of the measurement.
    pub duration: Duration,
    /// Time for an answer, from when the request is due.
    pub timeout: Duration,
    /// Connections of all workers together.
    pub connections: usize,
    /// Concurrent requests on a connection, in HTTP/2.
    pub streams: usize,
    /// Threads that send.
    pub workers: usize,
    /// Seed of random send times.
    pub seed: u64,
}

/// Runs loads against targets.
#[derive(Debug)]
pub struct Runner {
    /// The options of each run.
    pub options: Options,
    /// The texts of the requests, cycled in this order.
    pub texts: Vec<String>,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
struct DueRequest {
    text: usize,
    due: Instant,
    /// Time from the start of the measurement; `None` during the warm-up.
    at: Option<Duration>,
}

/// The state that the tasks of a worker share.
#[derive(Debug)]
struct WorkerState {
    requests: Arc<[PreparedRequest]>,
    expected: Expected,
    timeout: Duration,
    queue: Mutex<VecDeque<DueRequest>>,
    /// One permit for each queued request. At the end each task gets one more, with which it finds the
    /// queue empty and stops.
    queued: Semaphore,
    measured: Mutex<Measured>,
    done: Arc<AtomicU64>,
}

impl WorkerState {
    fn push(&self, request: DueRequest) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(request);
        drop(queue);
        self.queued.add_permits(1);
    }

    async fn next(&self) -> Option<DueRequest> {
        self.queued.acquire().await.ok()?.forget();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.pop_front()
    }

    /// Sends queued requests on `connection`, one at a time, until the run ends.
    async fn send_on(&self, connection: &Connection) {
        while let Some(DueRequest { text, due, at }) = self.next().await {
            let deadline = due + self.timeout;
            // A request that has waited beyond its deadline is not sent: its answer would be useless.
            let outcome = if Instant::now() < deadline {
                let expected = self.expected.0.as_ref().map(|labels| &*labels[text]);
                let asked = connection.ask(&self.requests[text], expected);
                let asked = tokio::time::timeout_at(deadline.into(), asked).await;
                asked.unwrap_or(Outcome::TimedOut)
            } else {
                Outcome::TimedOut
            };
            let latency = due.elapsed();
            if let Some(at) = at {
                self.measured().count(at, latency, outcome);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's place among all workers, which determines its share of connections and requests.
#[derive(Debug, Clone, Copy)]
struct WorkerShare {
    index: usize,
    workers: usize,
}

impl WorkerShare {
    /// The worker's part of `connections`.
    fn of(self, connections: usize) -> usize {
        connections / self.workers + usize::from(self.index < connections % self.workers)
    }
}

impl Runner {
    /// Runs `load` against `target` and shows the progress on `bar`.
    ///
    /// # Errors
    /// When the target cannot be reached, or the load has no requests or too many. Later failures are
    /// counted.
    pub fn run(
        &self,
        target: &Target,
        load: &Load,
        expected: &Expected,
        bar: &ProgressBar,
    ) -> Result<Measured, String> {
        let Options {
            warm_up,
            duration,
            timeout,
            ..
        } = self.options;
        let count = load.rate(duration) * (warm_up + duration).as_secs_f64();
        if count > REQUESTS_MAX {
            return Err(format!(
                "{load}: {count:.0} requests; at most {REQUESTS_MAX} are sent"
            ));
        }
        let times = || load.times(warm_up, duration, self.options.seed);
        if times().next().is_none() {
            return Err(format!("{load}: nothing is to be sent within {duration:?}"));
        }
        bar.set_length(count as u64);
        bar.set_position(0);
        let workers = self.options.workers.clamp(1, self.options.connections);
        let done = Arc::new(AtomicU64::new(0));
        let requests = self.requests(target)?;
        let run = |index: usize, gate: &StartGate| {
            let state = Arc::new(WorkerState {
                requests: Arc::clone(&requests),
                expected: expected.clone(),
                timeout,
                queue: Mutex::default(),
                queued: Semaphore::new(0),
                measured: Mutex::new(Measured::new(duration)),
                done: Arc::clone(&done),
            });
            let times = times().enumerate().skip(index).step_by(workers);
            let share = WorkerShare { index, workers };
            self.work(target, &state, times, share, gate)?;
            let measured = std::mem::replace(&mut *state.measured(), Measured::new(duration));
            Ok(measured)
        };
        let progress = || bar.set_position(done.load(Ordering::Relaxed));
        let parts = run_workers(workers, &run, &progress)?;
        let mut all = Measured::new(duration);
        parts.iter().for_each(|part| all.merge(part));
        Ok(all)
    }

    fn requests(&self, target: &Target) -> Result<Arc<[PreparedRequest]>, String> {
        self.texts.iter().map(|text| target.prepare(text)).collect()
    }

    /// Runs one worker: it opens its connections, waits for the others and sends its share of requests.
    fn work(
        &self,
        target: &Target,
        state: &Arc<WorkerState>,
        times: impl Iterator<Item = (usize, Duration)>,
        share: WorkerShare,
        gate: &StartGate,
    ) -> Result<(), String> {
        let runtime = runtime()?;
        let count = share.of(self.options.connections);
        let connections = runtime.block_on(self.connections(target, count))?;
        let start = gate.wait()?;
        runtime.block_on(async {
            let tasks = self.spawn_senders(target.protocol, state, &connections);
            self.pace(start, state, times, tasks).await
        })
    }

    /// Starts the tasks that send: one for each concurrent request of each connection.
    fn spawn_senders(
        &self,
        protocol: Protocol,
        state: &Arc<WorkerState>,
        connections: &[Arc<Connection>],
    ) -> JoinSet<()> {
        let streams = match protocol {
            Protocol::Http1 => 1,
            Protocol::H2c => self.options.streams.max(1),
        };
        let mut tasks = JoinSet::new();
        for connection in connections {
            for _ in 0..streams {
                let (state, connection) = (Arc::clone(state), Arc::clone(connection));
                tasks.spawn(async move { state.send_on(&connection).await });
            }
        }
        tasks
    }

    /// Queues each request when it is due, then waits for the tasks that send.
    async fn pace(
        &self,
        start: Instant,
        state: &WorkerState,
        times: impl Iterator<Item = (usize, Duration)>,
        mut tasks: JoinSet<()>,
    ) -> Result<(), String> {
        let timer = Timer::new().map_err(|error| format!("no timer: {error}"))?;
        let mut cpu = CpuShare::new();
        for (count, (number, time)) in times.enumerate() {
            let due = start + time;
            timer.until(due).await.map_err(|error| error.to_string())?;
            if count % PUSHES_AT_ONCE == PUSHES_AT_ONCE - 1 {
                // Without a wait between due requests, the sending tasks would not run.
                tokio::task::yield_now().await;
            }
            let at = time.checked_sub(self.options.warm_up);
            if at.is_some() {
                cpu.start();
            }
            let text = number % self.texts.len();
            state.push(DueRequest { text, due, at });
        }
        state.measured().count_busy(cpu.get());
        state.queued.add_permits(tasks.len());
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Measures the rate at which `target` answers when every connection sends back to back for `duration`.
    /// Requests in flight at the end are waited for.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn saturate(&self, target: &Target, duration: Duration) -> Result<f64, String> {
        let requests = self.requests(target)?;
        let timeout = self.options.timeout;
        runtime()?.block_on(async {
            let connections = self.connections(target, self.options.connections).await?;
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for (first, connection) in connections.into_iter().enumerate() {
                let requests = Arc::clone(&requests);
                tasks.spawn(async move {
                    let (mut answered, mut last) = (0_u64, Duration::ZERO);
                    for request in requests.iter().cycle().skip(first) {
                        if start.elapsed() >= duration {
                            break;
                        }
                        let asked = connection.ask(request, None);
                        match tokio::time::timeout(timeout, asked).await {
                            Ok(Outcome::Answered) => {
                                answered += 1;
                                last = start.elapsed();
                            }
                            // Refusals and failures must not lead to a tight loop.
                            _ => tokio::time::sleep(Duration::from_millis(10)).await,
                        }
                    }
                    (answered, last)
                });
            }
            let (mut answered, mut took) = (0, duration);
            while let Some(ended) = tasks.join_next().await {
                let (count, last) = ended.map_err(|error| error.to_string())?;
                answered += count;
                took = took.max(last);
            }
            Ok(answered as f64 / took.as_secs_f64())
        })
    }

    /// Asks for the label of each text, one request at a time.
    ///
    /// # Errors
    /// When a text gets no answer, or an answer without a label.
    pub fn labels(&self, target: &Target, bar: &ProgressBar) -> Result<Expected, String> {
        let requests = self.requests(target)?;
        bar.set_length(requests.len() as u64);
        bar.set_position(0);
        runtime()?.block_on(async {
            let connections = self.connections(target, 1).await?;
            let mut labels = Vec::with_capacity(requests.len());
            for request in requests.iter() {
                let late = |_| Err(format!("no answer within {:?}", self.options.timeout));
                let label = connections[0].label(request);
                let label = tokio::time::timeout(self.options.timeout, label).await;
                let label = label.unwrap_or_else(late);
                labels.push(label.map_err(|error| format!("{}: {error}", target.name))?);
                bar.inc(1);
            }
            Ok(Expected(Some(labels.into())))
        })
    }

    /// Checks that `target` can be reached.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn reach(&self, target: &Target) -> Result<(), String> {
        self.requests(target)?;
        runtime()?.block_on(self.connections(target, 1)).map(drop)
    }

    /// Opens `count` connections.
    async fn connections(
        &self,
        target: &Target,
        count: usize,
    ) -> Result<Vec<Arc<Connection>>, String> {
        let failed = |what: String| format!("{}: cannot connect: {what}", target.name);
        let open = async {
            let address = TargetAddress::resolve(target).await?;
            let mut connections = Vec::with_capacity(count);
            for _ in 0..count {
                let connection = Connection::new(address.clone());
                connection.open().await.map_err(|error| error.to_string())?;
                connections.push(Arc::new(connection));
            }
            Ok(connections)
        };
        let timeout = self.options.timeout;
        let opened = tokio::time::timeout(timeout, open).await;
        opened
            .unwrap_or_else(|_| Err(format!("not within {timeout:?} (--timeout)")))
            .map_err(failed)
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(|error| format!("no runtime: {error}"))
}
