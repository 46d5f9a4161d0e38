//! `--add-host`: a broker more in the cluster file, with a certificate.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use evermq_config::HostName;

use super::DeployError;
use super::args::DeployArgs;
use super::files::FilesError;
use crate::certs::authority::{Authority, Validity};
use crate::certs::{LEAF_DAYS, make, now};
use crate::command::CommandError;
use crate::output;

/// Appends a broker to the cluster file, and makes its certificate.
pub(super) fn add_host(args: &DeployArgs, name: &HostName, address: Ipv4Addr) -> Result<(), CommandError> {
    let path = args.config.path();
    let text = fs::read_to_string(path).map_err(|source| FilesError::Read { path: path.to_owned(), source });
    let mut text = text.map_err(DeployError::from)?;
    let before = evermq_config::parse(path, &text)?.cluster;
    if before.host(name).is_some() {
        return Err(DeployError::Known(name.clone()).into());
    }
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    text += &format!("{newline}\n[[hosts]]\nname = \"{name}\"\naddress = \"{address}\"\nroles = [\"broker\"]\n");
    let cluster = evermq_config::parse(path, &text)?.cluster;
    let host = cluster.host(name).map(|host| cluster.tls.for_host(&host.name));
    let tls = args.tls.clone().or_else(|| host.and_then(|files| files.cert.parent().map(Path::to_owned)));
    if args.how.dry_run {
        output::print(&format!("{} gets {name}, {address}\n", path.display()))?;
        return Ok(());
    }
    if let Some(tls) = tls.filter(|tls| !tls.join(format!("{name}.crt")).exists()) {
        let now = now();
        let authority = Authority::load(&tls.join("ca.crt"), &tls.join("ca.key"), now)?;
        let only = [name.to_string()];
        let hosts = make::Hosts { cluster: &cluster, only: &only, alt_names: &[] };
        make::servers(&tls, hosts, &authority, Validity::days(now, LEAF_DAYS)?)?;
        output::print(&format!("made {}\n", tls.join(format!("{name}.crt")).display()))?;
    }
    fs::write(path, text).map_err(|source| DeployError::Write { path: path.to_owned(), source })?;
    output::print(&format!("{} has {name} now\n", path.display()))?;
    Ok(())
}
