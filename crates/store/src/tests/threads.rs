//! Many threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use super::files::{until, wait};
use super::model::NOW;
use super::sample::{enqueue, publish, state, stored};
use crate::disk::simulated::{Chance, Simulated};
use crate::store::open_on;
use crate::{Live, Record, SegmentId, Settings, Status, Store, Sync};

const THREADS: usize = 8;

fn settings(sync: Sync) -> Settings {
    Settings { path: "/simulated".into(), sync, segment_size: 16 << 10, max_size: 1 << 30 }
}

/// Each thread has a session of its own and says how many of its messages were durable when the power failed.
fn publish_until_it_fails(store: &Store, number: usize) -> usize {
    let client = format!("client-{number}");
    let session = store.new_session();
    store.append(&Record::Session(state(session, &client)));
    let mut durable = 0;
    for serial in 0_u64.. {
        let publish = publish("t", &format!("{number}/{serial}"));
        let Ok((message, _)) = store.append_message(&stored(&publish, serial, false)) else { return durable };
        let at = store.append(&enqueue(session, message.id()));
        until("it is durable or the power has failed", || store.is_durable(at) || store.status() == Status::Failed);
        if !store.is_durable(at) {
            return durable;
        }
        durable += 1;
    }
    durable
}

#[test]
fn what_each_was_told_is_there_in_its_order_and_once() {
    for seed in 0..6 {
        let disk = Simulated::default();
        let (store, _) = open_on(&settings(Sync::Always), Arc::new(disk.clone()), NOW).unwrap();
        disk.lose_power_after(200 + 30 * seed, Chance::new(seed));
        let durable: Vec<usize> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    scope.spawn({
                        let store = &store;
                        move || publish_until_it_fails(store, number)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let image = disk.after_power_loss(Chance::new(seed));
        let (_store, recovered) = open_on(&settings(Sync::Always), Arc::new(image), NOW).unwrap();
        for (number, durable) in durable.into_iter().enumerate() {
            let client = format!("client-{number}");
            let Some(session) = recovered.sessions.iter().find(|session| session.client_id == client) else {
                assert_eq!(durable, 0);
                continue;
            };
            assert!(session.waiting.len() >= durable, "{client}: {} of {durable}", session.waiting.len());
            for (serial, waiting) in session.waiting.iter().enumerate() {
                let payload = &recovered.messages[waiting.message].publish.payload;
                assert_eq!(*payload, format!("{number}/{serial}"));
            }
        }
    }
}

#[test]
fn thousands_who_wait_are_all_woken() {
    let disk = Simulated::default();
    disk.set_sync_time(Duration::from_millis(2));
    let (store, _) = open_on(&settings(Sync::Always), Arc::new(disk), NOW).unwrap();
    let session = store.new_session();
    std::thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                for _ in 0..20 {
                    wait(&store, store.append(&Record::SessionEnd { session }));
                }
            });
        }
    });
    let figures = store.figures();
    assert_eq!(figures.waiters, 0);
    assert!(figures.commits < 1000, "one commit is for many: {figures:?}");
}

#[derive(Debug)]
struct Stubborn(AtomicBool);

impl Live for Stubborn {
    fn checkpoint(&self, _before: SegmentId, store: &Store) -> bool {
        self.0.store(true, Ordering::SeqCst);
        store.pace();
        true
    }
}

#[test]
fn messages_that_nobody_has_any_more_go_with_their_segments() {
    let disk = Simulated::default();
    let (store, _) = open_on(&settings(Sync::Never), Arc::new(disk.clone()), NOW).unwrap();
    let live = Arc::new(Stubborn(AtomicBool::new(false)));
    store.set_live(live.clone());
    for serial in 0..2000 {
        let publish = publish("t", &"x".repeat(1000));
        let (_dropped, at) = store.append_message(&stored(&publish, serial, false)).unwrap();
        wait(&store, at);
        store.pace();
    }
    until("two megabytes were written, nothing is alive, and most of it is gone", || {
        let figures = store.figures();
        figures.bytes < 8 * (16 << 10) && figures.deleted_segments > 50
    });
    assert!(live.0.load(Ordering::SeqCst));
    store.close();
}

#[test]
fn a_slow_disk_is_said_and_nothing_is_forgotten() {
    let disk = Simulated::default();
    let settings = Settings { segment_size: 64 << 20, max_size: 1 << 40, ..settings(Sync::Always) };
    let (store, _) = open_on(&settings, Arc::new(disk.clone()), NOW).unwrap();
    disk.set_sync_error(Some(std::io::ErrorKind::StorageFull));
    let publish = publish("t", &"x".repeat(1 << 20));
    let keeps_up = || store.poll_pace(&Context::from_waker(Waker::noop())).is_ready();
    assert!(keeps_up());
    // Who does not ask is not refused: what it says is taken would be lost.
    let session = store.new_session();
    store.append(&Record::Session(state(session, "a")));
    let mut handles = Vec::new();
    for serial in 0..100 {
        let (handle, _) = store.append_message(&stored(&publish, serial, false)).unwrap();
        store.append(&enqueue(session, handle.id()));
        handles.push(handle);
    }
    assert!(!keeps_up() && matches!(store.status(), Status::Slow | Status::Full));
    let at = store.append(&Record::SessionEnd { session: store.new_session() });
    disk.set_sync_error(None);
    wait(&store, at);
    until("there is room again", || store.status() == Status::Ready);
    assert!(keeps_up());
    store.close();
    let (_, recovered) = open_on(&settings, Arc::new(disk), NOW).unwrap();
    assert_eq!(recovered.sessions[0].waiting.len(), handles.len());
}
