//! The states of a port, from open to closing.

use tokio::sync::watch;

/// The state of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// Requests are welcome.
    Open,
    /// Requests are answered, and clients are asked to use another connection for the next one.
    LameDuck,
    /// No connection is accepted; open connections end once they are silent.
    Closing,
}

impl Life {
    /// Ready once the port is [`Closing`](Self::Closing).
    pub async fn closing(life: &mut watch::Receiver<Self>) {
        // An error means that the sender is gone. Then it is time to close as well.
        let _ = life.wait_for(|life| *life == Self::Closing).await;
    }
}
