//! Mixed load for a long time: whether memory stays flat, the counters add up and every request is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::client::{Client, Outcome, get, post};
use crate::subject::Subject;
use crate::support::http;
use crate::support::long_texts::bodies;
use crate::{runtime, verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    #[arg(long, default_value = "20")]
    minutes: f64,
    /// Additional flags of the server, as one word.
    #[arg(
        long,
        default_value = "--slo 20ms --max-concurrency 48",
        allow_hyphen_values = true
    )]
    server: String,
    /// Run the server within this process, and count the bytes that it has allocated instead of its pages.
    #[arg(long)]
    within: bool,
    /// Seconds between reloads, 0 for none.
    #[arg(long, default_value = "30")]
    reload_every: u64,
    /// Size of the long texts in bytes, 0 for none.
    #[arg(long, default_value = "1000000")]
    long_texts: usize,
}

/// How often the clients pause, so that what remains in memory is seen.
const BETWEEN_RESTS: Duration = Duration::from_secs(55);
/// Long enough for the requests under way to end and for the allocator to return pages.
const REST: Duration = Duration::from_secs(5);

/// Growth of the memory that is none: 1 % an hour of a small server would be more than noise.
const SLOPE_MAX_MB_A_MINUTE: f64 = 0.05;

/// The results of all clients.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    refused: AtomicU64,
    faulty: AtomicU64,
    unexpected: AtomicU64,
    left: AtomicU64,
    lost: AtomicU64,
    reloads: AtomicU64,
    resting: AtomicBool,
    end: AtomicBool,
}

impl Seen {
    fn count(&self, outcome: Outcome) -> bool {
        let (counter, stays) = match outcome {
            Outcome::Answered(200, stays) => (&self.answered, stays),
            Outcome::Answered(429 | 504, stays) => (&self.refused, stays),
            Outcome::Answered(_, stays) => (&self.unexpected, stays),
            Outcome::Lost => (&self.lost, false),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        stays
    }

    /// Counts the outcome of an invalid request.
    fn count_faulty(&self, outcome: Outcome) {
        match outcome {
            Outcome::Answered(400..=499 | 504, _) => {
                self.faulty.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                println!("a faulty request: {other:?}");
                self.unexpected.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Waits while clients rest. Whether there is another round.
    async fn goes_on(&self) -> bool {
        while self.resting.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        !self.end.load(Ordering::Relaxed)
    }
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(flags: &Flags) -> bool {
    let arguments: Vec<&str> = flags.server.split_whitespace().collect();
    let runtime = runtime();
    let subject = if flags.within {
        Subject::within(&arguments)
    } else {
        runtime.block_on(Subject::program(&arguments))
    };
    let admin = subject.admin();
    let seen = Arc::new(Seen::default());
    let memory = runtime.block_on(load(flags, &subject, &seen));
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} minutes: {} answered, {} refused, {} faulty requests, {} clients left, {} reloads",
        flags.minutes,
        load(&seen.answered),
        load(&seen.refused),
        load(&seen.faulty),
        load(&seen.left),
        load(&seen.reloads),
    );
    let metrics = runtime.block_on(http::get(admin, "/metrics", &[])).body;
    let unexpected = load(&seen.unexpected);
    let what = format!("{unexpected} answers with a status that does not fit");
    verdict(&what, unexpected == 0) & judge(&memory, &metrics, load(&seen.lost))
}

/// Memory in megabytes by minutes, each time the clients have rested.
async fn load(flags: &Flags, subject: &Subject, seen: &Arc<Seen>) -> Vec<(f64, f64)> {
    let (address, admin) = (subject.address(), subject.admin());
    let mut clients = JoinSet::new();
    for number in 0..32 {
        clients.spawn(singles(address, number, Arc::clone(seen)));
    }
    for _ in 0..4 {
        clients.spawn(lists(address, Arc::clone(seen)));
        clients.spawn(leavers(address, Arc::clone(seen)));
    }
    clients.spawn(streams(address, Arc::clone(seen)));
    clients.spawn(nonsense(address, Arc::clone(seen)));
    if flags.long_texts > 0 {
        for number in 0..4 {
            clients.spawn(long_texts(
                address,
                number,
                flags.long_texts,
                Arc::clone(seen),
            ));
        }
    }
    if flags.reload_every > 0 {
        clients.spawn(reloads(admin, flags.reload_every, Arc::clone(seen)));
    }
    let start = Instant::now();
    let minutes = || start.elapsed().as_secs_f64() / 60.0;
    let mut memory = Vec::new();
    while minutes() < flags.minutes {
        tokio::time::sleep(BETWEEN_RESTS).await;
        let busy = subject.memory() / 1e6;
        seen.resting.store(true, Ordering::Relaxed);
        tokio::time::sleep(REST).await;
        let rested = subject.memory() / 1e6;
        seen.resting.store(false, Ordering::Relaxed);
        memory.push((minutes(), rested));
        println!(
            "{:4.0} min {rested:8.2} MB at rest, {busy:8.2} MB busy",
            minutes()
        );
    }
    seen.end.store(true, Ordering::Relaxed);
    clients.join_all().await;
    // Time for the server to finish abandoned requests.
    tokio::time::sleep(Duration::from_secs(2)).await;
    memory
}

async fn reconnected(open: Option<Client>, address: SocketAddr) -> Client {
    match open {
        Some(client) => client,
        None => Client::open(address).await.unwrap(),
    }
}

/// Single texts in bursts beyond the server's capacity; some have short deadlines.
async fn singles(address: SocketAddr, number: u64, seen: Arc<Seen>) {
    let patient = get("play some jazz", "");
    let hasty = get(
        "book a table for two in paris",
        "X-Request-Timeout-Ms: 2\r\n",
    );
    let mut open = None;
    for round in 0_u64.. {
        if !seen.goes_on().await {
            return;
        }
        let request = if (round + number).is_multiple_of(7) {
            &hasty
        } else {
            &patient
        };
        let mut client = reconnected(open.take(), address).await;
        let stays = seen.count(client.ask(request).await);
        // A new connection now and then.
        open = (stays && round % 50 != 49).then_some(client);
        if round % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(100 + 3 * number)).await;
        }
    }
}

async fn lists(address: SocketAddr, seen: Arc<Seen>) {
    let texts: Vec<String> = (0..64)
        .map(|n| format!("play song number {n} twice"))
        .collect();
    let request = post(serde_json::to_string(&texts).unwrap());
    let mut open = None;
    while seen.goes_on().await {
        let mut client = reconnected(open.take(), address).await;
        open = seen.count(client.ask(&request).await).then_some(client);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Clients that disconnect within the request or right after it.
async fn leavers(address: SocketAddr, seen: Arc<Seen>) {
    let texts: Vec<String> = (0..32)
        .map(|n| format!("what is the weather on day {n}"))
        .collect();
    let request = post(serde_json::to_string(&texts).unwrap());
    for round in 0_usize.. {
        if !seen.goes_on().await {
            return;
        }
        let part = request.len() * (1 + round % 10) / 10;
        let client = reconnected(None, address).await;
        client.leave(&request[..part]).await;
        seen.left.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// HTTP/2 with several concurrent streams, every third of which is reset before its response.
async fn streams(address: SocketAddr, seen: Arc<Seen>) {
    while seen.goes_on().await {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let executor = TokioExecutor::new();
        let handshake = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        for _ in 0..100 {
            let mut answers = JoinSet::new();
            for number in 0..9 {
                let uri = format!("http://test/predict?query=rate+book+{number}");
                let request = hyper::Request::get(uri).body(String::new()).unwrap();
                sender.ready().await.unwrap();
                let answer = sender.send_request(request);
                if number % 3 == 2 {
                    seen.left.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async {
                        tokio::time::timeout(Duration::from_micros(200), answer).await
                    });
                } else {
                    answers.spawn(answer);
                }
            }
            for answer in answers.join_all().await {
                match answer {
                    Ok(answer) => seen.count(Outcome::Answered(answer.status().as_u16(), true)),
                    Err(_) => seen.count(Outcome::Lost),
                };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn nonsense(address: SocketAddr, seen: Arc<Seen>) {
    let requests = [
        post("{\"query\": "),
        post("{\"query\": 7}"),
        post(serde_json::to_string(&vec!["a"; 1000]).unwrap()),
        post(format!("[{}", "[".repeat(5000))),
        get("a", "X-Request-Timeout-Ms: soon\r\n"),
        get("a", "X-Request-Timeout-Ms: 0\r\n"),
        b"DELETE /predict HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
    ];
    for round in 0_usize.. {
        if !seen.goes_on().await {
            return;
        }
        let mut client = reconnected(None, address).await;
        seen.count_faulty(client.ask(&requests[round % requests.len()]).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Megabytes of each kind of text that is made to be expensive, one after the other.
async fn long_texts(address: SocketAddr, number: usize, bytes: usize, seen: Arc<Seen>) {
    let bodies = bodies(bytes).into_iter();
    let requests: Vec<Vec<u8>> = bodies.map(|body| post(body.bytes)).collect();
    let mut open = None;
    for round in number.. {
        if !seen.goes_on().await {
            return;
        }
        let mut client = reconnected(open.take(), address).await;
        let outcome = client.ask(&requests[round % requests.len()]).await;
        open = match outcome {
            // Not all of them are requests.
            Outcome::Answered(400 | 422, stays) => {
                seen.faulty.fetch_add(1, Ordering::Relaxed);
                stays.then_some(client)
            }
            outcome => seen.count(outcome).then_some(client),
        };
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn reloads(admin: SocketAddr, seconds: u64, seen: Arc<Seen>) {
    while seen.goes_on().await {
        let answer = http::post(admin, "/reload", "text/plain", "").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.reloads.fetch_add(1, Ordering::Relaxed);
        for _ in 0..seconds {
            if seen.goes_on().await {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn judge(memory: &[(f64, f64)], metrics: &str, lost: u64) -> bool {
    let value = |series: &str| {
        http::metric(metrics, series).unwrap_or_else(|| panic!("{series} is missing"))
    };
    let outcome = |name: &str| value(&format!("intentd_requests_total{{outcome=\"{name}\"}}"));
    let [answered, refused, abandoned] = ["answered", "refused", "abandoned"].map(outcome);
    let offered = value("intentd_offered_requests_total");
    let mut held = verdict(
        &format!(
            "{offered} offered = {answered} answered + {refused} refused + {abandoned} abandoned"
        ),
        offered == answered + refused + abandoned,
    );
    for series in ["intentd_queue_depth", "intentd_in_flight"] {
        let left = value(series);
        held &= verdict(&format!("{series} {left} in the end"), left == 0.0);
    }
    held &= verdict(&format!("{lost} requests got no answer"), lost == 0);
    // The first quarter fills caches and pools.
    let settled = &memory[memory.len() / 4..];
    let slope = slope(settled);
    let what = format!("memory grows by {slope:.4} MB a minute (at most {SLOPE_MAX_MB_A_MINUTE})");
    held & verdict(&what, slope <= SLOPE_MAX_MB_A_MINUTE)
}

/// The slope of the least-squares line.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    covariance / variance
}
