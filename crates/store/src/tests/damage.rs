//! Bytes on the disk that are not what was written.

use std::sync::Arc;

use super::files::wait;
use super::model::{NOW, picture_of};
use super::sample::{enqueue, publish, state, stored};
use crate::disk::Disk as _;
use crate::disk::simulated::{Chance, Simulated};
use crate::frame::{Framing, HEADER as FRAME_HEADER};
use crate::position::SegmentId;
use crate::record::Entry;
use crate::segment::{Header, file_name};
use crate::store::open_on;
use crate::{Loss, Record, Settings, StoreError, Sync, scan};

fn settings() -> Settings {
    Settings { path: "/simulated".into(), sync: Sync::Always, segment_size: 4 << 10, max_size: 1 << 30 }
}

/// A store with one session for which `messages` wait, closed.
fn written(messages: u64) -> Simulated {
    let disk = Simulated::default();
    let (store, _) = open_on(&settings(), Arc::new(disk.clone()), NOW).unwrap();
    let session = store.new_session();
    store.append(&Record::Session(state(session, "a")));
    for number in 0..messages {
        let publish = publish("t", &format!("message {number}"));
        let (message, _) = store.append_message(&stored(&publish, number, false)).unwrap();
        let at = store.append(&enqueue(session, message.id()));
        if number % 16 == 0 {
            wait(&store, at);
        }
    }
    store.close();
    disk
}

/// The frames of a segment: where they begin and end, and the highest mark.
fn frames_of(disk: &Simulated, segment: SegmentId) -> (Vec<(u64, u64)>, u64) {
    let mut bytes = Vec::new();
    disk.open(&file_name(segment)).unwrap().read(&mut bytes, u64::MAX).unwrap();
    let framing = Framing::new(Header::decode(&bytes).unwrap().identity);
    let mut synced = 0;
    let frames = scan::frames(&bytes, &framing, bytes.len() as u64);
    let places = frames.map(|found| {
        if let Ok(Entry::Commit { synced: mark }) = found.entry() {
            synced = synced.max(mark);
        }
        (found.offset, found.offset + (FRAME_HEADER + found.record.len()) as u64)
    });
    (places.collect(), synced)
}

#[test]
fn flipped_bytes_cost_the_records_that_they_are_in_and_no_other() {
    for seed in 0..40 {
        let disk = written(400);
        let segments = disk.names().iter().filter(|name| name.ends_with(".log")).count() as u64;
        assert!(segments > 5);
        let all: u64 = (1..=segments).map(|segment| frames_of(&disk, SegmentId(segment)).0.len() as u64).sum();
        let mut chance = Chance::new(seed);
        let mut lost = Vec::new();
        for _ in 0..=chance.below(4) {
            let segment = SegmentId(1 + chance.below(segments as usize) as u64);
            let (frames, synced) = frames_of(&disk, segment);
            let is_last = segment.0 == segments;
            // In the last segment what was not marked as synced is taken for torn.
            let candidates: Vec<_> = frames.iter().filter(|(_, end)| !is_last || *end <= synced).copied().collect();
            let (from, to) = candidates[chance.below(candidates.len())];
            let at = from + chance.below((to - from) as usize) as u64;
            disk.alter(&file_name(segment), |bytes| bytes[at as usize] ^= 1 << chance.below(8));
            if !lost.contains(&(segment, from, to)) {
                lost.push((segment, from, to));
            }
        }
        let (_store, recovered) = open_on(&settings(), Arc::new(disk.clone()), NOW).unwrap();
        let report = &recovered.report;
        // Neighbours are one hole; a byte that was flipped twice may be right again.
        let covered = |segment: SegmentId, from, to| {
            report.damage.iter().any(|damage| {
                damage.file.ends_with(file_name(segment)) && damage.offset <= from && to <= damage.offset + damage.len
            })
        };
        let bytes: u64 = report.damage.iter().map(|damage| damage.len).sum();
        assert!(lost.iter().all(|(segment, from, to)| covered(*segment, *from, *to)), "seed {seed}: {report:?}");
        assert_eq!(bytes, lost.iter().map(|(_, from, to)| to - from).sum::<u64>(), "seed {seed}");
        assert_eq!(report.records, all - lost.len() as u64, "seed {seed}");
        assert_eq!(report.torn, None, "seed {seed}");
        // A message is gone with its own record or with that which says who waits for it.
        let waiting = recovered.sessions.iter().map(|session| session.waiting.len()).sum::<usize>();
        let has_session = !lost.iter().any(|(segment, from, _)| *segment == SegmentId(1) && *from == 96);
        if has_session {
            assert!((400 - lost.len()..=400).contains(&waiting), "seed {seed}: {waiting}");
        }
    }
}

#[test]
fn a_lost_header_costs_no_record() {
    let disk = written(200);
    disk.alter(&file_name(SegmentId(3)), |bytes| bytes[20] ^= 1);
    let (store, recovered) = open_on(&settings(), Arc::new(disk), NOW).unwrap();
    let [damage] = &recovered.report.damage[..] else { panic!("{:?}", recovered.report) };
    assert_eq!((damage.lost, damage.offset, damage.len), (Loss::Header, 0, 96));
    assert_eq!(recovered.sessions[0].waiting.len(), 200);
    drop(picture_of(&store, recovered));
}

#[test]
fn a_lost_or_shortened_file_is_reported_and_the_rest_is_served() {
    let disk = written(400);
    let name = file_name(SegmentId(3));
    let (frames, _) = frames_of(&disk, SegmentId(3));
    disk.remove(&name).unwrap();
    let whole = file_name(SegmentId(5));
    let (cut, _) = frames_of(&disk, SegmentId(5)).0[10];
    let mut len = 0;
    disk.alter(&whole, |bytes| {
        len = bytes.len() as u64;
        bytes.truncate(cut as usize + 3);
    });
    let (_store, recovered) = open_on(&settings(), Arc::new(disk), NOW).unwrap();
    let [missing, shortened] = &recovered.report.damage[..] else { panic!("{:?}", recovered.report) };
    assert_eq!(missing.lost, Loss::File);
    assert!(missing.file.ends_with(&name));
    assert!(shortened.file.ends_with(&whole));
    assert_eq!((shortened.offset, shortened.len, shortened.lost), (cut, len - cut, Loss::Records));
    let waiting = recovered.sessions[0].waiting.len();
    assert!(waiting > 200 && waiting + frames.len() / 2 < 400, "{waiting}");
}

#[test]
fn a_frame_within_a_payload_is_no_frame() {
    // A client that knew the format, and not the store's identity.
    let framing = Framing::new([7; 16]);
    let mut forged = bytes::BytesMut::new();
    let start = Framing::begin(&mut forged);
    let kind = crate::record::encode(&Record::Session(state(crate::SessionId(99), "forged")), &mut forged);
    framing.finish(&mut forged, start, kind);
    let disk = Simulated::default();
    let (store, _) = open_on(&settings(), Arc::new(disk.clone()), NOW).unwrap();
    let mut publish = publish("t", "");
    publish.payload = forged.freeze();
    let (_message, at) = store.append_message(&stored(&publish, 1, false)).unwrap();
    wait(&store, at);
    wait(&store, store.append(&Record::Session(state(store.new_session(), "real"))));
    store.close();
    disk.alter(&file_name(SegmentId(1)), |bytes| bytes[98] ^= 1);
    let (_store, recovered) = open_on(&settings(), Arc::new(disk), NOW).unwrap();
    assert_eq!(recovered.report.damage.len(), 1);
    assert_eq!(recovered.sessions.iter().map(|session| &*session.client_id).collect::<Vec<_>>(), ["real"]);
}

#[test]
fn a_later_version_and_a_store_without_any_header_are_refused() {
    let disk = written(200);
    disk.alter(&file_name(SegmentId(2)), |bytes| {
        bytes[8] = 3;
        let checksum = crc32c::crc32c(&bytes[..80]);
        bytes[80..84].copy_from_slice(&checksum.to_le_bytes());
    });
    let error = open_on(&settings(), Arc::new(disk), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Version { version: 3, known: 2, .. }), "{error}");

    let disk = written(1);
    disk.alter(&file_name(SegmentId(1)), |bytes| bytes[0] = 0);
    let error = open_on(&settings(), Arc::new(disk), NOW).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error}");
}

#[test]
fn a_log_for_other_brokers_is_doubtful_only_while_damage_is_behind_its_latest_record() {
    let log = |first| Record::OriginLog(crate::OriginLog { epoch: 1, reserved: 9, first, kept: 0 });
    let disk = Simulated::default();
    let (store, _) = open_on(&settings(), Arc::new(disk.clone()), NOW).unwrap();
    store.append(&log(1));
    store.append(&Record::Session(state(store.new_session(), "to be damaged")));
    wait(&store, store.append(&Record::Session(state(store.new_session(), "whole"))));
    store.close();
    disk.alter(&file_name(SegmentId(1)), |bytes| {
        let at = bytes.windows(13).position(|window| window == b"to be damaged").unwrap();
        bytes[at] ^= 1;
    });
    for expected in [true, false] {
        let (store, recovered) = open_on(&settings(), Arc::new(disk.clone()), NOW).unwrap();
        assert_eq!(recovered.report.damage.len(), 1);
        assert_eq!(recovered.mesh.is_log_doubtful, expected, "the second time its record is behind the damage");
        wait(&store, store.append(&log(2)));
        store.close();
    }
}
