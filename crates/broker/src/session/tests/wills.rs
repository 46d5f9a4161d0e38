use std::sync::Arc;
use std::time::Duration;

use evermq_mqtt::packet::{Connect, Will as Asked};
use evermq_mqtt::properties::WillProperties;

use super::*;
use crate::session::{Change, DueWill, Durability, Durable};

struct Roomy;

impl Durable for Roomy {
    fn is_full(&self) -> bool {
        false
    }
    fn is_needed_for(&self, _publish: &Publish) -> bool {
        true
    }
}

fn with_will(delay: u32) -> Connect {
    let will = Asked {
        topic: topic("will"),
        payload: Bytes::from_static(b"gone"),
        qos: QoS::ExactlyOnce,
        retain: false,
        properties: WillProperties { delay: Some(delay), ..WillProperties::default() },
    };
    Connect { will: Some(will), ..connect() }
}

fn durable(asked: Connect) -> Client {
    let mut client = Client::new(Limits { durability: Durability::new(Arc::new(Roomy)), ..limits() });
    client.connect(asked);
    changes(&mut client);
    client
}

/// What the store hears, and whether the will is due with it.
fn changes(client: &mut Client) -> (Vec<&'static str>, Option<Arc<DueWill>>) {
    let mut changes = Vec::new();
    client.session.swap_changes(&mut changes);
    let mut due = None;
    let names = changes.into_iter().map(|change| match change {
        Change::Begin => "begin",
        Change::State => "state",
        Change::End => "end",
        Change::WillDue(will) => {
            due = Some(will);
            "will due"
        }
        other => panic!("{other:?}"),
    });
    (names.collect(), due)
}

fn sent(actions: &[Action]) -> Option<&Arc<DueWill>> {
    actions.iter().find_map(|action| match action {
        Action::SendWill(will) => Some(will),
        Action::Publish(publish) => panic!("the store does not know of {publish:?}"),
        _ => None,
    })
}

#[test]
fn the_store_hears_that_it_is_due_before_it_is_no_longer_the_sessions() {
    // The connection is lost, there is no delay.
    let mut client = durable(with_will(0));
    let actions = client.lose();
    let (names, due) = changes(&mut client);
    assert_eq!(names, ["will due", "state"]);
    assert!(Arc::ptr_eq(sent(&actions).unwrap(), &due.unwrap()), "it is the same will");
    // The delay has passed; then the session has expired too.
    let mut client = durable(with_will(5));
    assert_eq!((sent(&client.lose()), changes(&mut client).0), (None, vec!["state"]));
    assert!(sent(&client.after(Duration::from_secs(5))).is_some());
    assert_eq!(changes(&mut client).0, ["will due"]);
    assert!(sent(&client.after(Duration::from_secs(1000))).is_none());
    assert_eq!(changes(&mut client).0, ["end"]);
    // The session ends before the delay has passed.
    let mut client = durable(with_will(500));
    client.lose();
    changes(&mut client);
    assert!(sent(&client.after(Duration::from_secs(100))).is_some());
    assert_eq!(changes(&mut client).0, ["will due", "end"]);
    // It is taken over: the will of the new connection comes into the state that follows.
    let mut client = durable(with_will(0));
    let actions = client.connect(with_will(0));
    assert!(sent(&actions).is_some() && client.session.will().is_some());
    assert_eq!(changes(&mut client).0, ["will due", "state"]);
}

#[test]
fn a_client_that_is_back_in_time_and_one_that_is_not() {
    let mut client = durable(with_will(5));
    client.lose();
    assert_eq!(sent(&client.connect(connect())), None);
    // Nobody has looked at the time when it comes back.
    let mut client = durable(with_will(5));
    client.lose();
    client.now += Duration::from_secs(5);
    changes(&mut client);
    assert!(sent(&client.connect(connect())).is_some());
    assert_eq!(changes(&mut client).0, ["will due", "state"]);
    assert!(client.session.will().is_none());
}
