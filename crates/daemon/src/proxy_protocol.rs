//! Who a client behind a proxy is: the PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`, cited as PP §).
//!
//! Pure: no I/O, no clock. A header is read from bytes that may come in pieces, at most [`MAX`] of them, and is as good as
//! whoever sent it: callers look at the sender's address first (PP §5).
//!
//! ```text
//! version 1  "PROXY TCP4 192.0.2.7 192.0.2.1 40000 8883\r\n", TCP6 likewise, "PROXY UNKNOWN ...\r\n"; at most 107 bytes
//!
//! version 2   0                   1                   2                   3
//!             0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!            +---------------------------------------------------------------+
//!            |   0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A                         |   0
//!            +-------+-------+-------+-------+-------------------------------+
//!            |   2   |command|family |transp.|  length of what follows       |  12
//!            +-------+-------+-------+-------+-------------------------------+
//!            |   source, destination (4, 16 or 108 bytes each, or none)      |  16
//!            |   source port, destination port (2 each; not for AF_UNIX)     |
//!            +---------------+-------------------------------+---------------+
//!            |   type        |  length                       |  value ...    |  any number of TLVs
//!            +---------------+-------------------------------+---------------+
//! ```

use std::net::{IpAddr, SocketAddr};

mod v1;
mod v2;

/// Longest header of version 1, CRLF included (PP §2.1).
pub const MAX_V1: usize = 107;
/// Longest header of either version that is taken. A certificate of the usual size (`SSL_CLIENT_CERT`) fits in.
pub const MAX: usize = 4096;
/// The TLV with the distinguished name of the client's certificate (RFC 4514), out of the range that PP §2.2.8 leaves to
/// applications. It stands beside the SSL TLV, not in it, where HAProxy's `fc_pp_tlv(0xE0)` finds it.
pub const TYPE_CLIENT_DN: u8 = 0xE0;

/// What stands at the start of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// It may be a header; bytes are missing.
    NeedMore,
    /// A header of `length` bytes.
    Header {
        /// What it says.
        header: Header,
        /// Its bytes; what comes after them is the client's.
        length: usize,
    },
    /// It is none, and the connection must be ended.
    Invalid(Invalid),
}

/// Why what came is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Invalid {
    /// Something else.
    #[error("not a PROXY protocol header")]
    NotProxy,
    /// Version 1 without the end of its line in [`MAX_V1`] bytes.
    #[error("PROXY protocol version 1: no CRLF in 107 bytes")]
    Endless,
    /// Version 1 with another line.
    #[error("PROXY protocol version 1: malformed line")]
    Line,
    /// Signature of version 2, another version behind it.
    #[error("PROXY protocol: unknown version")]
    Version,
    /// A command that the protocol does not know.
    #[error("PROXY protocol version 2: unknown command")]
    Command,
    /// A family or a transport that the protocol does not know.
    #[error("PROXY protocol version 2: unknown address family or transport")]
    Family,
    /// More than [`MAX`] bytes are announced.
    #[error("PROXY protocol version 2: header above 4096 bytes")]
    TooLong,
    /// Addresses or TLVs go beyond the announced length.
    #[error("PROXY protocol version 2: addresses or TLVs do not fit into its length")]
    Truncated,
    /// A TLV that may be there once is there twice: which one counts would be anyone's guess.
    #[error("PROXY protocol version 2: a TLV comes twice")]
    Duplicate,
    /// The checksum is wrong.
    #[error("PROXY protocol version 2: wrong CRC32c")]
    Checksum,
    /// A name that is not UTF-8, or a unique identifier above 128 bytes.
    #[error("PROXY protocol version 2: malformed TLV")]
    Value,
}

/// Whether the proxy speaks for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// It does, such as for a health check: the connection's own addresses count.
    Local,
    /// It speaks for a client.
    Proxy,
}

/// The client's end of its connection, and the proxy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it connected to.
    pub destination: SocketAddr,
}

/// What a header says. Of TLVs those that anyone here has a use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Whether the proxy speaks for a client.
    pub command: Command,
    /// TCP addresses, if it knows them.
    pub addresses: Option<Addresses>,
    /// The protocol that the client's TLS agreed upon (RFC 7301).
    pub alpn: Option<Box<[u8]>>,
    /// The name that the client asked for (SNI).
    pub authority: Option<Box<str>>,
    /// Names the connection across programs; at most 128 bytes.
    pub unique_id: Option<Box<[u8]>>,
    /// The client's TLS with the proxy.
    pub ssl: Option<Box<Ssl>>,
}

/// The client's TLS with the proxy (PP §2.2.6).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ssl {
    /// The client speaks TLS at all.
    pub is_tls: bool,
    /// It showed a certificate on this connection.
    pub shown: bool,
    /// It showed a certificate in this TLS session, maybe before it was resumed.
    pub in_session: bool,
    /// 0: the certificate, if any, was found good.
    pub verify: u32,
    /// `TLSv1.3`.
    pub version: Option<Box<str>>,
    /// Cipher suite.
    pub cipher: Option<Box<str>>,
    /// Common name of the client's certificate.
    pub cn: Option<Box<str>>,
    /// Distinguished name of the client's certificate; by [`TYPE_CLIENT_DN`].
    pub dn: Option<Box<str>>,
    /// The client's certificate itself (X.509, DER), without those that it chains to.
    pub certificate: Option<Box<[u8]>>,
    /// What signed the proxy's certificate.
    pub sig_alg: Option<Box<str>>,
    /// The key of the proxy's certificate.
    pub key_alg: Option<Box<str>>,
}

impl Ssl {
    /// Whether the client has proved who it is: OpenSSL's result, which senders pass on, is 0 without a certificate too.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        self.is_tls && (self.shown || self.in_session) && self.verify == 0
    }
}

impl Header {
    /// For the proxy's own connections.
    pub const LOCAL: Self =
        Self { command: Command::Local, addresses: None, alpn: None, authority: None, unique_id: None, ssl: None };

    /// For a client at `source` that connected to `destination`.
    #[must_use]
    pub const fn proxy(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { command: Command::Proxy, addresses: Some(Addresses { source, destination }), ..Self::LOCAL }
    }

    /// The client's address, if the proxy knows it.
    #[must_use]
    pub fn source(&self) -> Option<SocketAddr> {
        self.addresses.map(|addresses| addresses.source)
    }

    /// Appends the header in version 2, never more than [`MAX`] bytes.
    ///
    /// A name above 1 KiB, an ALPN or authority above 255 bytes and a unique identifier above 128 bytes are left out, and so is
    /// a certificate for which there is no room beside all else: a part of an identity would be another one.
    pub fn encode_v2(&self, out: &mut Vec<u8>) {
        v2::encode(self, out);
    }
}

/// Looks for a header at the start of `bytes`, which hold all that has come so far. Refuses as soon as that is certain.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let result = match bytes.first() {
        None => return Parsed::NeedMore,
        Some(b'P') => v1::parse(bytes),
        Some(_) => v2::parse(bytes),
    };
    match result {
        Ok(Some((header, length))) => Parsed::Header { header, length },
        Ok(None) => Parsed::NeedMore,
        Err(invalid) => Parsed::Invalid(invalid),
    }
}

/// The same for version 2 alone.
#[must_use]
pub fn parse_v2(bytes: &[u8]) -> Parsed {
    if bytes.first() == Some(&b'P') { Parsed::Invalid(Invalid::NotProxy) } else { parse(bytes) }
}

/// How many bytes a header of version 2 has, as far as `bytes`, which begin as one, tell: for who must not read further.
#[must_use]
pub fn length_v2(bytes: &[u8]) -> usize {
    v2::length(bytes)
}

/// Whether `bytes`, as far as they are there, begin with `wanted`.
fn agrees(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.iter().zip(wanted).all(|(byte, wanted)| byte == wanted)
}

/// One family for both: IPv4 addresses that are written as IPv6 ones are IPv4, unless the other end is IPv6.
fn one_family(addresses: Addresses) -> (IpAddr, IpAddr) {
    let (source, destination) = (addresses.source.ip().to_canonical(), addresses.destination.ip().to_canonical());
    let wide = |address| match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    };
    if source.is_ipv4() == destination.is_ipv4() { (source, destination) } else { (wide(source), wide(destination)) }
}

#[cfg(test)]
mod tests;
