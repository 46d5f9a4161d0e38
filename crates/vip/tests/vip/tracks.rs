//! What else moves the priority, by the running daemon: scripts, files, interfaces; and what it shows of them.

use std::fs;

use crate::net::watch::stays;
use crate::net::{self, CALM, Net, Options, run, wait_for};

#[test]
fn a_file_and_an_interface_move_the_priority_and_a_script_forbids_the_vip() {
    let mut net = Net::new(Options { preempt: true, ..Options::default() });
    let [lb1, ..] = net.hosts();
    lb1.second_interface("eth1");
    let (file, flag) = (lb1.file_beside("maintenance"), lb1.file_beside("sick"));
    lb1.append(&format!(
        "[[vip.track]]\nname = \"maintenance\"\nfile = \"{}\"\nweight = -1\n\
         [[vip.track]]\nname = \"uplink\"\ninterface = \"eth1\"\nweight = -30\n\
         [[vip.track]]\nname = \"disk\"\nscript = [\"/usr/bin/test\", \"!\", \"-e\", \"{}\"]\ninterval = \"1s\"\n\
         timeout = \"900ms\"\nrise = 1\nfall = 1\nuser = \"root\"",
        file.display(),
        flag.display()
    ));
    let [lb1, lb2, _] = net.start();
    let effective = |host: &net::Host, priority: serde_json::Value| {
        wait_for("the priority", || (host.state()["effective_priority"] == priority).then_some(()));
    };
    effective(lb1, 200.into());
    run("ip", &["-n", &lb1.namespace, "link", "set", "eth1", "down"]);
    effective(lb1, 170.into());
    lb2.vip.wait(true);
    lb1.vip.wait(false);
    let tracks = lb1.state()["tracks"].clone();
    assert_eq!(
        (&tracks[1]["name"], &tracks[1]["state"], &tracks[1]["effect"]),
        (&"uplink".into(), &"failed".into(), &"-30".into())
    );
    let reasons = lb1.state()["instances"][0]["reasons"].to_string();
    assert!(reasons.contains("uplink") && reasons.contains("-30"), "{reasons}");
    run("ip", &["-n", &lb1.namespace, "link", "set", "eth1", "up"]);
    effective(lb1, 200.into());
    lb1.vip.wait(true);
    fs::write(&file, "50").unwrap();
    effective(lb1, 150.into());
    lb2.vip.wait(true);
    fs::remove_file(&file).unwrap();
    effective(lb1, 200.into());
    lb1.vip.wait(true);
    fs::write(&flag, "").unwrap();
    effective(lb1, serde_json::Value::Null);
    lb2.vip.wait(true);
    lb1.vip.wait(false);
    assert_eq!(lb1.state()["reason"], "track \"disk\" has failed");
    stays("a fault is no last resort", CALM, || !lb1.vip.held());
}

#[test]
fn a_track_comes_and_goes_with_a_reload() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.start();
    let effective = |priority: u8| {
        wait_for("the priority", || (lb1.state()["effective_priority"] == priority).then_some(()));
    };
    effective(200);
    let section = "[[vip.track]]\nname = \"uplink\"\ninterface = \"eth7\"\nweight = -5";
    lb1.append(section);
    lb1.reload().unwrap();
    effective(195);
    assert_eq!(lb1.state()["reason"], "track \"uplink\" has failed");
    lb1.second_interface("eth7");
    effective(200);
    lb1.edit(section, "");
    lb1.reload().unwrap();
    wait_for("no track", || lb1.state()["tracks"].as_array()?.is_empty().then_some(()));
    effective(200);
    assert!(lb1.vip.held());
}
