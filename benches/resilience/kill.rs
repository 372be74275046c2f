//! SIGTERM under full load: every request that was sent before the port closed is answered.
//!
//! The port is closed once a connection is refused, so the start of the earliest refused attempt is an upper
//! bound of the time when it closed. A request counts as lost when it was sent before that time and got no
//! answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Client, Outcome, get};
use crate::support::process::Server;
use crate::{runtime, verdict};

#[derive(Debug, clap::Args)]
pub(crate) struct Flags {
    /// Number of rounds.
    #[arg(long, default_value = "50")]
    times: u32,
    /// Clients that keep their connections, and the same number that open one for each request.
    #[arg(long, default_value = "32")]
    clients: usize,
    /// The server's delay from SIGTERM until it closes its port.
    #[arg(long, default_value = "off")]
    lame_duck: String,
}

/// The results of all clients of one server.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    other_statuses: u64,
    /// Send times of requests without an answer.
    lost: Vec<Instant>,
    /// Start of the first attempt that was refused.
    refused: Option<Instant>,
}

/// Runs the measurement. Returns whether the expectations held.
pub(crate) fn run(flags: &Flags) -> bool {
    let (mut answered, mut lost, mut crossed, mut failed) = (0, 0, 0, 0);
    for round in 0..flags.times {
        let mut server = Server::start(&["--port", "0", "--lame-duck", &flags.lame_duck], &[]);
        let (seen, killed) = runtime().block_on(once(&server, flags.clients, round));
        let (code, log) = server.ended();
        if code != Some(0) || seen.other_statuses > 0 {
            println!(
                "round {round}: exit code {code:?}, {} other statuses\n{log}",
                seen.other_statuses
            );
            failed += 1;
        }
        let closed = seen.refused.unwrap_or(killed);
        let before = seen.lost.iter().filter(|sent| **sent < closed).count();
        answered += seen.answered;
        lost += before;
        crossed += seen.lost.len() - before;
    }
    println!(
        "{} ends under load, {answered} requests answered",
        flags.times
    );
    println!("{crossed} requests crossed the end of their connection after the port had closed");
    let exits = verdict(
        &format!("{failed} servers ended otherwise than well"),
        failed == 0,
    );
    let what = format!("{lost} requests sent before the port closed got no answer");
    verdict(&what, lost == 0) && exits
}

async fn once(server: &Server, clients: usize, round: u32) -> (Seen, Instant) {
    server.ready().await;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut tasks = JoinSet::new();
    for client in 0..2 * clients {
        let keeps = client < clients;
        tasks.spawn(load(server.address, keeps, Arc::clone(&seen)));
    }
    // A different delay in each round, so that SIGTERM meets different states.
    let wait = Duration::from_millis(200 + u64::from(round * 37 % 100));
    tokio::time::sleep(wait).await;
    let killed = Instant::now();
    server.kill("TERM");
    tasks.join_all().await;
    let seen = Arc::into_inner(seen).unwrap().into_inner().unwrap();
    (seen, killed)
}

/// Sends requests until the port is closed.
async fn load(address: SocketAddr, keeps: bool, seen: Arc<Mutex<Seen>>) {
    let headers = if keeps { "" } else { "Connection: close\r\n" };
    let request = get("play some jazz", headers);
    let mut open: Option<Client> = None;
    loop {
        let began = Instant::now();
        let mut client = match open.take() {
            Some(client) => client,
            None => match Client::open(address).await {
                Ok(client) => client,
                Err(_) => {
                    let mut seen = seen.lock().unwrap();
                    seen.refused = Some(seen.refused.map_or(began, |at| at.min(began)));
                    return;
                }
            },
        };
        let sent = Instant::now();
        match client.ask(&request).await {
            Outcome::Answered(status, stays) => {
                let mut seen = seen.lock().unwrap();
                seen.answered += u64::from(status == 200);
                seen.other_statuses += u64::from(status != 200);
                open = (keeps && stays).then_some(client);
            }
            Outcome::Lost => seen.lock().unwrap().lost.push(sent),
        }
    }
}
