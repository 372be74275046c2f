//! The CUDA engine behind a real server, its kernels run by the emulator.

use std::sync::Arc;

use intentd::engine::{Cuda, CudaOptions};
use intentd::metrics::SurfaceLabel;
use intentd::model::{Checkpoint, Text, TooLong};
use intentd::serving::{Attempt, Request};
use intentd_kernels::{Capacity, Device, DeviceError, Dtype, Emulation};

use crate::support::http::{Connection, keep_alive};
use crate::support::server::TestServer;

/// A small device: batches of a few texts, two of them under way, graphs that come and go.
fn engine(emulation: Emulation) -> Option<Cuda> {
    let device = match Device::emulator(emulation) {
        Ok(device) => device,
        Err(DeviceError::Unavailable(why)) => {
            println!("skipped: {why}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let options = CudaOptions {
        dtype: Dtype::F16,
        largest: Capacity {
            tokens: 128,
            sequences: 8,
        },
        graphs_max: 2,
    };
    let checkpoint = Checkpoint::embedded().expect("the embedded model is whole");
    Some(Cuda::load(&checkpoint, device, options).expect("it fits"))
}

const CLIENTS: usize = 12;
const REQUESTS: usize = 10;

/// Of all lengths, so that batches fall into several buckets.
fn text(client: usize, number: usize) -> String {
    format!("play{}", " jazz".repeat(1 + (client * 7 + number * 5) % 20))
}

fn request(client: usize, number: usize) -> Vec<u8> {
    let query = text(client, number).replace(' ', "+");
    keep_alive(&format!("/predict?query={query}"), "application/json")
}

#[tokio::test]
async fn many_clients_get_the_answers_of_the_cpu() {
    let Some(cuda) = engine(Emulation::default()) else {
        return;
    };
    let server = TestServer::with_engine(&[], |_| cuda).await;
    let cpu = TestServer::start(&[]).await;
    let (address, other) = (server.address, cpu.address);
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut expected = Connection::open(other).await;
            for number in 0..REQUESTS {
                let answer = connection.send(&request(client, number)).await;
                let expected = expected.send(&request(client, number)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["label"], expected.json()["label"]);
                let score = |json: serde_json::Value| json["score"].as_f64().unwrap();
                let difference = score(answer.json()) - score(expected.json());
                assert!(difference.abs() < 1e-2, "{difference}");
            }
        });
    }
    clients.join_all().await;
    let texts = (CLIENTS * REQUESTS) as f64;
    assert_eq!(server.metric("intentd_batch_size_sum").await, texts);
    assert_eq!(server.metric("intentd_engine_failures_total").await, 0.0);
    assert_eq!(server.metric("intentd_queue_depth").await, 0.0);
    cpu.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn a_device_lost_under_load_answers_everybody_and_ends_the_server() {
    let lost = Emulation {
        // After loading and a few batches.
        lost_after: Some(150),
        ..Emulation::default()
    };
    let Some(cuda) = engine(lost) else {
        return;
    };
    let server = TestServer::with_engine(&[], |_| cuda).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        // Not through the ports, which close once the device is lost.
        let classifier = Arc::clone(&server.classifier);
        clients.spawn(async move {
            for number in 0..REQUESTS {
                let request = Request {
                    texts: vec![Text::Single(text(client, number))],
                    too_long: TooLong::Refuse,
                };
                if let Err(refusal) = classifier
                    .offer(SurfaceLabel::new("predict"), None, Attempt::default())
                    .classify(request)
                    .await
                {
                    assert_eq!(refusal.status(), 503, "{refusal}");
                    return 1;
                }
            }
            0
        });
    }
    let refused: usize = clients.join_all().await.into_iter().sum();
    assert!(refused > 0, "the device was lost under load");
    assert!(server.ended().await.unwrap_err().is_engine_lost());
}
