#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const ALL: Configured = Configured { master: true, backup: true, fault: true, any: true };
const STATES: [Told; 4] = [Told::Master, Told::Backup, Told::Fault, Told::Stop];

fn news(state: Told, priority: u8) -> News {
    News { state, priority, reason: "because".to_owned() }
}

fn actions(queue: &mut Queue) -> Vec<Action> {
    std::iter::from_fn(|| queue.poll_action()).collect()
}

#[test]
fn the_states_own_program_runs_before_the_one_for_every_change() {
    for (state, specific) in [
        (Told::Master, Some(Which::Master)),
        (Told::Backup, Some(Which::Backup)),
        (Told::Fault, Some(Which::Fault)),
        (Told::Stop, None),
    ] {
        let now = Instant::now();
        let mut queue = Queue::new(ALL, TIMEOUT);
        queue.handle_news(news(state, 7), now);
        for which in specific.into_iter().chain([Which::Any]) {
            assert_eq!(actions(&mut queue), [Action::Run(which, news(state, 7))]);
            assert!(!queue.is_idle());
            queue.handle_exit(now);
        }
        assert_eq!(actions(&mut queue), []);
        assert!(queue.is_idle());
    }
}

#[test]
fn without_programs_nothing_is_done() {
    let mut queue = Queue::new(Configured::default(), TIMEOUT);
    for state in STATES {
        queue.handle_news(news(state, 1), Instant::now());
    }
    let only_fault = Configured { fault: true, ..Configured::default() };
    let mut faulty = Queue::new(only_fault, TIMEOUT);
    for state in [Told::Master, Told::Backup, Told::Stop] {
        faulty.handle_news(news(state, 1), Instant::now());
    }
    for mut queue in [queue, faulty] {
        assert_eq!(actions(&mut queue), []);
        assert!(queue.is_idle());
        assert_eq!(queue.poll_timeout(), None);
    }
}

#[test]
fn while_one_runs_only_the_newest_state_waits() {
    let now = Instant::now();
    let mut queue = Queue::new(Configured { any: true, ..Configured::default() }, TIMEOUT);
    queue.handle_news(news(Told::Master, 1), now);
    assert_eq!(actions(&mut queue), [Action::Run(Which::Any, news(Told::Master, 1))]);
    queue.handle_news(news(Told::Backup, 2), now);
    queue.handle_news(news(Told::Fault, 3), now);
    queue.handle_news(news(Told::Master, 4), now);
    let skipped = [Action::Skipped(news(Told::Backup, 2)), Action::Skipped(news(Told::Fault, 3))];
    assert_eq!(actions(&mut queue), skipped);
    assert_eq!(queue.skipped(), 2);
    queue.handle_exit(now);
    assert_eq!(actions(&mut queue), [Action::Run(Which::Any, news(Told::Master, 4))]);
    queue.handle_exit(now);
    assert!(queue.is_idle());
}

#[test]
fn a_program_that_hangs_is_killed_and_the_next_one_runs() {
    let now = Instant::now();
    let mut queue = Queue::new(ALL, TIMEOUT);
    queue.handle_news(news(Told::Master, 1), now);
    queue.handle_news(news(Told::Backup, 2), now);
    assert_eq!(actions(&mut queue).len(), 1);
    assert_eq!(queue.poll_timeout(), Some(now + TIMEOUT));
    queue.handle_timeout(now + TIMEOUT - Duration::from_millis(1));
    assert_eq!(actions(&mut queue), []);
    queue.handle_timeout(now + TIMEOUT);
    assert_eq!(actions(&mut queue), [Action::Kill]);
    assert_eq!(queue.poll_timeout(), None);
    queue.handle_timeout(now + TIMEOUT * 2);
    assert_eq!(actions(&mut queue), [], "killed once");
    for expected in [
        Action::Run(Which::Any, news(Told::Master, 1)),
        Action::Run(Which::Backup, news(Told::Backup, 2)),
        Action::Run(Which::Any, news(Told::Backup, 2)),
    ] {
        queue.handle_exit(now);
        assert_eq!(actions(&mut queue), [expected]);
    }
    queue.handle_exit(now);
    queue.handle_exit(now);
    assert!(queue.is_idle());
}

proptest! {
    #[test]
    fn one_at_a_time_in_order_and_the_last_state_is_always_told(
        flags in any::<[bool; 4]>(),
        steps in prop::collection::vec((0_u8..8, 0_usize..4), 1..200),
    ) {
        let [master, backup, fault, any] = flags;
        let mut queue = Queue::new(Configured { master, backup, fault, any }, TIMEOUT);
        let mut now = Instant::now();
        let (mut running, mut number) = (None, 0_u8);
        let (mut announced, mut told, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        let there = |state| any || match state {
            Told::Master => master,
            Told::Backup => backup,
            Told::Fault => fault,
            Told::Stop => false,
        };
        let mut ops: Vec<_> = steps.into_iter().map(Some).collect();
        // Then everything ends.
        ops.extend([None; 5]);
        for op in ops {
            match op {
                Some((0..4, state)) => {
                    number = number.wrapping_add(1);
                    if there(STATES[state]) {
                        announced.push(number);
                    }
                    queue.handle_news(news(STATES[state], number), now);
                }
                Some((4, _)) => {
                    now += TIMEOUT;
                    queue.handle_timeout(now);
                }
                Some(_) | None => {
                    running = None;
                    queue.handle_exit(now);
                }
            }
            for action in actions(&mut queue) {
                match action {
                    Action::Run(_, news) => {
                        prop_assert_eq!(running, None);
                        running = Some(news.priority);
                        if told.last() != Some(&news.priority) {
                            told.push(news.priority);
                        }
                    }
                    Action::Kill => prop_assert!(running.is_some()),
                    Action::Skipped(news) => skipped.push(news.priority),
                }
            }
        }
        prop_assert!(queue.is_idle());
        prop_assert_eq!(told.last(), announced.last());
        prop_assert_eq!(queue.skipped(), skipped.len() as u64);
        prop_assert_eq!(told.len() + skipped.len(), announced.len());
        let mut accounted: Vec<_> = told.iter().chain(&skipped).copied().collect();
        accounted.sort_unstable();
        prop_assert_eq!(accounted, announced);
    }
}
