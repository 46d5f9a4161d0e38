//! One run: a lab, a fault, figures.

use std::time::Duration;

use evermq_e2e::client::{finish_load, wait_ready};
use evermq_e2e::{PORT, VIP, wait};
use serde_json::Value;

use crate::contender::Contender;
use crate::fault::{FAULT, Fault, Scene};
use crate::figures::wall;
use crate::hosts::Pair;

/// New connections or clients before the fault.
const BEFORE: Duration = Duration::from_millis(1_000);
/// Idle subscribers.
pub(crate) const SUBSCRIBERS: u32 = 500;
/// 500 clients that tried anew every 5 ms would take the two cores that serve them.
const RECONNECT: [&str; 4] = ["--attempt", "2000", "--retry", "50"];
/// How long CPU time is counted.
const COUNTED: Duration = Duration::from_secs(10);

/// What a fault did, in milliseconds; infinite is what had not happened by the end.
#[derive(Debug)]
pub(crate) struct Outage {
    /// From the fault until the other host had the VIP; none if it never came there.
    pub(crate) moved: Option<f64>,
    /// The longest time without a new connection.
    pub(crate) gap: f64,
    /// How long both hosts had the VIP, in all.
    pub(crate) both: f64,
    /// From the fault, or from its end if it had one, until they no longer both had it; zero if they never had.
    pub(crate) stale: f64,
}

/// Connects anew every 5 ms while the fault strikes.
pub(crate) fn new_connections(contender: &Contender, fault: &Fault) -> Result<Outage, String> {
    let lab = contender.up(fault.settings)?;
    let scene = Scene { lab: &lab, contender, hosts: Pair::start(&lab) };
    let address = format!("{VIP}:{PORT}");
    let duration = BEFORE.as_secs_f64() * 1_000.0 + contender.window;
    let probe =
        lab.start_load(&["probe", "--connect", &address, "--interval", "5", "--duration", &format!("{duration:.0}")]);
    wait::pause(BEFORE);
    let struck = (fault.strike)(&scene);
    let ended = mend(&scene, fault).unwrap_or(struck);
    let result = finish_load(probe);
    let end = wall();
    let number = |name: &str| result[name].as_f64().unwrap_or_else(|| panic!("no {name} in {result}"));
    let both = scene.hosts.both(end);
    let stale = both.last().map_or(0.0, |(_, until)| if *until >= end { f64::INFINITY } else { until - ended });
    Ok(Outage {
        moved: moved(&scene.hosts, struck).map(|at| at - struck),
        // An outage that goes on at the end is no gap between two successes.
        gap: if number("silent_at_end_ms") > 1_000.0 { f64::INFINITY } else { number("longest_gap_ms") },
        both: both.iter().map(|(from, until)| until - from).sum(),
        stale: stale.max(0.0),
    })
}

/// What a fault did to subscribers that only listen.
#[derive(Debug)]
pub(crate) struct Idle {
    /// From the takeover, or from the fault where the VIP stayed, until the last one was subscribed again.
    pub(crate) back: f64,
    /// How many heard of the fault.
    pub(crate) closed: f64,
}

/// Subscribers without a word of their own, keep alive 60 s, while the fault strikes.
pub(crate) fn idle_subscribers(contender: &Contender, fault: &Fault) -> Result<Idle, String> {
    let lab = contender.up(fault.settings)?;
    let scene = Scene { lab: &lab, contender, hosts: Pair::start(&lab) };
    let address = format!("{VIP}:{PORT}");
    let duration = format!("{:.0}", BEFORE.as_secs_f64() * 1_000.0 + contender.window);
    let clients = SUBSCRIBERS.to_string();
    let mut holding = lab.start_load(
        &[
            &["hold", "--idle", "--connect", &address, "--clients", &clients][..],
            &RECONNECT,
            &["--duration", &duration],
        ]
        .concat(),
    );
    wait_ready(&mut holding);
    wait::pause(BEFORE);
    let struck = (fault.strike)(&scene);
    mend(&scene, fault);
    let result = finish_load(holding);
    let outages = result["outages"].as_array().cloned().unwrap_or_default();
    let mut closed: Vec<_> = outages.iter().map(|outage| outage["client"].as_u64()).collect();
    closed.sort_unstable();
    closed.dedup();
    let all = closed.len() == usize::try_from(SUBSCRIBERS).unwrap_or(usize::MAX);
    let backs: Option<Vec<f64>> = outages.iter().map(|outage| outage["back_ms"].as_f64()).collect();
    let slowest = backs.filter(|_| all).and_then(|backs| backs.into_iter().max_by(f64::total_cmp));
    let since = moved(&scene.hosts, struck).unwrap_or(struck);
    let closed = u32::try_from(closed.len()).map_or(f64::INFINITY, f64::from);
    Ok(Idle { back: slowest.map_or(f64::INFINITY, |slowest| slowest - since), closed })
}

/// What the daemon costs on one host while nothing happens.
#[derive(Debug)]
pub(crate) struct Cost {
    /// Of one core, in percent.
    pub(crate) cpu: f64,
    pub(crate) rss_mb: f64,
    pub(crate) pss_mb: f64,
}

/// The cost on the host that has the VIP and on the other one.
pub(crate) fn cost(contender: &Contender) -> Result<[Cost; 2], String> {
    let lab = contender.up(&[])?;
    let hosts = Pair::start(&lab);
    let request = format!("cost {}", contender.program());
    let agents = [&hosts.active, &hosts.standby];
    let ask = || agents.map(|agent| (wall(), agent.ask(&request)));
    let before = ask();
    wait::pause(COUNTED);
    let after = ask();
    let mut costs = before.iter().zip(after).map(|((began, before), (ended, after))| {
        let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or(f64::NAN);
        Cost {
            cpu: (number(&after, "cpu_ms") - number(before, "cpu_ms")) / (ended - began) * 100.0,
            rss_mb: number(&after, "rss_kb") / 1024.0,
            pss_mb: number(&after, "pss_kb") / 1024.0,
        }
    });
    let mut next = || costs.next().ok_or_else(|| "two hosts have costs".to_owned());
    Ok([next()?, next()?])
}

/// Ends a fault that has an end, after its time. Gives when.
fn mend(scene: &Scene<'_>, fault: &Fault) -> Option<f64> {
    let mend = fault.mend?;
    wait::pause(FAULT);
    let at = wall();
    mend(scene);
    Some(at)
}

/// When the other host first had the VIP after the fault.
fn moved(hosts: &Pair, struck: f64) -> Option<f64> {
    hosts.standby.looks().iter().find(|look| look.held && look.at >= struck).map(|look| look.at)
}
