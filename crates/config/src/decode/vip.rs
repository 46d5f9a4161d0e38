//! `[vip]`, `[[vip.instances]]` and `[[vip.track]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use crate::consistency::{RouterSpans, Spans};
use crate::names::{HostName, Vrid};
use crate::section::{Section, Source};
use crate::vip::{
    Adverts, AuthPass, Checksum, Notify, Quorum, Script, Track, TrackWhat, Vip, VipMode, VirtualRouter, VrrpVersion,
};

/// Most addresses of one virtual router: as many as keepalived puts into an advertisement.
const MOST_ADDRESSES: usize = 20;
/// Most virtual routers, and most tracked things, of a host.
const MOST_ENTRIES: usize = 32;
/// RFC 9568 §5.2.3: any but 0, and one that few others choose.
const USUAL_VRID: u8 = 51;
/// Weights span all priorities (RFC 9568 §5.2.4).
const MOST_WEIGHT: i16 = 253;

/// All that stands under `[vip]`.
pub(crate) struct VipTable {
    pub(crate) vip: Vip,
    pub(crate) routers: Vec<VirtualRouter>,
    pub(crate) tracks: Vec<Track>,
    pub(crate) quorum: Option<Quorum>,
}

pub(crate) fn vip<'a>(
    source: &'a Source<'a>,
    mut s: Section<'a>,
    defaulted: &mut Vec<String>,
    spans: &mut Spans,
) -> VipTable {
    let mode = s.choice("mode", &[("vrrp", VipMode::Vrrp), ("none", VipMode::None)]);
    let version = s.choice_of("version", &[(3, VrrpVersion::V3), (2, VrrpVersion::V2)]);
    let vip = settings(&mut s, mode);
    let quorum = quorum(&mut s);
    // A default that does not suit the version is the version's line to mend.
    spans.advert_interval = s.span(if s.present("advert_interval") { "advert_interval" } else { "version" });
    spans.auth_pass = s.span("auth_pass");
    spans.quorum = s.span("quorum");

    let sync_group = group(&mut s);
    s.note_if_absent("sync_group");
    let (addresses, prefix_length) = addresses(source, &mut s, mode == VipMode::Vrrp);
    let first = VirtualRouter {
        name: VirtualRouter::FIRST.to_owned(),
        vrid: vrid(&mut s),
        version,
        addresses,
        prefix_length,
        interface: None,
        priorities: BTreeMap::new(),
        sync_group,
    };
    let mut routers = Vec::new();
    if !first.addresses.is_empty() {
        spans.routers.push(RouterSpans::of(&s, BTreeMap::new()));
        routers.push(first);
    }
    for entry in s.entries("instances", MOST_ENTRIES) {
        if let Some((router, at)) = instance(source, entry, version, defaulted) {
            routers.push(router);
            spans.routers.push(at);
        }
    }
    let mut tracks: Vec<Track> = Vec::new();
    for entry in s.entries("track", MOST_ENTRIES) {
        let at = entry.span("");
        if let Some(track) = track(source, entry, defaulted) {
            if tracks.iter().any(|other| other.name == track.name) {
                source.error(
                    at,
                    format_args!("two tracked things are called \"{}\"", track.name),
                    "give each its own name",
                );
            }
            tracks.push(track);
        }
    }
    defaulted.extend(s.finish());
    VipTable { vip, routers, tracks, quorum }
}

fn settings(s: &mut Section<'_>, mode: VipMode) -> Vip {
    let vip = Vip {
        mode,
        advert_interval: s.duration("advert_interval", "20ms", "10ms"..="255s"),
        adverts: s.choice("adverts", &[("unicast", Adverts::Unicast), ("multicast", Adverts::Multicast)]),
        auth_pass: s.parsed("auth_pass", "a password of 1 to 8 printable ASCII characters", AuthPass::new),
        checksum: s.choice(
            "checksum",
            &[
                ("rfc", Checksum::Rfc),
                ("old_unicast", Checksum::OldUnicast),
                ("no_pseudo_header", Checksum::NoPseudoHeader),
            ],
        ),
        preempt: s.boolean("preempt", false),
        preempt_delay: s.duration("preempt_delay", "0s", "0s"..="1h"),
        start_delay: s.duration("start_delay", "0s", "0s"..="1h"),
        accept: s.boolean("accept", true),
        virtual_mac: s.boolean("virtual_mac", false),
        garp_count: s.integer("garp_count", 5, 1..=20),
        garp_repeat_delay: s.duration("garp_repeat_delay", "5s", "0ms"..="1h"),
        garp_refresh: s.duration("garp_refresh", "0s", "0s"..="1d"),
        lb_timeout: s.duration("lb_timeout", "1s", "200ms"..="1m"),
        tickle: s.boolean("tickle", true),
        realtime: s.boolean("realtime", true),
        metrics: s.optional_socket_address("metrics", "127.0.0.1:9112"),
        notify: Notify {
            master: s.strings("notify_master", COMMAND).unwrap_or_default(),
            backup: s.strings("notify_backup", COMMAND).unwrap_or_default(),
            fault: s.strings("notify_fault", COMMAND).unwrap_or_default(),
            any: s.strings("notify", COMMAND).unwrap_or_default(),
            timeout: s.duration("notify_timeout", "30s", "100ms"..="1h"),
            user: user(s, "notify_user"),
        },
    };
    for key in ["auth_pass", "metrics", "notify_master", "notify_backup", "notify_fault", "notify", "notify_user"] {
        s.note_if_absent(key);
    }
    vip
}

fn quorum(s: &mut Section<'_>) -> Option<Quorum> {
    let wanted = s.boolean("quorum", false);
    let quorum = Quorum {
        lease: s.duration("quorum_lease", "200ms", "40ms"..="1m"),
        gateway: s.optional_address("quorum_gateway", "192.168.10.1"),
        port: s.integer("heartbeat_port", 9002, 1..=65_535),
        key_file: s.path("heartbeat_key", "heartbeat.key"),
    };
    s.note_if_absent("quorum_gateway");
    wanted.then_some(quorum)
}

fn instance(
    source: &Source<'_>,
    mut s: Section<'_>,
    version: VrrpVersion,
    defaulted: &mut Vec<String>,
) -> Option<(VirtualRouter, RouterSpans)> {
    let name = name(&mut s, "an instance", "\"six\"");
    let (addresses, prefix_length) = addresses(source, &mut s, true);
    let (priorities, at_priorities) = priorities(source, &mut s);
    let router = VirtualRouter {
        name: name.clone().unwrap_or_default(),
        vrid: vrid(&mut s),
        version,
        addresses,
        prefix_length,
        interface: interface(&mut s),
        priorities,
        sync_group: group(&mut s),
    };
    for key in ["interface", "sync_group"] {
        s.note_if_absent(key);
    }
    let spans = RouterSpans::of(&s, at_priorities);
    defaulted.extend(s.finish());
    (name.is_some() && !router.addresses.is_empty()).then_some((router, spans))
}

/// `address` and `more_addresses` in one list, and the prefix length that suits their family.
fn addresses(source: &Source<'_>, s: &mut Section<'_>, required: bool) -> (Vec<IpAddr>, u8) {
    let first = s.virtual_address("address", "192.168.10.10");
    let first = if required { s.required("address", first, "\"192.168.10.10\"") } else { first };
    let more = s.virtual_addresses("more_addresses", "[\"192.168.10.13\"]", MOST_ADDRESSES - 1);
    s.note_if_absent("more_addresses");
    let six = first.is_some_and(|address| address.is_ipv6());
    let prefix_length =
        if six { s.integer("prefix_length", 128, 1..=128) } else { s.integer("prefix_length", 32, 1..=32) };
    let mut addresses: Vec<IpAddr> = first.into_iter().collect();
    for address in more.unwrap_or_default() {
        if address.is_ipv6() != six {
            source.error(
                s.span("more_addresses"),
                format_args!("{address} is of another family than address"),
                "IPv4 and IPv6 are two virtual routers: add a [[vip.instances]] entry for the other family",
            );
        } else if addresses.contains(&address) {
            source.error(s.span("more_addresses"), format_args!("{address} stands there twice"), "delete one of them");
        } else {
            addresses.push(address);
        }
    }
    (addresses, prefix_length)
}

/// `priorities = { lb1 = 150, lb2 = 200 }`.
fn priorities(source: &Source<'_>, s: &mut Section<'_>) -> (BTreeMap<HostName, u8>, BTreeMap<HostName, Range<usize>>) {
    const HELP: &str = "write a priority of 2 to 255 for each lb host, such as priorities = { lb1 = 150, lb2 = 200 }";
    let (mut priorities, mut spans) = (BTreeMap::new(), BTreeMap::new());
    let Some(value) = s.raw("priorities") else {
        s.note_if_absent("priorities");
        return (priorities, spans);
    };
    let Some(table) = value.get_ref().as_table() else {
        source.error(value.span(), "priorities must be a table", HELP);
        return (priorities, spans);
    };
    for (key, value) in table {
        let number = value.get_ref().as_integer();
        let number = number.and_then(|number| u8::from_str_radix(number.as_str(), number.radix()).ok());
        match (HostName::new(key.get_ref()), number) {
            (Some(host), Some(priority @ 2..)) => {
                spans.insert(host.clone(), key.span());
                priorities.insert(host, priority);
            }
            (None, _) => source.error(key.span(), format_args!("{} is no host's name", key.get_ref()), HELP),
            (_, _) => source.error(value.span(), "no priority", HELP),
        }
    }
    (priorities, spans)
}

fn track(source: &Source<'_>, mut s: Section<'_>, defaulted: &mut Vec<String>) -> Option<Track> {
    const KINDS: [&str; 4] = ["script", "file", "interface", "pid_file"];
    let name = name(&mut s, "a tracked thing", "\"uplink\"");
    let shell = s.boolean("shell", false);
    let script = Script {
        command: if shell {
            let line = s.parsed("script", "a command line, such as \"test -e /run/ready\"", |text| {
                (!text.trim().is_empty()).then(|| vec![text.to_owned()])
            });
            line.unwrap_or_default()
        } else {
            s.strings("script", COMMAND).unwrap_or_default()
        },
        interval: s.duration("interval", "2s", "20ms"..="1h"),
        timeout: s.duration("timeout", "1s", "10ms"..="1h"),
        rise: s.integer("rise", 2, 1..=100),
        fall: s.integer("fall", 2, 1..=100),
        user: user(&mut s, "user"),
        shell,
    };
    let file = s.optional_path("file", "/run/evermq/maintenance");
    let interface = interface(&mut s);
    let pid_file = s.optional_path("pid_file", "/run/some-daemon.pid");
    let weight = s.integer("weight", 0, -MOST_WEIGHT..=MOST_WEIGHT);
    for key in ["script", "file", "interface", "pid_file", "user"] {
        s.note_if_absent(key);
    }
    let given: Vec<_> = KINDS.into_iter().filter(|key| s.present(key)).collect();
    if given.len() != 1 {
        source.error(
            given.get(1).map_or_else(|| s.span(""), |key| s.span(key)),
            format_args!("[[vip.track]] needs one of script, file, interface and pid_file, and has {}", given.len()),
            "write one; add a [[vip.track]] entry for each further one",
        );
    }
    if given != ["script"] {
        for key in ["interval", "timeout", "rise", "fall", "user", "shell"].into_iter().filter(|key| s.present(key)) {
            source.error(s.span(key), format_args!("{key} does nothing without script"), "delete the line");
        }
    }
    defaulted.extend(s.finish());
    let what = match given[..] {
        ["script"] => (!script.command.is_empty()).then_some(TrackWhat::Script(script)),
        ["file"] => file.map(|path| TrackWhat::File { path }),
        ["interface"] => interface.map(|name| TrackWhat::Interface { name }),
        ["pid_file"] => pid_file.map(|pid_file| TrackWhat::Process { pid_file }),
        _ => None,
    };
    Some(Track { name: name?, what: what?, weight })
}

/// What a list of strings that is a command looks like.
const COMMAND: &str = "a program and its arguments, such as [\"/usr/local/bin/check\", \"uplink\"]";

fn name(s: &mut Section<'_>, of: &str, example: &str) -> Option<String> {
    let wanted = format!("a name of {of}, 1 to 32 letters, digits, hyphens and underscores, such as {example}");
    let name = s.parsed("name", &wanted, label);
    s.required("name", name, example)
}

fn group(s: &mut Section<'_>) -> Option<String> {
    s.parsed("sync_group", "a name of 1 to 32 letters, digits, hyphens and underscores, such as \"both\"", label)
}

fn label(text: &str) -> Option<String> {
    let good = (1..=32).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    good.then(|| text.to_owned())
}

pub(crate) fn interface(s: &mut Section<'_>) -> Option<String> {
    s.parsed("interface", "a network interface's name of at most 15 characters, such as \"eth0\"", |text| {
        let good = (1..=15).contains(&text.len()) && !text.contains(['/', ' ']);
        good.then(|| text.to_owned())
    })
}

fn user(s: &mut Section<'_>, key: &'static str) -> Option<String> {
    s.parsed(key, "a user's name, such as \"nobody\"", |text| {
        let good = (1..=32).contains(&text.len()) && !text.contains([':', '/', ' ', '\0']);
        good.then(|| text.to_owned())
    })
}

fn vrid(s: &mut Section<'_>) -> Vrid {
    Vrid::new(s.integer("vrid", USUAL_VRID, 1..=255)).expect("0 is out of bounds")
}
