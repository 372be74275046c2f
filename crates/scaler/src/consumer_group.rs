//! A Kafka consumer group whose lag is a wake signal. Defined in builds without Kafka, too.

/// A consumer group and the topic that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConsumerGroup {
    /// Bootstrap brokers: `host:port`, separated by commas.
    pub(super) bootstrap: String,
    /// The topic.
    pub(super) topic: String,
    /// The name of the group.
    pub(super) group: String,
    /// Further settings of librdkafka, such as security settings.
    pub(super) settings: Vec<(String, String)>,
}
