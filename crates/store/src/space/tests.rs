use super::*;
use crate::disk::simulated::Simulated;

const SIZE: u64 = 1000;

fn space(disk: &Simulated, max_segments: u64) -> Space {
    Space::new(Arc::new(disk.clone()), SIZE, SIZE * max_segments, BTreeMap::new()).unwrap()
}

fn make(space: &mut Space, segment: u64) -> io::Result<bool> {
    space.make(SegmentId(segment), b"header", false).map(|made| made.from_reserve)
}

#[test]
fn the_last_segments_come_out_of_the_reserve() {
    let disk = Simulated::default();
    let mut space = space(&disk, 5);
    assert!(space.refill().unwrap());
    assert!((1..=3).all(|segment| !make(&mut space, segment).unwrap()));
    assert!(make(&mut space, 4).unwrap() && make(&mut space, 5).unwrap());
    assert!(is_full(&make(&mut space, 6).unwrap_err()));
    assert_eq!((disk.used(), space.bytes(), space.len()), (5 * SIZE, 5 * SIZE, 5));
    // What goes is the reserve's first; there is room only when there is enough for another segment beside it.
    assert!(!space.refill().unwrap());
    assert!(space.remove_oldest(SegmentId(3)).unwrap() && space.remove_oldest(SegmentId(3)).unwrap());
    assert!(!space.remove_oldest(SegmentId(3)).unwrap(), "only what is older");
    assert!(!space.refill().unwrap());
    assert_eq!((disk.used(), space.bytes()), (5 * SIZE, 3 * SIZE));
    assert!(space.remove_oldest(SegmentId(4)).unwrap());
    assert!(space.refill().unwrap());
    assert!(!make(&mut space, 6).unwrap());
    assert_eq!(space.segments().map(|(segment, _)| segment.0).collect::<Vec<_>>(), [4, 5, 6]);
}

#[test]
fn on_a_full_disk_the_reserve_is_what_there_is() {
    let disk = Simulated::default();
    let mut space = space(&disk, 1000);
    assert!(space.refill().unwrap());
    disk.set_capacity(Some(disk.used()));
    assert!(make(&mut space, 1).unwrap());
    assert!(space.give_back());
    assert!(!space.give_back());
    assert!(!make(&mut space, 2).unwrap(), "what was given back is room on the disk");
    assert!(!space.refill().unwrap());
    assert!(disk.names().iter().all(|name| name.ends_with(".log")), "nothing half made stays: {:?}", disk.names());
}

#[test]
fn what_an_earlier_process_reserved_is_given_back_and_a_segment_of_no_use_is_replaced() {
    let disk = Simulated::default();
    let mut first = space(&disk, 1000);
    assert!(first.refill().unwrap());
    disk.create(&file_name(SegmentId(1))).unwrap().write(&[1; 5000], 0).unwrap();
    drop(first);
    let mut second = space(&disk, 1000);
    assert!(!make(&mut second, 1).unwrap());
    assert_eq!(disk.list().unwrap(), [(file_name(SegmentId(1)), SIZE)]);
}

#[test]
fn a_start_has_its_reserve_above_the_bound_once() {
    let disk = Simulated::default();
    let segments = (1..=5).map(|segment| (SegmentId(segment), SIZE)).collect();
    let mut space = Space::new(Arc::new(disk.clone()), SIZE, SIZE * 5, segments).unwrap();
    assert!(!space.refill().unwrap(), "there is no room for messages");
    assert!(make(&mut space, 6).unwrap() && make(&mut space, 7).unwrap());
    assert!(!space.refill().unwrap());
    assert!(is_full(&make(&mut space, 8).unwrap_err()), "not again and again");
    assert!(space.remove_oldest(SegmentId(2)).unwrap());
    assert!(!space.refill().unwrap());
    assert!(make(&mut space, 8).unwrap(), "as much as there was before");
    assert!(is_full(&make(&mut space, 9).unwrap_err()));
    // Less each time, until it is the bound.
    for segment in 2..=5 {
        assert!(space.remove_oldest(SegmentId(segment + 1)).unwrap());
    }
    assert!(!space.refill().unwrap());
    assert_eq!(disk.used(), 5 * SIZE);
    assert!(space.remove_oldest(SegmentId(7)).unwrap());
    assert!(space.refill().unwrap() && !make(&mut space, 9).unwrap());
    assert!(make(&mut space, 10).unwrap() && make(&mut space, 11).unwrap());
    assert!(is_full(&make(&mut space, 12).unwrap_err()));
    assert_eq!(disk.used(), 5 * SIZE);
}

#[test]
fn a_checkpoint_ends_whatever_it_needs() {
    let disk = Simulated::default();
    let mut space = space(&disk, 3);
    assert!(space.refill().unwrap());
    for segment in 1..=3 {
        make(&mut space, segment).unwrap();
    }
    assert!(!space.is_stuck());
    assert!(is_full(&make(&mut space, 4).unwrap_err()) && space.is_stuck());
    assert!(!space.make(SegmentId(4), b"header", true).unwrap().from_reserve && !space.is_stuck());
    disk.set_capacity(Some(disk.used()));
    assert!(is_full(&space.make(SegmentId(5), b"header", true).unwrap_err()), "where the disk has room");
}
