//! The server that a soak is about: the program as it is shipped, or the same within this process, where each byte that
//! it has allocated is known.

use std::alloc::System;
use std::io::BufReader;
use std::net::SocketAddr;

use cap::Cap;

use crate::resident;
use crate::support::process::Server;
use crate::support::server::TestServer;

/// Counts live bytes. The program has another allocator, which keeps pages for later: its resident memory goes up and
/// down by tens of megabytes whatever is live.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// A running server.
pub(crate) enum Subject {
    Program {
        server: Server,
        admin: SocketAddr,
    },
    Within {
        server: TestServer,
        /// Dropping it would end the server.
        _runtime: tokio::runtime::Runtime,
    },
}

impl Subject {
    /// Starts the program with these flags.
    pub(crate) async fn program(flags: &[&str]) -> Self {
        let mut server = Server::start(&[&["--port", "0"], flags].concat(), &[]);
        server.ready().await;
        // Read, so that the pipe does not fill up.
        let empty = BufReader::new(Box::new(std::io::empty()) as Box<_>);
        let mut log = std::mem::replace(&mut server.log, empty);
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let admin = server.admin();
        Self::Program { server, admin }
    }

    /// Starts the server within this process, on threads of its own.
    pub(crate) fn within(flags: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let server = std::thread::scope(|scope| {
            let start = || runtime.block_on(TestServer::start(flags));
            scope.spawn(start).join().unwrap()
        });
        Self::Within {
            server,
            _runtime: runtime,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Program { server, .. } => server.address,
            Self::Within { server, .. } => server.address,
        }
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        match self {
            Self::Program { admin, .. } => *admin,
            Self::Within { server, .. } => server.admin,
        }
    }

    /// Resident memory of the program; live bytes of this process.
    pub(crate) fn memory(&self) -> f64 {
        match self {
            Self::Program { server, .. } => resident(server.child.id()),
            Self::Within { .. } => ALLOCATOR.allocated() as f64,
        }
    }
}
