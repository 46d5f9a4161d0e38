//! The figures of every virtual router for Prometheus.

use evermq_daemon::metrics::{Exposition, Kind};
use evermq_daemon::process;

use crate::counters::Counters;
use crate::fsm::State;
use crate::status::{InstanceStatus, Status};

/// A counter of [`Counters`].
type Read = fn(&Counters) -> u64;

/// The figures as they are.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut text = Exposition::new();
    gauge(&mut text, status, "evermq_vip_master", "Whether this host holds the VIP.", |instance| {
        f64::from(u8::from(instance.state == State::Master))
    });
    gauge(&mut text, status, "evermq_vip_priority", "The configured priority.", |instance| {
        f64::from(instance.router.priority)
    });
    let help = "The priority as advertised; 0 where this host must not hold the VIP.";
    gauge(&mut text, status, "evermq_vip_effective_priority", help, |instance| {
        f64::from(instance.effective.priority.unwrap_or(0))
    });
    let help = "When the state changed last, in seconds since 1970; 0 where it has not.";
    gauge(&mut text, status, "evermq_vip_last_transition_timestamp_seconds", help, |instance| instance.moved);
    for (name, help, read) in COUNTERS {
        let mut family = text.family(name, Kind::Counter, help);
        for instance in status.instances() {
            let vrid = instance.router.vrid.to_string();
            family.sample(&[("instance", &instance.name), ("vrid", &vrid)], read(&instance.counters));
        }
    }
    let mut family =
        text.family("evermq_vip_advertisements_discarded_total", Kind::Counter, "Advertisements discarded, by cause.");
    for instance in status.instances() {
        let vrid = instance.router.vrid.to_string();
        for (cause, read) in DISCARDED {
            family.sample(&[("instance", &instance.name), ("vrid", &vrid), ("cause", cause)], read(&instance.counters));
        }
    }
    if let Some(quorum) = status.quorum() {
        let help = "Whether this host reaches enough hosts to be let hold a VIP.";
        let reaches = u8::from(quorum.reachable() >= quorum.majority);
        text.family("evermq_vip_quorum", Kind::Gauge, help).sample(&[], reaches);
        text.family("evermq_vip_quorum_hosts_reachable", Kind::Gauge, "Hosts that vote and answer, this one included.")
            .sample(&[], quorum.reachable());
    }
    let tickles = status.tickles();
    text.family("evermq_vip_tickles_sent_total", Kind::Counter, "Segments sent to tell clients of a takeover.")
        .sample(&[], tickles.tickles_sent.get());
    text.family("evermq_vip_clients_told_total", Kind::Counter, "Clients of other hosts that were told of a takeover.")
        .sample(&[], tickles.clients_told.get());
    text.family("evermq_vip_events_dropped_total", Kind::Counter, "Events that were not logged.")
        .sample(&[], status.events_dropped());
    process::expose(&mut text, "evermq-vip");
    text.finish()
}

fn gauge(
    text: &mut Exposition,
    status: &Status,
    name: &'static str,
    help: &'static str,
    read: impl Fn(&InstanceStatus) -> f64,
) {
    let mut family = text.family(name, Kind::Gauge, help);
    for instance in status.instances() {
        let vrid = instance.router.vrid.to_string();
        family.sample(&[("instance", &instance.name), ("vrid", &vrid)], read(instance));
    }
}

const COUNTERS: [(&str, &str, Read); 10] = [
    ("evermq_vip_transitions_total", "Times that this host became master.", |c| c.master_transitions.get()),
    ("evermq_vip_advertisements_sent_total", "Advertisements sent.", |c| c.advertisement_sent.get()),
    ("evermq_vip_advertisements_received_total", "Advertisements that passed every check.", |c| {
        c.advertisement_rcvd.get()
    }),
    ("evermq_vip_priority_zero_sent_total", "Advertisements of priority 0 sent.", |c| c.priority_zero_pkts_sent.get()),
    ("evermq_vip_priority_zero_received_total", "Advertisements of priority 0 received.", |c| {
        c.priority_zero_pkts_rcvd.get()
    }),
    ("evermq_vip_interval_mismatches_total", "Advertisements of another interval than this host's.", |c| {
        c.interval_errors.get()
    }),
    ("evermq_vip_garp_sent_total", "Gratuitous ARPs and neighbour advertisements sent.", |c| c.garp_sent.get()),
    ("evermq_vip_send_errors_total", "Advertisements and announcements that the kernel would not send.", |c| {
        c.send_errors.get()
    }),
    ("evermq_vip_conflicts_total", "Claims of the VIP by another host.", |c| c.conflicts.get()),
    ("evermq_vip_address_restored_total", "Times that the VIP was removed by someone else and put back.", |c| {
        c.address_restored.get()
    }),
];

const DISCARDED: [(&str, Read); 10] = [
    ("checksum", |c| c.checksum_errors.get()),
    ("version", |c| c.version_errors.get()),
    ("vrid", |c| c.vrid_errors.get()),
    ("ttl", |c| c.ip_ttl_errors.get()),
    ("length", |c| c.packet_length_errors.get()),
    ("address_list", |c| c.address_list_errors.get()),
    ("type", |c| c.invalid_type_pkts_rcvd.get()),
    ("auth_type", |c| c.auth_type_mismatch.get()),
    ("auth_type_unknown", |c| c.invalid_auth_type.get()),
    ("auth", |c| c.auth_failures.get()),
];
