//! `accept = false` (RFC 9568 §6.1, Accept_Mode): this host forwards for the VIP, but does not take packets addressed to it.
//!
//! A table of nftables drops them, installed once at start by the program `nft`. ARP never passes it; neighbour discovery
//! is let through, as the RFC wants. Advertisements go to the group or to the host's own address.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::process::{Command, Stdio};

/// Not anyone else's: it is replaced and removed without asking.
const TABLE: &str = "inet evermq_vip";

/// Why packets to the VIP cannot be kept out.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// No such program.
    #[error("`accept = false` needs the program nft; install nftables, or set `accept = true` in [vip]")]
    NoNft,
    /// It cannot be run.
    #[error("cannot run nft: {0}")]
    Run(#[source] io::Error),
    /// It failed.
    #[error("nft refuses the table {TABLE}: {0}; let evermq-vip have CAP_NET_ADMIN, or set `accept = true` in [vip]")]
    Refused(String),
}

/// The table, there as long as this value.
#[derive(Debug)]
pub struct AcceptFilter(());

impl AcceptFilter {
    /// Keeps packets to `addresses` out, those of virtual routers that this host does not own. Replaces a table that was
    /// left behind, or that of other settings, in one step.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub fn install(addresses: &[IpAddr]) -> Result<Self, AcceptError> {
        nft(&format!("{}{}", removal(), table(addresses))).map(|()| Self(()))
    }
}

impl Drop for AcceptFilter {
    fn drop(&mut self) {
        if let Err(error) = nft(&removal()) {
            tracing::error!(%error, "packets to the VIP stay blocked; remove the table with nft delete table {TABLE}");
        }
    }
}

/// Removes a table that a killed process left; without nft there is none.
///
/// # Errors
/// It is there, and stays.
pub fn remove_stale() -> Result<(), AcceptError> {
    match nft(&removal()) {
        Err(AcceptError::NoNft) => Ok(()),
        outcome => outcome,
    }
}

/// Removing what is not there is an error of nft: it is made first.
fn removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

fn table(addresses: &[IpAddr]) -> String {
    let rule = |family: &str, ipv4: bool| {
        let list: Vec<_> =
            addresses.iter().filter(|address| address.is_ipv4() == ipv4).map(ToString::to_string).collect();
        if list.is_empty() { String::new() } else { format!("    {family} daddr {{ {} }} drop\n", list.join(", ")) }
    };
    format!(
        "table {TABLE} {{\n  chain input {{\n    type filter hook input priority filter; policy accept;\n    \
         icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept\n{}{}  }}\n}}\n",
        rule("ip", true),
        rule("ip6", false),
    )
}

/// Gives nft `script`, which is done whole or not at all.
fn nft(script: &str) -> Result<(), AcceptError> {
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => AcceptError::NoNft,
        _ => AcceptError::Run(error),
    })?;
    let stdin = child.stdin.take();
    // nft that ends early says why on its standard error.
    let _ = stdin.map(|mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(AcceptError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(AcceptError::Refused(text.lines().next().unwrap_or("no reason given").trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_addresses_of_each_family() {
        let addresses: Vec<IpAddr> =
            ["10.77.0.100", "fd77::100", "10.77.0.101"].iter().map(|address| address.parse().unwrap()).collect();
        let text = table(&addresses);
        assert!(text.contains("ip daddr { 10.77.0.100, 10.77.0.101 } drop"), "{text}");
        assert!(text.contains("ip6 daddr { fd77::100 } drop"), "{text}");
        assert!(text.find("nd-neighbor-solicit") < text.find("ip6 daddr"), "{text}");
        assert!(!table(&addresses[..1]).contains("ip6 daddr"));
    }
}
