//! Counts the records that are lost, and those that are classified more than once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use clap::Args;
use intentd_broker::Broker;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::server::{Secrets, Server};
use super::topic::{RESULTS, broker, committed, produce, wait_for};

/// Time limit for reading all records.
const TIMEOUT: Duration = Duration::from_secs(480);

/// The settings of a run.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// The number of records to write.
    #[arg(long, default_value = "100000")]
    records: u64,
    /// The number of kills, or of members that leave and join.
    #[arg(long, default_value = "20")]
    times: u32,
    /// Records in flight in a server (--kafka-in-flight).
    #[arg(long, default_value = "256")]
    in_flight: u64,
    /// The seed of random times.
    #[arg(long, default_value = "1")]
    seed: u64,
}

impl Flags {
    fn server(&self, secrets: &Secrets) -> Server {
        let more = ["--kafka-in-flight".to_owned(), self.in_flight.to_string()];
        Server::start(secrets, true, None, &more)
    }
}

/// Counts of the records in the results topic, by key.
struct ResultCounts {
    lost: u64,
    /// Results beyond the first of each record.
    repeated: u64,
    /// The most results of one record.
    most: u32,
}

fn count(broker: &Broker, records: u64) -> ResultCounts {
    let mut times: HashMap<Vec<u8>, u32> = HashMap::new();
    let results = broker
        .consume_all(RESULTS, TIMEOUT)
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
    ResultCounts {
        lost: records - times.len() as u64,
        repeated: times.values().map(|times| u64::from(times - 1)).sum(),
        most: times.values().copied().max().unwrap_or(0),
    }
}

fn report(what: &str, broker: &Broker, flags: &Flags, breaks: u32) {
    let ResultCounts {
        lost,
        repeated,
        most,
    } = count(broker, flags.records);
    let window = flags.in_flight;
    println!(
        "{what}: {} records, 3 partitions, SASL_SSL (SCRAM-SHA-512): {lost} lost, {repeated} classified again \
         ({:.1} a break; at most {window} are under way), none more than {most} times",
        flags.records,
        repeated as f64 / f64::from(breaks.max(1)),
    );
    if repeated > 3 * window * u64::from(breaks) {
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
        // Joining waits for the session of the killed member to end. After that, the moment is random.
        let deadline = Instant::now() + Duration::from_secs(30);
        while committed(&broker) == before && before < flags.records && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        moments.push(committed(&broker));
        server.kill();
    }
    let last = flags.server(&secrets);
    wait_for(&broker, flags.records, TIMEOUT);
    assert!(last.end(), "the last server ends successfully");
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
        // One member leaves cleanly, and another joins.
        assert!(
            servers.swap_remove(index).end(),
            "the server ends successfully"
        );
        std::thread::sleep(Duration::from_millis(random.random_range(0..1000)));
        servers.push(flags.server(&secrets));
    }
    produce(&broker, written..flags.records);
    wait_for(&broker, flags.records, TIMEOUT);
    for server in servers {
        assert!(server.end(), "the server ends successfully");
    }
    report("join and leave", &broker, flags, flags.times);
}

/// Takes the broker down for ten seconds.
pub(crate) fn outage(flags: &Flags) {
    let broker = broker(3);
    let half = flags.records / 2;
    produce(&broker, 0..half);
    let secrets = Secrets::of(&broker);
    let server = flags.server(&secrets);
    while committed(&broker) == 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    broker.go_down().expect("the broker obeys");
    std::thread::sleep(Duration::from_secs(10));
    broker.come_up().expect("the broker obeys");
    let back = Instant::now();
    produce(&broker, half..flags.records);
    wait_for(&broker, flags.records, TIMEOUT);
    println!(
        "all committed {:.1} s after the broker was back",
        back.elapsed().as_secs_f64()
    );
    assert!(server.end(), "the server ends successfully");
    report("broker away for 10 s", &broker, flags, 1);
}
