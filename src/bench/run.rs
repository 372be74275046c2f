//! One load against one target.
//!
//! Each worker is a thread with a runtime of its own: it waits for the time of the next request,
//! puts it into a queue, and whichever connection is free takes it. What waits in that queue waits
//! for the server, so the wait is part of the latency.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::sync::Semaphore;

use super::answer::Expected;
use super::clock::{Busy, Clock};
use super::connection::{Address, Connection};
use super::crew::{self, Crew};
use super::load::Load;
use super::measured::{Measured, Outcome};
use super::target::{Prepared, Protocol, Target};

/// More requests than this in one run are a mistake.
const REQUESTS_MAX: f64 = 1e8;

/// Requests that are put into the queue before the connections get their turn.
const PUSHES_AT_ONCE: usize = 64;

/// How a load is run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time before the measurement in which the load already runs.
    pub warm_up: Duration,
    /// Time of the measurement.
    pub duration: Duration,
    /// Time for an answer, from when the request was to be sent.
    pub timeout: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Requests at once on a connection, in HTTP/2.
    pub streams: usize,
    /// Threads that send.
    pub workers: usize,
    /// Of random times.
    pub seed: u64,
}

/// Runs loads against targets.
#[derive(Debug)]
pub struct Runner {
    /// How.
    pub options: Options,
    /// What is asked, again and again in this order.
    pub texts: Vec<String>,
}

/// A request that is due.
#[derive(Debug, Clone, Copy)]
struct Job {
    text: usize,
    due: Instant,
    /// From the start of the measurement; none while warming up.
    at: Option<Duration>,
}

/// What the tasks of a worker share.
#[derive(Debug)]
struct Worker {
    requests: Arc<[Prepared]>,
    expected: Expected,
    timeout: Duration,
    waiting: Mutex<VecDeque<Job>>,
    /// One permit for each job that waits; in the end one for each task, to find that none does.
    tickets: Semaphore,
    measured: Mutex<Measured>,
    done: Arc<AtomicU64>,
}

impl Worker {
    fn push(&self, job: Job) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(job);
        drop(waiting);
        self.tickets.add_permits(1);
    }

    async fn next(&self) -> Option<Job> {
        self.tickets.acquire().await.ok()?.forget();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }

    /// Takes what is due, one request after the other, until there is no more.
    async fn serve(&self, connection: &Connection) {
        while let Some(job) = self.next().await {
            let deadline = job.due + self.timeout;
            // What has waited too long for a connection is not sent: the server would be asked for
            // what nobody waits for.
            let outcome = if Instant::now() < deadline {
                let expected = self.expected.0.as_ref().map(|labels| &*labels[job.text]);
                let asked = connection.ask(&self.requests[job.text], expected);
                let asked = tokio::time::timeout_at(deadline.into(), asked).await;
                asked.unwrap_or(Outcome::TimedOut)
            } else {
                Outcome::TimedOut
            };
            let latency = job.due.elapsed();
            if let Some(at) = job.at {
                self.measured().count(at, latency, outcome);
            }
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn measured(&self) -> MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner {
    /// Runs `load` against `target`; `bar` shows how far it is.
    ///
    /// # Errors
    /// When the target cannot be reached at all, or the load sends nothing, or more than can be
    /// counted; what fails later is counted.
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
        let run = |index: usize, crew: &Crew| {
            let worker = Arc::new(Worker {
                requests: Arc::clone(&requests),
                expected: expected.clone(),
                timeout,
                waiting: Mutex::default(),
                tickets: Semaphore::new(0),
                measured: Mutex::new(Measured::new(duration)),
                done: Arc::clone(&done),
            });
            let times = times().enumerate().skip(index).step_by(workers);
            self.work(target, &worker, times, (index, workers), crew)?;
            let measured = std::mem::replace(&mut *worker.measured(), Measured::new(duration));
            Ok(measured)
        };
        let show = || bar.set_position(done.load(Ordering::Relaxed));
        let parts = crew::work_together(workers, &run, &show)?;
        let mut all = Measured::new(duration);
        parts.iter().for_each(|part| all.merge(part));
        Ok(all)
    }

    fn requests(&self, target: &Target) -> Result<Arc<[Prepared]>, String> {
        self.texts.iter().map(|text| target.prepare(text)).collect()
    }

    /// A worker's life: connections, then, when all others have theirs, its share of the times.
    fn work(
        &self,
        target: &Target,
        worker: &Arc<Worker>,
        times: impl Iterator<Item = (usize, Duration)>,
        (index, workers): (usize, usize),
        crew: &Crew,
    ) -> Result<(), String> {
        let runtime = runtime()?;
        let all = self.options.connections;
        let count = all / workers + usize::from(index < all % workers);
        let connections = runtime.block_on(self.connections(target, count))?;
        let start = crew.ready()?;
        runtime.block_on(self.pace((target.protocol, start), worker, times, connections))
    }

    async fn pace(
        &self,
        (protocol, start): (Protocol, Instant),
        worker: &Arc<Worker>,
        times: impl Iterator<Item = (usize, Duration)>,
        connections: Vec<Arc<Connection>>,
    ) -> Result<(), String> {
        let streams = match protocol {
            Protocol::Http1 => 1,
            Protocol::H2c => self.options.streams.max(1),
        };
        let mut tasks = tokio::task::JoinSet::new();
        for connection in connections {
            for _ in 0..streams {
                let (worker, connection) = (Arc::clone(worker), Arc::clone(&connection));
                tasks.spawn(async move { worker.serve(&connection).await });
            }
        }
        let clock = Clock::new().map_err(|error| format!("no timer: {error}"))?;
        let mut busy = Busy::new();
        for (count, (number, time)) in times.enumerate() {
            let due = start + time;
            clock.until(due).await.map_err(|error| error.to_string())?;
            if count % PUSHES_AT_ONCE == PUSHES_AT_ONCE - 1 {
                // What is due has to be sent, too.
                tokio::task::yield_now().await;
            }
            let at = time.checked_sub(self.options.warm_up);
            if at.is_some() {
                busy.start();
            }
            let text = number % self.texts.len();
            worker.push(Job { text, due, at });
        }
        worker.measured().count_busy(busy.share());
        worker.tickets.add_permits(tasks.len());
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The rate at which `target` answers when every connection asks again and again for `duration`;
    /// what is under way then is waited for.
    ///
    /// # Errors
    /// When the target cannot be reached.
    pub fn saturate(&self, target: &Target, duration: Duration) -> Result<f64, String> {
        let requests = self.requests(target)?;
        let timeout = self.options.timeout;
        runtime()?.block_on(async {
            let connections = self.connections(target, self.options.connections).await?;
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
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
                            // A server that refuses or breaks is not to be asked in a tight loop.
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

    /// The label of each text, asked one by one.
    ///
    /// # Errors
    /// When a text gets no answer, or one without a label.
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

    /// Whether `target` can be reached.
    ///
    /// # Errors
    /// Why not.
    pub fn reach(&self, target: &Target) -> Result<(), String> {
        self.requests(target)?;
        runtime()?.block_on(self.connections(target, 1)).map(drop)
    }

    /// Opens so many connections, before any time counts.
    async fn connections(
        &self,
        target: &Target,
        count: usize,
    ) -> Result<Vec<Arc<Connection>>, String> {
        let failed = |what: String| format!("{}: cannot connect: {what}", target.name);
        let open = async {
            let address = Address::of(target).await?;
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
