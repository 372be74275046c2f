//! Where connections come from: a TCP port or a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

use super::stream::Stream;
use crate::seldom::Seldom;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;

/// Wait after an error that does not pass at once, such as no file descriptor being left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Time for a handshake that has begun before the port closes to end.
const HANDSHAKE: Duration = Duration::from_millis(10);

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place} ({flag}): {source}")]
pub struct BindError {
    /// The address or the path.
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
    /// One that is accepted now and then does not make it another failure.
    failing: Seldom,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, File),
}

/// The file of a Unix socket; removed when this is dropped, unless another process has put its own
/// there meanwhile.
#[derive(Debug)]
struct File {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl File {
    fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // It may be gone by now.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Device and number of a file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::symlink_metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

impl Listener {
    /// Listens on a TCP port.
    ///
    /// # Errors
    /// When the port is not to be had.
    pub fn tcp(address: SocketAddr, flag: &'static str) -> Result<Self, BindError> {
        let bind = || {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            socket.listen(BACKLOG)
        };
        match bind() {
            Ok(listener) => Ok(Self::new(Socket::Tcp(listener))),
            Err(source) => Err(BindError {
                place: address.to_string(),
                flag,
                source,
            }),
        }
    }

    /// Listens on a Unix socket. A socket that a process left behind when it died is replaced; one on
    /// which somebody listens, or any other file, is not.
    ///
    /// # Errors
    /// When the path is taken or cannot be made.
    pub fn unix(path: &Path, flag: &'static str) -> Result<Self, BindError> {
        let bind = || {
            if is_left_behind(path) {
                std::fs::remove_file(path)?;
            }
            UnixListener::bind(path)
        };
        match bind() {
            Ok(listener) => Ok(Self::new(Socket::Unix(listener, File::of(path)))),
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
            failing: Seldom::new(),
        }
    }

    /// The address, of a TCP port.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(..) => None,
        }
    }

    /// The next connection. Waits through whatever keeps the operating system from giving one.
    pub(super) async fn accept(&mut self) -> Stream {
        loop {
            match self.socket.accept().await {
                Ok(stream) => return stream,
                // Of that connection nothing is left; the next may be well.
                Err(error) if is_the_connections(&error) => {}
                Err(error) => {
                    if let Some(times) = self.failing.now() {
                        tracing::error!(%error, times, "cannot accept connections; trying on");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Closes the listener; gives out what the kernel has accepted until then, so that no client
    /// that believes itself connected is reset.
    pub(super) async fn close(mut self, mut admit: impl FnMut(Stream)) {
        match &mut self.socket {
            Socket::Tcp(listener) => {
                if let Err(error) = refuse_handshakes(listener) {
                    tracing::debug!(%error, "cannot stop handshakes before closing the port");
                }
                tokio::time::sleep(HANDSHAKE).await;
            }
            // Nobody finds it any more.
            Socket::Unix(_, file) => {
                let path = file.path.clone();
                drop(std::mem::replace(
                    file,
                    File::of(&path.with_extension("gone")),
                ));
            }
        }
        loop {
            match tokio::time::timeout(Duration::ZERO, self.socket.accept()).await {
                Ok(Ok(stream)) => admit(stream),
                Ok(Err(error)) if is_the_connections(&error) => {}
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
                // Answers are one small write; waiting to join them with a next one only adds
                // latency.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

fn is_the_connections(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

/// Whether there is a socket at `path` on which nobody listens.
fn is_left_behind(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    let connect = || std::os::unix::net::UnixStream::connect(path);
    is_socket && connect().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Lets no new handshake begin, while those that have begun end: a filter on the listening socket
/// that drops packets with SYN set. The client tries again and finds the port closed, or another
/// server behind the same address.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// Where a TCP header has its flags, and SYN among them (RFC 9293, section 3.1).
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
