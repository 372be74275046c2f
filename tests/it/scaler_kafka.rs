//! The lag of a consumer group as a sign of work, against librdkafka's own brokers.

use std::time::Duration;

use intentd::scaler::proto::external_scaler_client::ExternalScalerClient;
use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::scaler::{Answering, Scaler, demand, is_active, until};

const TOPIC: &str = "intents";
const PARTITIONS: i32 = 3;

/// A cluster in this process, which ends with its client.
struct Brokers {
    producer: BaseProducer,
}

impl Brokers {
    fn start() -> Self {
        let mut settings = ClientConfig::new();
        let producer = settings.set("test.mock.num.brokers", "2").create();
        let brokers = Self {
            producer: producer.unwrap(),
        };
        let cluster = brokers.producer.client().mock_cluster().unwrap();
        cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
        drop(cluster);
        brokers
    }

    fn bootstrap(&self) -> String {
        let cluster = self.producer.client().mock_cluster().unwrap();
        cluster.bootstrap_servers()
    }

    /// Writes so many records to each partition.
    fn produce(&self, count: usize, partitions: std::ops::Range<i32>) {
        for partition in partitions {
            for _ in 0..count {
                let record = BaseRecord::<(), str>::to(TOPIC).partition(partition);
                self.producer
                    .send(record.payload("play some jazz"))
                    .unwrap();
            }
        }
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// As a member of `group` that has read so far in each partition.
    fn commit(&self, group: &str, next: &[(i32, i64)]) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("group.id", group)
            .create()
            .unwrap();
        let mut offsets = TopicPartitionList::new();
        for (partition, next) in next {
            let next = Offset::Offset(*next);
            offsets
                .add_partition_offset(TOPIC, *partition, next)
                .unwrap();
        }
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    }
}

async fn becomes(client: &ExternalScalerClient<Channel>, metadata: &[(&str, &str)], active: bool) {
    let ask = async || is_active(&mut client.clone(), metadata).await.ok();
    until(ask, |found| *found == Some(active)).await;
}

#[tokio::test]
async fn records_that_nobody_has_read_are_a_sign_of_work() {
    let brokers = Brokers::start();
    brokers.produce(10, 0..PARTITIONS);
    let replica = Answering::replica(0.0).await;
    let (place, bootstrap) = (replica.place(), brokers.bootstrap());
    let flags = [
        "--replicas",
        &place,
        "--wake-kafka",
        &bootstrap,
        "--wake-topic",
        TOPIC,
        "--wake-group",
        "readers",
        "--wake-lag",
        "10",
        "--kafka-config",
        "socket.timeout.ms=4000",
    ];
    let scaler = Scaler::start(&flags);
    let client = scaler.client().await;
    // Nothing is committed: 30 records.
    becomes(&client, &[], true).await;
    brokers.commit("readers", &[(0, 10), (1, 9)]);
    // 11 records.
    let more = [("wakeLag", "11")];
    becomes(&client, &more, false).await;
    becomes(&client, &[], true).await;
    brokers.commit("readers", &[(2, 1)]);
    // 10 records: not more than that.
    becomes(&client, &[], false).await;
    assert_eq!(demand(&mut client.clone(), &[]).await.unwrap().0, 0.0);
    brokers.produce(1, 0..1);
    becomes(&client, &[], true).await;

    // A workload of its own: nobody of this group has read anything.
    let own = [
        ("replicas", place.as_str()),
        ("wakeTopic", TOPIC),
        ("wakeGroup", "others"),
        ("wakeLag", "30"),
    ];
    becomes(&client, &own, true).await;
}

#[tokio::test]
async fn a_topic_that_does_not_exist_is_not_known_to_be_empty() {
    let brokers = Brokers::start();
    let replica = Answering::replica(0.0).await;
    let (place, bootstrap) = (replica.place(), brokers.bootstrap());
    let scaler = Scaler::start(&["--replicas", &place]);
    let mut client = scaler.client().await;
    let elsewhere = [
        ("wakeKafka", bootstrap.as_str()),
        ("wakeTopic", "nothing-here"),
        ("wakeGroup", "readers"),
    ];
    let error = is_active(&mut client, &elsewhere).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let asked = until(
        async || {
            is_active(&mut client.clone(), &elsewhere)
                .await
                .unwrap_err()
                .to_string()
        },
        |error| error.contains("Kafka"),
    );
    asked.await;
    assert_eq!(demand(&mut client, &elsewhere).await.unwrap().0, 0.0);
}
