//! One of the two processes is killed in the midst of it.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use evermq_daemon::control::{self, ControlError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::crowd::{Crowd, Watcher};
use super::{Lb, children, children_or_self, echoing, upgrade};
use crate::harness::broker::Broker;
use crate::harness::eventually;

const CLIENTS: usize = 600;

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Has an upgrade begin, and waits until the new process has some of the connections; gives its number.
fn half_way(lb: &Lb) -> (u32, JoinHandle<Result<Value, ControlError>>) {
    let control = lb.control.clone();
    let asked = std::thread::spawn(move || upgrade(&control));
    let old = lb.last();
    let new = eventually("a new process", || {
        // The one before it only checks the file.
        children(&[old]).into_iter().find(|&process| {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains("EVERMQ_UPGRADE_FD")
        })
    });
    lb.processes.borrow_mut().push(new);
    eventually("some connections have moved", || (descriptors(new) > 200 || !children_or_self(old)).then_some(()));
    (new, asked)
}

/// An upgrade in the midst of which a process was killed.
struct HalfWay {
    lb: Lb,
    watcher: Watcher,
    crowd: Crowd,
    new: u32,
    error: ControlError,
}

/// The moment is a matter of milliseconds, so it may be missed; then another lb is tried.
fn killed_half_way(broker: &Broker, victim: impl Fn(&Lb, u32) -> u32) -> HalfWay {
    for _ in 0..20 {
        let lb = Lb::start(broker, "workers = 2");
        let watcher = lb.watch();
        let crowd = Crowd::start(&lb, CLIENTS);
        let (new, asked) = half_way(&lb);
        kill(Pid::from_raw(victim(&lb, new).cast_signed()), Signal::SIGKILL).unwrap();
        match asked.join().unwrap() {
            Ok(_) => crowd.stop.store(true, Ordering::SeqCst),
            Err(error) => return HalfWay { lb, watcher, crowd, new, error },
        }
    }
    panic!("never half way");
}

/// Those live whose process does.
fn finish(crowd: Crowd) {
    let tally = crowd.finish();
    assert!(tally.alive > 0 && tally.dead > 0, "half way: {tally:?}");
    assert_eq!(tally.alive + tally.dead, CLIENTS);
}

#[test]
fn a_new_process_that_is_killed_half_way_leaves_the_rest_to_the_old_one() {
    let broker = echoing();
    let HalfWay { lb, watcher, crowd, error, .. } = killed_half_way(&broker, |_, new| new);
    let error = error.to_string();
    assert!(error.contains("SIGKILL"), "{error}");
    // The old one serves as before, and whoever watches has heard of nothing.
    drop(lb.client());
    watcher.assert_unbroken();
    finish(crowd);
    // Exactly those that live are its own.
    lb.processes.borrow_mut().pop();
    lb.install_good();
    eventually("the next one works", || lb.upgrade().ok());
}

#[test]
fn an_old_process_that_is_killed_half_way_leaves_what_it_has_given() {
    let broker = echoing();
    let HalfWay { lb, watcher, crowd, new, .. } = killed_half_way(&broker, |lb, _| lb.processes.borrow()[0]);
    lb.wait_first();
    drop(lb.client());
    watcher.assert_unbroken();
    assert_eq!(control::listener(&lb.control), Some(new.cast_signed()));
    finish(crowd);
}
