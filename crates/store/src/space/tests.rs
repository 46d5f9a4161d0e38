use super::*;
use crate::disk::simulated::Simulated;

const SIZE: u64 = 1000;

fn space(disk: &Simulated, max_segments: u64) -> Space {
    Space::new(Arc::new(disk.clone()), SIZE, SIZE * max_segments, BTreeMap::new()).unwrap()
}

fn make(space: &mut Space, segment: u64) -> io::Result<bool> {
    space.make(SegmentId(segment), b"header").map(|made| made.from_reserve)
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
    // Room for a segment is room for the reserve only when there is enough for both.
    assert!(!space.refill().unwrap());
    assert!(space.remove_oldest(SegmentId(3)).unwrap() && space.remove_oldest(SegmentId(3)).unwrap());
    assert!(!space.remove_oldest(SegmentId(3)).unwrap(), "only what is older");
    assert!(!space.refill().unwrap());
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
