//! The figures for Prometheus, `evermq_broker_*`, and for `$SYS`. docs/broker.md explains each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use evermq_daemon::metrics::{Counts, Exposition, Family, Kind as Is};
use evermq_daemon::process;
use evermq_store::{COMMIT_BOUNDS, Status, Store};
use serde_json::Value;

use crate::bridges::table::Table;
use crate::broker::{Broker, Census};
use crate::counters::{ByReason, Counters};
use crate::places::Places;
use crate::sys::Figures;

/// What control socket and metrics share.
pub struct Desk {
    /// The broker.
    pub broker: Arc<Broker>,
    /// This host's name, as answers begin.
    pub host: String,
    /// When the broker started.
    pub started: Instant,
    /// Bounds of connections.
    pub places: Arc<Places>,
    /// Bridges to brokers that are not of the cluster.
    pub bridges: Arc<Table>,
}

impl Desk {
    /// What `$SYS` is made of.
    #[must_use]
    pub fn figures(&self, now: Instant) -> Figures {
        let Census { sessions, connected, queued, inflight, queued_bytes } = self.broker.census();
        let (router, counters) = (&self.broker.router, &self.broker.counters);
        let (memory, memory_maximum) = memory();
        Figures {
            uptime: now.saturating_duration_since(self.started),
            sessions,
            connected,
            expired: read(&counters.expired),
            traffic: counters.traffic(),
            dropped: read(&counters.dropped),
            sockets: read(&counters.sockets),
            connections: read(&counters.accepted),
            subscriptions: router.subscriptions(),
            shared_subscriptions: router.shared().1,
            retained: router.retained(),
            stored: router.retained() + queued + inflight,
            stored_bytes: router.retained_bytes() + queued_bytes,
            memory,
            memory_maximum,
        }
    }
}

/// The figures as they are.
#[must_use]
pub fn text(desk: &Desk, now: Instant) -> String {
    let mut text = Exposition::new();
    let broker = &*desk.broker;
    gauges(&mut text, desk, now);
    traffic(&mut text, &broker.counters);
    refusals(&mut text, &broker.counters);
    times(&mut text, &broker.counters);
    if let Some(journal) = &broker.journal {
        store(&mut text, journal.store());
    }
    mesh(&mut text, &broker.backbone.state());
    crate::bridges::metrics::write(&mut text, &desk.bridges.show(broker, now));
    process::expose(&mut text, "evermq-broker");
    text.finish()
}

fn gauges(text: &mut Exposition, desk: &Desk, now: Instant) {
    let broker = &*desk.broker;
    let census = broker.census();
    let uptime = now.saturating_duration_since(desk.started).as_secs_f64();
    text.family("evermq_broker_uptime_seconds", Is::Gauge, "Since the start.").sample(&[], uptime);
    text.family("evermq_broker_connections", Is::Gauge, "Connections now, also those that have not sent CONNECT yet.")
        .sample(&[], broker.connections());
    text.family("evermq_broker_connections_limit", Is::Gauge, "Most connections at once.")
        .sample(&[], desk.places.most());
    text.family("evermq_broker_clients", Is::Gauge, "Clients that are connected.")
        .sample(&[], broker.counters.clients.load(Ordering::Relaxed));
    text.family("evermq_broker_sessions", Is::Gauge, "Sessions, by whether their client is connected.")
        .sample(&[("connected", "true")], census.connected)
        .sample(&[("connected", "false")], census.sessions.saturating_sub(census.connected));
    text.family("evermq_broker_subscriptions", Is::Gauge, "Subscriptions, shared ones included.")
        .sample(&[], broker.router.subscriptions());
    let (groups, members) = broker.router.shared();
    text.family("evermq_broker_shared_subscriptions", Is::Gauge, "Shared subscriptions.").sample(&[], members);
    text.family("evermq_broker_shared_groups", Is::Gauge, "Their groups.").sample(&[], groups);
    text.family("evermq_broker_retained_messages", Is::Gauge, "Retained messages.")
        .sample(&[], broker.router.retained());
    text.family("evermq_broker_retained_bytes", Is::Gauge, "Bytes of the retained messages.")
        .sample(&[], broker.router.retained_bytes());
    text.family("evermq_broker_queued_messages", Is::Gauge, "Messages that wait in sessions, in each of them counted.")
        .sample(&[], census.queued);
    text.family("evermq_broker_queued_bytes", Is::Gauge, "Their bytes.").sample(&[], census.queued_bytes);
    let help = "Messages that were sent to clients and are not acknowledged.";
    text.family("evermq_broker_inflight_messages", Is::Gauge, help).sample(&[], census.inflight);
}

fn traffic(text: &mut Exposition, counters: &Counters) {
    let traffic = counters.traffic();
    let directions = |family: &mut Family<'_>, from: u64, to: u64| {
        family.sample(&[("direction", "in")], from).sample(&[("direction", "out")], to);
    };
    let mut family = text.family(
        "evermq_broker_messages_total",
        Is::Counter,
        "PUBLISH packets from clients (in) and to them (out), by QoS.",
    );
    for (qos, (from, to)) in ["0", "1", "2"].into_iter().zip(traffic.publishes_in.iter().zip(traffic.publishes_out)) {
        family.sample(&[("direction", "in"), ("qos", qos)], from);
        family.sample(&[("direction", "out"), ("qos", qos)], to);
    }
    let help = "Payload bytes of PUBLISH packets from clients (in) and to them (out).";
    directions(
        &mut text.family("evermq_broker_payload_bytes_total", Is::Counter, help),
        traffic.payload_in,
        traffic.payload_out,
    );
    let help = "Packets of all kinds from clients (in) and to them (out).";
    directions(
        &mut text.family("evermq_broker_packets_total", Is::Counter, help),
        traffic.packets_in,
        traffic.packets_out,
    );
    let help = "Bytes from clients (in) and to them (out), without TLS.";
    directions(&mut text.family("evermq_broker_bytes_total", Is::Counter, help), traffic.bytes_in, traffic.bytes_out);
    text.family("evermq_broker_peer_messages_total", Is::Counter, "Messages that other brokers sent.")
        .sample(&[], read(&counters.from_peers));
    text.family("evermq_broker_dropped_total", Is::Counter, "Messages that were not delivered or kept, by cause.")
        .sample(&[("cause", "queue_full")], read(&counters.dropped).saturating_sub(read(&counters.exhausted)))
        .sample(&[("cause", "queues_full")], read(&counters.exhausted))
        .sample(&[("cause", "retained_full")], read(&counters.retained_refused))
        .sample(&[("cause", "rules_changed")], read(&counters.withdrawn))
        .sample(&[("cause", "without_member")], read(&counters.without_member));
}

fn refusals(text: &mut Exposition, counters: &Counters) {
    let by_reason = |family: &mut Family<'_>, reasons: &ByReason| {
        for (reason, count) in reasons.iter() {
            family.sample(&[("reason", reason.name())], count);
        }
    };
    text.family("evermq_broker_sockets_total", Is::Counter, "Connections that came.")
        .sample(&[], read(&counters.sockets));
    let mut family =
        text.family("evermq_broker_connects_total", Is::Counter, "Clients that got in, by version of MQTT.");
    for (version, count) in ["3.1", "3.1.1", "5.0"].iter().zip(&counters.accepted_versions) {
        family.sample(&[("version", version)], read(count));
    }
    let mut family =
        text.family("evermq_broker_listener_connects_total", Is::Counter, "Clients that got in, by listener.");
    for (listener, count) in counters.listeners() {
        family.sample(&[("listener", &listener)], count);
    }
    let help = "CONNECT packets that were refused, by reason.";
    by_reason(&mut text.family("evermq_broker_connects_refused_total", Is::Counter, help), &counters.connect_refusals);
    let help =
        "Connections that ended without a CONNECT that could be answered: TLS, time, what is no CONNECT, too many.";
    text.family("evermq_broker_strangers_total", Is::Counter, help).sample(&[], read(&counters.strangers));
    text.family("evermq_broker_tls_failures_total", Is::Counter, "Those of them whose TLS failed.")
        .sample(&[], read(&counters.tls_failures));
    let help = "Those of them that were refused for a PROXY protocol header, or the lack of one.";
    text.family("evermq_broker_proxy_refused_total", Is::Counter, help).sample(&[], read(&counters.proxy_refused));
    text.family("evermq_broker_turned_away_total", Is::Counter, "Connections beyond a limit, by the limit.")
        .sample(&[("limit", "connections")], read(&counters.refused_connections))
        .sample(&[("limit", "listener")], read(&counters.refused_listener))
        .sample(&[("limit", "address")], read(&counters.refused_address))
        .sample(&[("limit", "user")], read(&counters.refused_user));
    let help = "Silent connections that made room for others while too many were not in yet.";
    text.family("evermq_broker_evicted_total", Is::Counter, help).sample(&[], read(&counters.evicted));
    text.family("evermq_broker_accept_failures_total", Is::Counter, "Times that no connection could be accepted.")
        .sample(&[], read(&counters.accept_failures));
    let help = "Times that a client was not read from for a while because it published too fast.";
    text.family("evermq_broker_slowed_total", Is::Counter, help).sample(&[], read(&counters.slowed));
    text.family("evermq_broker_proxied_total", Is::Counter, "Connections behind a load balancer's header.")
        .sample(&[], read(&counters.proxied));
    let help = "Messages of clients that were not accepted, by reason.";
    by_reason(&mut text.family("evermq_broker_refused_total", Is::Counter, help), &counters.refusals);
    let help = "Clients' connections that ended with a DISCONNECT of either side, or as if with one, by its reason.";
    by_reason(&mut text.family("evermq_broker_disconnects_total", Is::Counter, help), &counters.ended);
    text.family("evermq_broker_lost_total", Is::Counter, "Clients' connections that ended without.")
        .sample(&[], read(&counters.lost));
    let help = "Sessions that ended because their client did not come back in time.";
    text.family("evermq_broker_sessions_expired_total", Is::Counter, help).sample(&[], read(&counters.expired));
    text.family("evermq_broker_sent_away_total", Is::Counter, "Clients sent to another broker at an lb's word.")
        .sample(&[], read(&counters.sent_away));
}

fn times(text: &mut Exposition, counters: &Counters) {
    let mut family = text.family(
        "evermq_broker_tls_handshake_seconds",
        Is::Histogram,
        "From accepting a connection to the end of its TLS handshake.",
    );
    histogram(&mut family, &counters.handshakes.counts());
    let help = "From a PUBLISH to a subscriber's socket: for each batch that a subscriber is sent, its first message.";
    histogram(&mut text.family("evermq_broker_delivery_seconds", Is::Histogram, help), &counters.latency());
}

fn store(text: &mut Exposition, store: &Store) {
    let (figures, now) = (store.figures(), store.status());
    let mut family = text.family("evermq_broker_store_status", Is::Gauge, "How the store is: 1 for its state.");
    let states = [("ready", Status::Ready), ("slow", Status::Slow), ("full", Status::Full), ("failed", Status::Failed)];
    for (name, status) in states {
        family.sample(&[("status", name)], u8::from(status == now));
    }
    for (name, kind, help, read) in OF_STORE {
        text.family(name, kind, help).sample(&[], read(&figures));
    }
    let bounds = COMMIT_BOUNDS.iter().map(|bound| Duration::from_micros(*bound).as_secs_f64());
    let buckets = bounds.zip(figures.commit_times).scan(0, |seen, (bound, count)| {
        *seen += count;
        Some((bound, *seen))
    });
    let sum = Duration::from_micros(figures.commit_micros).as_secs_f64();
    text.family("evermq_broker_store_commit_seconds", Is::Histogram, "Writing a batch and having the disk keep it.")
        .histogram(&[], buckets, figures.commit_times.iter().sum(), sum);
}

/// Name, kind, help, and how it is read.
type OfStore = (&'static str, Is, &'static str, fn(&evermq_store::Figures) -> u64);

const OF_STORE: [OfStore; 15] = [
    ("evermq_broker_store_segments", Is::Gauge, "Files of the log.", |figures| figures.segments),
    ("evermq_broker_store_bytes", Is::Gauge, "Bytes of the log's files.", |figures| figures.bytes),
    (
        "evermq_broker_store_live_messages",
        Is::Gauge,
        "Messages that a session waits for or a topic retains.",
        |figures| figures.live_messages,
    ),
    ("evermq_broker_store_live_message_bytes", Is::Gauge, "Their bytes.", |figures| figures.live_message_bytes),
    ("evermq_broker_store_waiting_bytes", Is::Gauge, "Bytes that wait to be written.", |figures| figures.waiting_bytes),
    ("evermq_broker_store_waiting_clients", Is::Gauge, "Connections that wait for a commit.", |figures| {
        figures.waiters
    }),
    ("evermq_broker_store_largest_commit_bytes", Is::Gauge, "The largest batch since the start.", |figures| {
        figures.largest_commit
    }),
    ("evermq_broker_store_damaged_bytes", Is::Gauge, "Bytes found damaged when the store was opened.", |figures| {
        figures.damaged_bytes
    }),
    ("evermq_broker_store_records_total", Is::Counter, "Records appended.", |figures| figures.records),
    ("evermq_broker_store_appended_bytes_total", Is::Counter, "Their bytes.", |figures| figures.appended_bytes),
    ("evermq_broker_store_commits_total", Is::Counter, "Batches written.", |figures| figures.commits),
    (
        "evermq_broker_store_syncs_total",
        Is::Counter,
        "Times that the disk was asked to keep what was written.",
        |figures| figures.syncs,
    ),
    ("evermq_broker_store_checkpoints_total", Is::Counter, "Checkpoints done.", |figures| figures.checkpoints),
    ("evermq_broker_store_deleted_segments_total", Is::Counter, "Files of the log deleted.", |figures| {
        figures.deleted_segments
    }),
    ("evermq_broker_store_full_total", Is::Counter, "Times that there was no room.", |figures| figures.full),
];

/// The log for the other brokers and the links to them, as the bridge shows them.
fn mesh(text: &mut Exposition, bridge: &Value) {
    for (family, help, key) in [
        ("evermq_broker_log_messages", "Messages that some other broker has not acknowledged.", "log_messages"),
        ("evermq_broker_log_bytes", "Their bytes in memory.", "log_bytes"),
        ("evermq_broker_log_oldest_seconds", "Age of the oldest of them.", "log_oldest_seconds"),
    ] {
        text.family(family, Is::Gauge, help).sample(&[], number(&bridge[key]));
    }
    text.family("evermq_broker_peer_changes_total", Is::Counter, "Brokers that joined or left by a reload.")
        .sample(&[("change", "joined")], number(&bridge["peers_joined"]))
        .sample(&[("change", "left")], number(&bridge["peers_left"]));
    let help = "Messages that brokers had not acknowledged when they left.";
    text.family("evermq_broker_peer_abandoned_total", Is::Counter, help).sample(&[], number(&bridge["abandoned"]));
    let help = "Messages of shared subscriptions that went to another broker because no member was left here.";
    text.family("evermq_broker_handed_over_total", Is::Counter, help).sample(&[], number(&bridge["handed_over"]));
    peers(text, bridge);
}

fn peers(text: &mut Exposition, bridge: &Value) {
    let peers = bridge["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut family =
        text.family("evermq_broker_peer_connected", Is::Gauge, "Whether the other broker is sent messages now.");
    for peer in peers {
        family.sample(&[("peer", name_of(peer))], u8::from(peer["connected"] == true));
    }
    let help = "Messages that the other broker has not acknowledged yet.";
    let mut family = text.family("evermq_broker_peer_lag", Is::Gauge, help);
    for peer in peers {
        family.sample(&[("peer", name_of(peer))], peer["lag"].as_u64().unwrap_or(0));
    }
    of_each(text, "peer", peers, &PEER_FAMILIES);
}

/// A family of one figure of each peer or bridge: name, type, help, and the figure's name in its state.
pub(crate) type OfEach = (&'static str, Is, &'static str, &'static str);

/// Appends such families.
pub(crate) fn of_each(text: &mut Exposition, label: &str, states: &[Value], families: &[OfEach]) {
    for (family, is, help, key) in families {
        let mut family = text.family(family, *is, help);
        for state in states {
            family.sample(&[(label, name_of(state))], number(&state[*key]));
        }
    }
}

/// Whose state it is.
pub(crate) fn name_of(state: &Value) -> &str {
    state["name"].as_str().unwrap_or_default()
}

const PEER_FAMILIES: [OfEach; 18] = [
    (
        "evermq_broker_peer_lag_bytes",
        Is::Gauge,
        "Bytes of these messages, without those that are lost for it.",
        "lag_bytes",
    ),
    ("evermq_broker_peer_lag_seconds", Is::Gauge, "Age of the oldest of these messages.", "lag_seconds"),
    ("evermq_broker_peer_losing", Is::Gauge, "Whether the other broker misses messages now.", "is_losing"),
    ("evermq_broker_peer_receiving", Is::Gauge, "Whether the other broker's messages come here now.", "receiving"),
    (
        "evermq_broker_peer_apart_seconds",
        Is::Gauge,
        "How long messages have not gone both ways; 0 while they do.",
        "apart_seconds",
    ),
    (
        "evermq_broker_peer_filled",
        Is::Gauge,
        "Whether all has come that the other broker had when it connected.",
        "filled",
    ),
    ("evermq_broker_peer_sent_total", Is::Counter, "Messages sent to it, those sent again included.", "sent"),
    (
        "evermq_broker_peer_sent_bytes_total",
        Is::Counter,
        "Bytes sent to it over the links in both directions, before TLS.",
        "bytes_sent",
    ),
    ("evermq_broker_peer_received_bytes_total", Is::Counter, "Bytes that came from it, likewise.", "bytes_received"),
    ("evermq_broker_peer_malformed_total", Is::Counter, "Messages of its that could not be understood.", "malformed"),
    (
        "evermq_broker_peer_taken_over_total",
        Is::Counter,
        "Clients whose connection or session ended here because they connected to it.",
        "taken_over",
    ),
    (
        "evermq_broker_peer_shared_members",
        Is::Gauge,
        "Members of shared subscriptions that are connected to it.",
        "shared_members",
    ),
    ("evermq_broker_peer_resent_total", Is::Counter, "Messages sent to it again after a reconnect.", "resent"),
    ("evermq_broker_peer_lost_total", Is::Counter, "Messages that it will never get.", "lost"),
    ("evermq_broker_peer_gaps_total", Is::Counter, "Times that such messages were missing.", "gaps"),
    ("evermq_broker_peer_received_total", Is::Counter, "Messages that came from it.", "received"),
    (
        "evermq_broker_peer_duplicates_total",
        Is::Counter,
        "Messages that came from it again, and were dropped.",
        "duplicates",
    ),
    ("evermq_broker_peer_missed_total", Is::Counter, "Messages of its that this broker will never get.", "missed"),
];

/// A truth is 1.
pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| f64::from(u8::from(value == true)))
}

fn histogram(family: &mut Family<'_>, counts: &Counts) {
    let buckets = counts.cumulative().map(|(bound, at_most)| (bound.as_secs_f64(), at_most));
    family.histogram(&[], buckets, counts.total(), counts.sum().as_secs_f64());
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Resident memory of this process in bytes, now and at most; zero where the system does not say.
fn memory() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = line.and_then(|line| line.trim_end_matches("kB").trim().parse::<u64>().ok());
        kilobytes.unwrap_or(0).saturating_mul(1024)
    };
    (bytes("VmRSS:"), bytes("VmHWM:"))
}

#[cfg(test)]
mod tests {
    use super::memory;

    #[test]
    fn the_system_says_how_much_memory_this_takes() {
        let (now, most) = memory();
        assert!(now > 0 && now <= most, "{now} {most}");
    }
}
