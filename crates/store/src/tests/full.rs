//! There is no room, or the disk fails.

use std::io;
use std::sync::Arc;

use super::files::{until, wait};
use super::model::{Model, NOW, picture_of};
use crate::disk::simulated::{Chance, Simulated};
use crate::store::open_on;
use crate::{Live, SegmentId, Settings, Status, Store, Sync};

pub(super) const SEGMENT: u64 = 8 << 10;

pub(super) fn settings(max_size: u64) -> Settings {
    Settings { path: "/simulated".into(), sync: Sync::Always, segment_size: SEGMENT, max_size }
}

pub(super) fn start(settings: &Settings, disk: &Simulated) -> (Arc<Store>, Arc<Model>) {
    let (store, recovered) = open_on(settings, Arc::new(disk.clone()), NOW).unwrap();
    assert_eq!(recovered.report.damage, []);
    let (model, _) = picture_of(&store, recovered);
    (store, model)
}

/// Moves nothing.
#[derive(Debug)]
struct Idle;

impl Live for Idle {
    fn checkpoint(&self, _before: SegmentId, _store: &Store) -> bool {
        false
    }
}

/// Until no more messages are taken.
pub(super) fn fill(store: &Store, model: &Model) -> usize {
    let mut messages = 0;
    while model.fill() {
        messages += 1;
        wait(store, model.end());
        assert!(messages < 10_000, "it never was full");
    }
    assert_eq!(store.status(), Status::Full);
    let text = store.trouble().unwrap().text;
    assert!(text.contains("broker.store.max_size") && text.contains("free disk space"), "{text}");
    messages
}

/// Full; acknowledgements still get through, and when enough is acknowledged there is room again, by itself.
fn fill_and_drain(settings: &Settings, disk: &Simulated, at_most: u64) {
    let (store, model) = start(settings, disk);
    let messages = fill(&store, &model);
    assert!(disk.used() <= at_most, "{} of {at_most} bytes", disk.used());
    assert!(messages as u64 * 1000 > at_most / 2, "full with {messages} messages");
    for _ in 0..messages * 3 / 4 {
        assert!(model.drain());
        wait(&store, model.end());
    }
    until("there is room again", || store.status() == Status::Ready);
    assert_eq!(store.trouble(), None);
    assert!(store.figures().deleted_segments > 0 && store.figures().full > 0);
    assert!(model.fill(), "messages are taken again");
    wait(&store, model.end());
    assert!(disk.used() <= at_most);
    let before = model.picture();
    let (_, after) = {
        let image = disk.after_power_loss(Chance::new(9));
        let (store, recovered) = open_on(settings, Arc::new(image), NOW).unwrap();
        assert_eq!((recovered.report.damage.len(), recovered.report.lost_messages), (0, 0));
        picture_of(&store, recovered)
    };
    assert_eq!(after, before);
}

#[test]
fn at_max_size() {
    fill_and_drain(&settings(20 * SEGMENT), &Simulated::default(), 20 * SEGMENT);
}

#[test]
fn on_a_full_disk() {
    let disk = Simulated::default();
    disk.set_capacity(Some(20 * SEGMENT));
    fill_and_drain(&settings(1 << 30), &disk, 20 * SEGMENT);
}

#[test]
fn on_a_full_disk_that_takes_part_of_a_write() {
    let disk = Simulated::default();
    disk.set_capacity(Some(20 * SEGMENT));
    disk.cannot_allocate();
    fill_and_drain(&settings(1 << 30), &disk, 20 * SEGMENT);
}

#[test]
fn without_even_the_reserve_it_waits_and_goes_on_when_there_is_room() {
    let disk = Simulated::default();
    disk.set_capacity(Some(20 * SEGMENT));
    let settings = settings(1 << 30);
    let (store, model) = start(&settings, &disk);
    // Nothing is moved, so nothing goes.
    store.set_live(Arc::new(Idle));
    fill(&store, &model);
    // Acknowledgements use the reserve up: sessions that come and go.
    let mut chance = Chance::new(5);
    until("nothing is durable any more", || {
        for _ in 0..200 {
            model.step(&mut chance);
        }
        let at = model.end();
        // A disk that is merely slow takes it within one of these.
        let stands = (0..10).all(|_| {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            !store.is_durable(at)
        });
        stands && store.status() == Status::Full
    });
    let at = model.end();
    disk.set_capacity(None);
    store.set_live(model.live());
    wait(&store, at);
    until("there is room again", || store.status() == Status::Ready);
    let before = model.picture();
    drop(model);
    store.close();
    let (store, recovered) = open_on(&settings, Arc::new(disk), NOW).unwrap();
    assert_eq!((recovered.report.damage.len(), &recovered.report.torn), (0, &None));
    assert_eq!(picture_of(&store, recovered).1, before);
}

#[test]
fn a_disk_that_fails_is_not_trusted_again() {
    for (sync, write) in [(Some(io::ErrorKind::Other), None), (None, Some(io::ErrorKind::Other))] {
        let disk = Simulated::default();
        let settings = settings(1 << 30);
        let (store, model) = start(&settings, &disk);
        assert!(model.fill());
        wait(&store, model.end());
        disk.set_sync_error(sync);
        disk.set_write_error(write);
        model.fill();
        let lost = model.end();
        until("it has failed", || store.status() == Status::Failed);
        // It does not say later what it could not say then.
        disk.set_sync_error(None);
        disk.set_write_error(None);
        assert!(!model.fill());
        assert!(!store.is_durable(lost));
        let text = store.trouble().unwrap().text;
        assert!(text.contains("check the disk"), "{text}");
        let allowed = model.since_durable();
        let disk = disk.after_power_loss(Chance::new(3));
        let (store, recovered) = open_on(&settings, Arc::new(disk), NOW).unwrap();
        let (_, picture) = picture_of(&store, recovered);
        assert!(allowed.contains(&picture), "{picture}");
    }
}

#[test]
fn what_a_failed_sync_lost_is_not_there_for_the_next_start_either() {
    let disk = Simulated::default();
    let settings = settings(1 << 30);
    let (store, model) = start(&settings, &disk);
    assert!(model.fill());
    wait(&store, model.end());
    let durable = model.picture();
    disk.set_sync_error(Some(io::ErrorKind::Other));
    model.fill();
    until("it has failed", || store.status() == Status::Failed);
    disk.set_sync_error(None);
    drop((store, model));
    // The system's memory still has what the disk has not; a broker that served this would lose it with the power.
    let (store, recovered) = open_on(&settings, Arc::new(disk), NOW).unwrap();
    assert_eq!(picture_of(&store, recovered).1, durable);
}

#[test]
fn a_sync_that_found_no_room_is_done_again_with_everything() {
    let disk = Simulated::default();
    let settings = settings(1 << 30);
    let (store, model) = start(&settings, &disk);
    assert!(model.fill());
    wait(&store, model.end());
    disk.set_sync_error(Some(io::ErrorKind::StorageFull));
    model.fill();
    until("it is full", || store.status() == Status::Full);
    assert!(!store.is_durable(model.end()));
    disk.set_sync_error(None);
    wait(&store, model.end());
    until("there is room again", || store.status() == Status::Ready);
    let before = model.picture();
    let (store, recovered) = open_on(&settings, Arc::new(disk.after_power_loss(Chance::new(2))), NOW).unwrap();
    assert_eq!(picture_of(&store, recovered).1, before);
}
