//! The walk-through of docs/bridges.md: mosquitto brokers around a hub are replaced one after the other, while clients of the
//! others go on.

use std::fmt::Write as _;

use evermq_mqtt::QoS;

use super::mosquitto::Mosquitto;
use super::{expected, listener, next, publish};
use crate::client::{Client, connect};
use crate::program::Program;
use crate::running::Site;

#[test]
fn a_mosquitto_cluster_is_moved_host_by_host() {
    let site = Site::new();
    let directory = site.directory.path();
    let mut olds = ["one", "two"].map(|name| Mosquitto::start(directory, name, ""));
    let mut conf = String::new();
    for (index, old) in olds.iter().enumerate() {
        writeln!(conf, "connection to{index}\naddress {}\ntopic # both 2 \"\" \"\"\nnotifications false", old.address)
            .unwrap();
    }
    let mut hub = Mosquitto::start(directory, "hub", &conf);
    hub.wait_for_log("Received SUBACK", 2);
    publish(&mut Client::open(olds[0].address, connect("device")).0, "state/device", "on", QoS::AtLeastOnce, true);
    let mut display = listener(olds[1].address, "display", "#");
    assert_eq!(next(&mut display), expected("state/device", "on", QoS::AtLeastOnce, true));

    // 1: the new cluster stands beside the old one, and has its retained messages.
    let program = Program::start(&site, "", None);
    let bridge = "[[bridges]]\nname = \"hub\"\nprotocol_version = \"5.0\"\ntopics = ['# both 2']\n";
    program.write(&format!("{bridge}addresses = [\"{}\"]\n", hub.address));
    program.reload().unwrap();
    program.wait_for("the retained messages", || program.ask("state").unwrap()["retained"] == 1);

    // 2: the first host's clients come back to the new broker; those of the second are still where they were.
    olds[0].stop();
    let mut device = Client::open(program.plain, connect("device")).0;
    publish(&mut device, "value", "1", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut display), expected("value", "1", QoS::ExactlyOnce, false));
    let mut watcher = listener(program.plain, "watcher", "command");
    publish(&mut Client::open(olds[1].address, connect("operator")).0, "command", "go", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut watcher), expected("command", "go", QoS::ExactlyOnce, false));
    assert_eq!(next(&mut display).0, "command");

    // 3: and those of the second.
    olds[1].stop();
    let mut display = listener(program.plain, "display", "#");
    assert_eq!(next(&mut display), expected("state/device", "on", QoS::AtLeastOnce, true));
    publish(&mut device, "value", "2", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut display), expected("value", "2", QoS::ExactlyOnce, false));

    // 4: nothing is left of the old one.
    program.write("");
    program.reload().unwrap();
    hub.stop();
    publish(&mut device, "value", "3", QoS::ExactlyOnce, false);
    assert_eq!(next(&mut display), expected("value", "3", QoS::ExactlyOnce, false));
}
