//! The broker's process is killed.

use std::time::Duration;

use evermq_store::simulated::Chance;

use super::check::Totals;
use super::{run, say, seed, soak_time};
use crate::killed::{Program, SMALL, cluster};
use crate::running;

/// Kills the broker at random moments, sometimes while it starts and more than once, and lets it stand in the end.
fn lives(seed: u64, kills: usize) -> Totals {
    let site = running::Site::new();
    let member = cluster(&site, &["broker1"], SMALL).remove(0);
    let start = || Program::start(&member.file, member.host, member.plain);
    let mut last = None;
    let totals = run(seed, |clients, chance| {
        clients.is_at(Some(member.plain));
        let mut program = start();
        clients.until("subscribers", || clients.subscribed.load(std::sync::atomic::Ordering::SeqCst) == 3);
        let mut done = 0;
        let since = clients.now();
        while done < kills || !clients.is_enough(false) {
            clients.go_on("a history that proves something", since);
            done += 1;
            pause(20 + chance.below(300));
            drop(program);
            while chance.one_in(3) {
                // While it reads its store, or writes down what is due.
                let starting = Program::spawn(&member.file, member.host);
                pause(chance.below(40));
                drop(starting);
            }
            program = start();
        }
        // Something still happens before the end.
        pause(100);
        last = Some(program);
    });
    say(&format!("{totals:?}"));
    drop(last);
    totals
}

fn pause(milliseconds: usize) {
    std::thread::park_timeout(Duration::from_millis(milliseconds as u64));
}

#[test]
fn what_it_acknowledged_is_there_however_often_it_is_killed() {
    let totals = lives(seed(), 6);
    // Otherwise it would prove little.
    assert!(totals.wills > 5 && totals.retained > 0, "{totals:?}");
}

/// As long as it is to go on, each time from another seed.
#[test]
#[ignore = "as long as EVERMQ_SECONDS says"]
fn soak() {
    let mut chance = Chance::new(seed());
    let end = evermq_broker::connection::clock() + soak_time();
    while evermq_broker::connection::clock() < end {
        let seed = chance.below(1_000_000) as u64;
        say(&format!("EVERMQ_SEED={seed}"));
        lives(seed, 12);
    }
}
