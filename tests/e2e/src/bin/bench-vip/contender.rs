//! What is compared: the same lab, load balancers and brokers, with one or another daemon that holds the VIP.

use std::time::Duration;

use evermq_e2e::{Lab, VIP, wait};

use crate::hosts::Agent;

/// keepalived's first election takes three of its intervals and more.
const START: Duration = Duration::from_secs(15);
/// What a daemon writes in a host, and where its configuration and process ids are.
const KEEPALIVED: &str = "/run/keepalived";

/// A VRRP daemon with its settings.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) daemon: Daemon,
    /// Milliseconds for which a fault is watched.
    pub(crate) window: f64,
}

/// Which program, and how it is set up.
pub(crate) enum Daemon {
    /// Settings of the cluster file.
    EverMq(&'static [&'static str]),
    /// Lines of `global_defs`, `vrrp_script` and `vrrp_instance`.
    Keepalived { global: &'static str, check: &'static str, instance: &'static str },
}

pub(crate) const CONTENDERS: [Contender; 4] = [
    Contender {
        name: "keepalived, 1 s",
        daemon: Daemon::Keepalived { global: "", check: "interval 3", instance: "version 2\n  advert_int 1" },
        window: 6_000.0,
    },
    Contender {
        name: "keepalived, 10 ms",
        // In real time, as EverMQ is by default, and not killed where it computes for 10 ms at a stretch; a check each second
        // is the most that it can do.
        daemon: Daemon::Keepalived {
            global: "  vrrp_rt_priority 20\n  vrrp_rlimit_rttime 5000000\n",
            check: "interval 1",
            instance: "version 3\n  advert_int 0.01",
        },
        window: 6_000.0,
    },
    Contender { name: "EverMQ, 10 ms", daemon: Daemon::EverMq(&["vip.advert_interval=10ms"]), window: 5_000.0 },
    Contender { name: "EverMQ, 100 ms", daemon: Daemon::EverMq(&["vip.advert_interval=100ms"]), window: 5_000.0 },
];

impl Contender {
    /// A lab in which one host has the VIP and the other is its backup.
    pub(crate) fn up(&self, more: &[&str]) -> Result<Lab, String> {
        match &self.daemon {
            Daemon::EverMq(settings) => Lab::up_with(&[settings, more].concat()),
            Daemon::Keepalived { .. } => {
                let lab = Lab::up_with(&[])?;
                for host in ["lb1", "lb2"] {
                    lab.must(["stop", host, "evermq-vip"]);
                }
                for (host, priority, state) in [("lb1", 200, "MASTER"), ("lb2", 190, "BACKUP")] {
                    self.configure(&lab, host, priority);
                    start_keepalived(&lab, host);
                    let log = format!("{KEEPALIVED}.log");
                    let words = format!("Entering {state} STATE");
                    wait::until(&words, START, || {
                        lab.exec(host, &["grep", "-q", &words, &log]).status.success().then_some(())
                    });
                }
                Ok(lab)
            }
        }
    }

    /// The name of its processes.
    pub(crate) fn program(&self) -> &'static str {
        match self.daemon {
            Daemon::EverMq(_) => "evermq-vip",
            Daemon::Keepalived { .. } => "keepalived",
        }
    }

    /// Which of its processes speaks VRRP and holds the address, in the agent's words.
    pub(crate) fn vrrp_process(&self) -> &'static str {
        match self.daemon {
            Daemon::EverMq(_) => "main",
            // The first one only starts it again when it ends.
            Daemon::Keepalived { .. } => "child",
        }
    }

    /// Asks it to end, waits until it has, starts it: what an upgrade does. Gives when it was asked.
    pub(crate) fn restart(&self, lab: &Lab, agent: &Agent) -> f64 {
        let struck = agent.signal("TERM", "main", self.program());
        agent.ask(&format!("wait {}", self.program()));
        match self.daemon {
            Daemon::EverMq(_) => drop(lab.must(["start", agent.host(), self.program()])),
            Daemon::Keepalived { .. } => start_keepalived(lab, agent.host()),
        }
        struck
    }

    fn configure(&self, lab: &Lab, host: &str, priority: u8) {
        let text = self.keepalived_conf(priority).unwrap_or_default();
        let written =
            lab.exec(host, &["sh", "-c", "printf %s \"$1\" > \"$2\"", "sh", &text, &format!("{KEEPALIVED}.conf")]);
        assert!(written.status.success(), "{}", evermq_e2e::lab::text(&written));
    }

    /// keepalived's configuration, if it is keepalived.
    pub(crate) fn keepalived_conf(&self, priority: u8) -> Option<String> {
        let Daemon::Keepalived { global, check, instance } = &self.daemon else { return None };
        Some(format!(
            "global_defs {{\n  script_user root\n  enable_script_security\n{global}}}\n\
             vrrp_script lb {{\n  script \"/usr/bin/pgrep -x evermq-lb\"\n  {check}\n}}\n\
             vrrp_instance VIP {{\n  state BACKUP\n  nopreempt\n  interface eth0\n  virtual_router_id 51\n  \
             priority {priority}\n  {instance}\n  virtual_ipaddress {{\n    {VIP}/32 dev eth0\n  }}\n  \
             track_script {{\n    lb\n  }}\n}}\n"
        ))
    }
}

fn start_keepalived(lab: &Lab, host: &str) {
    // In the background of a shell that ends: the host's first process takes it over, as an init does.
    let line = format!(
        "setsid keepalived --dont-fork --log-console --vrrp --use-file {KEEPALIVED}.conf --pid {KEEPALIVED}.pid \
         --vrrp_pid {KEEPALIVED}-vrrp.pid < /dev/null >> {KEEPALIVED}.log 2>&1 &"
    );
    let started = lab.exec(host, &["sh", "-c", &line]);
    assert!(started.status.success(), "{}", evermq_e2e::lab::text(&started));
}
