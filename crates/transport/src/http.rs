//! Settings of hyper: HTTP/1.1, and HTTP/2 with prior knowledge.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

use super::limits::ConnectionLimits;

/// Bytes of frames that wait to be written on an HTTP/2 connection, and the windows for what its client
/// may send unread. Enough for a body or two, so that thousands of connections fit into memory.
const H2_SEND_BYTES: usize = 256 << 10;
const H2_STREAM_WINDOW: u32 = 256 << 10;
const H2_CONNECTION_WINDOW: u32 = 512 << 10;

/// Streams that a client may reset before we have processed them, and streams that we may reset for the
/// client's errors, before the connection ends (CVE-2023-44487, CVE-2025-8671).
const H2_RESETS_MAX: usize = 32;

/// A client that does not answer a ping in time is gone.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);
const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn builder(limits: &ConnectionLimits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Our own clock distinguishes a head that is arriving from an idle connection.
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes_max.max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(H2_RESETS_MAX)
        .max_local_error_reset_streams(H2_RESETS_MAX)
        .max_send_buf_size(H2_SEND_BYTES)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}
