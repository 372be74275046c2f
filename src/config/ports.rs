//! Ports as flags and environment give them.

/// Where operators look unless told otherwise.
pub(super) const ADMIN_PORT: u16 = 9100;

/// `--port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainPort {
    /// No port.
    Off,
    /// This port; 0 picks a free one.
    Port(u16),
    /// Not a port at all: for a Service called `intentd`, Kubernetes sets `INTENTD_PORT` to
    /// `tcp://<address>:<port>` in every container beside it. That is nobody's wish.
    ServiceLink,
}

impl std::str::FromStr for MainPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if text.starts_with("tcp://") {
            return Ok(Self::ServiceLink);
        }
        let port = text
            .parse()
            .map_err(|_| "expected a port (0 to 65535) or \"off\"".to_owned());
        port.map(Self::Port)
    }
}

/// `--admin-port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminPort {
    /// No second port.
    Off,
    /// This port; 0 picks a free one.
    Port(u16),
}

impl std::str::FromStr for AdminPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        // As for the main port: the link of a Service called `intentd-admin`.
        if text.starts_with("tcp://") {
            return Ok(Self::Port(ADMIN_PORT));
        }
        let port = text
            .parse()
            .map_err(|_| "expected a port (0 to 65535) or \"off\"".to_owned());
        port.map(Self::Port)
    }
}

/// Where predictions are served, if over TCP: `flag`, else the value of the variable `PORT`, else 8080.
///
/// # Errors
/// When `PORT` counts and is no port.
pub(crate) fn main_port(
    flag: Option<MainPort>,
    variable: Option<&str>,
) -> Result<Option<u16>, String> {
    match (flag, variable) {
        (Some(MainPort::Off), _) => Ok(None),
        (Some(MainPort::Port(port)), _) => Ok(Some(port)),
        (_, None | Some("")) => Ok(Some(8080)),
        (_, Some(text)) => text
            .parse()
            .map(Some)
            .map_err(|_| format!("PORT: expected a port (0 to 65535), found {text:?}")),
    }
}
