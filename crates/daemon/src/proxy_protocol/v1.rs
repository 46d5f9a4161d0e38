//! Version 1: one line of text (PP §2.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, Command, Header, Invalid, MAX_V1, agrees};

const START: &[u8] = b"PROXY ";
const END: &[u8] = b"\r\n";

pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Invalid> {
    if !agrees(bytes, START) {
        return Err(Invalid::NotProxy);
    }
    let line = &bytes[..bytes.len().min(MAX_V1)];
    let Some(end) = line.windows(END.len()).position(|pair| pair == END) else {
        return if line.len() == MAX_V1 { Err(Invalid::Endless) } else { Ok(None) };
    };
    // The end comes after the whole start, which holds no CR.
    let header = read(&line[START.len()..end])?;
    Ok(Some((header, end + END.len())))
}

fn read(rest: &[u8]) -> Result<Header, Invalid> {
    let unknown = Header { command: Command::Proxy, ..Header::LOCAL };
    // What stands behind UNKNOWN has to be ignored, whatever it is.
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(unknown);
    }
    let text = std::str::from_utf8(rest).map_err(|_| Invalid::Line)?;
    let mut words = text.split(' ');
    let (Some(family), Some(source), Some(destination), Some(source_port), Some(destination_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Invalid::Line);
    };
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(Invalid::Line),
    };
    let end = |text, number| Some(SocketAddr::new(address(text)?, port(number)?));
    let addresses = end(source, source_port)
        .zip(end(destination, destination_port))
        .map(|(source, destination)| Addresses { source, destination })
        .ok_or(Invalid::Line)?;
    Ok(Header { addresses: Some(addresses), ..unknown })
}

/// Digits without leading zeros.
fn port(text: &str) -> Option<u16> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = text.len() > 1 && text.starts_with('0');
    if digits_only && !leading_zero { text.parse().ok() } else { None }
}
