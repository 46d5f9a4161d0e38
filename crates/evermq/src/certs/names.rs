//! Names that go into certificates and file names.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// A client's name: the certificate's common name and the name of its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientName(String);

/// A DNS name or an address that a certificate is valid for (subject alternative name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AltName(ServerName<'static>);

/// Longest common name (RFC 5280 appendix A.1, `ub-common-name`).
const MAX_COMMON_NAME: usize = 64;

impl ClientName {
    /// The name as a string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClientName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-@:".contains(&b));
        if text.is_empty() || text.len() > MAX_COMMON_NAME || !plain || text.starts_with(['.', '-']) {
            return Err(format!(
                "a client's name is 1 to {MAX_COMMON_NAME} of the characters A-Z a-z 0-9 . _ - @ : and starts with none of . -"
            ));
        }
        if text == "ca" {
            return Err("\"ca\" is the name of the authority's files; choose another name".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl AltName {
    /// The name as TLS clients look for it.
    #[must_use]
    pub fn as_server_name(&self) -> &ServerName<'static> {
        &self.0
    }
}

impl FromStr for AltName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        ServerName::try_from(text.to_owned())
            .map(Self)
            .map_err(|_| "neither a DNS name (mqtt.example.com) nor an address (10.0.0.100)".to_owned())
    }
}

impl From<std::net::IpAddr> for AltName {
    fn from(address: std::net::IpAddr) -> Self {
        Self(ServerName::from(address))
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_names_are_safe_as_file_names() {
        for good in ["client", "meter-17", "00:1a:2b", "a.b_c@site", &"x".repeat(64)] {
            assert_eq!(good.parse::<ClientName>().unwrap().as_str(), good);
        }
        for bad in ["", "ca", "a/b", "..", ".hidden", "-flag", "two words", "ä", "nul\0", &"x".repeat(65)] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn alternative_names_are_dns_names_or_addresses() {
        for good in ["mqtt.example.com", "lb1", "10.0.0.100", "fd00::1"] {
            assert_eq!(good.parse::<AltName>().unwrap().to_string(), good);
        }
        for bad in ["", "two words", "a..b", "https://x"] {
            assert!(bad.parse::<AltName>().is_err(), "{bad:?}");
        }
    }
}
