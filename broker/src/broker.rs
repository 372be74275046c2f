//! The broker: the mock cluster and the gate in front of it.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaRespErr;

use crate::gate::OpenGate;
use crate::leaving::Leaving;
use crate::mock::Mock;
use crate::{Api, BrokerError, Compression, Gate, Settings};

/// A running broker, which ends when it is dropped. Its calls block, none of them for long but those
/// that move records; clients of its own stand behind them, so they need no runtime.
pub struct Broker {
    // These two before the cluster, so that no connection of a client is in the way of its end.
    pub(crate) leaving: Leaving,
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
            leaving: Leaving::default(),
            gate,
            mock,
            address,
            compression: settings.compression,
        })
    }

    /// The address that clients use: the gate's (`localhost:PORT`) where there is one.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.address.clone()
    }

    /// The certificate of the authority that the gate's is of, in PEM; made anew for each broker.
    #[must_use]
    pub fn ca_pem(&self) -> Option<&str> {
        let (_, open) = self.gate.as_ref()?;
        open.ca_pem()
    }

    /// Logins that the gate has refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.gate.as_ref().map_or(0, |(_, open)| open.refused())
    }

    /// Settings of a client that the gate lets through.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        // Up to 10 s by default, which a test would wait after `come_up`.
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

    /// Makes a topic.
    ///
    /// # Errors
    /// It exists, or cannot.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), BrokerError> {
        self.mock.create_topic(name, partitions)
    }

    /// Cuts all connections and takes no new ones; the records and what groups have committed stay.
    /// The gate's port stays open, as a load balancer's would: it hangs up on whoever connects.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn go_down(&self) -> Result<(), BrokerError> {
        self.mock.go_down()
    }

    /// Takes connections again, at the same address.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn come_up(&self) -> Result<(), BrokerError> {
        self.mock.come_up()
    }

    /// Delays every answer by so long.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn round_trip_time(&self, time: Duration) -> Result<(), BrokerError> {
        self.mock.round_trip_time(time)
    }

    /// Answers the next requests of this kind with `errors`, whoever sends them: the broker's own
    /// clients behind [`produce`](Self::produce) and the like meet them, too. With
    /// `RD_KAFKA_RESP_ERR__TRANSPORT` the connection is cut instead.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn fail_next(&self, api: Api, errors: &[RDKafkaRespErr]) -> Result<(), BrokerError> {
        self.mock.fail_next(api, errors)
    }

    /// Takes back the errors that are still to come.
    ///
    /// # Errors
    /// See [`BrokerError`].
    pub fn fail_no_more(&self, api: Api) -> Result<(), BrokerError> {
        self.mock.fail_no_more(api)
    }
}
