//! `evermq check --hosts` and `--here`: what is in the way on the hosts, before it hurts.
//!
//! | module | subject |
//! |---|---|
//! | `look.sh` | what a host is asked for; a bare host can answer |
//! | [`facts`] | its answers |
//! | [`judge`] | what is in the way |
//! | `firewall` | what does not seem to get through |

pub mod facts;
mod firewall;
pub mod judge;

use std::process::Command;
use std::time::SystemTime;

use evermq_config::cluster::Host;
use evermq_config::{Cluster, Severity};
use serde_json::{Value, json};
use time::OffsetDateTime;

use self::facts::Facts;
use self::judge::{Obstacle, judge};
use crate::remote::ssh::{quoted, with_input};
use crate::remote::{RemoteError, Ssh};
use crate::table::Table;

/// What a host is asked for.
const LOOK: &str = include_str!("look.sh");

/// What came of asking hosts.
#[derive(Debug)]
pub struct Survey {
    /// How many hosts answered.
    pub answered: usize,
    /// What is in the way, host by host in the file's order.
    pub obstacles: Vec<Obstacle>,
}

/// Asks every host of the cluster, all at once.
#[must_use]
pub fn of_hosts(cluster: &Cluster, ssh: &Ssh) -> Survey {
    let asked: Vec<Vec<Obstacle>> = std::thread::scope(|scope| {
        let asking: Vec<_> = cluster
            .hosts
            .iter()
            .map(|host| {
                scope.spawn(move || {
                    let before = seconds();
                    let answer = ssh.run((host.name.as_str(), host.address), "sh -s", script(cluster, host).as_bytes());
                    judged(cluster, host, answer, before, seconds())
                })
            })
            .collect();
        asking.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    let answered = asked.iter().filter(|found| !found.iter().any(|obstacle| obstacle.subject == UNREACHED)).count();
    Survey { answered, obstacles: asked.into_iter().flatten().collect() }
}

/// Asks this machine, as a host of the cluster.
#[must_use]
pub fn of_this_host(cluster: &Cluster, host: &Host) -> Survey {
    let mut shell = Command::new("sh");
    shell.arg("-s");
    let before = seconds();
    let answer = with_input(shell, script(cluster, host).as_bytes()).map_err(|source| RemoteError::NoSsh { source });
    let obstacles = judged(cluster, host, answer, before, seconds());
    Survey { answered: 1, obstacles }
}

const UNREACHED: &str = "ssh";

fn judged(
    cluster: &Cluster,
    host: &Host,
    answer: Result<crate::remote::Ended, RemoteError>,
    before: f64,
    after: f64,
) -> Vec<Obstacle> {
    let unreached = |message: String, help: &str| {
        vec![Obstacle {
            host: host.name.to_string(),
            severity: Severity::Error,
            subject: UNREACHED,
            message,
            help: help.to_owned(),
        }]
    };
    let ended = match answer {
        Ok(ended) => ended,
        Err(error) => {
            let text = error.to_string();
            let (message, help) = text.split_once("; ").unwrap_or((&text, ""));
            return unreached(message.to_owned(), help);
        }
    };
    let Some(facts) = Facts::parse(&ended.stdout) else {
        let said = ended.stderr.lines().last().unwrap_or("nothing").to_owned();
        return unreached(
            format!("it did not answer to the end; it said: {said}"),
            "log in there and see whether `sh -s` works",
        );
    };
    // It looked at its clock somewhere between.
    let ahead = facts.clock().map(|there| if there < before { there - before } else { (there - after).max(0.0) });
    judge(cluster, host, &facts, ahead, OffsetDateTime::from(now()))
}

/// The questions with this host's values before them.
fn script(cluster: &Cluster, host: &Host) -> String {
    let vip = cluster.vips().next().filter(|_| host.lb).map_or_else(String::new, |vip| vip.to_string());
    let names = cluster.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(" ");
    let store = cluster.broker.store.path.to_string_lossy().replace("{host}", host.name.as_str());
    let certificate = cluster.tls.for_host(&host.name).cert;
    format!(
        "VIP={} NAMES={} STORE={} CERTIFICATE={}\n{LOOK}",
        quoted(&vip),
        quoted(&names),
        quoted(&store),
        quoted(&certificate.to_string_lossy())
    )
}

#[expect(
    clippy::disallowed_methods,
    reason = "the clocks of hosts are compared, and certificates are valid by wall time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn seconds() -> f64 {
    now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Survey {
    /// Whether something is in the way that has to be mended first.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.obstacles.iter().any(|obstacle| obstacle.severity == Severity::Error)
    }

    /// As a table, with what to do below each line.
    #[must_use]
    pub fn text(&self) -> String {
        let count = |severity| self.obstacles.iter().filter(|obstacle| obstacle.severity == severity).count();
        let mut text = String::new();
        if !self.obstacles.is_empty() {
            let mut table = Table::titled(&["HOST", "", "ABOUT", "WHAT"]);
            for obstacle in &self.obstacles {
                table.row([&obstacle.host, &obstacle.severity.to_string(), obstacle.subject, &obstacle.message]);
                table.row(["", "", "", &format!("-> {}", obstacle.help)]);
            }
            text += &format!("{table}\n");
        }
        let hosts = if self.answered == 1 { "1 host".to_owned() } else { format!("{} hosts", self.answered) };
        text + &format!(
            "{hosts} answered; in the way: {}, to be looked at: {}\n",
            count(Severity::Error),
            count(Severity::Warning)
        )
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({ "ok": !self.has_errors(), "answered": self.answered, "obstacles": self.obstacles })
    }
}
