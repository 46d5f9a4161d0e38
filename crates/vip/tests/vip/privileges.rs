//! What the running daemon may still do.

use std::fs;

use crate::net::{self, Net, Options};

const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const IPC_LOCK: u64 = 1 << 14;
const SYS_NICE: u64 = 1 << 23;

/// A set of every thread of a process.
fn sets(pid: u32, name: &str) -> Vec<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let set = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        u64::from_str_radix(line.trim_start_matches(':').trim(), 16).unwrap()
    };
    threads.map(|thread| set(thread.unwrap())).collect()
}

#[test]
fn every_thread_and_the_guard_keep_two_capabilities() {
    let mut net = Net::new(Options::default());
    let [lb1, ..] = net.start();
    for pid in [lb1.pid(), lb1.guard().unwrap()] {
        for name in ["CapEff", "CapPrm"] {
            // Where the test itself may not raise the limit of locked memory, that capability has to stay.
            let kept: Vec<_> = sets(pid, name).iter().map(|set| set & !IPC_LOCK).collect();
            assert!(kept.iter().all(|set| *set == NET_ADMIN | NET_RAW), "{pid} {name}: {kept:x?}");
        }
        let most = NET_ADMIN | NET_RAW | IPC_LOCK | SYS_NICE;
        assert!(sets(pid, "CapBnd").iter().all(|set| set & !most == 0), "{pid}");
    }
    assert!(sets(lb1.pid(), "CapEff").len() >= 3, "the threads of the VIP, of control and of takeovers");
}

#[test]
fn programs_of_another_user_keep_what_it_takes_to_become_that_user() {
    let mut net = Net::new(Options::default());
    let [lb1, lb2, _] = net.hosts();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    for host in [&*lb1, &*lb2] {
        host.set_vip(&format!(
            "notify_user = \"root\"\nnotify = [\"/bin/sh\", \"-c\", \"echo $* >> {}\", \"x\"]",
            told.display()
        ));
    }
    let [lb1, ..] = net.start();
    let read = || fs::read_to_string(&told).unwrap_or_default();
    net::wait_for("the notify program", || read().contains("INSTANCE vip MASTER 200").then_some(()));
    let most = NET_ADMIN | NET_RAW | IPC_LOCK;
    assert!(sets(lb1.pid(), "CapEff").iter().all(|set| set & !most == 0), "no other user, no more capabilities");
}
