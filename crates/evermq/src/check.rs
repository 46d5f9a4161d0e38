//! `evermq check`: the cluster file and its certificates, every problem at once, and what the cluster is.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use evermq_access::{AclFile, Effort, PasswordFile};
use evermq_config::cluster::Host;
use evermq_config::vip::{Adverts, VirtualRouter};
use evermq_config::{Cluster, Problem, Report, Severity};
use evermq_daemon::secret::{Secret, TICKET_KEY};
use evermq_daemon::tls::Revocations;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::certs::expiry;
use crate::command::CommandError;
use crate::config_file::{ConfigFile, ThisHost};
use crate::output;
use crate::remote::{RemoteArgs, Ssh};
use crate::survey;
use crate::table::Table;

/// `evermq check`
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 good, perhaps with warnings; 2 with errors; 1 where --hosts or --here find what is in the way."
)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    host: ThisHost,
    /// Ask every host over ssh what is in the way there: ports, firewall, clock, names, VIP, network managers, limits
    #[arg(long, conflicts_with = "here")]
    hosts: bool,
    /// Ask this host the same
    #[arg(long)]
    here: bool,
    #[command(flatten, next_help_heading = "With --hosts")]
    remote: RemoteArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints every problem; where there is no error, a summary of the cluster.
///
/// # Errors
/// `--host` names a host that is not in the file, or standard output cannot be written.
pub fn run(args: &CheckArgs) -> Result<ExitCode, CommandError> {
    if args.hosts || args.here {
        return look(args);
    }
    let verdict = match evermq_config::load(args.config.path()) {
        Ok(loaded) => {
            let scope = Scope::of(&loaded.cluster, &args.host)?;
            let mut report = loaded.warnings;
            report.problems.extend(scope.certificate_problems(&loaded.cluster, now()));
            report.problems.extend(heartbeat_key_problem(&loaded.cluster, args.config.path()));
            report.problems.extend(scope.ticket_key_problem(&loaded.cluster, args.config.path()));
            report.problems.extend(scope.access_problems(&loaded.cluster, args.config.path()));
            report.problems.extend(ending_lists(&loaded.cluster, args.config.path()));
            Verdict { report, good: Some((loaded.cluster.clone(), scope.describe())) }
        }
        Err(report) => Verdict { report, good: None },
    };
    if args.json {
        output::print_json(&verdict.to_json())?;
    } else {
        output::print(&verdict.to_text(args.config.path()))?;
    }
    Ok(if verdict.report.has_errors() { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// What is in the way on hosts.
fn look(args: &CheckArgs) -> Result<ExitCode, CommandError> {
    let cluster = args.config.load()?;
    let survey = if args.here {
        survey::of_this_host(&cluster, args.host.find(&cluster)?)
    } else {
        survey::of_hosts(&cluster, &Ssh::new(&args.remote)?)
    };
    if args.json {
        output::print_json(&survey.to_json())?;
    } else {
        output::print(&survey.text())?;
    }
    Ok(if survey.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[expect(clippy::disallowed_methods, reason = "certificates are valid by wall time")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Whose certificate files can be on this machine.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// This host's: the programs run here.
    One(String),
    /// Every host's: the machine is none of them, but each host's files have a name of their own.
    All,
    /// The machine is none of the hosts, and the files have the same name on each: they may belong to any one of them.
    Any,
}

impl Scope {
    fn of(cluster: &Cluster, host: &ThisHost) -> Result<Self, CommandError> {
        let per_host =
            [&cluster.tls.cert, &cluster.tls.key].iter().all(|path| path.to_string_lossy().contains("{host}"));
        Ok(match host.find_if_any(cluster)? {
            Some(host) => Self::One(host.name.to_string()),
            None if per_host => Self::All,
            None => Self::Any,
        })
    }

    fn certificate_problems(&self, cluster: &Cluster, now: SystemTime) -> Vec<Problem> {
        let check = |hosts: &[&Host]| evermq_config::certificates::check(cluster, hosts, now);
        let hosts: Vec<&Host> = cluster.hosts.iter().collect();
        match self {
            Self::One(name) => check(&hosts.into_iter().filter(|host| host.name.as_str() == name).collect::<Vec<_>>()),
            Self::All => check(&hosts),
            // The files suit one host at most: the one with the fewest errors is whose they are.
            Self::Any => hosts
                .into_iter()
                .map(|host| check(&[host]))
                .min_by_key(|problems| problems.iter().filter(|problem| problem.severity == Severity::Error).count())
                .unwrap_or_default(),
        }
    }

    /// What is wrong with the key that the lb hosts share for session tickets, where one of them is looked at.
    fn ticket_key_problem(&self, cluster: &Cluster, file: &Path) -> Option<Problem> {
        let ends_tls = cluster.lb.listeners.iter().any(|listener| listener.mode.terminates());
        let is_lb = match self {
            Self::One(name) => cluster.lbs().any(|lb| lb.name.as_str() == name),
            Self::All | Self::Any => true,
        };
        let path = &cluster.lb.tls.ticket_key;
        let error = Secret::read(path, TICKET_KEY).err().filter(|_| ends_tls && is_lb)?;
        Some(shared_key_problem(path, file, &error.to_string()))
    }

    /// What is wrong with the files that say who may use a broker, where one of the brokers is looked at.
    fn access_problems(&self, cluster: &Cluster, file: &Path) -> Vec<Problem> {
        let is_broker = match self {
            Self::One(name) => cluster.brokers().any(|broker| broker.name.as_str() == name),
            Self::All | Self::Any => true,
        };
        let auth = &cluster.broker.auth;
        let mut problems = Vec::new();
        if is_broker {
            let told = |report: Result<Report, Report>| report.unwrap_or_else(|errors| errors).problems;
            let passwords = |path| told(PasswordFile::load(path, Effort::All).map(|read| read.1));
            problems.extend(auth.password_file.iter().flat_map(|path| passwords(path)));
            problems.extend(auth.acl_file.iter().flat_map(|path| told(AclFile::load(path).map(|read| read.1))));
            let since_1970 = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            if let Err(error) = Revocations::load("broker.auth.crl", &auth.crl, since_1970) {
                problems.push(shared_key_problem(Path::new(""), file, &error.to_string()));
            }
        }
        problems
    }

    fn describe(&self) -> String {
        match self {
            Self::One(name) => format!("of host {name}"),
            Self::All => "of every host".to_owned(),
            Self::Any => "here, which are one host's (--host says which)".to_owned(),
        }
    }
}

/// Warns of revocation lists that end soon: a program that starts after that refuses them.
fn ending_lists(cluster: &Cluster, file: &Path) -> Vec<Problem> {
    let mut lists: Vec<&PathBuf> = cluster.broker.auth.crl.iter().chain(&cluster.lb.tls.crl).collect();
    lists.sort();
    lists.dedup();
    let warning = |path: &PathBuf| {
        let days = (expiry::lists_end(path)? - OffsetDateTime::from(now())).whole_days();
        (0..expiry::WARNING_DAYS).contains(&days).then(|| Problem {
            severity: Severity::Warning,
            file: file.to_owned(),
            place: None,
            text: path.display().to_string(),
            message: format!("the revocation list {} expires in {days} days", path.display()),
            help: "let its authority sign it anew: `evermq certs renew`, or where it was made".to_owned(),
        })
    };
    lists.into_iter().filter_map(warning).collect()
}

/// What is wrong with the key that the hosts share for the heartbeat. Its path is the same on all of them.
fn heartbeat_key_problem(cluster: &Cluster, file: &Path) -> Option<Problem> {
    let path = &cluster.quorum.as_ref()?.key_file;
    let error = evermq_quorum::Key::read(path).err()?;
    Some(shared_key_problem(path, file, &error.to_string()))
}

fn shared_key_problem(path: &Path, file: &Path, error: &str) -> Problem {
    let (message, help) = error.split_once("; ").unwrap_or((error, ""));
    Problem {
        severity: Severity::Error,
        file: file.to_owned(),
        place: None,
        text: path.display().to_string(),
        message: message.to_owned(),
        help: help.to_owned(),
    }
}

struct Verdict {
    report: Report,
    /// The cluster, and whose certificates were looked at; none where the file itself has errors.
    good: Option<(Cluster, String)>,
}

impl Verdict {
    fn to_text(&self, path: &Path) -> String {
        let mut text = String::new();
        if !self.report.problems.is_empty() {
            text = format!("{}\n\n", self.report);
        }
        let (errors, warnings) = self.report.counts();
        let counts = format!("{}, {}", counted(errors, "error"), counted(warnings, "warning"));
        match &self.good {
            Some((cluster, certificates)) if errors == 0 => {
                let file = path.display();
                text + &format!("{file} is good ({counts}); checked the certificates {certificates}\n")
                    + &summary(cluster)
            }
            _ => text + &format!("{} is not usable: {counts}\n", path.display()),
        }
    }

    fn to_json(&self) -> Value {
        let (errors, warnings) = self.report.counts();
        json!({
            "ok": errors == 0,
            "errors": errors,
            "warnings": warnings,
            "problems": self.report.problems.iter().map(problem_json).collect::<Vec<_>>(),
            "certificates": self.good.as_ref().map(|(_, certificates)| certificates),
            "cluster": self.good.as_ref().map(|(cluster, _)| cluster_json(cluster)),
        })
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "severity": problem.severity.to_string(),
        "file": problem.file,
        "line": problem.place.as_ref().map(|place| place.line),
        "column": problem.place.as_ref().map(|place| place.column),
        "text": problem.text,
        "message": problem.message,
        "help": problem.help,
    })
}

fn cluster_json(cluster: &Cluster) -> Value {
    let host = |host: &Host| {
        json!({
            "name": host.name.as_str(),
            "address": host.address,
            "roles": roles(host),
            "vip_priority": (host.lb && cluster.vip.is_some()).then_some(host.vip_priority),
        })
    };
    let router = |router: &VirtualRouter| json!({ "name": router.name, "vrid": router.vrid.get(), "addresses": router.addresses });
    json!({
        "name": cluster.name.as_str(),
        "vip": cluster.vips().next(),
        "virtual_routers": cluster.virtual_routers.iter().map(router).collect::<Vec<_>>(),
        "quorum": cluster.quorum.is_some(),
        "port": cluster.lb.listen().port(),
        "hosts": cluster.hosts.iter().map(host).collect::<Vec<_>>(),
    })
}

/// What the cluster is, in a few lines.
fn summary(cluster: &Cluster) -> String {
    let mut facts = Table::indented(2);
    facts.row(["cluster", cluster.name.as_str()]);
    facts.row(["clients connect to", &clients_connect_to(cluster)]);
    facts.row(["load balancing", cluster.lb.balance.name()]);
    let broker = &cluster.broker;
    let plain = broker.listen_plain.map_or_else(String::new, |plain| format!(", plain on {plain}"));
    let proxy = broker.listen_proxy.map_or_else(String::new, |proxy| format!(", plain for the lb hosts on {proxy}"));
    facts.row([
        "brokers",
        &format!("MQTT over mutual TLS on {}{plain}{proxy}, each other on port {}", broker.listen, broker.peer_port),
    ]);
    let mut hosts = Table::indented(2);
    hosts.row(["HOST", "ADDRESS", "ROLES", "VIP PRIORITY"]);
    for host in &cluster.hosts {
        let priority = if host.lb && cluster.vip.is_some() { host.vip_priority.to_string() } else { "-".to_owned() };
        hosts.row([host.name.as_str(), &host.address.to_string(), &roles(host).join(", "), &priority]);
    }
    format!("{facts}\n{hosts}")
}

fn clients_connect_to(cluster: &Cluster) -> String {
    let port = cluster.lb.listen().port();
    let (Some(vip), Some(router)) = (&cluster.vip, cluster.virtual_routers.first()) else {
        return format!("port {port} of any lb host (no VIP is held)");
    };
    let adverts = match vip.adverts {
        Adverts::Multicast => "multicast",
        Adverts::Unicast => "unicast",
    };
    let interval = vip.advert_interval.as_millis();
    let addresses: Vec<_> = cluster.vips().map(|address| SocketAddr::new(address, port).to_string()).collect();
    let consent = if cluster.quorum.is_some() { ", with quorum" } else { "" };
    format!("{} (VIP, vrid {}, {adverts} adverts every {interval} ms{consent})", addresses.join(", "), router.vrid)
}

fn roles(host: &Host) -> Vec<&'static str> {
    [(host.lb, "lb"), (host.broker, "broker")].into_iter().filter_map(|(has, role)| has.then_some(role)).collect()
}
