//! The source of connections: a TCP port or a Unix socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Stream;
use intentd_base::LogThrottle;

/// Connections that the kernel queues until they are accepted.
const BACKLOG: u32 = 4096;

/// Pause after an error that persists for a while, such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time to complete handshakes that began before the port closes.
const HANDSHAKE: Duration = Duration::from_millis(10);

/// A listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place} ({flag}): {source}")]
pub struct BindError {
    /// The address, or the path of the Unix socket.
    pub place: String,
    /// The flag that sets it.
    pub flag: &'static str,
    /// The operating system's reason.
    pub source: io::Error,
}

/// A listener.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    /// Limits the log of failures; a success in between does not reset it.
    failing: LogThrottle,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket. Dropping this removes the file, unless another process has replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // The file may be gone by now.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The device and inode of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Listener {
    /// Listens on a TCP port. `::` is all addresses, those of IPv4 too; where there is no IPv6, those of IPv4 alone.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn tcp(address: SocketAddr, flag: &'static str) -> Result<Self, BindError> {
        let bound = match bind(address) {
            Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && !is_taken(&error) => {
                let by_four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                bind(by_four).map_err(|by_four| if is_taken(&by_four) { by_four } else { error })
            }
            bound => bound,
        };
        match bound {
            Ok(listener) => Ok(Self::new(Socket::Tcp(listener))),
            Err(source) => Err(BindError {
                place: address.to_string(),
                flag,
                source,
            }),
        }
    }

    /// Listens on a Unix socket. A stale socket of a process that died is replaced; a socket with a listener,
    /// or any other file, is not.
    ///
    /// # Errors
    /// When the path is taken or cannot be created.
    pub fn unix(path: &Path, flag: &'static str) -> Result<Self, BindError> {
        let bind = || {
            if is_stale(path) {
                std::fs::remove_file(path)?;
            }
            UnixListener::bind(path)
        };
        match bind() {
            Ok(listener) => Ok(Self::new(Socket::Unix(listener, SocketFile::new(path)))),
            Err(source) => Err(BindError {
                place: path.display().to_string(),
                flag,
                source,
            }),
        }
    }

    fn new(socket: Socket) -> Self {
        Self {
            socket,
            failing: LogThrottle::new(),
        }
    }

    /// The address of a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection. Errors of the operating system are logged and waited out.
    pub(super) async fn accept(&mut self) -> Stream {
        loop {
            match self.socket.accept().await {
                Ok(stream) => return stream,
                // Only this connection is lost.
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    if let Some(times) = self.failing.event() {
                        tracing::error!(%error, times, "cannot accept connections; retrying");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the listener. Admits the connections that the kernel has completed, so that no client that is
    /// already connected gets a reset.
    pub(super) async fn close(mut self, mut admit: impl FnMut(Stream)) {
        match &mut self.socket {
            Socket::Tcp(listener) => {
                if let Err(error) = refuse_handshakes(listener) {
                    tracing::debug!(%error, "cannot stop handshakes before closing the port");
                }
                tokio::time::sleep(HANDSHAKE).await;
            }
            // No client finds the socket any more.
            Socket::Unix(_, file) => {
                let gone = file.path.with_extension("gone");
                drop(std::mem::replace(file, SocketFile::new(&gone)));
            }
        }
        loop {
            match tokio::time::timeout(Duration::ZERO, self.socket.accept()).await {
                Ok(Ok(stream)) => admit(stream),
                Ok(Err(error)) if is_of_connection(&error) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A response is one small write; waiting to join it with the next only adds latency.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(address) => {
            let socket = TcpSocket::new_v6()?;
            if *address.ip() == Ipv6Addr::UNSPECIFIED {
                // What the system does otherwise is a setting of its own.
                socket2::SockRef::from(&socket).set_only_v6(false)?;
            }
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether another process has the port. IPv4 alone would then hide that.
fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Whether there is a socket at `path` without a listener.
fn is_stale(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let connect = || std::os::unix::net::UnixStream::connect(path);
    is_socket && connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Stops new handshakes while those that have begun complete: a filter on the listening socket drops packets
/// with SYN set. The client retries and finds the port closed, or another server behind the same address.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// The offset of the flags in a TCP header, and the bit for SYN (RFC 9293, section 3.1).
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    socket2::SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_: &TcpListener) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_addresses_are_those_of_both_protocols() {
        let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let mut listener = Listener::tcp(all, "--port").unwrap();
        let port = listener.address().unwrap().port();
        let mut asked = vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))];
        // A machine may have no IPv6.
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            asked.push(SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        }
        for address in asked {
            let connect = tokio::net::TcpStream::connect(address);
            let (connected, _) = tokio::join!(connect, listener.accept());
            connected.unwrap();
        }
        let again = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let error = Listener::tcp(again, "--port").unwrap_err();
        assert!(is_taken(&error.source), "{error}");
    }
}
