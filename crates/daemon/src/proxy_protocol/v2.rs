//! Version 2: binary, with TLVs (PP §2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Command, Header, Invalid, MAX, Ssl, TYPE_CLIENT_DN, agrees, one_family};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;
const VERSION: u8 = 2;
/// Type and length of a TLV.
const TLV: usize = 3;

const TYPE_ALPN: u8 = 0x01;
const TYPE_AUTHORITY: u8 = 0x02;
const TYPE_CRC32C: u8 = 0x03;
const TYPE_UNIQUE_ID: u8 = 0x05;
const TYPE_SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const SSL_SIG_ALG: u8 = 0x24;
const SSL_KEY_ALG: u8 = 0x25;
const SSL_CLIENT_CERT: u8 = 0x28;

const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT_CONN: u8 = 0x02;
const CLIENT_CERT_SESS: u8 = 0x04;

/// PP §2.2.5.
const MAX_UNIQUE_ID: usize = 128;
/// ALPN protocols (RFC 7301 §3.1) and DNS names (RFC 1035 §2.3.4) are not longer.
const MAX_SHORT: usize = 255;
/// Longest name that is sent: two of these, four short ones, addresses and the identifier stay below [`MAX`].
const MAX_NAME: usize = 1024;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Invalid> {
    if !agrees(bytes, SIGNATURE) {
        return Err(Invalid::NotProxy);
    }
    if bytes.get(12).is_some_and(|byte| byte >> 4 != VERSION) {
        return Err(Invalid::Version);
    }
    let Some(&[.., what, family, _, _]) = bytes.first_chunk::<FIXED>() else { return Ok(None) };
    let command = match what & 0x0F {
        0 => Command::Local,
        1 => Command::Proxy,
        _ => return Err(Invalid::Command),
    };
    let length = length(bytes);
    if length > MAX {
        return Err(Invalid::TooLong);
    }
    if command == Command::Proxy && (family >> 4 > 3 || family & 0x0F > 2) {
        return Err(Invalid::Family);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    let header = match command {
        // PP §2.2: addresses, family and all the rest are to be discarded.
        Command::Local => Header::LOCAL,
        Command::Proxy => read(whole, family)?,
    };
    Ok(Some((header, length)))
}

/// Of the whole header; of its fixed part while that is not there.
pub(super) fn length(bytes: &[u8]) -> usize {
    let Some(&[.., high, low]) = bytes.first_chunk::<FIXED>() else { return FIXED };
    FIXED + usize::from(u16::from_be_bytes([high, low]))
}

fn read(whole: &[u8], family: u8) -> Result<Header, Invalid> {
    let block = &whole[FIXED..];
    // AF_UNSPEC has no addresses; TLVs come at once, as HAProxy sends them.
    let length = [0, 12, 36, 216][usize::from(family >> 4)];
    let (addresses, tlvs) = block.split_at_checked(length).ok_or(Invalid::Truncated)?;
    let mut header = Header { command: Command::Proxy, addresses: read_addresses(family, addresses), ..Header::LOCAL };
    let mut rest = tlvs;
    let mut dn = None;
    let mut is_checked = false;
    while let Some((kind, value)) = next_tlv(&mut rest)? {
        match kind {
            TYPE_ALPN => once(&mut header.alpn, value.into())?,
            TYPE_AUTHORITY => once(&mut header.authority, text(value)?)?,
            TYPE_CRC32C => {
                if std::mem::replace(&mut is_checked, true) {
                    return Err(Invalid::Duplicate);
                }
                check(whole, FIXED + block.len() - rest.len() - value.len(), value)?;
            }
            TYPE_UNIQUE_ID if value.len() > MAX_UNIQUE_ID => return Err(Invalid::Value),
            TYPE_UNIQUE_ID => once(&mut header.unique_id, value.into())?,
            TYPE_SSL => once(&mut header.ssl, Box::new(read_ssl(value)?))?,
            TYPE_CLIENT_DN => once(&mut dn, text(value)?)?,
            // NOOP, NETNS, other programs' own and what later versions add.
            _ => {}
        }
    }
    // Without TLS there is no certificate that it could be the name of.
    if let Some(ssl) = &mut header.ssl {
        ssl.dn = dn;
    }
    Ok(header)
}

/// TCP's only. Others are valid, and the connection then counts as one of unknown addresses.
fn read_addresses(family: u8, bytes: &[u8]) -> Option<Addresses> {
    let end = |ip: IpAddr, port: [u8; 2]| SocketAddr::new(ip, u16::from_be_bytes(port));
    match (family, bytes) {
        (0x11, &[a, b, c, d, e, f, g, h, p, q, r, s]) => Some(Addresses {
            source: end(Ipv4Addr::new(a, b, c, d).into(), [p, q]),
            destination: end(Ipv4Addr::new(e, f, g, h).into(), [r, s]),
        }),
        (0x21, &[ref ips @ .., p, q, r, s]) => {
            let (source, rest) = ips.split_first_chunk::<16>()?;
            let destination = rest.first_chunk::<16>()?;
            Some(Addresses {
                source: end(Ipv6Addr::from(*source).into(), [p, q]),
                destination: end(Ipv6Addr::from(*destination).into(), [r, s]),
            })
        }
        _ => None,
    }
}

fn read_ssl(value: &[u8]) -> Result<Ssl, Invalid> {
    let (&[client, ref verify @ ..], mut rest) = value.split_first_chunk::<5>().ok_or(Invalid::Truncated)?;
    let mut ssl = Ssl {
        is_tls: client & CLIENT_SSL != 0,
        shown: client & CLIENT_CERT_CONN != 0,
        in_session: client & CLIENT_CERT_SESS != 0,
        verify: u32::from_be_bytes(*verify),
        ..Ssl::default()
    };
    while let Some((kind, value)) = next_tlv(&mut rest)? {
        let place = match kind {
            SSL_VERSION => &mut ssl.version,
            SSL_CN => &mut ssl.cn,
            SSL_CIPHER => &mut ssl.cipher,
            SSL_SIG_ALG => &mut ssl.sig_alg,
            SSL_KEY_ALG => &mut ssl.key_alg,
            SSL_CLIENT_CERT => {
                once(&mut ssl.certificate, value.into())?;
                continue;
            }
            _ => continue,
        };
        once(place, text(value)?)?;
    }
    Ok(ssl)
}

fn next_tlv<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Invalid> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (&[kind, high, low], tail) = rest.split_first_chunk::<3>().ok_or(Invalid::Truncated)?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let (value, tail) = tail.split_at_checked(length).ok_or(Invalid::Truncated)?;
    *rest = tail;
    Ok(Some((kind, value)))
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Invalid> {
    if place.replace(value).is_some() { Err(Invalid::Duplicate) } else { Ok(()) }
}

fn text(value: &[u8]) -> Result<Box<str>, Invalid> {
    std::str::from_utf8(value).map(Box::from).map_err(|_| Invalid::Value)
}

/// PP §2.2.3: over the whole header, with zeros where the checksum stands.
fn check(whole: &[u8], at: usize, value: &[u8]) -> Result<(), Invalid> {
    let stated = u32::from_be_bytes(*value.first_chunk::<4>().filter(|_| value.len() == 4).ok_or(Invalid::Value)?);
    let sum = crc32c::crc32c(&whole[..at]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    let sum = crc32c::crc32c_append(sum, &whole[at + value.len()..]);
    if sum == stated { Ok(()) } else { Err(Invalid::Checksum) }
}

pub(super) fn encode(header: &Header, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    match header.command {
        // PP §2.2: LOCAL has no addresses; its length is zero.
        Command::Local => out.extend_from_slice(&[VERSION << 4, 0, 0, 0]),
        Command::Proxy => {
            out.extend_from_slice(&[VERSION << 4 | 1, 0, 0, 0]);
            out[start + 13] = put_addresses(header.addresses, out);
            put_tlvs(header, start, out);
        }
    }
    let length = u16::try_from(out.len() - start - FIXED).expect("every part is bounded");
    out[start + 14..start + FIXED].copy_from_slice(&length.to_be_bytes());
}

/// Gives the byte of family and transport.
fn put_addresses(addresses: Option<Addresses>, out: &mut Vec<u8>) -> u8 {
    let Some(addresses) = addresses else { return 0 };
    let family = match one_family(addresses) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            out.extend_from_slice(&source.octets());
            out.extend_from_slice(&destination.octets());
            0x11
        }
        (source, destination) => {
            for ip in [source, destination] {
                let wide = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.extend_from_slice(&wide.octets());
            }
            0x21
        }
    };
    out.extend_from_slice(&addresses.source.port().to_be_bytes());
    out.extend_from_slice(&addresses.destination.port().to_be_bytes());
    family
}

/// The header begins at `begin`.
fn put_tlvs(header: &Header, begin: usize, out: &mut Vec<u8>) {
    put(out, TYPE_ALPN, header.alpn.as_deref(), MAX_SHORT);
    put(out, TYPE_AUTHORITY, header.authority.as_deref().map(str::as_bytes), MAX_SHORT);
    put(out, TYPE_UNIQUE_ID, header.unique_id.as_deref(), MAX_UNIQUE_ID);
    let Some(ssl) = &header.ssl else { return };
    let start = out.len();
    out.extend_from_slice(&[TYPE_SSL, 0, 0]);
    let flag = |is_set, flag| if is_set { flag } else { 0 };
    out.push(flag(ssl.is_tls, CLIENT_SSL) | flag(ssl.shown, CLIENT_CERT_CONN) | flag(ssl.in_session, CLIENT_CERT_SESS));
    out.extend_from_slice(&ssl.verify.to_be_bytes());
    for (kind, value, limit) in [
        (SSL_VERSION, &ssl.version, MAX_SHORT),
        (SSL_CN, &ssl.cn, MAX_NAME),
        (SSL_CIPHER, &ssl.cipher, MAX_SHORT),
        (SSL_SIG_ALG, &ssl.sig_alg, MAX_SHORT),
        (SSL_KEY_ALG, &ssl.key_alg, MAX_SHORT),
    ] {
        put(out, kind, value.as_deref().map(str::as_bytes), limit);
    }
    let dn = ssl.dn.as_deref().map(str::as_bytes);
    // The names are for every receiver, so they come first where there is not room for all.
    let after = dn.map_or(0, |dn| TLV + dn.len().min(MAX_NAME));
    let room = MAX.saturating_sub(out.len() - begin + TLV + after);
    put(out, SSL_CLIENT_CERT, ssl.certificate.as_deref(), room);
    let length = u16::try_from(out.len() - start - TLV).expect("every part is bounded");
    out[start + 1..start + TLV].copy_from_slice(&length.to_be_bytes());
    put(out, TYPE_CLIENT_DN, dn, MAX_NAME);
}

fn put(out: &mut Vec<u8>, kind: u8, value: Option<&[u8]>, limit: usize) {
    let Some(value) = value.filter(|value| value.len() <= limit) else { return };
    let length = u16::try_from(value.len()).expect("limits are small");
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
