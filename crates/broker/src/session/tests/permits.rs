//! Rules that change while messages wait.

use evermq_access::substitution::Subject;
use evermq_access::{Permits, Rules};
use evermq_config::broker::AclRule;

use super::*;
use crate::session::Change;
use crate::session::connect::Granted;

const Q0: QoS = QoS::AtMostOnce;
const Q1: QoS = QoS::AtLeastOnce;
const Q2: QoS = QoS::ExactlyOnce;

/// Rules, of which each look gives the same ones.
fn rules(subscribe: &[&str]) -> Rules {
    let subscribe = subscribe.iter().map(|topic| (*topic).to_owned()).collect();
    let (users, clients, publish, deny) = Default::default();
    Rules::of_entries(&[AclRule { users, clients, publish, subscribe, deny }]).unwrap().unwrap()
}

fn of(rules: &Rules) -> Option<Arc<Permits>> {
    Some(Arc::new(rules.of(Subject { user: None, client_id: "client" })))
}

fn may(subscribe: &[&str]) -> Option<Arc<Permits>> {
    of(&rules(subscribe))
}

impl Client {
    fn get(&mut self, name: &str, qos: QoS, number: u32) {
        let Delivery { message, .. } = delivery(qos, number, self.now);
        let mut message = Message::clone(message.message());
        message.publish.topic = topic(name);
        let message = Shared::new(message, false);
        self.session.deliver(Delivery { message, qos, retain: false, ids: None, share: None });
    }

    /// Connects again, with these rights.
    fn back(&mut self, permits: Option<Arc<Permits>>) -> Vec<Action> {
        self.links += 1;
        let granted = Granted::new(connect(), LinkId(self.links), &self.session.limits, None);
        self.session.handle_connect(Granted { permits, ..granted }, self.now);
        self.actions().split_off(1)
    }

    fn numbers(&mut self) -> Vec<Option<u32>> {
        self.transmits().into_iter().map(|(number, ..)| number).collect()
    }
}

#[test]
fn what_waits_is_asked_about_again_and_what_is_out_is_the_clients() {
    let mut client = Client::connected(connect());
    for (number, (name, qos)) in [("a", Q1), ("b", Q1), ("b", Q2), ("b", Q1), ("a", Q1)].into_iter().enumerate() {
        client.get(name, qos, number as u32);
    }
    assert_eq!(client.numbers(), [Some(0), Some(1), Some(2)]);
    client.get("b", Q2, 5);
    client.get("b", Q0, 6);
    client.get("a", Q0, 7);
    assert_eq!(client.session.set_permits(may(&["a"])), 3);
    assert_eq!(client.actions(), [Action::Withdrawn(3)]);
    assert_eq!(client.session.queued(), 2);
    assert_eq!(client.numbers(), [Some(7)]);
    // Acknowledged as if nothing had been.
    assert_eq!(client.packet(Packet::PubAck(ack(2))), []);
    assert_eq!(client.packet(Packet::PubRec(ack(3))), [Action::Send(Packet::PubRel(ack(3)))]);
    assert_eq!(client.numbers(), [Some(4)]);
    client.get("b", Q1, 8);
    assert_eq!(client.session.set_permits(may(&["#"])), 0);
    assert_eq!(client.actions(), []);
    assert_eq!(client.session.queued(), 0, "what may not come is not even queued");
}

#[test]
fn what_was_sent_on_an_earlier_connection_is_not_sent_again() {
    let mut client = Client::connected(connect());
    for (number, (name, qos)) in [("a", Q1), ("b", Q1), ("b", Q2)].into_iter().enumerate() {
        client.get(name, qos, number as u32);
    }
    assert_eq!(client.numbers().len(), 3);
    client.lose();
    client.get("b", Q1, 3);
    // While the client is away, and when it is back: by then the rules are the same, but now it would be sent again.
    assert_eq!(client.session.set_permits(may(&["a"])), 1);
    client.actions();
    assert_eq!(client.back(may(&["a"])), [Action::Withdrawn(2)]);
    // The client may have the message of QoS 2: its exchange is brought to its end.
    assert_eq!(client.transmits(), [(Some(0), true, 1), (None, true, 3)]);
    assert_eq!(client.packet(Packet::PubComp(ack(3))), []);
    client.packet(Packet::PubAck(ack(1)));
    assert!(client.session.inflight().is_empty());
    client.lose();
    assert_eq!(client.back(None), []);
    assert_eq!(client.numbers(), []);
}

#[test]
fn a_queue_is_looked_through_only_if_the_rules_are_others() {
    let same = rules(&["a"]);
    let mut client = Client::new(limits());
    client.back(of(&same));
    client.lose();
    client.get("a", Q1, 1);
    assert!(client.session.has_permits(of(&same).as_ref()), "the same rules, put together anew");
    assert!(!client.session.has_permits(may(&["a"]).as_ref()) && !client.session.has_permits(None));
    assert_eq!(client.back(may(&["x"])), [Action::Withdrawn(1)]);
    assert_eq!(client.numbers(), []);
}

#[test]
fn the_store_hears_of_it() {
    let mut client = Client::connected(connect());
    client.session.durable = true;
    client.get("b", Q1, 1);
    client.get("b", Q2, 2);
    client.numbers();
    client.get("b", Q1, 3);
    client.get("b", Q0, 4);
    let mut changes = Vec::new();
    client.session.swap_changes(&mut changes);
    client.session.inflight.restart();
    assert_eq!(client.session.set_permits(may(&["a"])), 4);
    client.session.swap_changes(&mut changes);
    assert!(
        matches!(&changes[..], [Change::Done(one), Change::Released(two), Change::Dropped(_)] if (*one, *two) == (id(1), id(2))),
        "{changes:?}"
    );
}
