//! Ports as flags and the environment give them.

/// Port for operators unless a flag says otherwise.
pub(super) const ADMIN_PORT: u16 = 9100;

/// `--port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MainPort {
    /// No port.
    Off,
    /// This port; 0 picks a free one.
    Port(u16),
    /// An address that Kubernetes put into the variable, which is ignored.
    ///
    /// For a Service called `intentd`, Kubernetes sets `INTENTD_PORT` to `tcp://<address>:<port>` in the
    /// containers of its namespace.
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
    /// No port for operators.
    Off,
    /// This port; 0 picks a free one.
    Port(u16),
}

impl AdminPort {
    /// The port, if there is one.
    pub(super) fn get(self) -> Option<u16> {
        match self {
            Self::Off => None,
            Self::Port(port) => Some(port),
        }
    }
}

impl std::str::FromStr for AdminPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        // The link of a Service called `intentd-admin`; see `MainPort::ServiceLink`.
        if text.starts_with("tcp://") {
            return Ok(Self::Port(ADMIN_PORT));
        }
        let port = text
            .parse()
            .map_err(|_| "expected a port (0 to 65535) or \"off\"".to_owned());
        port.map(Self::Port)
    }
}

/// The port for predictions, `None` for none: the flag, else the value of the variable `PORT`, else 8080.
///
/// # Errors
/// When `PORT` decides and is not a port.
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
