//! Bounds on connections: sizes, times, and how many may be open at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections open at once, on all listeners that share [`ConnectionPermits`].
    pub connections_max: usize,
    /// Requests in flight at once on one HTTP/2 connection.
    pub streams_max: u32,
    /// Bytes of a request's head: request line and headers.
    pub header_bytes_max: usize,
    /// Time for a head to arrive, for the TLS handshake, and for a first byte.
    pub header_timeout: Option<Duration>,
    /// Time that a connection may stay open without a request.
    pub idle_timeout: Option<Duration>,
    /// Whether no 100 is sent to a client that expects one (`Expect: 100-continue`). It sends the body after a moment
    /// all the same. Knative's proxies take a 100 for the final status, and an error would arrive as 200.
    pub suppresses_continue: bool,
}

/// Permits for open connections, on one listener or shared by several.
#[derive(Debug, Clone)]
pub struct ConnectionPermits {
    permits: Arc<Semaphore>,
    max: u32,
}

impl ConnectionPermits {
    /// Permits for `connections_max` connections.
    pub fn new(connections_max: usize) -> Self {
        let max = connections_max.min(Semaphore::MAX_PERMITS);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        Self {
            permits: Arc::new(Semaphore::new(max as usize)),
            max,
        }
    }

    pub(super) fn acquire(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.permits).try_acquire_owned()
    }

    /// Ready once no connection is open.
    pub(super) async fn all_returned(&self) {
        // Never an error: the semaphore is never closed.
        let _ = self.permits.acquire_many(self.max).await;
    }
}

#[cfg(test)]
impl ConnectionLimits {
    /// Ten seconds for a head, a minute idle.
    pub(super) const EXAMPLE: Self = Self {
        connections_max: 1,
        streams_max: 1,
        header_bytes_max: 8192,
        header_timeout: Some(Duration::from_secs(10)),
        idle_timeout: Some(Duration::from_secs(60)),
        suppresses_continue: false,
    };
}
