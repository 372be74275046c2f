//! Endpoints of replicas: `host:port`, whose name is resolved again in each round.
//!
//! A name without an address is not a failure: a headless Service has none while nothing runs. The two are
//! told apart by the resolver's code (`EAI_NONAME`, `EAI_NODATA`, or anything else), which the standard
//! library does not expose.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use tokio::task::JoinHandle;

use intentd_base::shown;

/// Longest DNS name (RFC 1035, section 2.3.4), with the dot at its end.
const NAME_MAX: usize = 254;

/// Time for DNS. The system's resolver retries a server that does not answer after five seconds.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(6);

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// An endpoint of a host that has been checked already.
    pub(super) fn of(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let found = shown(text);
            format!("expected host:port, like intentd-replicas.ns.svc:9100, found {found}")
        };
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let bare = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let is_address = match bare {
            Some(bare) => bare.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.parse::<std::net::Ipv4Addr>().is_ok(),
        };
        let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let is_name = !host.is_empty() && host.len() <= NAME_MAX && host.bytes().all(is_name_byte);
        if port == 0 || !(is_address || is_name) {
            return Err(wrong());
        }
        Ok(Self {
            host: bare.unwrap_or(host).to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The result of resolving an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
    /// The distinct addresses; none while nothing runs there.
    Addresses(Vec<SocketAddr>),
    /// The addresses are unknown, with the reason.
    Failed(String),
}

impl Resolution {
    /// Why the addresses are unknown, if they are.
    pub(super) fn failure(&self) -> Option<&str> {
        match self {
            Self::Addresses(_) => None,
            Self::Failed(why) => Some(why),
        }
    }
}

/// Resolves one endpoint, one lookup at a time.
#[derive(Debug)]
pub(super) struct Resolver {
    endpoint: Endpoint,
    /// A lookup cannot be cancelled. A late one is awaited in the next round, so that a resolver that hangs
    /// takes one thread and not another one each round.
    pending: Option<JoinHandle<Resolution>>,
}

impl Resolver {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            pending: None,
        }
    }

    /// Resolves the endpoint within `timeout`.
    pub(super) async fn resolve(&mut self, timeout: Duration) -> Resolution {
        let Endpoint { host, port } = self.endpoint.clone();
        if let Ok(address) = host.parse::<IpAddr>() {
            return Resolution::Addresses(vec![SocketAddr::from((address, port))]);
        }
        let lookup = move || lookup(&host, port);
        let pending = self
            .pending
            .get_or_insert_with(|| tokio::task::spawn_blocking(lookup));
        let Ok(outcome) = tokio::time::timeout(timeout, pending).await else {
            return Resolution::Failed(format!(
                "{}: no answer of DNS within {timeout:?}",
                self.endpoint
            ));
        };
        self.pending = None;
        outcome.unwrap_or_else(|error| Resolution::Failed(format!("{}: {error}", self.endpoint)))
    }
}

fn lookup(host: &str, port: u16) -> Resolution {
    let hints = AddrInfoHints {
        // Otherwise every address is returned once for each socket type.
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let failed = |why: &dyn fmt::Display| Resolution::Failed(format!("{host}: {why}"));
    let found = match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => found,
        Err(error) if has_no_address(error.kind()) => return Resolution::Addresses(Vec::new()),
        Err(error) => return failed(&error),
    };
    let mut addresses = BTreeSet::new();
    for entry in found {
        match entry {
            Ok(entry) => {
                let mut address = entry.sockaddr;
                address.set_port(port);
                addresses.insert(address);
            }
            Err(error) => return failed(&error),
        }
    }
    Resolution::Addresses(addresses.into_iter().collect())
}

/// Whether the error means that the name has no address, rather than that the lookup failed.
fn has_no_address(kind: LookupErrorKind) -> bool {
    matches!(kind, LookupErrorKind::NoName | LookupErrorKind::NoData)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_with_ports() {
        for (text, shown) in [
            ("127.0.0.1:9100", "127.0.0.1:9100"),
            ("[::1]:9100", "[::1]:9100"),
            (
                " Intentd-Headless.ns.svc.:80 ",
                "intentd-headless.ns.svc.:80",
            ),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), shown);
        }
        for wrong in [
            "",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:http",
            "http://host:80",
            "::1:80",
            "[host]:80",
            "a b:80",
            "host:80/path",
            "ho\0st:80",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_error_repeats_only_the_beginning_of_a_long_text() {
        let error = "ä".repeat(10_000).parse::<Endpoint>().unwrap_err();
        assert!(error.len() < 400 && error.ends_with("ä\"…"), "{error}");
    }

    #[test]
    fn a_name_without_addresses_is_not_a_failure() {
        assert!(has_no_address(LookupErrorKind::NoName));
        assert!(has_no_address(LookupErrorKind::NoData));
        for kind in [
            LookupErrorKind::Again,
            LookupErrorKind::Fail,
            LookupErrorKind::System,
        ] {
            assert!(!has_no_address(kind), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn literals_and_names_resolve_to_distinct_addresses() {
        let mut literal = Resolver::new("127.0.0.2:9100".parse().unwrap());
        let address = SocketAddr::from(([127, 0, 0, 2], 9100));
        let found = literal.resolve(Duration::ZERO).await;
        assert_eq!(found, Resolution::Addresses(vec![address]));
        let mut name = Resolver::new("localhost:9100".parse().unwrap());
        let Resolution::Addresses(found) = name.resolve(Duration::from_secs(60)).await else {
            panic!("localhost has no address");
        };
        assert!(!found.is_empty());
        assert!(
            found
                .iter()
                .all(|a| a.ip().is_loopback() && a.port() == 9100)
        );
        let once: BTreeSet<_> = found.iter().collect();
        assert_eq!(once.len(), found.len());
    }
}
