//! keepalived.conf: what each statement is in `[vip]`, `[[vip.instances]]`, `[[vip.track]]` and `[[hosts]]`.

mod instance;

use self::instance::instance;
use super::finding::Outcome;
use super::model::Model;
use super::scripts::Scripts;
use super::statements::Statement;
use crate::init::draft::{Table, Value};

/// Takes a file's statements over.
pub fn import(statements: &[Statement], model: &mut Model) {
    let scripts = Scripts::of(statements);
    let groups = groups(statements);
    for statement in statements {
        let text = statement.text();
        match statement.name() {
            "global_defs" => {
                for inner in statement.inside() {
                    global(inner, model);
                }
                model.usual((&statement.place, "global_defs"), "each of its lines is looked at");
            }
            "vrrp_instance" => instance(statement, &groups, &scripts, model),
            "vrrp_sync_group" => sync_group(statement, model),
            "vrrp_script" => scripts.tell_unused(statement, model),
            "vrrp_track_file" | "track_file" if statement.block.is_some() => scripts.tell_unused(statement, model),
            "static_ipaddress" | "static_routes" | "static_rules" => {
                model.leave(
                    (&statement.place, &text),
                    "addresses and routes that are always there are the system's network settings",
                );
            }
            "virtual_server" | "virtual_server_group" | "SSL" => model.leave(
                (&statement.place, &text),
                "evermq-lb passes clients on, to hosts with the role \"broker\" and to [[lb.backends]]; it is no LVS",
            ),
            name if name.starts_with('@') => {
                model.leave(
                    (&statement.place, &text),
                    "a line for some hosts only (@ID): import each host's file as that host reads it",
                );
            }
            name if name.starts_with('$') => {
                model.leave(
                    (&statement.place, &text),
                    "definitions are not expanded: write the values where they are used",
                );
            }
            _ => model.leave((&statement.place, &text), "evermq-vip has nothing like it"),
        }
    }
}

/// The instances of each synchronization group.
fn groups(statements: &[Statement]) -> Vec<(String, Vec<String>)> {
    let groups = statements.iter().filter(|statement| statement.name() == "vrrp_sync_group");
    groups
        .map(|group| {
            let members = group.inside().iter().filter(|inner| inner.name() == "group");
            let members = members.flat_map(|inner| inner.inside().iter().flat_map(|line| line.words.clone()));
            (label(group.argument()), members.collect())
        })
        .collect()
}

/// A name as `[[vip.instances]]` and its like have it.
pub(super) fn label(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let label: String = name.chars().map(good).take(32).collect();
    if label.is_empty() { "unnamed".to_owned() } else { label }
}

fn sync_group(statement: &Statement, model: &mut Model) {
    model.note(
        &statement.place,
        &statement.text(),
        Outcome::Kept { key: "sync_group of its virtual routers".to_owned() },
    );
    for inner in statement.inside().iter().filter(|inner| inner.name() != "group") {
        model.leave(
            (&inner.place, &inner.text()),
            "programs are told of each virtual router, not of groups: [vip] notify_master and its like",
        );
    }
}

fn global(statement: &Statement, model: &mut Model) {
    let text = statement.text();
    let at = (&statement.place, text.as_str());
    let number = statement.argument().parse::<u64>().ok();
    match (statement.name(), number) {
        ("script_user", _) if statement.argument() == "root" => {
            model.leave(at, "programs that evermq-vip starts never run as root: give what they need to a user, and name it in vip.notify_user");
        }
        ("script_user", _) => model.keep(at, "vip", "notify_user", statement.argument()),
        ("vrrp_version", Some(3)) => model.usual(at, "VRRP 3 is spoken"),
        ("vrrp_garp_master_delay", Some(seconds)) => {
            model.keep(at, "vip", "garp_repeat_delay", seconds_of(seconds, 3600));
        }
        ("vrrp_garp_master_repeat", Some(count)) => model.keep(at, "vip", "garp_count", count.clamp(1, 20)),
        ("vrrp_garp_master_refresh", Some(seconds)) => {
            model.keep(at, "vip", "garp_refresh", seconds_of(seconds, 86_400));
        }
        ("vrrp_priority" | "vrrp_no_swap" | "vrrp_rt_priority", _) => {
            model.usual(at, "vip.realtime: real-time scheduling and locked memory");
        }
        ("enable_script_security", _) => model.usual(at, "programs never run as root: notify_user"),
        (name, _) => model.leave(at, why_left(name)),
    }
}

fn seconds_of(seconds: u64, most: u64) -> String {
    format!("{}s", seconds.min(most))
}

fn why_left(name: &str) -> &'static str {
    match name {
        "notification_email"
        | "notification_email_from"
        | "smtp_server"
        | "smtp_connect_timeout"
        | "smtp_alert"
        | "smtp_helo_name"
        | "email_faults" => "no mail is sent: alert rules on the metrics do, or a program of [vip] notify",
        "router_id" => "hosts are known by their names",
        "lvs_sync_daemon" | "lvs_sync_daemon_interface" | "lvs_flush" | "lvs_flush_onstop" => {
            "there is no LVS: evermq-lb tells its peers of its clients itself"
        }
        "vrrp_strict" => "the protocol is kept to in any case",
        "vrrp_skip_check_adv_addr" | "skip_check_adv_addr" | "strict_mode" => "every advertisement is looked at whole",
        "vrrp_garp_interval"
        | "vrrp_gna_interval"
        | "garp_master_refresh_repeat"
        | "garp_lower_prio_delay"
        | "garp_lower_prio_repeat" => "garp_count and garp_repeat_delay say how often",
        "dont_track_primary" => "the interface of the VIP is always watched",
        "vmac_xmit_base" | "vmac_addr" => "adverts of a virtual MAC go out of its own interface",
        "debug" | "log_unknown_vrids" => "EVERMQ_LOG=debug",
        "vrrp_mcast_group4" | "vrrp_mcast_group6" => "adverts = \"multicast\" goes to 224.0.0.18 and ff02::12",
        "native_ipv6" => "the addresses say it",
        "version" | "vrrp_version" => {
            "hosts of EverMQ speak VRRP 3; --beside keeps version 2 for the time beside keepalived"
        }
        "net_namespace" | "instance" | "use_pid_dir" => "systemd starts one evermq-vip for each host",
        "linkbeat_use_polling" => "the kernel tells of the link's state",
        "unicast_fault_no_peer" | "unicast_ttl" | "check_unicast_src" | "ttl" => {
            "the hosts of the cluster file are the peers; packets from others do not count"
        }
        _ => "evermq-vip has nothing like it",
    }
}

/// A table that a track goes into: all of them are `[[vip.track]]`.
pub(super) fn track<'a>(model: &'a mut Model, name: &str, weight: i64) -> Option<&'a mut Table> {
    let name = label(name);
    if model.draft.any("vip.track", "name", name.as_str()) {
        return None;
    }
    let table = model.draft.entry("vip.track");
    table.set("name", name, "");
    if weight != 0 {
        table.set("weight", Value::signed(weight.clamp(-253, 253)), "");
    }
    Some(table)
}
