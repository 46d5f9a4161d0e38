#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::super::*;

const HOLD: Duration = Duration::from_millis(60);
const TIMEOUT: Duration = Duration::from_millis(300);
const BEAT: Duration = Duration::from_millis(100);
const MS: Duration = Duration::from_millis(1);

/// An action, for a configured priority of 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Connect,
    Effective(Effective),
}

/// A tracker on a clock of its own.
struct Bench {
    tracker: Tracker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::now();
        let settings = Settings { lb_timeout: TIMEOUT, hold_down: HOLD };
        let mut bench = Self { tracker: Tracker::new(settings, Tracks::new(&[]), now), now };
        assert_eq!(bench.actions(), [Said::Connect]);
        bench
    }

    /// A tracker whose lb has been up for long.
    fn up() -> Self {
        let mut bench = Self::new();
        bench.tracker.handle_connected(bench.now);
        bench.beat(Health::Up, FLAP_MEMORY + HOLD);
        assert_eq!(bench.effective(), Effective { priority: Some(200), cause: Cause::LbUp });
        bench.actions();
        bench
    }

    /// What the tracker says, with effective priorities in the place of standings.
    fn actions(&mut self) -> Vec<Said> {
        let actions = std::iter::from_fn(|| self.tracker.poll_action());
        let said = actions.filter_map(|action| match action {
            Action::Connect => Some(Said::Connect),
            Action::Part(_) => None,
            Action::Standing(standing) => Some(Said::Effective(standing.effective(200))),
        });
        said.collect()
    }

    fn effective(&self) -> Effective {
        self.tracker.standing().effective(200)
    }

    fn health(&mut self, health: Health) {
        self.tracker.handle_health(health, self.now);
    }

    /// Time passes; the tracker is woken as it asks; a missing lb stays missing.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.tracker.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.tracker.handle_timeout(due);
            assert!(self.tracker.poll_timeout().is_none_or(|next| next > due), "a timer that does not move on");
        }
        self.now = end;
    }

    /// The lb says `health` every beat, now first, for `time`.
    fn beat(&mut self, health: Health, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.health(health);
            self.wait(BEAT.min(end - self.now));
        }
    }

    /// How long a steady `health` takes until the effective priority is `priority`.
    fn time_to(&mut self, health: Health, priority: u8) -> Duration {
        let start = self.now;
        for _ in 0..100_000 {
            if self.effective().priority == Some(priority) {
                return self.now - start;
            }
            self.beat(health, MS);
        }
        panic!("priority {priority} never comes back");
    }
}

fn effective(priority: Option<u8>, cause: Cause) -> Said {
    Said::Effective(Effective { priority, cause })
}

#[test]
fn the_first_start_waits_for_the_lb_and_then_for_the_hold_down() {
    let mut bench = Bench::new();
    assert_eq!(bench.effective(), Effective { priority: None, cause: Cause::LbNotSeen });
    bench.tracker.handle_connected(bench.now);
    bench.health(Health::Up);
    assert_eq!(bench.actions(), [effective(None, Cause::LbHeldDown)]);
    bench.wait(HOLD - MS);
    assert_eq!(bench.actions(), []);
    bench.wait(MS);
    assert_eq!(bench.actions(), [effective(Some(200), Cause::LbUp)]);
}

#[test]
fn an_absent_lb_is_tried_every_twenty_milliseconds() {
    let mut bench = Bench::new();
    bench.tracker.handle_lost(bench.now);
    bench.wait(RECONNECT - MS);
    assert_eq!(bench.actions(), []);
    for _ in 0..5 {
        bench.wait(MS);
        assert_eq!(bench.actions(), [Said::Connect]);
        bench.tracker.handle_lost(bench.now);
        bench.wait(RECONNECT - MS);
        assert_eq!(bench.actions(), []);
    }
    assert_eq!(bench.effective().cause, Cause::LbNotSeen);
}

#[test]
fn every_bad_word_counts_at_once() {
    for (health, expected) in [
        (Health::Down, effective(None, Cause::LbDown)),
        (Health::Degraded, effective(Some(LAST_RESORT), Cause::LbDegraded)),
    ] {
        let mut bench = Bench::up();
        bench.health(health);
        assert_eq!(bench.actions(), [expected]);
    }
    let mut bench = Bench::up();
    bench.tracker.handle_lost(bench.now);
    assert_eq!(bench.actions(), [effective(None, Cause::LbGone)]);
}

#[test]
fn silence_counts_after_the_timeout_and_a_word_ends_it() {
    let mut bench = Bench::up();
    bench.health(Health::Up);
    bench.wait(TIMEOUT - MS);
    assert_eq!(bench.actions(), []);
    bench.wait(MS);
    assert_eq!(bench.actions(), [effective(None, Cause::LbSilent)]);
    assert_eq!(bench.tracker.poll_timeout(), None, "a frozen lb is waited for, not reconnected to");
    bench.beat(Health::Up, HOLD);
    assert_eq!(bench.actions(), [effective(None, Cause::LbHeldDown), effective(Some(200), Cause::LbUp)]);
}

#[test]
fn an_lb_that_accepts_and_never_speaks_is_silent() {
    let mut bench = Bench::new();
    bench.tracker.handle_connected(bench.now);
    bench.wait(TIMEOUT);
    assert_eq!(bench.actions(), [effective(None, Cause::LbSilent)]);
}

#[test]
fn our_own_pause_is_not_the_lbs_silence() {
    let mut bench = Bench::up();
    bench.health(Health::Up);
    bench.now += TIMEOUT * 2 + MS;
    bench.tracker.handle_timeout(bench.now);
    assert_eq!(bench.actions(), []);
    bench.wait(TIMEOUT);
    assert_eq!(bench.actions(), [effective(None, Cause::LbSilent)]);
}

#[test]
fn a_fall_during_the_hold_down_starts_it_anew() {
    let mut bench = Bench::up();
    bench.health(Health::Down);
    bench.health(Health::Up);
    bench.wait(HOLD - MS);
    bench.health(Health::Down);
    bench.health(Health::Up);
    bench.wait(HOLD - MS);
    assert_eq!(bench.effective().priority, None);
    bench.wait(MS);
    assert_eq!(bench.effective().priority, Some(200));
}

#[test]
fn from_fault_a_degraded_lb_becomes_the_last_resort_and_then_rises() {
    let mut bench = Bench::up();
    bench.tracker.handle_lost(bench.now);
    bench.tracker.handle_connected(bench.now);
    assert_eq!(bench.time_to(Health::Degraded, LAST_RESORT), HOLD);
    assert_eq!(bench.time_to(Health::Up, 200), HOLD);
    let falls_and_rises = [
        effective(None, Cause::LbGone),
        effective(None, Cause::LbHeldDown),
        effective(Some(LAST_RESORT), Cause::LbDegraded),
        effective(Some(LAST_RESORT), Cause::LbUnsteady),
        effective(Some(200), Cause::LbUp),
    ];
    assert_eq!(bench.actions(), falls_and_rises);
}

#[test]
fn flapping_doubles_the_time_to_full_rank_but_never_keeps_the_host_out() {
    let mut bench = Bench::up();
    let mut times = Vec::new();
    for _ in 0..9 {
        bench.tracker.handle_lost(bench.now);
        bench.tracker.handle_connected(bench.now);
        let fit = bench.time_to(Health::Up, if times.is_empty() { 200 } else { LAST_RESORT });
        assert_eq!(fit, HOLD, "the last resort is there after the plain hold-down");
        times.push(fit + bench.time_to(Health::Up, 200));
        bench.beat(Health::Up, Duration::from_secs(1));
    }
    let expected = [60, 180, 300, 540, 1020, 1980, 3900, 5060, 5060].map(Duration::from_millis);
    assert_eq!(times, expected);
    bench.beat(Health::Up, FLAP_MEMORY);
    bench.tracker.handle_lost(bench.now);
    bench.tracker.handle_connected(bench.now);
    assert_eq!(bench.time_to(Health::Up, 200), HOLD, "ten steady seconds are forgiven");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connected,
    Lost,
    Health(Health),
    Wait(u64),
}

proptest! {
    #[test]
    fn the_priority_is_never_better_than_the_lbs_last_word(steps in prop::collection::vec(
        prop_oneof![
            Just(Step::Connected),
            Just(Step::Lost),
            prop_oneof![Just(Health::Up), Just(Health::Degraded), Just(Health::Down)].prop_map(Step::Health),
            (0_u64..400).prop_map(Step::Wait),
        ],
        1..200,
    )) {
        let mut bench = Bench::new();
        let mut given = bench.effective();
        let mut word = None;
        for step in steps {
            match step {
                Step::Connected => { bench.tracker.handle_connected(bench.now); word = None; }
                Step::Lost => { bench.tracker.handle_lost(bench.now); word = None; }
                Step::Health(health) => { bench.health(health); word = Some(health); }
                Step::Wait(millis) => bench.wait(Duration::from_millis(millis)),
            }
            for action in bench.actions() {
                if let Said::Effective(effective) = action {
                    prop_assert_ne!(effective, given, "told twice");
                    given = effective;
                }
            }
            prop_assert_eq!(given, bench.effective());
            let best = match word {
                None | Some(Health::Down) => None,
                Some(Health::Degraded) => Some(LAST_RESORT),
                Some(Health::Up) => Some(200),
            };
            prop_assert!(given.priority <= best, "{given:?} though the lb said {word:?}");
        }
    }
}
