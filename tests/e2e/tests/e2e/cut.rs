//! The lb hosts lose each other and nobody else: what clients get meanwhile, and where the VIP is afterwards.

use std::time::Duration;

use evermq_e2e::client::finish_load;
use evermq_e2e::lab::STEADY;
use evermq_e2e::{Lab, PORT, VIP, wait};

/// Far longer than any takeover.
const CUT: Duration = Duration::from_secs(2);
/// For what takes a moment, on a machine that may be very busy.
const SOON: Duration = Duration::from_secs(15);

/// Cuts the lb hosts off from each other, looks at the holders all the while, and joins them again.
fn while_cut(lab: &Lab, mut look: impl FnMut(&[&'static str])) {
    lab.must(["cut", "lb1", "lb2"]);
    let begin = wait::now();
    while begin.elapsed() < CUT {
        look(&lab.holders());
    }
    lab.must(["heal", "lb1"]);
}

/// A new connection succeeds, and goes on to.
fn serves(lab: &Lab) {
    let address = format!("{VIP}:{PORT}");
    let result = lab.load(&["probe", "--connect", &address, "--duration", "2000", "--interval", "20"]);
    let gap = result["longest_gap_ms"].as_f64().expect("a number");
    assert!(result["failed"] == 0 && gap < 2_000.0, "{result}");
}

#[test]
fn without_a_quorum_both_hold_the_vip_and_settle_on_the_better_one_which_clients_reach() {
    let lab = Lab::up();
    // Whichever has come first: without preemption it keeps the VIP until the cut.
    let _ = lab.holder();
    let mut both = false;
    while_cut(&lab, |holders| both |= holders.len() == 2);
    assert!(both, "VRRP alone cannot know that the other one lives");
    wait::until("the better one has it alone", SOON, || (lab.holders() == ["lb1"]).then_some(()));
    // Clients may have learned the other one's hardware address while it had the VIP.
    serves(&lab);
}

#[test]
fn with_a_quorum_one_holds_the_vip_all_the_time_and_clients_notice_nothing() {
    let lab = Lab::up_with(&[&STEADY[..], &["vip.quorum=true"]].concat())
        .unwrap_or_else(|said| panic!("evermq lab up: {said}"));
    let before = lab.holder();
    let address = format!("{VIP}:{PORT}");
    let probe = lab.start_load(&["probe", "--connect", &address, "--duration", "4000", "--interval", "10"]);
    while_cut(&lab, |holders| assert_eq!(holders, [before], "one host, the same all the time"));
    let result = finish_load(probe);
    let gap = result["longest_gap_ms"].as_f64().expect("a number");
    assert!(gap < 1_500.0, "{result}");
    assert_eq!(lab.holder(), before);
    serves(&lab);
}
