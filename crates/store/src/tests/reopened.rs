//! Started again and again, also where there is no room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::{until, wait};
use super::full::{SEGMENT, fill, settings, start};
use super::model::{Model, NOW, picture_of};
use crate::disk::simulated::{Chance, Simulated};
use crate::store::open_on;
use crate::{Live, SegmentId, Settings, Status, Store};

/// Room again, by itself, and messages are taken; it is all there at the next start.
fn goes_on(settings: &Settings, disk: Simulated, store: &Arc<Store>, model: Arc<Model>) {
    until("there is room again", || store.status() == Status::Ready);
    assert!(disk.used() <= settings.max_size, "{} bytes", disk.used());
    assert!(model.fill(), "messages are taken again");
    wait(store, model.end());
    let before = model.picture();
    drop(model);
    store.close();
    let (store, recovered) = open_on(settings, Arc::new(disk), NOW).unwrap();
    assert_eq!((recovered.report.damage.len(), recovered.report.lost_messages), (0, 0));
    assert_eq!(picture_of(&store, recovered).1, before);
}

fn drain(store: &Store, model: &Model, messages: usize) {
    for _ in 0..messages {
        assert!(model.drain());
        wait(store, model.end());
    }
}

#[test]
fn a_store_that_is_full_when_it_is_opened_drains() {
    for starts in [1, 6] {
        let disk = Simulated::default();
        let settings = settings(20 * SEGMENT);
        let (mut store, mut model) = start(&settings, &disk);
        let messages = fill(&store, &model);
        for _ in 0..starts {
            drop(model);
            store.close();
            (store, model) = start(&settings, &disk);
            until("it is full", || store.status() == Status::Full);
            assert!(!model.fill(), "no messages before there is room within max_size");
            // Each start has a file of its own, which it hardly uses, and a reserve.
            assert!(disk.used() <= 23 * SEGMENT, "{} bytes", disk.used());
        }
        drain(&store, &model, messages * 3 / 4);
        goes_on(&settings, disk, &store, model);
    }
}

#[test]
fn a_store_whose_bound_was_made_smaller_drains() {
    let disk = Simulated::default();
    let (store, model) = start(&settings(40 * SEGMENT), &disk);
    let messages = fill(&store, &model);
    drop(model);
    store.close();
    let settings = settings(20 * SEGMENT);
    let (store, model) = start(&settings, &disk);
    until("it is full", || store.status() == Status::Full);
    assert!(!model.fill() && disk.used() <= 43 * SEGMENT, "{} bytes", disk.used());
    drain(&store, &model, messages * 3 / 4);
    goes_on(&settings, disk, &store, model);
}

/// Holds a checkpoint up.
#[derive(Debug)]
struct Gate {
    within: Arc<dyn Live>,
    has_begun: AtomicBool,
    is_open: AtomicBool,
}

impl Live for Gate {
    fn checkpoint(&self, before: SegmentId, store: &Store) -> bool {
        self.has_begun.store(true, Ordering::SeqCst);
        until("the gate is open", || self.is_open.load(Ordering::SeqCst));
        self.within.checkpoint(before, store)
    }
}

#[test]
fn what_comes_while_a_checkpoint_is_under_way_does_not_take_the_room_that_it_needs() {
    let disk = Simulated::default();
    let settings = settings(20 * SEGMENT);
    let (store, model) = start(&settings, &disk);
    let messages = fill(&store, &model);
    drop(model);
    store.close();
    let (store, model) = start(&settings, &disk);
    let gate =
        Arc::new(Gate { within: model.live(), has_begun: AtomicBool::new(false), is_open: AtomicBool::new(false) });
    store.set_live(Arc::clone(&gate) as Arc<dyn Live>);
    until("something is dead and a checkpoint has begun", || {
        model.change_expiry();
        gate.has_begun.load(Ordering::SeqCst)
    });
    // More than what is left of the reserve.
    while model.end().segment().0 < 30 {
        model.change_expiry();
    }
    wait(&store, model.end());
    gate.is_open.store(true, Ordering::SeqCst);
    drain(&store, &model, messages * 3 / 4);
    goes_on(&settings, disk, &store, model);
}

/// Hundreds of starts, each of which writes a little and is killed or ends in good order.
fn hundreds_of_starts(settings: &Settings, disk: Simulated, bytes: u64) {
    let mut disk = disk;
    let mut chance = Chance::new(7);
    let mut before = None;
    for start in 0..300 {
        let (store, recovered) = open_on(settings, Arc::new(disk.clone()), NOW).unwrap();
        assert_eq!((recovered.report.damage.len(), recovered.report.lost_messages), (0, 0), "start {start}");
        let (model, picture) = picture_of(&store, recovered);
        assert!(before.is_none_or(|before| before == picture), "start {start}");
        model.change_expiry();
        wait(&store, model.end());
        before = Some(model.picture());
        if chance.one_in(2) {
            disk = disk.after_power_loss(Chance::new(start));
        }
        store.close();
    }
    // Each was too short to bring the files of those before together.
    let (store, recovered) = open_on(settings, Arc::new(disk.clone()), NOW).unwrap();
    let (_model, _) = picture_of(&store, recovered);
    // Twice as many as their bytes would fill, and 64 more.
    until("there are few files", || disk.names().len() < 128 && disk.used() <= bytes);
}

#[test]
fn hundreds_of_starts_do_not_fill_it() {
    // A file each, as large as it is made, would be 300 times the size of a segment.
    hundreds_of_starts(&settings(1 << 30), Simulated::default(), 12 * SEGMENT);
}

#[test]
fn hundreds_of_starts_of_a_full_store_do_not_make_it_larger() {
    let disk = Simulated::default();
    let settings = settings(20 * SEGMENT);
    let (store, model) = start(&settings, &disk);
    fill(&store, &model);
    drop(model);
    store.close();
    hundreds_of_starts(&settings, disk, 26 * SEGMENT);
}
