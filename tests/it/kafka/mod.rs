//! Kafka, against librdkafka's mock broker.

mod bench;
mod fixture;
mod relay;
mod security;
mod source;
