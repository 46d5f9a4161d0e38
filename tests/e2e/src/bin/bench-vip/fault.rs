//! What happens to the host that has the VIP.

use std::time::Duration;

use evermq_e2e::{Lab, wait};

use crate::contender::Contender;
use crate::figures::wall;
use crate::hosts::Pair;

/// How long a fault that ends lasts.
pub(crate) const FAULT: Duration = Duration::from_secs(4);
/// The host hears of its cable within microseconds.
const CARRIER: Duration = Duration::from_secs(1);

/// A lab with its fault to come.
pub(crate) struct Scene<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) contender: &'a Contender,
    pub(crate) hosts: Pair,
}

/// What happens.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// Gives when it struck.
    pub(crate) strike: fn(&Scene<'_>) -> f64,
    /// What ends it after [`FAULT`].
    pub(crate) mend: Option<fn(&Scene<'_>)>,
    /// Idle subscribers are looked at, too.
    pub(crate) idle: bool,
    /// Settings of EverMQ beyond the contender's.
    pub(crate) settings: &'static [&'static str],
}

const PLAIN: Fault = Fault { name: "", strike: |_| wall(), mend: None, idle: false, settings: &[] };

pub(crate) const FAULTS: [Fault; 12] = [
    Fault { name: "no fault", ..PLAIN },
    Fault {
        name: "lb process killed (-9)",
        strike: |scene| scene.hosts.active.signal("KILL", "main", "evermq-lb"),
        idle: true,
        ..PLAIN
    },
    Fault {
        name: "VRRP process killed (-9), lb lives",
        strike: |scene| {
            let Scene { contender, hosts, .. } = scene;
            hosts.active.signal("KILL", contender.vrrp_process(), contender.program())
        },
        idle: true,
        ..PLAIN
    },
    Fault {
        name: "every process of the VRRP daemon killed (-9), lb lives",
        strike: |scene| scene.hosts.active.signal("KILL", "all", scene.contender.program()),
        ..PLAIN
    },
    Fault {
        name: "VRRP daemon and lb killed (-9)",
        strike: |scene| {
            let struck = scene.hosts.active.signal("KILL", "all", scene.contender.program());
            scene.hosts.active.signal("KILL", "main", "evermq-lb");
            struck
        },
        idle: true,
        ..PLAIN
    },
    Fault { name: "cable out", strike: cable_out, idle: true, ..PLAIN },
    Fault {
        name: "host frozen for 4 s (SIGSTOP of lb and VRRP daemon)",
        strike: |scene| {
            let struck = scene.hosts.active.signal("STOP", "all", scene.contender.program());
            scene.hosts.active.signal("STOP", "all", "evermq-lb");
            struck
        },
        mend: Some(|scene| {
            scene.hosts.active.signal("CONT", "all", scene.contender.program());
            scene.hosts.active.signal("CONT", "all", "evermq-lb");
        }),
        idle: true,
        ..PLAIN
    },
    Fault {
        name: "VRRP process frozen for 4 s (SIGSTOP), lb lives",
        strike: |scene| {
            let Scene { contender, hosts, .. } = scene;
            hosts.active.signal("STOP", contender.vrrp_process(), contender.program())
        },
        mend: Some(|scene| {
            let Scene { contender, hosts, .. } = scene;
            hosts.active.signal("CONT", contender.vrrp_process(), contender.program());
        }),
        ..PLAIN
    },
    Fault {
        name: "VRRP daemon stopped (SIGTERM)",
        strike: |scene| scene.hosts.active.signal("TERM", "main", scene.contender.program()),
        idle: true,
        ..PLAIN
    },
    Fault {
        name: "VRRP daemon reloaded (SIGHUP)",
        strike: |scene| scene.hosts.active.signal("HUP", "main", scene.contender.program()),
        ..PLAIN
    },
    Fault {
        name: "VRRP daemon restarted, as an upgrade does",
        strike: |scene| scene.contender.restart(scene.lab, &scene.hosts.active),
        ..PLAIN
    },
    Fault {
        name: "lbs cut off from each other only, for 4 s; EverMQ with quorum = true",
        strike: |scene| {
            let struck = wall();
            scene.lab.must(["cut", "lb1", "lb2"]);
            struck
        },
        mend: Some(|scene| drop(scene.lab.must(["heal", "lb1"]))),
        settings: &["vip.quorum=true"],
        ..PLAIN
    },
];

/// Struck when the host lost its carrier: the lab's command takes a while until it gets there.
fn cable_out(scene: &Scene<'_>) -> f64 {
    let before = wall();
    let active = &scene.hosts.active;
    scene.lab.must(["cable", active.host(), "off"]);
    let lost = || active.looks().iter().find(|look| look.at >= before && !look.carrier).map(|look| look.at);
    wait::until("the carrier is lost", CARRIER, lost).0
}
