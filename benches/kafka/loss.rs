//! Is a record lost, and how many are classified more than once?

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use intentd_broker::Broker;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::server::{Secrets, Server, committed, wait_for};
use super::{RESULTS, broker, produce};

/// Time in which everything has to be read.
const MOST: Duration = Duration::from_secs(480);

/// How a run goes.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Records that are written.
    #[arg(long, default_value = "100000")]
    records: u64,
    /// Times that a process is killed, or that one joins or leaves.
    #[arg(long, default_value = "20")]
    times: u32,
    /// Records under way at once in a server (--kafka-in-flight).
    #[arg(long, default_value = "256")]
    in_flight: u64,
    /// Of the random moments.
    #[arg(long, default_value = "1")]
    seed: u64,
}

impl Flags {
    fn server(&self, secrets: &Secrets) -> Server {
        let more = ["--kafka-in-flight".to_owned(), self.in_flight.to_string()];
        Server::start(secrets, true, None, &more)
    }
}

/// What is in the topic of results, by key.
fn count(broker: &Broker, records: u64) -> (u64, u64, u32) {
    let mut times: HashMap<Vec<u8>, u32> = HashMap::new();
    let results = broker
        .consume_all(RESULTS, MOST)
        .expect("the results can be read");
    for low in broker.low_watermarks(RESULTS).expect("the broker answers") {
        assert_eq!(
            low, 0,
            "the broker has dropped results; write fewer records"
        );
    }
    for result in results {
        *times
            .entry(result.key.expect("each has its key"))
            .or_default() += 1;
    }
    let lost = records - times.len() as u64;
    let more: u64 = times.values().map(|times| u64::from(times - 1)).sum();
    (lost, more, times.values().copied().max().unwrap_or(0))
}

fn report(what: &str, broker: &Broker, flags: &Flags, breaks: u32) {
    let (lost, more, most) = count(broker, flags.records);
    let window = flags.in_flight;
    println!(
        "{what}: {} records, 3 partitions, SASL_SSL (SCRAM-SHA-512): {lost} lost, {more} classified again \
         ({:.1} a break; at most {window} are under way), none more than {most} times",
        flags.records,
        more as f64 / f64::from(breaks.max(1)),
    );
    if more > 3 * window * u64::from(breaks) {
        println!("NOT HELD: at most three times what is under way are classified again at a break");
    }
    if lost > 0 {
        println!("NOT HELD: records were lost");
    }
}

/// Kills the consumer at random moments.
pub(crate) fn kill(flags: &Flags) {
    let broker = broker(3);
    produce(&broker, 0..flags.records);
    let secrets = Secrets::of(&broker);
    let mut random = ChaCha8Rng::seed_from_u64(flags.seed);
    let start = Instant::now();
    let mut moments = Vec::new();
    for _ in 0..flags.times {
        let server = flags.server(&secrets);
        let before = committed(&broker);
        // Joining takes a session of the one that was killed; then the moment is a random one.
        let deadline = Instant::now() + Duration::from_secs(30);
        while committed(&broker) == before && before < flags.records && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        moments.push(committed(&broker));
        server.kill();
    }
    let last = flags.server(&secrets);
    wait_for(&broker, flags.records, MOST);
    assert!(last.end(), "the last one ends well");
    println!(
        "committed when killed: {moments:?}; {:.1} s in all",
        start.elapsed().as_secs_f64()
    );
    report("kill -9", &broker, flags, flags.times);
}

/// Lets three consumers join and leave while records are written.
pub(crate) fn rebalance(flags: &Flags) {
    let broker = broker(3);
    let secrets = Secrets::of(&broker);
    let mut random = ChaCha8Rng::seed_from_u64(flags.seed);
    let mut servers: Vec<Server> = (0..3).map(|_| flags.server(&secrets)).collect();
    let share = flags.records / u64::from(flags.times + 1);
    let mut written = 0;
    for _ in 0..flags.times {
        produce(&broker, written..written + share);
        written += share;
        let index = random.random_range(0..servers.len());
        // One leaves as it should, and another joins.
        assert!(servers.swap_remove(index).end(), "it ends well");
        std::thread::sleep(Duration::from_millis(random.random_range(0..1000)));
        servers.push(flags.server(&secrets));
    }
    produce(&broker, written..flags.records);
    wait_for(&broker, flags.records, MOST);
    for server in servers {
        assert!(server.end(), "it ends well");
    }
    report("join and leave", &broker, flags, flags.times);
}

/// Takes the broker away for ten seconds.
pub(crate) fn outage(flags: &Flags) {
    let broker = broker(3);
    let half = flags.records / 2;
    produce(&broker, 0..half);
    let secrets = Secrets::of(&broker);
    let server = flags.server(&secrets);
    while committed(&broker) == 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    broker.go_down().expect("it does");
    std::thread::sleep(Duration::from_secs(10));
    broker.come_up().expect("it does");
    let back = Instant::now();
    produce(&broker, half..flags.records);
    wait_for(&broker, flags.records, MOST);
    println!(
        "all committed {:.1} s after the broker was back",
        back.elapsed().as_secs_f64()
    );
    assert!(server.end(), "it ends well");
    report("broker away for 10 s", &broker, flags, 1);
}
