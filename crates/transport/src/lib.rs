//! Sockets, TLS and HTTP framing under the surfaces: HTTP/1.1 and HTTP/2 with prior knowledge on one
//! port, everything bounded in size, number and time.
//!
//! Takes a listener and routes, and serves until it is told to close. Closing loses nothing that a client
//! has already sent: connections that the kernel holds are accepted, requests that are arriving are answered,
//! and only connections that have been silent for a while are closed (`connection.rs`).

#![forbid(unsafe_code)]

mod activity;
mod client;
mod clock;
mod connection;
mod descriptors;
mod framing;
mod http;
mod life;
mod limits;
mod listener;
mod monitored;
mod port;
mod response_body;
mod stream;
mod tls;
mod unread;

pub use self::client::{ClientError, ClientResponse, HttpClient, Lookup, ResponseLimits};
pub use self::descriptors::descriptors;
pub use self::life::Life;
pub use self::limits::{ConnectionLimits, ConnectionPermits};
pub use self::listener::{BindError, Listener};
pub use self::port::{Port, serve};
pub use self::tls::{Tls, TlsError, TlsFiles};
