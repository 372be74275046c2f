//! librdkafka's mock cluster with one broker. All `unsafe` code of the package is here: four setters for which
//! rdkafka has no safe interface.
#![expect(unsafe_code, reason = "setters that only librdkafka's C interface has")]

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as c;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaErrorCode, RDKafkaMockCluster, RDKafkaRespErr};

use crate::{BrokerError, GroupTimings};

/// The one broker's number.
const BROKER: i32 = 1;

/// The limit of partitions of one topic. A larger number is a mistake of the caller.
const PARTITIONS_MAX: i32 = 10_000;

/// Kinds of requests for which a test can inject errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// A producer sends records.
    Produce,
    /// A consumer asks for records.
    Fetch,
    /// A group commits offsets.
    OffsetCommit,
}

impl Api {
    fn key(self) -> RDKafkaApiKey {
        match self {
            Self::Produce => RDKafkaApiKey::Produce,
            Self::Fetch => RDKafkaApiKey::Fetch,
            Self::OffsetCommit => RDKafkaApiKey::OffsetCommit,
        }
    }
}

/// The cluster, which lives as long as the client that owns it. That client is `Send` and `Sync`; the result of
/// [`MockCluster::new`] is neither.
pub(crate) struct Mock {
    owner: BaseProducer,
}

impl Mock {
    pub(crate) fn start(group: &GroupTimings) -> Result<Self, BrokerError> {
        let mut settings = ClientConfig::new();
        settings.set("test.mock.num.brokers", "1");
        let mock = Self {
            owner: settings.create()?,
        };
        let cluster = mock.native()?;
        // SAFETY: the cluster lives as long as its owner, which `mock` holds; librdkafka takes the
        // cluster's lock for each of these.
        unsafe {
            c::rd_kafka_mock_group_initial_rebalance_delay_ms(
                cluster,
                milliseconds(group.initial_rebalance_delay),
            );
            c::rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(
                cluster,
                milliseconds(group.heartbeat),
            );
            c::rd_kafka_mock_set_group_consumer_session_timeout_ms(
                cluster,
                milliseconds(group.session_timeout),
            );
        }
        Ok(mock)
    }

    /// Makes the broker advertise `host` and `port` to clients.
    pub(crate) fn advertise(&self, host: &str, port: u16) -> Result<(), BrokerError> {
        let host = CString::new(host).map_err(KafkaError::from)?;
        let cluster = self.native()?;
        // SAFETY: as in `start`; librdkafka copies the name.
        unsafe {
            c::rd_kafka_mock_broker_set_host_port(cluster, BROKER, host.as_ptr(), i32::from(port));
        }
        Ok(())
    }

    /// The address at which the broker listens.
    pub(crate) fn address(&self) -> Result<String, BrokerError> {
        Ok(self.cluster()?.bootstrap_servers())
    }

    pub(crate) fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        // librdkafka divides by the number of partitions, and allocates by a negative one.
        if name.is_empty() || !(1..=PARTITIONS_MAX).contains(&partitions) {
            let what = format!("no topic can be {name:?} with {partitions} partitions");
            return Err(BrokerError::Setting(what));
        }
        Ok(self.cluster()?.create_topic(name, partitions, 1)?)
    }

    pub(crate) fn go_down(&self) -> Result<(), BrokerError> {
        Ok(self.cluster()?.broker_down(BROKER)?)
    }

    pub(crate) fn come_up(&self) -> Result<(), BrokerError> {
        Ok(self.cluster()?.broker_up(BROKER)?)
    }

    pub(crate) fn round_trip_time(&self, time: Duration) -> Result<(), BrokerError> {
        Ok(self.cluster()?.broker_round_trip_time(BROKER, time)?)
    }

    pub(crate) fn fail_next(&self, api: Api, errors: &[RDKafkaRespErr]) -> Result<(), BrokerError> {
        self.cluster()?.request_errors(api.key(), errors);
        Ok(())
    }

    pub(crate) fn fail_no_more(&self, api: Api) -> Result<(), BrokerError> {
        self.cluster()?.clear_request_errors(api.key());
        Ok(())
    }

    fn cluster(&self) -> Result<MockCluster<'_, DefaultProducerContext>, BrokerError> {
        let cluster = self.owner.client().mock_cluster();
        cluster.ok_or_else(|| missing().into())
    }

    fn native(&self) -> Result<*mut RDKafkaMockCluster, BrokerError> {
        // SAFETY: the client's handle is valid as long as the client, and this only reads it.
        let cluster = unsafe { c::rd_kafka_handle_mock_cluster(self.owner.client().native_ptr()) };
        if cluster.is_null() {
            return Err(missing().into());
        }
        Ok(cluster)
    }
}

/// The error when librdkafka has created no cluster.
fn missing() -> KafkaError {
    KafkaError::MockCluster(RDKafkaErrorCode::Fail)
}

fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}
