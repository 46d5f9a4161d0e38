//! Clients and sessions.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Cursor, Looked, MOST, limit, pattern, walk};
use crate::broker::Broker;
use crate::connection::clock;
use crate::mailbox::Mailbox;
use crate::presence::Presence;
use crate::session::view::View;

/// The longest time over which rates are measured.
const LONGEST: Duration = Duration::from_secs(60);

/// Which clients are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    client: Option<String>,
    user: Option<String>,
    listener: Option<String>,
    /// Sessions without a connection too.
    absent: bool,
}

/// What comes first among many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Rate,
    Bytes,
    Messages,
    Queued,
    Inflight,
    Age,
    Idle,
}

/// The first ones of all clients, or of all sessions, by some order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    wanted: Wanted,
    sort: Sort,
    limit: usize,
    over: Duration,
}

/// A session at one moment.
struct Seen {
    view: View,
    user: Option<Arc<str>>,
    presence: Option<Arc<Presence>>,
}

impl Wanted {
    /// Reads a request; `absent` for sessions without a connection too.
    #[must_use]
    pub fn read(request: &Value, absent: bool) -> Self {
        let text = |key: &str| request[key].as_str().map(str::to_owned);
        Self { client: text("client"), user: text("user"), listener: text("listener"), absent }
    }

    /// What there is of it, if it is meant.
    fn look(&self, mailbox: &Mailbox) -> Option<Seen> {
        if self.client.as_deref().is_some_and(|wanted| !pattern::matches(wanted, mailbox.client_id().as_str())) {
            return None;
        }
        let slot = mailbox.lock();
        let view = slot.session.view().filter(|view| self.absent || view.connected.is_some())?;
        let (presence, user) = (slot.presence.clone(), slot.session.user().cloned());
        drop(slot);
        let facts = presence.as_ref().map(|presence| &presence.facts);
        let name = user.as_deref().unwrap_or_default();
        let is_user = self.user.as_deref().is_none_or(|wanted| pattern::matches(wanted, name));
        let listener = facts.map(|facts| &*facts.listener);
        let is_listener = self.listener.as_deref().is_none_or(|wanted| listener == Some(wanted));
        (is_user && is_listener).then_some(Seen { view, user, presence })
    }
}

/// A page of clients, or of sessions.
///
/// # Errors
/// The request is none.
pub fn page(broker: &Broker, request: &Value, wanted: &Wanted, now: Instant) -> Result<(Vec<Value>, Value), String> {
    let (from, limit) = (Cursor::read(&request["from"])?, limit(request));
    let mut rows = Vec::new();
    let next = walk(&broker.registry, from, |mailbox, _| {
        if rows.len() == limit {
            return Looked::Full(0);
        }
        if let Some(seen) = wanted.look(mailbox) {
            rows.push(if wanted.absent { session(mailbox, &seen, now) } else { client(mailbox, &seen, None, now) });
        }
        Looked::Done
    });
    Ok((rows, next.map(Cursor::to_json).unwrap_or_default()))
}

impl Top {
    /// Reads a request.
    ///
    /// # Errors
    /// It asks for something that there is not; in the words of the answer.
    pub fn read(request: &Value, wanted: Wanted) -> Result<Self, String> {
        let sort = match request["sort"].as_str() {
            Some("queued") => Sort::Queued,
            Some("inflight") => Sort::Inflight,
            other if wanted.absent => {
                return Err(format!("cannot sort sessions by \"{}\": queued or inflight", other.unwrap_or_default()));
            }
            Some("rate") => Sort::Rate,
            None | Some("bytes") => Sort::Bytes,
            Some("messages") => Sort::Messages,
            Some("age") => Sort::Age,
            Some("idle") => Sort::Idle,
            Some(other) => {
                return Err(format!(
                    "cannot sort by \"{other}\": rate, bytes, messages, queued, inflight, age or idle"
                ));
            }
        };
        let over = Duration::from_millis(request["over_ms"].as_u64().unwrap_or(0)).min(LONGEST);
        if sort == Sort::Rate && over.is_zero() {
            return Err("a rate is measured over some time: over_ms is missing".to_owned());
        }
        Ok(Self { wanted, sort, limit: limit(request).min(MOST), over })
    }

    /// The answer; other work goes on between two parts of the registry.
    pub async fn answer(self, broker: Arc<Broker>, host: String) -> Value {
        let before = if self.over.is_zero() { None } else { Some(self.bytes_of_all(&broker).await) };
        if before.is_some() {
            tokio::time::sleep(self.over).await;
        }
        let now = clock();
        // The smallest of the best on top, so that it is the one that goes.
        let mut best = BinaryHeap::new();
        let mut total = 0_usize;
        for index in 0.. {
            let Some(mailboxes) = broker.registry.shard_at(index) else { break };
            for mailbox in mailboxes {
                let Some(seen) = self.wanted.look(&mailbox) else { continue };
                total += 1;
                let rate = before.as_ref().map(|before| rate(&mailbox, &seen, before, self.over));
                best.push(Reverse((self.score(&seen, rate, now), Reverse(mailbox.key()), Best(mailbox, seen, rate))));
                if best.len() > self.limit {
                    best.pop();
                }
            }
            tokio::task::yield_now().await;
        }
        let mut best = best.into_vec();
        best.sort_unstable();
        let (name, row): (_, fn(&_, &_, _, _) -> _) = if self.wanted.absent {
            ("sessions", |mailbox, seen, _, now| session(mailbox, seen, now))
        } else {
            ("clients", client)
        };
        let rows = best.iter().map(|Reverse((_, _, Best(mailbox, seen, rate)))| row(mailbox, seen, *rate, now));
        json!({ "host": host, "total": total, name: rows.collect::<Vec<_>>() })
    }

    /// Bytes both ways, by the mailbox's key: sixteen bytes for each client, for as long as is measured.
    async fn bytes_of_all(&self, broker: &Broker) -> HashMap<u64, u64> {
        let mut all = HashMap::new();
        for index in 0.. {
            let Some(mailboxes) = broker.registry.shard_at(index) else { break };
            for mailbox in mailboxes {
                if let Some(Seen { presence: Some(presence), .. }) = self.wanted.look(&mailbox) {
                    all.insert(mailbox.key(), bytes(&presence));
                }
            }
            tokio::task::yield_now().await;
        }
        all
    }

    fn score(&self, seen: &Seen, rate: Option<u64>, now: Instant) -> u64 {
        let since = |then: Instant| micros(now.saturating_duration_since(then));
        let presence = seen.presence.as_deref();
        match self.sort {
            Sort::Rate => rate.unwrap_or(0),
            Sort::Bytes => presence.map_or(0, bytes),
            Sort::Messages => presence.map_or(0, |presence| presence.gone().messages_in + presence.gone().messages_out),
            Sort::Queued => seen.view.queued as u64,
            Sort::Inflight => seen.view.inflight as u64,
            Sort::Age => presence.map_or(0, |presence| since(presence.since)),
            Sort::Idle => seen.view.connected.map_or(0, |connected| since(connected.last_received)),
        }
    }
}

/// Not compared: its score and its key are.
struct Best(Arc<Mailbox>, Seen, Option<u64>);

impl PartialEq for Best {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Best {}

impl PartialOrd for Best {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Best {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

fn bytes(presence: &Presence) -> u64 {
    let gone = presence.gone();
    gone.bytes_in.wrapping_add(gone.bytes_out)
}

/// Bytes in a second; of a client that has come meanwhile, or come again, since then.
fn rate(mailbox: &Mailbox, seen: &Seen, before: &HashMap<u64, u64>, over: Duration) -> u64 {
    let now = seen.presence.as_deref().map_or(0, bytes);
    let earlier = before.get(&mailbox.key()).copied().filter(|earlier| *earlier <= now).unwrap_or(0);
    u64::try_from(u128::from(now - earlier) * 1_000_000 / over.as_micros().max(1)).unwrap_or(u64::MAX)
}

fn client(mailbox: &Mailbox, seen: &Seen, rate: Option<u64>, now: Instant) -> Value {
    let Seen { view, user, presence } = seen;
    let since = |then: Instant| millis(now.saturating_duration_since(then));
    let facts = presence.as_ref().map(|presence| &presence.facts);
    let gone = presence.as_ref().map(|presence| presence.gone()).unwrap_or_default();
    let mut row = json!({
        "client": mailbox.client_id().as_str(),
        "user": user.as_deref(),
        "address": facts.and_then(|facts| facts.address),
        "listener": facts.map(|facts| &*facts.listener),
        "tls": facts.and_then(|facts| facts.tls.as_deref()),
        "version": view.connected.map(|connected| connected.version.name()),
        "keep_alive_s": view.connected.map(|connected| connected.keep_alive.as_secs()),
        "connected_ms": presence.as_ref().map(|presence| since(presence.since)),
        "idle_ms": view.connected.map(|connected| since(connected.last_received)),
        "inflight": view.inflight,
        "queued": view.queued,
        "subscriptions": view.subscriptions,
        "bytes_in": gone.bytes_in,
        "bytes_out": gone.bytes_out,
        "messages_in": gone.messages_in,
        "messages_out": gone.messages_out,
    });
    if let Some(rate) = rate {
        row["rate"] = rate.into();
    }
    row
}

fn session(mailbox: &Mailbox, seen: &Seen, now: Instant) -> Value {
    let Seen { view, user, .. } = seen;
    let left = view.expires_at.map(|at| millis(at.saturating_duration_since(now)));
    json!({
        "client": mailbox.client_id().as_str(),
        "user": user.as_deref(),
        "connected": view.connected.is_some(),
        "expiry_s": view.expiry.as_secs(),
        "expires_in_ms": left,
        "queued": view.queued,
        "inflight": view.inflight,
        "received": view.received,
        "subscriptions": view.subscriptions,
        "will": view.has_will,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use evermq_mqtt::{Publish, Text, TopicName};

    use super::*;
    use crate::broker::tests::{broker, connect, lose, publish, subscribe};
    use crate::mailbox::Wakes;

    #[test]
    fn clients_are_found_by_pattern_and_page_by_page() {
        let (broker, _) = broker();
        let all: Vec<_> =
            (0..25).map(|number| broker.connect(connect(&format!("c{number}")), clock()).unwrap()).collect();
        let mut request = json!({ "limit": 10 });
        let mut found = Vec::new();
        loop {
            let (rows, next) = page(&broker, &request, &Wanted::default(), clock()).unwrap();
            assert!(rows.len() <= 10);
            found.extend(rows.iter().map(|row| row["client"].as_str().unwrap().to_owned()));
            if next.is_null() {
                break;
            }
            request["from"] = next;
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), all.len());
        let (rows, _) = page(&broker, &json!({}), &Wanted::read(&json!({ "client": "c1*" }), false), clock()).unwrap();
        assert_eq!(rows.len(), 11);
        let none = Wanted::read(&json!({ "user": "somebody" }), true);
        assert!(page(&broker, &json!({}), &none, clock()).unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn the_first_ones_of_many() {
        let (broker, _) = broker();
        for number in 0..20_u64 {
            let accepted = broker.connect(connect(&format!("c{number}")), clock()).unwrap();
            let presence = Presence::new(accepted.facts, clock());
            presence.add(&crate::counters::Traffic { bytes_in: number, ..Default::default() });
            accepted.mailbox.lock().presence = Some(presence);
        }
        let read = |request| Top::read(&request, Wanted::default());
        let top = read(json!({ "sort": "bytes", "limit": 3 })).unwrap();
        let answer = top.answer(Arc::clone(&broker), "broker1".to_owned()).await;
        let bytes: Vec<_> =
            answer["clients"].as_array().unwrap().iter().map(|row| row["bytes_in"].as_u64().unwrap()).collect();
        assert_eq!((bytes, &answer["total"]), (vec![19, 18, 17], &json!(20)));
        assert!(read(json!({ "sort": "size" })).is_err() && read(json!({ "sort": "rate" })).is_err());
    }

    #[tokio::test]
    async fn the_session_with_the_most_that_waits_comes_first_though_its_client_is_away() {
        let (broker, _) = broker();
        let now = clock();
        for (id, waiting) in [("little", 1), ("much", 3), ("nothing", 0)] {
            let mailbox = broker.connect(connect(id), now).unwrap().mailbox;
            (0..waiting).for_each(|number| subscribe(&broker, &mailbox, &format!("t/{number}"), now));
            lose(&broker, &mailbox, now);
        }
        let publisher = broker.connect(connect("publisher"), now).unwrap().mailbox;
        for number in 0..3 {
            let topic = TopicName::new(Text::new(&format!("t/{number}")).unwrap()).unwrap();
            let message = Publish { topic, ..publish("x", false) };
            broker.publish(&publisher, message, now, &mut Wakes::default());
        }
        let sessions = json!({ "sort": "queued", "limit": 2 });
        let top = Top::read(&sessions, Wanted::read(&sessions, true)).unwrap();
        let answer = top.answer(Arc::clone(&broker), "broker1".to_owned()).await;
        let found = answer["sessions"].as_array().unwrap();
        let found: Vec<_> =
            found.iter().map(|row| (row["client"].as_str().unwrap(), row["queued"].as_u64().unwrap())).collect();
        assert_eq!((found, &answer["total"]), (vec![("much", 3), ("little", 1)], &json!(4)));
        assert!(Top::read(&json!({ "sort": "age" }), Wanted::read(&json!({}), true)).is_err());
    }
}
