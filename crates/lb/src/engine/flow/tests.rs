use proptest::prelude::*;

use super::*;

const SIZE: usize = 64 * 1024;

fn readable() -> Flow {
    let mut flow = Flow::new();
    flow.handle_readable(false);
    flow
}

#[test]
fn rests_until_epoll_says_that_there_is_something() {
    let mut flow = Flow::new();
    assert_eq!(flow.step(), Step::Rest);
    flow.handle_readable(false);
    assert_eq!(flow.step(), Step::Receive);
}

#[test]
fn a_read_that_comes_short_is_not_followed_by_another() {
    let mut flow = readable();
    flow.handle_received(Outcome::Moved(64), SIZE);
    assert_eq!(flow.step(), Step::Send);
    flow.handle_sent(Outcome::Moved(64), 64);
    assert_eq!((flow.step(), flow.bytes()), (Step::Rest, 64));
}

#[test]
fn but_it_is_where_the_end_of_file_is_in() {
    let mut flow = Flow::new();
    flow.handle_readable(true);
    flow.handle_received(Outcome::Moved(64), SIZE);
    flow.handle_sent(Outcome::Moved(64), 64);
    assert_eq!(flow.step(), Step::Receive);
    flow.handle_received(Outcome::Ended, SIZE);
    assert_eq!(flow.step(), Step::End);
    flow.handle_ended();
    assert!(flow.is_done());
}

#[test]
fn what_is_not_taken_is_held_and_nothing_more_is_read() {
    let mut flow = readable();
    flow.handle_received(Outcome::Moved(SIZE), SIZE);
    flow.handle_sent(Outcome::Moved(10), SIZE);
    assert_eq!(flow.step(), Step::Rest);
    flow.handle_readable(false);
    assert_eq!(flow.step(), Step::Rest);
    flow.handle_writable();
    assert_eq!(flow.step(), Step::Send);
    flow.handle_sent(Outcome::Blocked, SIZE - 10);
    assert_eq!(flow.step(), Step::Rest);
    flow.handle_writable();
    flow.handle_sent(Outcome::Moved(SIZE - 10), SIZE - 10);
    assert_eq!(flow.step(), Step::Fill);
}

#[test]
fn bulk_is_spliced_until_a_splice_comes_short_and_then_a_read_tells_whether_that_was_all() {
    let mut flow = readable();
    flow.handle_received(Outcome::Moved(SIZE), SIZE);
    flow.handle_sent(Outcome::Moved(SIZE), SIZE);
    for (filled, then) in [(BULK, Step::Fill), (BULK - 1, Step::Receive)] {
        assert_eq!(flow.step(), Step::Fill);
        flow.handle_filled(Outcome::Moved(filled));
        assert_eq!(flow.step(), Step::Drain);
        flow.handle_drained(Outcome::Moved(filled - 1), filled);
        assert_eq!(flow.step(), Step::Drain);
        flow.handle_drained(Outcome::Blocked, 1);
        assert_eq!(flow.step(), Step::Rest);
        flow.handle_writable();
        flow.handle_drained(Outcome::Moved(1), 1);
        assert_eq!(flow.step(), then);
    }
    flow.handle_received(Outcome::Blocked, SIZE);
    assert_eq!(flow.step(), Step::Rest);
}

#[test]
fn without_a_pipe_it_copies() {
    let mut flow = readable();
    flow.handle_received(Outcome::Moved(SIZE), SIZE);
    flow.handle_sent(Outcome::Moved(SIZE), SIZE);
    flow.copy();
    assert_eq!(flow.step(), Step::Receive);
}

#[test]
fn what_came_before_a_reset_still_goes_and_what_a_dead_sink_does_not_take_is_dropped() {
    let mut flow = readable();
    flow.handle_received(Outcome::Moved(SIZE), SIZE);
    flow.handle_sent(Outcome::Blocked, SIZE);
    flow.handle_received(Outcome::Failed, SIZE);
    flow.handle_writable();
    assert_eq!(flow.step(), Step::Send);
    flow.handle_sent(Outcome::Failed, SIZE);
    assert!(flow.is_done());
    assert_eq!(flow.step(), Step::Rest);
}

/// A source and a sink as sockets are: bytes come in pieces, the sink's room is bounded, and epoll reports edges.
#[derive(Debug, Default)]
struct World {
    waiting: usize,
    ended: bool,
    held: usize,
    room: usize,
    nospace: bool,
    delivered: usize,
}

impl World {
    fn take(&mut self, most: usize) -> Outcome {
        match self.waiting.min(most) {
            0 if self.ended => Outcome::Ended,
            0 => Outcome::Blocked,
            count => {
                self.waiting -= count;
                self.held += count;
                Outcome::Moved(count)
            }
        }
    }

    fn give(&mut self) -> Outcome {
        let count = self.held.min(self.room);
        self.nospace = count < self.held;
        self.held -= count;
        self.room -= count;
        self.delivered += count;
        if count == 0 { Outcome::Blocked } else { Outcome::Moved(count) }
    }

    /// Does what the flow wants, as the driver does.
    fn run(&mut self, flow: &mut Flow) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            match flow.step() {
                Step::Rest => return Ok(()),
                Step::Receive => {
                    prop_assert_eq!(self.held, 0);
                    flow.handle_received(self.take(BULK), BULK);
                    if self.held > 0 {
                        let held = self.held;
                        flow.handle_sent(self.give(), held);
                    }
                }
                Step::Send => {
                    let held = self.held;
                    prop_assert!(held > 0);
                    flow.handle_sent(self.give(), held);
                }
                Step::Fill => {
                    prop_assert_eq!(self.held, 0);
                    flow.handle_filled(self.take(2 * BULK));
                }
                Step::Drain => {
                    let held = self.held;
                    prop_assert!(held > 0);
                    flow.handle_drained(self.give(), held);
                }
                Step::End => {
                    prop_assert!(self.ended && self.waiting == 0 && self.held == 0);
                    flow.handle_ended();
                }
            }
        }
        Err(TestCaseError::fail("it never rests"))
    }
}

proptest! {
    /// Whatever comes in whatever pieces is delivered whole, with edges alone, and the end of file after it.
    #[test]
    fn nothing_is_lost_and_nothing_stands_still(
        steps in proptest::collection::vec((any::<bool>(), 0_usize..5 * BULK), 1..60),
        end_first in any::<bool>(),
    ) {
        let (mut flow, mut world, mut sent) = (Flow::new(), World::default(), 0);
        for (source, count) in steps {
            if source {
                if count > 0 {
                    world.waiting += count;
                    sent += count;
                    flow.handle_readable(false);
                }
            } else {
                world.room += count;
                if count > 0 && std::mem::take(&mut world.nospace) {
                    flow.handle_writable();
                }
            }
            world.run(&mut flow)?;
        }
        if end_first {
            world.ended = true;
            flow.handle_readable(true);
            world.run(&mut flow)?;
        }
        world.room = usize::MAX;
        if std::mem::take(&mut world.nospace) {
            flow.handle_writable();
        }
        world.run(&mut flow)?;
        if !end_first {
            prop_assert_eq!((world.delivered, flow.bytes()), (sent, sent as u64));
            world.ended = true;
            flow.handle_readable(true);
            world.run(&mut flow)?;
        }
        prop_assert!(flow.is_done());
        prop_assert_eq!((world.delivered, flow.bytes()), (sent, sent as u64));
    }
}
