//! Where replicas are: `host:port`, of which a name is looked up afresh each time.
//!
//! A name that has no address is not a failure: a headless Service has none while nothing runs. So the
//! two are told apart by the resolver's code (`EAI_NONAME`, `EAI_NODATA`, or anything else), which the
//! standard library hides behind a text.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use tokio::task::JoinHandle;

use crate::error::shown;

/// Length of a name in DNS (RFC 1035, section 2.3.4), with the dot at its end.
const NAME_MAX: usize = 254;

/// Time for DNS: the system's resolver tries a server that does not answer again after five seconds.
pub(super) const RESOLVE_TIMEOUT: Duration = Duration::from_secs(6);

/// An address, or a name and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// A host and a port that are known to be such.
    pub(super) fn of(host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

impl FromStr for Place {
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

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a place is at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolution {
    /// These addresses, each once; none when nothing runs there.
    Addresses(Vec<SocketAddr>),
    /// Nobody could say.
    Failed(String),
}

impl Resolution {
    pub(super) fn is_failure(&self) -> bool {
        matches!(self, Self::Failed(_))
    }
}

/// Looks a place up, one lookup at a time.
#[derive(Debug)]
pub(super) struct Resolver {
    place: Place,
    /// A lookup cannot be cancelled. One that outlives its time is waited for in the next round, so
    /// that a resolver that hangs takes one thread and not one more each second.
    pending: Option<JoinHandle<Resolution>>,
}

impl Resolver {
    pub(super) fn new(place: Place) -> Self {
        Self {
            place,
            pending: None,
        }
    }

    /// Its addresses now, or why they are not to be had within `timeout`.
    pub(super) async fn resolve(&mut self, timeout: Duration) -> Resolution {
        let Place { host, port } = self.place.clone();
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
                self.place
            ));
        };
        self.pending = None;
        outcome.unwrap_or_else(|error| Resolution::Failed(format!("{}: {error}", self.place)))
    }
}

fn lookup(host: &str, port: u16) -> Resolution {
    let hints = AddrInfoHints {
        // Else every address comes once for each kind of socket.
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let failed = |why: &dyn fmt::Display| Resolution::Failed(format!("{host}: {why}"));
    let found = match getaddrinfo(Some(host), None, Some(hints)) {
        Ok(found) => found,
        Err(error) if says_none(error.kind()) => return Resolution::Addresses(Vec::new()),
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

/// Whether the resolver knows that there is no address, rather than not knowing.
fn says_none(kind: LookupErrorKind) -> bool {
    matches!(kind, LookupErrorKind::NoName | LookupErrorKind::NoData)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_hosts_with_ports() {
        for (text, shown) in [
            ("127.0.0.1:9100", "127.0.0.1:9100"),
            ("[::1]:9100", "[::1]:9100"),
            (
                " Intentd-Headless.ns.svc.:80 ",
                "intentd-headless.ns.svc.:80",
            ),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), shown);
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
            assert!(wrong.parse::<Place>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_repeated_in_part() {
        let error = "ä".repeat(10_000).parse::<Place>().unwrap_err();
        assert!(error.len() < 400 && error.ends_with("ä\"…"), "{error}");
    }

    #[test]
    fn a_name_without_addresses_is_no_failure() {
        assert!(says_none(LookupErrorKind::NoName));
        assert!(says_none(LookupErrorKind::NoData));
        for kind in [
            LookupErrorKind::Again,
            LookupErrorKind::Fail,
            LookupErrorKind::System,
        ] {
            assert!(!says_none(kind), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn literals_and_names_are_resolved_to_each_address_once() {
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
