//! `$SYS`: what this broker says of itself in topics, as mosquitto 2.0 does, so that what was built for that works here.
//!
//! Each broker has its own: they go to no other broker and to no disk, and an absent client is not sent any when it comes back,
//! for they are of QoS 0. Who subscribes gets the present ones as retained messages, then each change. docs/broker.md says
//! what each topic means here.
//!
//! Pure but for [`Board`], which subscribers share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use evermq_bridge::{Message, Stamp};
use evermq_mqtt::{Publish, QoS, Text, TopicFilter, TopicName};
use parking_lot::Mutex;

use crate::counters::Traffic;

/// What all topics begin with.
const ROOT: &str = "$SYS/broker/";
/// Over how many minutes loads are averaged.
const MINUTES: [u32; 3] = [1, 5, 15];
const MINUTE: f64 = 60.0;

/// The broker's figures at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Since the start.
    pub uptime: Duration,
    /// Sessions.
    pub sessions: usize,
    /// Those with a connection.
    pub connected: usize,
    /// Those that have ended because their client did not come back in time.
    pub expired: u64,
    /// What has gone through.
    pub traffic: Traffic,
    /// Messages that were dropped because a client did not take them.
    pub dropped: u64,
    /// Connections that came.
    pub sockets: u64,
    /// Those that sent a CONNECT.
    pub connections: u64,
    /// Subscriptions, shared ones included.
    pub subscriptions: usize,
    /// Shared ones.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages that are kept: retained, waiting, or sent and not acknowledged.
    pub stored: usize,
    /// Their payload bytes.
    pub stored_bytes: usize,
    /// Resident memory.
    pub memory: u64,
    /// The most that it has been.
    pub memory_maximum: u64,
}

/// Makes topics of figures.
#[derive(Debug, Default)]
pub struct Sys {
    /// When the figures were looked at last, and what they were.
    last: Option<(Instant, Figures)>,
    loads: [[f64; MINUTES.len()]; LOADS.len()],
    most_sessions: usize,
    said: BTreeMap<String, String>,
}

/// What a load is made of.
type Count = fn(&Figures) -> u64;

/// Counts in a minute, averaged.
const LOADS: [(&str, Count); 9] = [
    ("messages/received", |figures| figures.traffic.packets_in),
    ("messages/sent", |figures| figures.traffic.packets_out),
    ("publish/received", |figures| figures.traffic.publishes_in.iter().sum()),
    ("publish/sent", |figures| figures.traffic.publishes_out.iter().sum()),
    ("publish/dropped", |figures| figures.dropped),
    ("bytes/received", |figures| figures.traffic.bytes_in),
    ("bytes/sent", |figures| figures.traffic.bytes_out),
    ("sockets", |figures| figures.sockets),
    ("connections", |figures| figures.connections),
];

impl Sys {
    /// Takes the figures of now; gives the topics whose values have changed, all of them at first.
    pub fn handle_figures(&mut self, figures: Figures, now: Instant) -> Vec<(String, String)> {
        self.most_sessions = self.most_sessions.max(figures.sessions);
        self.average(&figures, now);
        self.last = Some((now, figures));
        let mut changed = Vec::new();
        for (name, value) in self.topics(&figures) {
            let topic = format!("{ROOT}{name}");
            if self.said.get(&topic) != Some(&value) {
                self.said.insert(topic.clone(), value.clone());
                changed.push((topic, value));
            }
        }
        changed
    }

    /// Each average moves towards the present rate, by the part of its time that has passed since the last look.
    fn average(&mut self, figures: &Figures, now: Instant) {
        let Some((at, before)) = &self.last else { return };
        let passed = now.saturating_duration_since(*at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        for ((_, count), averages) in LOADS.iter().zip(&mut self.loads) {
            #[expect(clippy::cast_precision_loss, reason = "counts of one interval are far below 2^52")]
            let rate = count(figures).saturating_sub(count(before)) as f64 * MINUTE / passed;
            for (average, minutes) in averages.iter_mut().zip(MINUTES) {
                let kept = (-passed / (MINUTE * f64::from(minutes))).exp();
                *average = rate + (*average - rate) * kept;
            }
        }
    }

    fn topics(&self, figures: &Figures) -> Vec<(String, String)> {
        let Figures { sessions, connected, traffic, stored, .. } = figures;
        let absent = sessions.saturating_sub(*connected);
        let [publishes_in, publishes_out] = [traffic.publishes_in, traffic.publishes_out].map(|all| all.iter().sum());
        let counts: [(&str, u64); 24] = [
            ("clients/total", *sessions as u64),
            ("clients/connected", *connected as u64),
            ("clients/active", *connected as u64),
            ("clients/disconnected", absent as u64),
            ("clients/inactive", absent as u64),
            ("clients/maximum", self.most_sessions as u64),
            ("clients/expired", figures.expired),
            ("messages/received", traffic.packets_in),
            ("messages/sent", traffic.packets_out),
            ("messages/stored", *stored as u64),
            ("store/messages/count", *stored as u64),
            ("store/messages/bytes", figures.stored_bytes as u64),
            ("publish/messages/received", publishes_in),
            ("publish/messages/sent", publishes_out),
            ("publish/messages/dropped", figures.dropped),
            ("publish/bytes/received", traffic.payload_in),
            ("publish/bytes/sent", traffic.payload_out),
            ("bytes/received", traffic.bytes_in),
            ("bytes/sent", traffic.bytes_out),
            ("subscriptions/count", figures.subscriptions as u64),
            ("shared_subscriptions/count", figures.shared_subscriptions as u64),
            // With a space: so it is called there.
            ("retained messages/count", figures.retained as u64),
            ("heap/current", figures.memory),
            ("heap/maximum", figures.memory_maximum),
        ];
        let mut topics: Vec<_> = counts.iter().map(|(name, count)| ((*name).to_owned(), count.to_string())).collect();
        topics.push(("version".to_owned(), format!("evermq version {}", evermq_daemon::command::VERSION)));
        topics.push(("uptime".to_owned(), format!("{} seconds", figures.uptime.as_secs())));
        for ((name, _), averages) in LOADS.iter().zip(&self.loads) {
            for (average, minutes) in averages.iter().zip(MINUTES) {
                topics.push((format!("load/{name}/{minutes}min"), format!("{average:.2}")));
            }
        }
        topics
    }
}

/// The present values, for those who subscribe.
#[derive(Debug, Default)]
pub struct Board(Mutex<BTreeMap<String, Arc<Message>>>);

impl Board {
    /// Keeps the message as the last one of its topic.
    pub fn keep(&self, message: &Arc<Message>) {
        self.0.lock().insert(message.publish.topic.as_str().to_owned(), Arc::clone(message));
    }

    /// Those that a filter matches.
    #[must_use]
    pub fn matching(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        // §4.7.2: no wildcard at the first level matches.
        if filter.levels().next() != Some("$SYS") {
            return Vec::new();
        }
        let topics = self.0.lock();
        topics.values().filter(|message| filter.matches(&message.publish.topic)).cloned().collect()
    }
}

/// The message of a topic.
#[must_use]
pub fn message(topic: &str, value: String, now: Instant) -> Arc<Message> {
    let topic = Text::new(topic).ok().and_then(|topic| TopicName::new(topic).ok());
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic: topic.expect("the broker's own topics are topic names"),
        packet_id: None,
        properties: None,
        payload: Bytes::from(value),
    };
    // The stamp orders what brokers exchange; this goes to no other broker.
    Arc::new(Message { publish, stamp: Stamp { time: 0, origin: Arc::from("") }, received: now, publisher: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::clock;

    fn at(sys: &mut Sys, figures: Figures, now: Instant) -> BTreeMap<String, String> {
        sys.handle_figures(figures, now).into_iter().collect()
    }

    #[test]
    fn everything_is_said_once_then_only_what_has_changed() {
        let (mut sys, start) = (Sys::default(), clock());
        let first = at(&mut sys, Figures::default(), start);
        assert_eq!((first.len(), first["$SYS/broker/uptime"].as_str()), (53, "0 seconds"));
        assert!(at(&mut sys, Figures::default(), start + Duration::from_secs(10)).is_empty());
        let later = Figures { uptime: Duration::from_secs(20), sessions: 3, connected: 1, ..Figures::default() };
        let said = at(&mut sys, later, start + Duration::from_secs(20));
        let expected = [
            ("clients/active", "1"),
            ("clients/connected", "1"),
            ("clients/disconnected", "2"),
            ("clients/inactive", "2"),
            ("clients/maximum", "3"),
            ("clients/total", "3"),
            ("uptime", "20 seconds"),
        ];
        let expected = expected.map(|(name, value)| (format!("{ROOT}{name}"), value.to_owned()));
        assert_eq!(said, BTreeMap::from(expected));
    }

    #[test]
    fn loads_are_averages_of_what_a_minute_brings() {
        let (mut sys, start) = (Sys::default(), clock());
        at(&mut sys, Figures::default(), start);
        // 600 in ten seconds are 3600 in a minute; of which the average has e^(-1/6) still to go.
        let busy = Figures { sockets: 600, ..Figures::default() };
        let said = at(&mut sys, busy, start + Duration::from_secs(10));
        let load = |minutes: u32| said[&format!("{ROOT}load/sockets/{minutes}min")].as_str();
        assert_eq!((load(1), load(5), load(15)), ("552.67", "118.02", "39.78"));
        // Nothing for an hour: all of it is forgotten.
        let said = at(&mut sys, busy, start + Duration::from_secs(3610));
        assert_eq!(said[&format!("{ROOT}load/sockets/1min")], "0.00");
    }

    #[test]
    fn a_subscriber_finds_what_its_filter_matches() {
        let board = Board::default();
        for topic in ["$SYS/broker/uptime", "$SYS/broker/clients/total"] {
            board.keep(&message(topic, "1".to_owned(), clock()));
        }
        let found = |filter: &str| board.matching(&TopicFilter::new(Text::new(filter).unwrap()).unwrap()).len();
        let counts = ["$SYS/#", "$SYS/broker/+", "$SYS/broker/uptime", "#", "+/broker/uptime", "a"].map(found);
        assert_eq!(counts, [2, 1, 1, 0, 0, 0]);
    }
}
