//! What is in the way on a host, judged by what it said about itself.

use std::net::IpAddr;

use evermq_config::broker::ListenAddress;
use evermq_config::cluster::Host;
use evermq_config::vip::Adverts;
use evermq_config::{Cluster, Severity};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use time::OffsetDateTime;

use super::facts::{Facts, Listener};
use super::firewall;

/// Something that is in the way, or may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// Where.
    pub host: String,
    /// How bad.
    #[serde(serialize_with = "severity")]
    pub severity: Severity,
    /// What it is about, in a word or two.
    pub subject: &'static str,
    /// What is the matter.
    pub message: String,
    /// What to do.
    pub help: String,
}

fn severity<S: serde::Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(severity)
}

/// A port that a program of a host needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Its number.
    pub number: u16,
    /// Whose it is.
    pub program: &'static str,
    /// Whether other machines connect to it.
    pub open: bool,
}

/// Clocks that differ by more are warned of: certificates and the order of messages go by them.
const CLOCK_WARNING: f64 = 1.0;
/// By more than this a new certificate, whose time begins an hour before it was made, may not count yet.
const CLOCK_ERROR: f64 = 300.0;
/// systemd of RHEL 8.
const OLDEST_SYSTEMD: u32 = 239;
/// SO_REUSEPORT, TCP_USER_TIMEOUT, pidfd and the like: RHEL 8's kernel has what is needed, older ones not all.
const OLDEST_KERNEL: (u32, u32) = (4, 18);
/// Beside one descriptor for each connection: files, peers, logs.
const DESCRIPTORS_BESIDE: u64 = 1_000;
/// Kilobytes below which a broker's disk is too small to begin with.
const LEAST_DISK: u64 = 1 << 20;
/// What runs `evermq admin`, as lists of processes call it.
const ADMIN_PROGRAM: &str = "evermq";
/// What new connections wait in; the programs ask for 4096.
const BACKLOG: u64 = 1_024;
const SOON_DAYS: i64 = 30;

/// The ports that a host's programs need.
#[must_use]
pub fn ports(cluster: &Cluster, host: &Host) -> Vec<Port> {
    let mut ports = Vec::new();
    let mut tcp = |number: u16, program, open| ports.push(Port { protocol: "tcp", number, program, open });
    if host.lb {
        for listener in &cluster.lb.listeners {
            tcp(listener.address.port(), "evermq-lb", !listener.address.ip().is_loopback());
        }
        if cluster.lbs().count() > 1 {
            tcp(cluster.lb.peer_port, "evermq-lb", true);
        }
    }
    if host.broker {
        let broker = &cluster.broker;
        let more = broker.listeners.iter().filter_map(|listener| match &listener.address {
            ListenAddress::Tcp(address) => Some(*address),
            ListenAddress::Unix(_) => None,
        });
        for address in [Some(broker.listen), broker.listen_plain, broker.listen_proxy].into_iter().flatten().chain(more)
        {
            tcp(address.port(), "evermq-broker", !address.ip().is_loopback());
        }
        if cluster.brokers().count() > 1 {
            tcp(broker.peer_port, "evermq-broker", true);
        }
    }
    if let Some(listen) = cluster.admin.listen {
        tcp(listen.port(), ADMIN_PROGRAM, !listen.ip().is_loopback());
    }
    if let Some(quorum) = &cluster.quorum {
        let program = if host.lb { "evermq-vip" } else { "evermq-broker" };
        ports.push(Port { protocol: "udp", number: quorum.port, program, open: true });
    }
    ports
}

/// Everything that is in the way on one host. `ahead` is how many seconds its clock is ahead of this machine's.
#[must_use]
pub fn judge(cluster: &Cluster, host: &Host, facts: &Facts, ahead: Option<f64>, now: OffsetDateTime) -> Vec<Obstacle> {
    let mut judge = Judge { cluster, host, facts, found: Vec::new() };
    judge.identity();
    judge.ports_taken();
    judge.clock(ahead);
    judge.system();
    judge.names();
    if host.lb && cluster.vip.is_some() {
        judge.vip();
        judge.network_managers();
    }
    let vrrp = host.lb && cluster.vip.is_some() && cluster.lbs().count() > 1;
    let adverts = cluster.vip.as_ref().map_or(Adverts::Unicast, |vip| vip.adverts);
    for (subject, message, help) in firewall::judge(facts, &ports(cluster, host), vrrp, adverts) {
        judge.add(Severity::Warning, subject, message, help);
    }
    judge.limits();
    judge.certificate(now);
    judge.found
}

struct Judge<'a> {
    cluster: &'a Cluster,
    host: &'a Host,
    facts: &'a Facts,
    found: Vec<Obstacle>,
}

impl Judge<'_> {
    fn add(&mut self, severity: Severity, subject: &'static str, message: String, help: impl Into<String>) {
        let (host, help) = (self.host.name.to_string(), help.into());
        self.found.push(Obstacle { host, severity, subject, message, help });
    }

    fn identity(&mut self) {
        let name = self.facts.name();
        if !name.eq_ignore_ascii_case(self.host.name.as_str()) {
            let message = format!("this host calls itself \"{name}\"");
            let help = format!(
                "the programs find their part of the file by that name: `hostnamectl set-hostname {}`, or give it that name in [[hosts]]",
                self.host.name
            );
            self.add(Severity::Error, "name", message, help);
        }
        if self.facts.interface_of(self.host.address.into()).is_none() {
            let message = format!("no interface has the address {}", self.host.address);
            self.add(Severity::Error, "address", message, "set it on the host, or correct address in [[hosts]]");
        }
        if self.facts.line("user") != "0" && !self.facts.line("user").is_empty() {
            let message = "asked as a user who is not root: other programs' ports and the firewall do not show";
            self.add(Severity::Warning, "user", message.to_owned(), "log in as root, or with --sudo");
        }
    }

    fn ports_taken(&mut self) {
        let listeners = self.facts.listeners();
        for port in ports(self.cluster, self.host) {
            let taken = |listener: &&Listener| {
                let own = listener
                    .program
                    .as_deref()
                    .is_some_and(|program| port.program.starts_with(program) || program.starts_with("evermq"));
                listener.protocol == port.protocol && listener.port == port.number && !own
            };
            // Without names: a program of ours that runs has its ports.
            let ours = |listener: &Listener| listener.program.is_none() && self.facts.runs(port.program);
            let Some(listener) = listeners.iter().find(taken).filter(|listener| !ours(listener)) else { continue };
            let who = listener.program.clone();
            let message = match &who {
                Some(program) => {
                    format!("{program} has {} port {}, which {} needs", port.protocol, port.number, port.program)
                }
                None => format!("{} port {}, which {} needs, is taken", port.protocol, port.number, port.program),
            };
            let help = match who.as_deref() {
                Some(program @ ("nginx" | "haproxy" | "mosquitto")) => {
                    format!(
                        "systemctl disable --now {program}, when EverMQ is to take its place (docs: moving over host by host)"
                    )
                }
                Some(program) => format!("stop {program}, or choose another port in the cluster file"),
                None => format!("`ss -ltnp 'sport = :{}'` as root says who has it", port.number),
            };
            self.add(Severity::Error, "port", message, help);
        }
        if self.host.lb && self.cluster.vip.is_some() && self.facts.runs("keepalived") {
            let message = "keepalived runs here: if it holds the same VIP, two programs set and take away one address";
            self.add(
                Severity::Error,
                "keepalived",
                message.to_owned(),
                "systemctl disable --now keepalived, when evermq-vip is to take its place",
            );
        }
    }

    fn clock(&mut self, ahead: Option<f64>) {
        let Some(ahead) = ahead.filter(|ahead| ahead.abs() > CLOCK_WARNING) else { return };
        let direction = if ahead > 0.0 { "ahead of" } else { "behind" };
        let message = format!("its clock is {:.0} s {direction} this machine's", ahead.abs());
        let severity = if ahead.abs() > CLOCK_ERROR { Severity::Error } else { Severity::Warning };
        self.add(severity, "clock", message, "certificates have dates, and the later of two retained messages counts: run chrony or systemd-timesyncd on every host");
    }

    fn system(&mut self) {
        match self.facts.systemd() {
            None => {
                let message = "there is no systemd: the units cannot run the programs".to_owned();
                self.add(Severity::Error, "systemd", message, "use a host with systemd 239 or later");
            }
            Some(version) if version < OLDEST_SYSTEMD => {
                let message = format!("systemd {version} is older than 239");
                self.add(
                    Severity::Error,
                    "systemd",
                    message,
                    "use a host with systemd 239 or later (RHEL 8, Debian 11, Ubuntu 20.04)",
                );
            }
            Some(_) => {}
        }
        let mut numbers = self.facts.line("kernel").split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
        if let (Some(major), Some(minor)) = (numbers.next(), numbers.next())
            && (major, minor) < OLDEST_KERNEL
        {
            let message = format!("its kernel is {major}.{minor}, older than {}.{}", OLDEST_KERNEL.0, OLDEST_KERNEL.1);
            self.add(Severity::Warning, "kernel", message, "the programs are tested on 4.18 (RHEL 8) and later");
        }
    }

    fn names(&mut self) {
        for (name, found) in self.facts.names() {
            let Some(host) = self.cluster.hosts.iter().find(|host| host.name.as_str() == name) else { continue };
            // Debian gives a host's own name 127.0.1.1.
            let own = name == self.host.name.as_str() && found.is_loopback();
            if found != IpAddr::from(host.address) && !own {
                let message = format!(
                    "\"{name}\" leads to {found} there (DNS or /etc/hosts), and is {} in the cluster file",
                    host.address
                );
                self.found.push(Obstacle {
                    host: self.host.name.to_string(),
                    severity: Severity::Warning,
                    subject: "names",
                    message,
                    help: "EverMQ goes by the addresses of the file; correct whichever is wrong before it misleads somebody".to_owned(),
                });
            }
        }
    }

    fn vip(&mut self) {
        let Some(vip) = self.cluster.vips().next() else { return };
        if let Some(interface) = self.facts.interface_of(vip) {
            if !self.facts.runs("evermq-vip") {
                let message = format!("{vip} is on {interface} already, and evermq-vip does not run");
                self.add(
                    Severity::Error,
                    "VIP",
                    message,
                    "stop who has set it (keepalived?), or take it away: ip address del",
                );
            }
        } else if let Some(hardware) = self.facts.vip_answers()
            && !self.facts.runs("evermq-vip")
            && !self.facts.runs("keepalived")
        {
            let message = format!("{hardware} answers for {vip} in this network");
            let help =
                "unless it is the holder that EverMQ is to relieve, the address is somebody else's: choose another VIP";
            self.add(Severity::Warning, "VIP", message, help);
        }
        if let Some(interface) = &self.host.interface
            && !self.facts.lines("addresses").iter().any(|line| line.split_whitespace().nth(1) == Some(interface))
        {
            let message = format!("there is no interface {interface} with an address");
            self.add(Severity::Error, "interface", message, "correct interface in [[hosts]], or set the interface up");
        }
    }

    fn network_managers(&mut self) {
        let active = |unit: &str| self.facts.lines("active").iter().any(|line| line.trim() == unit);
        let keeps = self.facts.lines("keep").iter().any(|line| {
            let value = line.split_once('=').map_or("", |(_, value)| value.trim());
            matches!(value, "static" | "yes" | "true")
        });
        if active("systemd-networkd") && !keeps {
            let message = "systemd-networkd takes addresses away that it does not know when it restarts".to_owned();
            let help = "write KeepConfiguration=static under [Network] of the interface's .network file (netplan: a drop-in in \
                        /etc/systemd/network); evermq-vip puts the VIP back within moments in any case";
            self.add(Severity::Warning, "systemd-networkd", message, help);
        }
        if active("NetworkManager") {
            let message =
                "NetworkManager takes addresses away that it does not know when a connection is brought up anew"
                    .to_owned();
            let help = "do not bring up the interface's connection while it holds the VIP; evermq-vip puts the VIP back within moments in any case";
            self.add(Severity::Warning, "NetworkManager", message, help);
        }
    }

    fn limits(&mut self) {
        let lb = if self.host.lb { 2 * self.cluster.lb.max_connections as u64 } else { 0 };
        let broker = if self.host.broker { self.cluster.broker.admission.connections as u64 } else { 0 };
        let needed = lb.max(broker) + DESCRIPTORS_BESIDE;
        if let Some(most) = self.facts.limit(0).filter(|most| *most < needed) {
            let message = format!("a process may open {most} files, and max_connections needs {needed}");
            self.add(
                Severity::Error,
                "open files",
                message,
                format!("sysctl -w fs.nr_open={}, and write it into /etc/sysctl.d", needed.next_power_of_two()),
            );
        }
        if let Some(most) = self.facts.limit(1).filter(|most| *most < lb + broker + DESCRIPTORS_BESIDE) {
            let message = format!(
                "the host may have {most} files open in all, and max_connections needs {}",
                lb + broker + DESCRIPTORS_BESIDE
            );
            self.add(Severity::Error, "open files", message, "raise fs.file-max in /etc/sysctl.d");
        }
        if let Some(backlog) = self.facts.limit(2).filter(|backlog| *backlog < BACKLOG) {
            let message = format!("only {backlog} new connections may wait at a port (net.core.somaxconn)");
            self.add(
                Severity::Warning,
                "backlog",
                message,
                "sysctl -w net.core.somaxconn=4096: after an outage all clients come at once",
            );
        }
        if let Some(free) = self.facts.free_kilobytes().filter(|free| self.host.broker && *free < LEAST_DISK) {
            let message = format!("{} MiB are free where messages are to be kept", free / 1024);
            self.add(
                Severity::Warning,
                "disk",
                message,
                "make room, or set broker.store.path; with a full disk QoS 1 and 2 are refused",
            );
        }
    }

    fn certificate(&mut self, now: OffsetDateTime) {
        let pem = self.facts.lines("certificate").join("\n");
        let Ok(certificate) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return };
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&certificate) else { return };
        let left = (parsed.validity().not_after.to_datetime() - now).whole_days();
        if left < SOON_DAYS {
            let severity = if left < 0 { Severity::Error } else { Severity::Warning };
            let message = if left < 0 {
                "its certificate has ended".to_owned()
            } else {
                format!("its certificate ends in {left} days")
            };
            self.add(
                severity,
                "certificate",
                message,
                format!("`evermq certs renew {}`, then `evermq deploy`", self.host.name),
            );
        }
    }
}

#[cfg(test)]
mod tests;
