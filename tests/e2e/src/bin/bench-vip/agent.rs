//! What runs inside an lb host: it tells when the VIP comes and goes, sends signals and says what they struck when, and adds up
//! what a daemon costs. Started there by the benchmark, over pipes, so that no program's start is in any figure.
//!
//! ```text
//! in:   signal KILL main evermq-vip      out:   {"sent": 1795378923000.5, "processes": 1}
//!       wait keepalived                         {"sent": ...}     once no such process is left
//!       cost evermq-vip                         {"cpu_ms": 12.5, "rss_kb": 5120, "pss_kb": 3200}
//!                                               {"at": ..., "held": true, "carrier": true}   at the start and at each change
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use evermq_e2e::{VIP, wait};
use nix::libc;
use nix::net::if_::InterfaceFlags;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::figures::wall;

/// The host's end of its cable.
const INTERFACE: &str = "eth0";
/// How often the end of processes is looked for: there is no event for those that are not our children.
const LOOK: Duration = Duration::from_millis(1);

/// Serves until its input ends.
pub(crate) fn run() -> anyhow::Result<()> {
    let watch = std::thread::spawn(watch);
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["signal", signal, which, program] => {
                say(&send(Signal::from_str(&format!("SIG{signal}"))?, which, program)?);
            }
            ["wait", program] => {
                while !processes(program)?.is_empty() {
                    wait::pause(LOOK);
                }
                say(&json!({ "sent": wall() }));
            }
            ["cost", program] => say(&cost(program)?),
            _ => anyhow::bail!("unknown request {line:?}"),
        }
        anyhow::ensure!(!watch.is_finished(), "the watch has ended");
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the pipe to the benchmark")]
fn say(value: &Value) {
    println!("{value}");
}

/// Tells each change of the VIP and of the cable. Any news of the kernel is the occasion; what is so is then looked up.
fn watch() -> anyhow::Result<()> {
    let vip: Ipv4Addr = VIP.parse()?;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_LINK;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, groups.unsigned_abs()))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut before = None;
    loop {
        let now = look(vip)?;
        if before != Some(now) {
            let (held, carrier) = now;
            say(&json!({ "at": wall(), "held": held, "carrier": carrier }));
            before = Some(now);
        }
        match recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            // News that did not fit are no loss: what is so is looked up.
            Ok(_) | Err(nix::Error::EINTR | nix::Error::ENOBUFS) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether the VIP is on any interface, and whether the cable is in.
fn look(vip: Ipv4Addr) -> anyhow::Result<(bool, bool)> {
    let (mut held, mut carrier) = (false, false);
    for interface in nix::ifaddrs::getifaddrs()? {
        let address = interface.address.as_ref().and_then(|address| address.as_sockaddr_in());
        held |= address.is_some_and(|address| address.ip() == vip);
        carrier |= interface.interface_name == INTERFACE && interface.flags.contains(InterfaceFlags::IFF_RUNNING);
    }
    Ok((held, carrier))
}

/// Sends a signal to a program's first process (`main`), to those that it started (`child`), or to `all`.
fn send(signal: Signal, which: &str, program: &str) -> anyhow::Result<Value> {
    let all = processes(program)?;
    let struck: Vec<Pid> = all
        .iter()
        .filter(|(_, parent)| match which {
            "main" => !all.contains_key(parent),
            "child" => all.contains_key(parent),
            _ => true,
        })
        .map(|(pid, _)| Pid::from_raw(*pid))
        .collect();
    let sent = wall();
    if signal == Signal::SIGKILL {
        // All at once: one that still runs would act on the end of the other.
        for pid in &struck {
            kill(*pid, Signal::SIGSTOP).with_context(|| format!("SIGSTOP to {program}"))?;
        }
    }
    for pid in &struck {
        kill(*pid, signal).with_context(|| format!("{signal} to {program}"))?;
    }
    Ok(json!({ "sent": sent, "processes": struck.len() }))
}

/// Every process in this host whose executable has that name, with its parent.
fn processes(program: &str) -> anyhow::Result<BTreeMap<i32, i32>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is none, and one that is only to be waited for has no executable any more.
        let Ok(executable) = fs::read_link(entry.path().join("exe")) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if executable.file_name().is_some_and(|name| name == program) {
            // PID (NAME) STATE PARENT ..., and a name may hold anything.
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
            found.insert(pid, parent.context("no parent in stat")?);
        }
    }
    Ok(found)
}

/// CPU time so far, of every thread, and memory of all processes of a program together.
fn cost(program: &str) -> anyhow::Result<Value> {
    let (mut cpu_ns, mut memory) = (0.0, BTreeMap::from([("Rss:", 0_u64), ("Pss:", 0)]));
    for pid in processes(program)?.into_keys() {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu_ns += schedstat.split(' ').next().unwrap_or_default().parse::<f64>()?;
        }
        for line in fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?.lines() {
            let mut words = line.split_whitespace();
            if let Some((sum, kb)) = words.next().and_then(|name| memory.get_mut(name)).zip(words.next()) {
                *sum += kb.parse::<u64>()?;
            }
        }
    }
    Ok(json!({ "cpu_ms": cpu_ns / 1e6, "rss_kb": memory["Rss:"], "pss_kb": memory["Pss:"] }))
}
