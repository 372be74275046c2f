//! Whether the demands of several replicas add up to the demand of one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::{Common, Model, Replica, ask, target, verdict};

const ERROR_MAX: f64 = 0.1;

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// The servers' objective.
    #[arg(long, default_value = "100ms")]
    slo: String,
    /// Load as a multiple of the capacity of one server.
    #[arg(long, default_value = "0.25")]
    load: f64,
}

/// Runs the measurement. Returns whether the expectation held.
pub(crate) fn run(common: &Common, model: &Model, flags: &Flags) -> bool {
    let arguments = ["--slo", &*flags.slo];
    let start = || Replica::start(common, model, &arguments);
    let alone = start();
    // The first server learns its capacity while it is alone on its core. The load is fixed from then on.
    for share in [0.3, 0.5, 0.5] {
        let rate = share * alone.hints().number("capacity_rps");
        ask(&alone.target(), rate, (common.seconds / 3, 7));
    }
    let rate = flags.load * alone.hints().number("capacity_rps");
    ask(&alone.target(), rate, (common.seconds, 9));
    let single = alone.hints().number("demand_replicas");
    let capacity = alone.hints().number("capacity_rps");
    println!(
        "{rate:.0} requests a second at one replica: demand {single:.3}, λ_slo {capacity:.0}/s"
    );
    let replicas = [alone, start(), start()];
    let proxy = Proxy::start(replicas.iter().map(|replica| replica.address).collect());
    println!(
        "| replicas behind the proxy | their demands | sum | by the single one's | sum of their λ_slo, by the single one's |"
    );
    println!("| --- | --- | --- | --- | --- |");
    let mut sums = Vec::new();
    for count in [3, 2, 1, 3] {
        proxy.members.store(count, Ordering::Relaxed);
        ask(&target(proxy.address), rate, (common.seconds.max(60), 10));
        let hints: Vec<_> = replicas.iter().map(Replica::hints).collect();
        let all = |name| -> Vec<f64> { hints.iter().map(|hints| hints.number(name)).collect() };
        let demands = all("demand_replicas");
        let sum: f64 = demands.iter().sum();
        let capacities: f64 = all("capacity_rps").iter().take(count).sum();
        println!(
            "| {count} | {demands:.3?} | {sum:.3} | {:.3} | {:.3} |",
            sum / single,
            capacities / capacity
        );
        sums.push(sum / single);
    }
    verdict(
        &format!("the sum is the single replica's demand within 10 % ({sums:.3?})"),
        sums.iter().all(|ratio| (ratio - 1.0).abs() <= ERROR_MAX),
    )
}

/// A round robin proxy: each connection goes to the next replica.
struct Proxy {
    address: SocketAddr,
    /// The number of replicas that get connections, from the first on.
    members: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(replicas: Vec<SocketAddr>) -> Self {
        let members = Arc::new(AtomicUsize::new(replicas.len()));
        let (tell, told) = std::sync::mpsc::channel();
        let shared = Arc::clone(&members);
        std::thread::spawn(move || {
            let runtime = crate::runtime();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                for next in 0_usize.. {
                    let (mut client, _) = listener.accept().await.unwrap();
                    let replica = replicas[next % shared.load(Ordering::Relaxed)];
                    tokio::spawn(async move {
                        let mut server = TcpStream::connect(replica).await.unwrap();
                        let _ = client.set_nodelay(true);
                        let _ = server.set_nodelay(true);
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    });
                }
            });
        });
        Self {
            address: told.recv_timeout(Duration::from_secs(5)).unwrap(),
            members,
        }
    }
}
