//! mosquitto as the bridge, and a broker here as what it connects to.

use evermq_mqtt::{Publish, QoS};

use super::crossing::both_ways;
use super::mosquitto::Mosquitto;
use super::{listener, next};
use crate::client::message;
use crate::running::{Running, Site, start};

const STATE: &str = "$SYS/broker/connection/hub.here/state";

fn bridge(site: &Site, broker: &Running, version: &str) -> Mosquitto {
    let more = format!(
        "connection here\naddress {}\nbridge_protocol_version {version}\nremote_clientid hub.here\n\
        topic # both 2 r/ l/\nrestart_timeout 1\n",
        broker.plain
    );
    Mosquitto::start(site.directory.path(), "remote", &more)
}

/// It says first that it is there, and then what it wants.
fn wait_for_subscription(broker: &Running) {
    broker.wait_for("the bridge's subscription", |state| state["subscriptions"] == 1);
}

fn crosses(version: &str) {
    let (site, broker) = start();
    let mosquitto = bridge(&site, &broker, version);
    wait_for_subscription(&broker);
    both_ways(broker.plain, mosquitto.address, version);
    // Its state is retained, so whoever asks is told.
    assert_eq!(next(&mut listener(broker.plain, "watcher", STATE)).1, "1");
}

#[test]
fn both_ways_by_3_1() {
    crosses("mqttv31");
}

#[test]
fn both_ways_by_3_1_1() {
    crosses("mqttv311");
}

#[test]
fn both_ways_by_5_0() {
    crosses("mqttv50");
}

/// The bridge's session waits here, and its will says that it has gone.
#[test]
fn what_is_published_while_it_is_away_waits_and_nothing_comes_back() {
    let (site, broker) = start();
    let mut mosquitto = bridge(&site, &broker, "mqttv311");
    wait_for_subscription(&broker);
    let mut state = listener(broker.plain, "watcher", STATE);
    assert_eq!(next(&mut state).1, "1");
    mosquitto.kill();
    assert_eq!(next(&mut state).1, "0");
    let mut client = broker.client("client");
    let mut here = listener(broker.plain, "here", "l/#");
    client.publish(Publish { retain: true, ..message("l/away", "kept") }, QoS::AtLeastOnce);
    assert_eq!(next(&mut here).1, "kept");
    mosquitto.start_again();
    assert_eq!(next(&mut state).1, "1");
    let mut there = listener(mosquitto.address, "there", "r/#");
    assert_eq!(next(&mut there).0, "r/away");
    client.publish(message("l/end", "end"), QoS::AtLeastOnce);
    while next(&mut there).0 != "r/end" {}
    // Whatever of it came back would have come before this.
    assert_eq!(next(&mut here).0, "l/end");
    here.expect_nothing();
}
