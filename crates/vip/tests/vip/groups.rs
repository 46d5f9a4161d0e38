//! Several virtual routers on one host: IPv4 and IPv6, in a sync group and alone.

use crate::net::watch::stays;
use crate::net::{CALM, Host, Net, Options, run, wait_for};

const SIX: &str = "fd77::100";

/// Both hosts with an IPv6 virtual router on an interface of its own beside the IPv4 one; lb1 is master of both.
fn start(net: &mut Net, group: bool) -> [&mut Host; 3] {
    let [lb1, lb2, _] = net.hosts();
    for host in [&*lb1, &*lb2] {
        host.second_interface("eth1");
        let key = if group { "sync_group = \"both\"" } else { "" };
        host.set_vip(key);
        host.append(&format!(
            "[[vip.instances]]\nname = \"six\"\naddress = \"{SIX}\"\nprefix_length = 128\nvrid = 51\ninterface = \"eth1\"\n{key}"
        ));
        wait_for("an address of the link", || {
            let shown = host.command("ip").args(["-6", "-oneline", "address", "show", "dev", "eth1"]).output().unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            (shown.contains("fe80::") && !shown.contains("tentative")).then_some(())
        });
    }
    lb1.lb.up();
    lb1.start();
    lb1.vip.wait(true);
    wait_for("the IPv6 VIP", || lb1.has(SIX).then_some(()));
    lb2.lb.up();
    lb2.start();
    lb2.wait_for_state("backup");
    net.hosts()
}

fn holds_both(host: &Host) -> bool {
    host.vip.held() && host.has(SIX)
}

fn holds_none(host: &Host) -> bool {
    !host.vip.held() && !host.has(SIX)
}

#[test]
fn a_sync_group_moves_together_when_one_of_its_interfaces_fails() {
    let mut net = Net::new(Options { adverts: "multicast", ..Options::default() });
    let [lb1, lb2, _] = start(&mut net, true);
    run("ip", &["-n", &lb1.namespace, "link", "set", "eth1", "down"]);
    wait_for("lb2 to hold both", || holds_both(lb2).then_some(()));
    wait_for("lb1 to hold none", || holds_none(lb1).then_some(()));
    wait_for("both to be out", || {
        let instances = lb1.state()["instances"].clone();
        (instances[0]["state"] == "initialize" && instances[1]["state"] == "initialize").then_some(())
    });
    run("ip", &["-n", &lb1.namespace, "link", "set", "eth1", "up"]);
    lb1.wait_for_state("backup");
    stays("lb2 keeps both", CALM, || holds_both(lb2) && holds_none(lb1));
    lb2.lb.die();
    wait_for("lb1 to hold both again", || (holds_both(lb1) && holds_none(lb2)).then_some(()));
}

#[test]
fn without_a_group_each_moves_for_itself() {
    let mut net = Net::new(Options { adverts: "multicast", ..Options::default() });
    let [lb1, lb2, _] = start(&mut net, false);
    run("ip", &["-n", &lb1.namespace, "link", "set", "eth1", "down"]);
    wait_for("lb2 to hold the IPv6 VIP", || lb2.has(SIX).then_some(()));
    stays("lb1 keeps the other", CALM, || lb1.vip.held() && !lb2.vip.held());
    let instances = lb2.state()["instances"].clone();
    assert_eq!((&instances[0]["state"], &instances[1]["state"]), (&"backup".into(), &"master".into()));
    assert_eq!((&instances[1]["name"], &instances[1]["family"]), (&"six".into(), &"ipv6".into()));
}
