//! A new program that is no good.

use super::crowd::Crowd;
use super::{Lb, echoing, write_config};

#[test]
fn a_new_program_that_is_no_good_changes_nothing() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let watcher = lb.watch();
    let crowd = Crowd::start(&lb, 40);
    let refused = |needle: &str| {
        let error = lb.upgrade().unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
        drop(lb.client());
    };
    lb.install(b"#!/bin/sh\necho 'evermq-lb: wrong machine' >&2\nexit 2\n");
    refused("wrong machine");
    // It likes the file, and then does not start.
    lb.install(b"#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\nexit 3\n");
    refused("exit status: 3");
    lb.install(b"no program at all");
    refused("cannot start");
    std::fs::remove_file(&lb.program).unwrap();
    refused("cannot start");
    lb.install_good();
    write_config(&lb.config, lb.address, lb.broker_port, "workers = \"many\"");
    refused("workers");
    // The file is good, but the new process cannot have an address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[[lb.listeners]]\nname = \"other\"\nlisten = \"{}\"", taken.local_addr().unwrap());
    write_config(&lb.config, lb.address, lb.broker_port, &more);
    refused("another program has port");
    // The file names a broker elsewhere, which is not up.
    write_config(&lb.config, lb.address, 1, "workers = 2");
    refused("does not reach broker1");

    write_config(&lb.config, lb.address, lb.broker_port, "workers = 2");
    assert_eq!(lb.upgrade().unwrap()["moved"], 40);
    watcher.assert_unbroken();
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (40, 0), "{tally:?}");
}
