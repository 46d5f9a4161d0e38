//! A broker as a story wants it, and packets on the wire.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use evermq_broker::auth::Access;
use evermq_broker::broker::Broker;
use evermq_broker::cluster_topics::ClusterTopics;
use evermq_broker::counters::Counters;
use evermq_broker::journal::Journal;
use evermq_broker::retained::Bounds;
use evermq_broker::router::Router;
use evermq_broker::session::budget::Budget;
use evermq_broker::session::lasting::Lasting;
use evermq_broker::session::{Durability, Limits};
use evermq_mqtt::{Packet, ReasonCode, Version, codec};
use evermq_store::{Settings, Sync, WallTime, open};

use super::client::WINDOW;
use super::mesh::Mesh;

pub(super) const MAX_EXPIRY: Duration = Duration::from_secs(1000);
/// By whether the broker has little room.
pub(super) const BUDGET: [usize; 2] = [1 << 24, 4096];

pub(super) fn start(
    is_tight: bool,
    directory: Option<&Path>,
    mesh: &Arc<Mesh>,
    started: Instant,
    now: Instant,
) -> Arc<Broker> {
    let limits = Limits {
        forwarded: None,
        max_packet_size: 4096,
        max_inflight: u16::try_from(WINDOW).expect("small"),
        max_queued_messages: if is_tight { 6 } else { 100_000 },
        max_queued_bytes: if is_tight { 2000 } else { 1 << 24 },
        max_session_expiry: MAX_EXPIRY,
        max_keep_alive: Duration::ZERO,
        max_subscriptions: 100,
        max_topic_levels: 8,
        max_topic_alias: 0,
        denied: ReasonCode::NotAuthorized,
        max_retained_messages: if is_tight { 3 } else { 1000 },
        budget: Arc::new(Budget::new(BUDGET[usize::from(is_tight)])),
        lasting: Arc::new(Lasting::new(1000)),
        durability: Durability::default(),
    };
    let counters = Arc::new(Counters::default());
    let wall = |at: Instant| WallTime(1_700_000_000_000 + at.duration_since(started).as_millis() as u64);
    let opened = directory.map(|directory| {
        let path = directory.to_owned();
        let settings = Settings { path, sync: Sync::Never, segment_size: 1 << 16, max_size: 1 << 24 };
        open(&settings, wall(now)).expect("the store opens")
    });
    let (journal, recovered) = match opened {
        Some((store, recovered)) => (Some(Journal::new(store, now, wall(now))), Some(recovered)),
        None => (None, None),
    };
    let bounds = Bounds { messages: 100, bytes: 1 << 20 };
    let router = Arc::new(Router::new(bounds, Arc::clone(&counters), journal.clone()));
    let backbone = Arc::<Mesh>::clone(mesh);
    let broker = Broker::new(limits, router, counters, backbone, ClusterTopics::new(&[]), Access::open(), journal);
    if let Some(recovered) = recovered {
        assert!(recovered.report.damage.is_empty());
        broker.recover(recovered, now);
    }
    broker
}

/// A packet as it comes out at the other end.
pub(super) fn sent(packet: &Packet, version: Version) -> Packet {
    let mut out = BytesMut::new();
    codec::encode(packet, version, &mut out).expect("what is sent can be written");
    let packet = codec::decode(&mut out, version, &codec::Limits::default()).expect("valid").expect("whole");
    assert_eq!(codec::check_sender(&packet, codec::Sender::Server), Ok(()));
    packet
}

pub(super) fn received(packet: &Packet, version: Version) -> Packet {
    let mut out = BytesMut::new();
    codec::encode(packet, version, &mut out).expect("what is sent can be written");
    codec::decode(&mut out, version, &codec::Limits::default()).expect("valid").expect("whole")
}
