//! Apache Kafka itself: one broker in KRaft mode, installed by `install.sh` beside this file.
//!
//! librdkafka's mock has neither retention, nor access lists, nor limits of topics; and it is written by the authors of the
//! client. It stays for errors that a real broker cannot be made to show.

mod access;
mod broker;
mod limits;
mod retention;
mod tls;
