//! What was made, and what to do next.

use std::fmt::Write;
use std::path::Path;

use evermq_config::Cluster;

use super::date;
use super::make::{Made, Pair};
use crate::table::Table;

/// After `evermq certs init`.
pub(super) fn everything(made: &Made, dir: &Path, config: &Path, cluster: &Cluster) -> String {
    let ca = dir.join("ca.crt");
    let mut text = listing(made, dir) + "next:\n" + &install_hosts(made, &ca, config, cluster);
    let clients = || made.pairs.iter().skip(1).filter(|pair| host_of(pair, cluster).is_none());
    let is_admin = |pair: &&Pair| {
        let name = pair.certificate.file_stem().and_then(|name| name.to_str());
        cluster.admin.admins.iter().any(|admin| Some(admin.as_str()) == name)
    };
    if let (Some(_), Some(admin), None) = (cluster.admin.listen, cluster.admin.admins.first(), clients().find(is_admin))
    {
        text += &format!("  for `evermq status` and the page: evermq certs client {admin} --dir {}\n", dir.display());
    }
    text += &match clients().find(|pair| !is_admin(pair)) {
        Some(client) => try_it(client, &ca, cluster),
        None => format!("  for each client: evermq certs client NAME --dir {}\n", dir.display()),
    };
    text + &guard(dir)
}

/// After `evermq certs ca`.
pub(super) fn authority(made: &Made, dir: &Path) -> String {
    let dir_name = dir.display();
    listing(made, dir)
        + "next:\n"
        + &format!("  for the hosts:   evermq certs server --config PATH --dir {dir_name}\n")
        + &format!("  for each client: evermq certs client NAME --dir {dir_name}\n")
        + &guard(dir)
}

/// After `evermq certs server`.
pub(super) fn servers(made: &Made, dir: &Path, ca: &Path, config: &Path, cluster: &Cluster) -> String {
    listing(made, dir) + "next:\n" + &install_hosts(made, ca, config, cluster)
}

/// After `evermq certs client`.
pub(super) fn clients(made: &Made, dir: &Path, ca: &Path) -> String {
    let text = listing(made, dir) + "next:\n";
    text + &format!("  give each client its two files and {}; its key is its own secret\n", ca.display())
}

/// After `evermq certs issue`.
pub(super) fn issued(made: &Made, dir: &Path, ca: &Path, config: &Path, cluster: Option<&Cluster>) -> String {
    let mut text = listing(made, dir) + "next:\n";
    let is_host = |pair: &Pair| cluster.is_some_and(|cluster| host_of(pair, cluster).is_some());
    if let Some(cluster) = cluster.filter(|_| made.pairs.iter().any(is_host)) {
        text += &install_hosts(made, ca, config, cluster);
    }
    if !made.pairs.iter().all(is_host) {
        text += &format!("  give each client its two files and {}; its key is its own secret\n", ca.display());
    }
    text
}

/// After `evermq certs heartbeat-key`.
pub(super) fn heartbeat_key(path: &Path) -> String {
    format!(
        "made {path}\nnext:\n  copy the same file to every host of the cluster, to where vip.heartbeat_key says; root:evermq with \
         mode 0640\n  then, on each host: evermq check\n  who has it can vote: keep it off other machines\n",
        path = path.display()
    )
}

/// After `evermq certs ticket-key`.
pub(super) fn ticket_key(path: &Path) -> String {
    format!(
        "made {path}\nnext:\n  copy the same file to every lb host, to where lb.ticket_key says; root:evermq with mode 0640\n  \
         then, on each lb host: evermq check\n  who has it can read sessions that were resumed with it: keep it off other \
         machines\n",
        path = path.display()
    )
}

fn listing(made: &Made, dir: &Path) -> String {
    let mut table = Table::indented(2);
    for pair in &made.pairs {
        let until = format!("until {}", date(pair.not_after));
        table.row([&file_name(&pair.certificate), &file_name(&pair.key), &pair.what, &until]);
    }
    if let Some(key) = &made.heartbeat_key {
        table.row([&file_name(key), "", "heartbeat, the same file for all hosts", ""]);
    }
    if let Some(key) = &made.ticket_key {
        table.row([&file_name(key), "", "session tickets, the same file for all lb hosts", ""]);
    }
    let mut text = format!("made in {}:\n{table}", dir.display());
    if made.pairs.iter().any(|pair| pair.shortened) {
        text.push_str("  (valid for less than asked: a certificate cannot outlive its authority)\n");
    }
    text
}

/// Where each host's files belong.
fn install_hosts(made: &Made, ca: &Path, config: &Path, cluster: &Cluster) -> String {
    let mut table = Table::indented(4);
    for pair in &made.pairs {
        let Some(host) = host_of(pair, cluster) else { continue };
        let wanted = cluster.tls.for_host(&host.name);
        let mut files: Vec<(&Path, &Path)> =
            vec![(ca, &wanted.ca), (&pair.certificate, &wanted.cert), (&pair.key, &wanted.key)];
        if let (Some(key), Some(quorum)) = (&made.heartbeat_key, &cluster.quorum) {
            files.push((key, &quorum.key_file));
        }
        if let (Some(key), true) = (&made.ticket_key, is_lb(pair, cluster)) {
            files.push((key, &cluster.lb.tls.ticket_key));
        }
        let want = files.iter().map(|(_, want)| beside(want, config).display().to_string());
        table.row([
            host.name.as_str(),
            &files.iter().map(|(have, _)| file_name(have)).collect::<Vec<_>>().join(" "),
            "->",
            &want.collect::<Vec<_>>().join(" "),
        ]);
    }
    let mut text = "  copy to each host, beside its cluster file; keys root:evermq with mode 0640:\n".to_owned();
    let _ = writeln!(text, "{table}  then, on each host: evermq check");
    text
}

fn try_it(client: &Pair, ca: &Path, cluster: &Cluster) -> String {
    let address = cluster.vips().next().map_or_else(|| "ADDRESS".to_owned(), |vip| vip.to_string());
    format!(
        "  try: evermq sub -h {address} -p {} --cafile {} --cert {} --key {} -t 'test/#'\n",
        cluster.lb.listen().port(),
        ca.display(),
        client.certificate.display(),
        client.key.display()
    )
}

fn guard(dir: &Path) -> String {
    format!(
        "  keep {} off the hosts, and a copy in a safe place: who has it can make certificates that the cluster accepts\n",
        dir.join("ca.key").display()
    )
}

fn host_of<'a>(pair: &Pair, cluster: &'a Cluster) -> Option<&'a evermq_config::cluster::Host> {
    let stem = pair.certificate.file_stem()?;
    cluster.hosts.iter().find(|host| stem == host.name.as_str())
}

fn is_lb(pair: &Pair, cluster: &Cluster) -> bool {
    host_of(pair, cluster).is_some_and(|host| host.lb)
}

/// A path relative to the cluster file where it is below its directory: that is the same on every host.
fn beside<'a>(path: &'a Path, config: &Path) -> &'a Path {
    let config = std::path::absolute(config).unwrap_or_default();
    config.parent().and_then(|directory| path.strip_prefix(directory).ok()).unwrap_or(path)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
