//! Brokers that come and go while the others run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use evermq_bridge::Filling;
use evermq_config::BrokerConfig;
use evermq_daemon::listen;

use crate::broker::{Broker, wait_until, wait_until_meshed};
use crate::cluster::Cluster;
use crate::relay::Relay;
use crate::{numbered, start_all};

/// The config of one broker in a cluster of the first `brokers` only.
fn among(cluster: &Cluster, brokers: usize, index: usize) -> BrokerConfig {
    let mut config = cluster.config(index);
    let others = (0..brokers).filter(|other| *other != index);
    let names: Vec<String> = others.map(|other| format!("broker{}", other + 1)).collect();
    config.peers.retain(|peer| names.contains(&peer.name.as_str().to_owned()));
    config
}

/// Some thousand messages a second; how many they were.
fn publish_until(ends: &AtomicBool, broker: &Broker, prefix: &str) -> u32 {
    let mut count = 0;
    while !ends.load(Ordering::SeqCst) {
        broker.publish(broker.message("t", &format!("{prefix}{count}"), false));
        count += 1;
        std::thread::park_timeout(Duration::from_micros(200));
    }
    count
}

fn is_filled(broker: &Broker) -> bool {
    broker.bridge.filling().iter().all(|peer| peer.is_filled)
}

#[test]
fn a_broker_joins_under_load_and_has_all_that_the_others_have() {
    let (cluster, listeners) = Cluster::new(3);
    let mut listeners = listeners.into_iter();
    let old: Vec<_> =
        (0..2).map(|index| Broker::start_on(listeners.next().unwrap(), &among(&cluster, 2, index))).collect();
    wait_until_meshed(&[&old[0], &old[1]]);
    for number in 0..200 {
        old[number % 2].publish_retained(&format!("r/{number}"), "kept");
    }
    let ends = AtomicBool::new(false);
    let (new, published) = std::thread::scope(|scope| {
        let (first, second) =
            (scope.spawn(|| publish_until(&ends, &old[0], "a ")), scope.spawn(|| publish_until(&ends, &old[1], "b ")));
        let new = Broker::start_on(listeners.next().unwrap(), &cluster.config(2));
        wait_until("they refuse it", || new.peer("broker1").last_error.is_some());
        assert!(!is_filled(&new));
        for (index, broker) in old.iter().enumerate() {
            let changed = broker.reload(&cluster.config(index));
            assert_eq!((changed.joined, changed.left, changed.moved), (vec!["broker3".to_owned()], vec![], vec![]));
        }
        wait_until("it is filled", || is_filled(&new));
        assert_eq!(new.retained().iter().filter(|(topic, _)| topic.starts_with("r/")).count(), 200);
        let reached = new.payloads().len() + 500;
        wait_until("messages go on", || new.payloads().len() > reached);
        new.publish_many("c ", 500);
        ends.store(true, Ordering::SeqCst);
        (new, [first.join().unwrap(), second.join().unwrap()])
    });
    let everybody = [&old[0], &old[1], &new];
    wait_until("everything is everywhere", || {
        everybody.iter().all(|broker| broker.state().peers.iter().all(|peer| peer.lag == 0))
    });
    for (prefix, published) in [("a ", published[0]), ("b ", published[1])] {
        // From the moment on at which the file named it, all of them.
        let got = new.payloads_of(prefix);
        let all = numbered(prefix, published);
        assert_eq!(got, all[all.len() - got.len()..], "in order, once, without a gap");
    }
    for (me, other, prefix) in [(0, 1, "b "), (1, 0, "a ")] {
        assert_eq!(old[me].payloads_of(prefix), numbered(prefix, published[other]));
        assert_eq!(old[me].payloads_of("c "), numbered("c ", 500));
        let peer = old[me].peer(&format!("broker{}", other + 1));
        assert_eq!((peer.resent, peer.duplicates, peer.lost, peer.last_error), (0, 0, 0, None), "undisturbed");
        assert_eq!((old[me].state().peers_joined, old[me].state().peers_left), (1, 0));
    }
}

#[test]
fn nothing_is_kept_for_a_broker_that_has_left() {
    let (cluster, brokers) = start_all(3);
    let mut brokers = brokers;
    brokers[0].publish_many("before ", 100);
    wait_until("all have them", || brokers[0].state().peers.iter().all(|peer| peer.acknowledged == 100));
    let gone = brokers.pop().unwrap();
    for (index, broker) in brokers.iter().enumerate() {
        let changed = broker.reload(&among(&cluster, 2, index));
        assert_eq!((changed.joined, changed.left), (vec![], vec!["broker3".to_owned()]));
        assert_eq!(broker.reload(&among(&cluster, 2, index)), evermq_bridge::PeersChanged::default(), "again");
    }
    wait_until("its links are down", || gone.state().peers.iter().all(|peer| !peer.connected && !peer.receiving));
    brokers[0].publish_many("after ", 100);
    wait_until("the other one has them", || brokers[1].payloads().len() == 200);
    wait_until("the log is empty", || brokers[0].state().log_messages == 0);
    wait_until("it is refused", || {
        let error = gone.peer("broker1").last_error.unwrap_or_default();
        error.contains("no other broker in this host's cluster file")
    });
    assert_eq!(gone.payloads().len(), 100);
    let state = brokers[0].state();
    assert_eq!((state.peers.len(), state.peers_left, state.abandoned), (1, 1, 0));
    assert_eq!(brokers[0].peer("broker2").resent, 0);
}

/// What it had before is not delivered to it again, in either direction, and what it missed is a gap.
#[test]
fn a_broker_that_leaves_and_comes_back_goes_on_where_it_was() {
    let (cluster, brokers) = start_all(2);
    let [first, second] = &brokers[..] else { panic!("two brokers") };
    first.publish_many("a ", 100);
    second.publish_many("b ", 100);
    wait_until("both have them", || first.payloads().len() == 100 && second.payloads().len() == 100);
    // Acknowledged or not: what was applied does not come again.
    assert_eq!(first.reload(&among(&cluster, 1, 0)).left, ["broker2"]);
    assert!(first.bridge.is_alone());
    wait_until("the link is down", || !second.peer("broker1").connected && !second.peer("broker1").receiving);
    second.publish_many("b kept ", 50);
    first.publish_retained("r", "meanwhile");
    assert_eq!(first.reload(&cluster.config(0)).joined, ["broker2"]);
    wait_until_meshed(&[first, second]);
    first.publish_many("a after ", 10);
    wait_until("what it kept has come", || first.payloads_of("b kept ") == numbered("b kept ", 50));
    wait_until("what came afterwards", || second.payloads_of("a after ") == numbered("a after ", 10));
    assert_eq!((first.payloads().len(), second.payloads().len()), (150, 110), "nothing twice");
    assert_eq!(
        (first.peer("broker2").lost, first.peer("broker2").duplicates, second.peer("broker1").duplicates),
        (0, 0, 0)
    );
    assert_eq!(first.bridge.filling(), [Filling { name: "broker2".to_owned(), answers: true, is_filled: true }]);
}

#[test]
fn a_broker_that_has_moved_is_found_at_its_new_address() {
    let (cluster, brokers) = start_all(2);
    let [first, second] = &brokers[..] else { panic!("two brokers") };
    first.publish_many("a ", 10);
    wait_until("they have arrived", || second.payloads().len() == 10);
    // By another port: its certificate is that of the address.
    let socket = listen::tcp("127.0.0.2:0".parse().unwrap(), false).unwrap();
    let address = socket.local_addr().unwrap();
    let _relay = Relay::start(socket, second.bridge.address());
    let mut config = cluster.config(0);
    config.peers[0].address = address;
    assert_eq!(first.reload(&config).moved, ["broker2"]);
    first.publish_many("b ", 10);
    wait_until("they arrive by the new way", || second.payloads().len() == 20);
    assert_eq!(second.payloads_of("b "), numbered("b ", 10));
    let peer = first.peer("broker2");
    assert_eq!((peer.address, peer.lost), (address, 0));
}
