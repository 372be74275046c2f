//! `--host`: an IP address, in brackets or not, or a name.

use std::net::{IpAddr, ToSocketAddrs as _};

/// The address that a text names. A name is looked up once; if it has several addresses, the first one of IPv4 counts, or else
/// the first one.
///
/// # Errors
/// If there is no such name.
pub(crate) fn parse_host(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(text).parse() {
        return Ok(address);
    }
    let expected = "expected an IP address or the name of one";
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    // Resolvers read numbers as addresses of their own: 8080 as 0.0.31.144.
    let last = text.trim_end_matches('.').rsplit('.').next();
    let is_number = last.is_some_and(|label| {
        label.starts_with("0x") || label.bytes().all(|byte| byte.is_ascii_digit())
    });
    if is_number || !text.chars().all(is_name) {
        return Err(expected.to_owned());
    }
    let found = (text, 0).to_socket_addrs();
    let found = found.map_err(|error| format!("{expected}; {error}"))?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    let first = found.iter().find(|address| address.is_ipv4());
    let first = first.or(found.first()).copied();
    first.ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_and_without_brackets_and_names() {
        let parsed = |text: &str| parse_host(text).map(|address| address.to_string());
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::", "::"),
            ("[::1]", "::1"),
            ("fd00::7", "fd00::7"),
        ] {
            assert_eq!(parsed(text), Ok(address.to_owned()));
        }
        assert!(parse_host("localhost").unwrap().is_loopback());
        for wrong in [
            "",
            "[localhost]",
            "[::1",
            "::1:80:",
            "8080",
            "192.168.1",
            "0",
            "0x7f000001",
            "10.1.",
            "a b",
            "http://localhost",
        ] {
            let error = parsed(wrong).unwrap_err();
            assert!(
                error.starts_with("expected an IP address"),
                "{wrong}: {error}"
            );
        }
    }
}
