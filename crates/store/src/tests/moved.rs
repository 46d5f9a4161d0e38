//! The power fails in the midst of a checkpoint, at each operation of the disk from its beginning to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::until;
use super::model::{NOW, picture_of};
use crate::disk::simulated::{Chance, Simulated};
use crate::store::open_on;
use crate::{Live, SegmentId, Settings, Status, Store, Sync};

/// Takes the power away a while after a checkpoint has begun.
#[derive(Debug)]
struct Fatal {
    within: Arc<dyn Live>,
    disk: Simulated,
    after: u64,
    seed: u64,
    begun: AtomicU64,
}

impl Live for Fatal {
    fn checkpoint(&self, before: SegmentId, store: &Store) -> bool {
        // The first one has nothing yet that an earlier one has moved.
        if self.begun.fetch_add(1, Ordering::SeqCst) == 1 {
            self.disk.lose_power_after(self.after, Chance::new(self.seed));
        }
        self.within.checkpoint(before, store)
    }
}

/// Whether the checkpoint in which the power was to fail came to its end.
fn fails_after(operations: u64, seed: u64) -> bool {
    let settings = Settings { path: "/simulated".into(), sync: Sync::Always, segment_size: 8 << 10, max_size: 1 << 30 };
    let disk = Simulated::default();
    let (store, recovered) = open_on(&settings, Arc::new(disk.clone()), NOW).unwrap();
    let (model, _) = picture_of(&store, recovered);
    let begun = AtomicU64::new(0);
    let live = Arc::new(Fatal { within: model.live(), disk: disk.clone(), after: operations, seed, begun });
    store.set_live(Arc::clone(&live) as Arc<dyn Live>);
    let mut chance = Chance::new(seed);
    until("a checkpoint begins", || {
        for _ in 0..50 {
            model.step(&mut chance);
        }
        live.begun.load(Ordering::SeqCst) > 1
    });
    until("the power fails or the checkpoint ends", || {
        store.status() == Status::Failed || store.figures().checkpoints > 1
    });
    let has_ended = store.figures().checkpoints > 1;
    let image = disk.after_power_loss(Chance::new(seed));
    let allowed = model.since_durable();
    let (after, recovered) = open_on(&settings, Arc::new(image), NOW).unwrap();
    assert_eq!(recovered.report.damage, [], "{operations} operations, seed {seed}");
    assert_eq!((recovered.report.lost_messages, recovered.report.replaced_sessions), (0, 0));
    let (_, picture) = picture_of(&after, recovered);
    assert!(
        allowed.contains(&picture),
        "{operations} operations, seed {seed}:\n{picture}\nis none of\n{}",
        allowed.join("\n")
    );
    has_ended
}

#[test]
fn the_power_fails_at_each_step_of_a_checkpoint() {
    // Each step in one or the other; how many there are depends on what comes together.
    for seed in 0..2 {
        let (mut operations, mut ended) = (seed, 0);
        while ended < 3 {
            assert!(operations < 400, "seed {seed}: a checkpoint of so many operations");
            ended += usize::from(fails_after(operations, seed));
            operations += 2;
        }
    }
}
