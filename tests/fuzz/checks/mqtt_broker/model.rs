//! What there should be: sessions, their subscriptions, and what they are owed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use evermq_mqtt::packet::RetainHandling;
use evermq_mqtt::{Publish, QoS, TopicFilter};

/// Topics below this are for shared subscriptions only, so that it is known how a message came.
const SHARED: &str = "s/";

pub(super) const CLIENTS: usize = 4;

#[derive(Default)]
pub(super) struct Model {
    /// Queues may be full, so messages may be missing.
    pub(super) is_tight: bool,
    pub(super) sessions: [Option<Held>; CLIENTS],
    /// Whose each message is.
    owners: BTreeMap<u64, usize>,
    /// Those that were published.
    routed: BTreeSet<u64>,
    retained: BTreeMap<String, (u64, QoS)>,
    /// Wills that are due.
    due: BTreeSet<u64>,
    wills: BTreeSet<u64>,
    /// Copies of messages that groups may get, and those of QoS 2 that were given.
    shared: BTreeMap<u64, (usize, usize)>,
    next: u64,
}

/// A session.
pub(super) struct Held {
    pub(super) is_connected: bool,
    pub(super) expiry: Duration,
    since: Instant,
    will: Option<(u64, Duration)>,
    subscriptions: BTreeMap<TopicFilter, Wanted>,
    /// Of QoS 1 and 2, in their order.
    owed: VecDeque<(u64, QoS)>,
    unacknowledged: BTreeSet<u64>,
    retained: Vec<(u64, QoS)>,
}

#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) handling: RetainHandling,
}

/// What a CONNECT brings.
pub(super) struct Asked {
    pub(super) clean: bool,
    pub(super) expiry: Duration,
    pub(super) will: Option<(u64, Duration)>,
}

impl Model {
    pub(super) fn new(is_tight: bool) -> Self {
        Self { is_tight, ..Self::default() }
    }

    /// A number for a message of that client.
    pub(super) fn number(&mut self, owner: usize) -> u64 {
        self.next += 1;
        self.owners.insert(self.next, owner);
        self.next
    }

    pub(super) fn will_number(&mut self, owner: usize) -> u64 {
        let number = self.number(owner);
        self.wills.insert(number);
        number
    }

    /// Whether a session is present.
    pub(super) fn connect(&mut self, who: usize, asked: Asked, now: Instant) -> bool {
        let goes_on = |held: &Held| !(asked.clean || held.is_connected && held.expiry.is_zero());
        if self.sessions[who].as_ref().is_some_and(|held| !goes_on(held)) {
            self.end(who);
        }
        let present = self.sessions[who].is_some();
        let held = self.sessions[who].get_or_insert_with(|| Held::new(now));
        if let Some((number, delay)) = held.will.take()
            && held.is_connected
            && delay.is_zero()
        {
            self.due.insert(number);
        }
        held.is_connected = true;
        held.expiry = asked.expiry;
        held.will = asked.will;
        present
    }

    /// The connection ends.
    pub(super) fn detach(&mut self, who: usize, with_will: bool, now: Instant) {
        let Some(held) = &mut self.sessions[who] else { return };
        if !with_will {
            held.will = None;
        }
        if held.expiry.is_zero() {
            return self.end(who);
        }
        if let Some((number, _)) = held.will.take_if(|(_, delay)| delay.is_zero()) {
            self.due.insert(number);
        }
        held.is_connected = false;
        held.since = now;
        held.unacknowledged.clear();
        held.retained.retain(|(_, qos)| *qos > QoS::AtMostOnce);
    }

    /// The broker was killed: what ends with its connection is gone, with its will.
    pub(super) fn restart(&mut self, now: Instant) {
        for who in 0..CLIENTS {
            match &self.sessions[who] {
                Some(held) if held.expiry.is_zero() => self.sessions[who] = None,
                Some(held) if held.is_connected => self.detach(who, true, now),
                _ => {}
            }
        }
    }

    pub(super) fn end(&mut self, who: usize) {
        self.due.extend(self.sessions[who].take().and_then(|held| held.will).map(|(number, _)| number));
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for who in 0..CLIENTS {
            let Some(held) = self.sessions[who].as_mut().filter(|held| !held.is_connected) else { continue };
            let expiry = held.expiry;
            if let Some((number, _)) = held.will.take_if(|(_, delay)| held.since + (*delay).min(expiry) <= now) {
                self.due.insert(number);
            }
            if held.since + expiry <= now {
                self.end(who);
            }
        }
    }

    pub(super) fn subscribe(&mut self, who: usize, filter: &TopicFilter, wanted: Wanted) {
        let Some(held) = &mut self.sessions[who] else { return };
        let is_new = held.subscriptions.insert(filter.clone(), wanted).is_none();
        let with_retained = match wanted.handling {
            _ if filter.share().is_some() => false,
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if with_retained {
            let found = self.retained.iter().filter(|(topic, _)| matches(filter, topic));
            held.retained.extend(found.map(|(_, (number, qos))| (*number, wanted.qos.min(*qos))));
        }
    }

    /// Whether there was such a subscription.
    pub(super) fn unsubscribe(&mut self, who: usize, filter: &TopicFilter) -> bool {
        self.sessions[who].as_mut().is_some_and(|held| held.subscriptions.remove(filter).is_some())
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.sessions.iter().flatten().map(|held| held.subscriptions.len()).sum()
    }

    /// A message was published.
    pub(super) fn route(&mut self, publish: &Publish) {
        let number = number(publish);
        let owner = *self.owners.get(&number).expect("a message of a client's");
        let is_first = self.routed.insert(number);
        assert!(is_first || publish.qos < QoS::ExactlyOnce, "a message of QoS 2 was taken twice");
        if self.wills.contains(&number) {
            assert!(is_first && self.due.remove(&number), "a will that is not due");
        }
        let topic = publish.topic.as_str();
        if publish.retain {
            self.retained.insert(topic.to_owned(), (number, publish.qos));
        }
        let mut groups = BTreeSet::new();
        for (who, held) in self.sessions.iter_mut().enumerate() {
            let Some(held) = held else { continue };
            let found = held.subscriptions.iter().filter(|(filter, _)| matches(filter, topic));
            groups
                .extend(found.clone().filter(|(filter, _)| filter.share().is_some()).map(|(filter, _)| filter.clone()));
            let own = found.filter(|(filter, _)| filter.share().is_none());
            let qos = own.filter(|(_, wanted)| !(wanted.no_local && who == owner)).map(|(_, wanted)| wanted.qos).max();
            match qos.map(|qos| qos.min(publish.qos)) {
                None => {}
                Some(QoS::AtMostOnce) if held.is_connected => drop(held.unacknowledged.insert(number)),
                Some(QoS::AtMostOnce) => {}
                Some(qos) => held.owed.push_back((number, qos)),
            }
        }
        self.shared.entry(number).or_default().0 += groups.len();
    }

    pub(super) fn was_routed(&self, number: u64) -> bool {
        self.routed.contains(&number)
    }

    /// A client gets a message, of QoS 1 and 2 for the first time as far as it knows.
    pub(super) fn give(&mut self, who: usize, publish: &Publish) {
        let number = number(publish);
        let held = self.sessions[who].as_mut().expect("a session");
        if publish.topic.as_str().starts_with(SHARED) {
            let (copies, given) = self.shared.get_mut(&number).expect("a message that was published");
            *given += usize::from(publish.qos == QoS::ExactlyOnce && !publish.retain);
            assert!(*copies > 0 && given <= copies, "more members of a group have it than may");
            return;
        }
        if publish.retain {
            let at = held.retained.iter().position(|owed| *owed == (number, publish.qos));
            held.retained.swap_remove(at.expect("a retained message that was asked for"));
        } else if publish.qos == QoS::AtMostOnce {
            assert!(
                held.unacknowledged.remove(&number),
                "a message that was not for this client, or was there already"
            );
        } else {
            let at = held.owed.iter().position(|owed| *owed == (number, publish.qos));
            let at = at.expect("a message that was not for this client, or was there already, or at another QoS");
            assert!(at == 0 || self.is_tight, "messages are missing, or in another order");
            held.owed.drain(..=at);
        }
    }

    /// What that client has not got.
    pub(super) fn owed(&self, who: usize) -> Vec<(u64, QoS)> {
        let held = self.sessions[who].as_ref().filter(|_| !self.is_tight);
        held.map(|held| held.owed.iter().chain(&held.retained).copied().collect()).unwrap_or_default()
    }

    pub(super) fn check(&self) {
        assert!(self.due.is_empty(), "a will that is due was not published");
    }
}

impl Held {
    fn new(now: Instant) -> Self {
        Self {
            is_connected: false,
            expiry: Duration::ZERO,
            since: now,
            will: None,
            subscriptions: BTreeMap::new(),
            owed: VecDeque::new(),
            unacknowledged: BTreeSet::new(),
            retained: Vec::new(),
        }
    }
}

pub(super) fn number(publish: &Publish) -> u64 {
    u64::from_be_bytes(publish.payload[..8].try_into().expect("eight bytes"))
}

fn matches(filter: &TopicFilter, topic: &str) -> bool {
    let name = evermq_mqtt::Text::new(topic).ok().and_then(|text| evermq_mqtt::TopicName::new(text).ok());
    name.is_some_and(|name| filter.matches(&name))
}
