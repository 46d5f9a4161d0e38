//! One `vrrp_instance`: what its lines are in `[vip]`, `[[vip.instances]]` and `[[hosts]]`.

use std::net::{IpAddr, Ipv4Addr};

use super::{label, seconds_of, why_left};
use crate::import::finding::{Outcome, Place};
use crate::import::model::Model;
use crate::import::scripts::Scripts;
use crate::import::statements::Statement;
use crate::init::draft::Value;

/// What is gathered of one `vrrp_instance` before it is written.
#[derive(Debug, Default)]
struct Router {
    vrid: Option<u64>,
    addresses: Vec<IpAddr>,
    priority: Option<u8>,
    interface: Option<String>,
    source: Option<Ipv4Addr>,
    peers: Vec<Ipv4Addr>,
}

impl Router {
    fn of(statement: &Statement) -> Self {
        let mut router = Self::default();
        for inner in statement.inside() {
            match inner.name() {
                "virtual_router_id" => router.vrid = inner.argument().parse().ok(),
                "priority" => router.priority = inner.argument().parse().ok(),
                "interface" => router.interface = Some(inner.argument().to_owned()),
                "unicast_src_ip" | "mcast_src_ip" => router.source = inner.argument().parse().ok(),
                "unicast_peer" => {
                    router.peers.extend(inner.inside().iter().filter_map(|line| line.name().parse::<Ipv4Addr>().ok()));
                }
                "virtual_ipaddress" | "virtual_ipaddress_excluded" => {
                    for address in inner.inside().iter().filter_map(address) {
                        if !router.addresses.contains(&address) {
                            router.addresses.push(address);
                        }
                    }
                }
                _ => {}
            }
        }
        // One virtual router has addresses of one family.
        if let Some(first) = router.addresses.first().copied() {
            router.addresses.retain(|address| address.is_ipv6() == first.is_ipv6());
        }
        router
    }
}

/// `192.168.200.17/24 dev eth1`
fn address(line: &Statement) -> Option<IpAddr> {
    line.name().split('/').next()?.parse().ok()
}

pub(super) fn instance(statement: &Statement, groups: &[(String, Vec<String>)], scripts: &Scripts, model: &mut Model) {
    let router = Router::of(statement);
    let text = statement.text();
    let at = (&statement.place, text.as_str());
    hosts(&router, model);
    let is_known = router
        .vrid
        .is_some_and(|vrid| model.draft.any("vip", "vrid", vrid) || model.draft.any("vip.instances", "vrid", vrid));
    if is_known {
        model.usual(
            at,
            "the same virtual router as in another file; this host's priority and interface are taken from here",
        );
        return;
    }
    if router.addresses.is_empty() {
        model.leave(at, "it has no virtual address");
        return;
    }
    let is_first = !model.draft.table("vip").has("address");
    model.vips.extend(&router.addresses);
    if is_first {
        model.interface.clone_from(&router.interface);
    }
    let other_interface = router.interface.clone().filter(|_| router.interface != model.interface);
    let key = if is_first { "[vip]" } else { "[[vip.instances]]" };
    model.note(at.0, at.1, Outcome::Kept { key: key.to_owned() });
    let group = groups.iter().find(|(_, members)| members.iter().any(|member| member == statement.argument()));
    let table = if is_first { model.draft.table("vip") } else { model.draft.entry("vip.instances") };
    if !is_first {
        table.set("name", label(statement.argument()), "");
    }
    table.set("address", router.addresses[0].to_string(), if is_first { "what clients connect to" } else { "" });
    if let (false, Some(interface)) = (is_first, other_interface) {
        table.set("interface", interface, "");
    }
    if router.addresses.len() > 1 {
        table.set("more_addresses", Value::list(router.addresses[1..].iter().take(19).map(ToString::to_string)), "");
    }
    table.set("vrid", router.vrid.unwrap_or(51), "");
    if let Some((name, _)) = group {
        table.set("sync_group", name.as_str(), "");
    }
    for inner in statement.inside() {
        of_instance(inner, statement, is_first, scripts, model);
    }
}

/// Who holds the address is told by the files of those who may.
fn hosts(router: &Router, model: &mut Model) {
    if let Some(source) = router.source {
        let host = model.host(source);
        host.lb = true;
        host.priority = host.priority.or(router.priority);
        host.interface = host.interface.take().or_else(|| router.interface.clone());
    }
    for peer in &router.peers {
        model.host(*peer).lb = true;
    }
}

#[expect(clippy::too_many_lines, reason = "a table: an arm for each option")]
fn of_instance(statement: &Statement, instance: &Statement, is_first: bool, scripts: &Scripts, model: &mut Model) {
    let text =
        if statement.name() == "authentication" { "authentication { ... }".to_owned() } else { statement.text() };
    let at = (&statement.place, text.as_str());
    let (word, number) = (statement.argument(), statement.argument().parse::<u64>().ok());
    let kept = |model: &mut Model, key: &str| model.note(at.0, at.1, Outcome::Kept { key: key.to_owned() });
    let first_only = "it holds for all virtual routers: set under [vip] by the first of them";
    match (statement.name(), number) {
        ("virtual_router_id", _) => kept(model, "vrid"),
        ("virtual_ipaddress", _) => addresses(statement, instance, model),
        ("virtual_ipaddress_excluded", _) => {
            model.differs(at, "they are more_addresses, and in the advertisements like the others");
        }
        ("priority" | "interface" | "unicast_src_ip" | "mcast_src_ip", _) => {
            of_host(statement, instance, is_first, model);
        }
        ("unicast_peer", _) => kept(model, "[[hosts]] with the role \"lb\""),
        ("state", _) => model.usual(at, "the healthy host with the highest priority begins"),
        ("advert_int", _) => advert_interval(at, word, is_first, model),
        ("authentication", _) => authentication(statement, at, is_first, model),
        ("nopreempt", _) => model.usual(at, "vip.preempt is false"),
        ("preempt", _) if is_first => model.keep(at, "vip", "preempt", true),
        ("preempt_delay", _) if is_first => {
            model.draft.table("vip").set("preempt", true, "");
            model.keep(
                at,
                "vip",
                "preempt_delay",
                format!("{}s", word.parse::<f64>().unwrap_or(0.0).clamp(0.0, 3600.0).round()),
            );
        }
        ("garp_master_delay", Some(seconds)) if is_first => {
            model.keep(at, "vip", "garp_repeat_delay", seconds_of(seconds, 3600));
        }
        ("garp_master_repeat", Some(count)) if is_first => model.keep(at, "vip", "garp_count", count.clamp(1, 20)),
        ("garp_master_refresh", Some(seconds)) if is_first => {
            model.keep(at, "vip", "garp_refresh", seconds_of(seconds, 86_400));
        }
        ("use_vmac", _) if is_first => model.keep(at, "vip", "virtual_mac", true),
        ("no_accept", _) if is_first => model.keep(at, "vip", "accept", false),
        ("accept", _) => model.usual(at, "vip.accept is true"),
        ("version", Some(3)) => model.usual(at, "VRRP 3 is spoken"),
        (name @ ("notify_master" | "notify_backup" | "notify_fault" | "notify"), _) if is_first => {
            let key = match name {
                "notify_master" => "notify_master",
                "notify_backup" => "notify_backup",
                "notify_fault" => "notify_fault",
                _ => "notify",
            };
            let command = statement.arguments().iter().flat_map(|words| words.split_whitespace());
            model.alter(
                at,
                "vip",
                key,
                Value::list(command),
                "INSTANCE, name, state and priority are added to the arguments",
            );
        }
        ("track_script" | "track_interface" | "track_file" | "track_process", _) => scripts.track(statement, model),
        ("virtual_routes" | "virtual_rules", _) => model.leave(
            at,
            "a program of [vip] notify_master can set them, one of notify_backup and notify_fault take them away",
        ),
        (
            "garp_master_delay"
            | "garp_master_repeat"
            | "garp_master_refresh"
            | "preempt"
            | "preempt_delay"
            | "use_vmac"
            | "no_accept",
            _,
        ) => {
            model.leave(at, first_only);
        }
        ("notify_master" | "notify_backup" | "notify_fault" | "notify", _) => model.leave(at, first_only),
        (name, _) => model.leave(at, why_left(name)),
    }
}

fn addresses(statement: &Statement, instance: &Statement, model: &mut Model) {
    let router = Router::of(instance);
    for line in statement.inside() {
        let text = line.text();
        let at = (&line.place, text.as_str());
        let device = line.words.iter().position(|word| word == "dev").and_then(|at| line.words.get(at + 1));
        match address(line) {
            Some(address) if !router.addresses.contains(&address) => {
                model.leave(at, "IPv4 and IPv6 are two virtual routers: add a [[vip.instances]] entry for it");
            }
            Some(_) if device.is_some() && device != router.interface.as_ref() => {
                model.differs(at, "a virtual router has one interface: add a [[vip.instances]] entry for another one");
            }
            Some(_) if line.words.len() > 1 && device.is_none() || line.words.len() > 3 => {
                model.differs(at, "label, scope and broadcast address are not set: the VIP has all ones as its prefix");
            }
            Some(address) => {
                let all_ones = if address.is_ipv6() { "/128" } else { "/32" };
                if line.name().contains('/') && !line.name().ends_with(all_ones) {
                    model.differs(at, "prefix_length is all ones, which keeps the VIP from becoming the source of the host's own traffic");
                } else {
                    model.note(at.0, at.1, Outcome::Kept { key: "address, more_addresses".to_owned() });
                }
            }
            None => model.leave(at, "no address that is known here"),
        }
    }
}

fn of_host(statement: &Statement, instance: &Statement, is_first: bool, model: &mut Model) {
    let text = statement.text();
    let at = (&statement.place, text.as_str());
    let router = Router::of(instance);
    if !is_first && statement.name() == "interface" {
        model.note(at.0, at.1, Outcome::Kept { key: "interface".to_owned() });
        return;
    }
    let key = match statement.name() {
        "priority" => "vip_priority of its [[hosts]] entry",
        "interface" => "interface of its [[hosts]] entry",
        _ => "address of its [[hosts]] entry",
    };
    if router.source.is_none() {
        let why = match statement.name() {
            "priority" => {
                "nothing here says whose file this is: set vip_priority in that host's [[hosts]] entry, or leave it: 200, 190, ... in their order"
            }
            _ => {
                "nothing here says whose file this is: set interface in that host's [[hosts]] entry, or leave it: the one with the host's address"
            }
        };
        model.differs(at, why);
    } else if !is_first && statement.name() == "priority" {
        model
            .leave(at, "priorities = { HOST = NUMBER } of a [[vip.instances]] entry, where it is not that of the host");
    } else {
        model.note(at.0, at.1, Outcome::Kept { key: key.to_owned() });
    }
}

/// keepalived's second means 3.6 s until the address moves. Hosts of EverMQ speak to each other only, and need not wait.
fn advert_interval(at: (&Place, &str), word: &str, is_first: bool, model: &mut Model) {
    let Some(seconds) = word.parse::<f64>().ok().filter(|seconds| (0.01..=40.0).contains(seconds)) else {
        model.leave(at, "no interval that is known here: vip.advert_interval");
        return;
    };
    let millis = (seconds * 100.0).round() * 10.0;
    if !is_first {
        model.leave(at, "it holds for all virtual routers: vip.advert_interval");
    } else if model.beside {
        model.keep(at, "vip", "advert_interval", format!("{millis}ms"));
    } else {
        model.differs(
            at,
            "20 ms: a dead host is noticed after 66 ms. --beside keeps the interval for the time beside keepalived",
        );
    }
}

fn authentication(statement: &Statement, at: (&Place, &str), is_first: bool, model: &mut Model) {
    let pass = statement.inside().iter().find(|line| line.name() == "auth_pass").map(|line| line.argument().to_owned());
    match pass.filter(|_| model.beside && is_first) {
        Some(pass) => {
            let pass: String = pass.chars().take(8).collect();
            model.draft.table("vip").set("version", 2, "for the time beside keepalived");
            model.alter(at, "vip", "auth_pass", pass, "in clear on the wire; only for the time beside keepalived");
        }
        None => model.leave(at, "VRRP 3 has none (RFC 9568): the password stood in clear in each packet; adverts go from host to host instead of to everyone"),
    }
}
