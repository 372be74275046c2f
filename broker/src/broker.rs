//! The broker: the mock cluster and the gate in front of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaRespErr;

use crate::ending::EndingConsumers;
use crate::gate::OpenGate;
use crate::mock::Mock;
use crate::{Api, BrokerError, Compression, Gate, Settings};

/// A running broker, which ends when it is dropped. Its methods block, but only those that transfer records may
/// block for long. They use clients of their own and need no runtime.
pub struct Broker {
    // These two end before the cluster, so that no open connection delays its end.
    pub(crate) ending: EndingConsumers,
    gate: Option<(Gate, OpenGate)>,
    mock: Mock,
    address: String,
    pub(crate) compression: Compression,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("bootstrap", &self.address)
            .field("gate", &self.gate.as_ref().map(|(gate, _)| gate))
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts a broker on free ports of this machine's loopback interface.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn start(settings: &Settings) -> Result<Self, BrokerError> {
        let mock = Mock::start(&settings.group)?;
        for (name, partitions) in &settings.topics {
            mock.create_topic(name, *partitions)?;
        }
        let mut address = mock.address()?;
        let mut gate = None;
        if let Some(wanted) = &settings.gate {
            let behind: SocketAddr = address.parse().map_err(std::io::Error::other)?;
            let open = OpenGate::open(wanted, behind)?;
            mock.advertise(OpenGate::HOST, open.port())?;
            address = format!("{}:{}", OpenGate::HOST, open.port());
            gate = Some((wanted.clone(), open));
        }
        Ok(Self {
            ending: EndingConsumers::default(),
            gate,
            mock,
            address,
            compression: settings.compression,
        })
    }

    /// The address for clients: the gate's (`localhost:PORT`) if there is one.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.address.clone()
    }

    /// The certificate of the gate's authority, in PEM. Each broker has a new one.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        let (_, open) = self.gate.as_ref()?;
        open.ca_pem()
    }

    /// The number of logins that the gate has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.gate.as_ref().map_or(0, |(_, open)| open.refused())
    }

    /// Settings of a client that the gate accepts.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        // The default of up to 10 s would delay a test after `come_up`.
        config.set("reconnect.backoff.max.ms", "500");
        if let Some((gate, open)) = &self.gate {
            config.set("security.protocol", gate.protocol());
            if let Some(pem) = open.ca_pem() {
                config.set("ssl.ca.pem", pem);
            }
            if let Some(login) = gate.login() {
                config.set("sasl.mechanism", login.mechanism.name());
                config.set("sasl.username", &login.username);
                config.set("sasl.password", &login.password);
            }
        }
        config
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// When the topic exists, or its name or number of partitions is invalid.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        self.mock.create_topic(name, partitions)
    }

    /// Closes all connections and accepts no new ones. Records and committed offsets stay. The gate's port stays open,
    /// as a load balancer's would, and closes new connections at once.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn go_down(&self) -> Result<(), BrokerError> {
        self.mock.go_down()
    }

    /// Accepts connections again, at the same address.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn come_up(&self) -> Result<(), BrokerError> {
        self.mock.come_up()
    }

    /// Delays every response by `time`.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn round_trip_time(&self, time: Duration) -> Result<(), BrokerError> {
        self.mock.round_trip_time(time)
    }

    /// Answers the next requests of this kind with `errors`. That includes requests of the broker's own clients, as
    /// in [`produce`](Self::produce). `RD_KAFKA_RESP_ERR__TRANSPORT` closes the connection instead.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn fail_next(&self, api: Api, errors: &[RDKafkaRespErr]) -> Result<(), BrokerError> {
        self.mock.fail_next(api, errors)
    }

    /// Cancels errors that have not been sent yet.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn fail_no_more(&self, api: Api) -> Result<(), BrokerError> {
        self.mock.fail_no_more(api)
    }
}
