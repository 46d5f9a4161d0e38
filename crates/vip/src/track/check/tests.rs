#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
const SETTINGS: Settings =
    Settings { interval: Duration::from_millis(100), timeout: Duration::from_millis(60), rise: 2, fall: 3 };

/// A check whose runs end as the test says.
struct Bench {
    check: Check,
    now: Instant,
}

impl Bench {
    fn new(settings: Settings, before: Verdict) -> Self {
        let now = Instant::now();
        Self { check: Check::new(settings, before, now), now }
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.check.poll_action()).collect()
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.check.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.check.handle_timeout(due);
            assert!(self.check.poll_timeout().is_none_or(|next| next > due), "a timer that does not move on");
        }
        self.now = end;
    }

    /// The run that is under way takes 10 ms; what it tells, and the next run.
    fn run(&mut self, passed: bool) -> Option<Verdict> {
        assert_eq!(self.actions(), [Action::Run]);
        self.wait(MS * 10);
        self.check.handle_exit(passed, self.now);
        let told = self.actions();
        self.wait(MS * 90);
        match told.as_slice() {
            [] => None,
            [Action::Tell(verdict)] => Some(*verdict),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_run_decides_and_then_rise_and_fall_count() {
    for (runs, expected) in [
        ("+", "+"),
        ("-", "-"),
        ("---", "-.."),
        ("+--+", "+..."),
        ("+---", "+..-"),
        ("+--+---", "+.....-"),
        ("-+-+", "-..."),
        ("-++", "-.+"),
        ("-+-++---", "-...+..-"),
    ] {
        let mut bench = Bench::new(SETTINGS, Verdict::Pending);
        let told: String = runs
            .chars()
            .map(|run| match bench.run(run == '+') {
                None => '.',
                Some(Verdict::Good) => '+',
                Some(Verdict::Failed) => '-',
                Some(other) => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, expected, "{runs}");
    }
}

#[test]
fn a_reload_goes_on_from_the_verdict_before() {
    let mut bench = Bench::new(SETTINGS, Verdict::Good);
    assert_eq!([false, false, false].map(|passed| bench.run(passed)), [None, None, Some(Verdict::Failed)]);
    let mut bench = Bench::new(SETTINGS, Verdict::Failed);
    assert_eq!([true, true].map(|passed| bench.run(passed)), [None, Some(Verdict::Good)]);
    for (before, passed) in [(Verdict::Good, true), (Verdict::Failed, false)] {
        let mut bench = Bench::new(SETTINGS, before);
        assert_eq!([passed, passed].map(|passed| bench.run(passed)), [Some(before), None], "told once more");
    }
}

#[test]
fn a_run_that_times_out_is_killed_and_counts_once() {
    let mut bench = Bench::new(Settings { fall: 1, ..SETTINGS }, Verdict::Good);
    assert_eq!(bench.actions(), [Action::Run]);
    bench.wait(MS * 59);
    assert_eq!(bench.actions(), []);
    bench.wait(MS);
    assert_eq!(bench.actions(), [Action::Tell(Verdict::Failed), Action::Kill]);
    bench.check.handle_exit(true, bench.now);
    assert_eq!(bench.actions(), [], "what a killed run says is not heard");
    bench.wait(MS * 40);
    assert_eq!(bench.actions(), [Action::Run]);
}

#[test]
fn a_script_that_still_runs_is_not_started_again_and_the_series_stays() {
    let mut bench = Bench::new(Settings { timeout: Duration::from_secs(1), ..SETTINGS }, Verdict::Pending);
    let start = bench.now;
    assert_eq!(bench.actions(), [Action::Run]);
    bench.wait(MS * 250);
    assert_eq!(bench.actions(), []);
    bench.check.handle_exit(true, bench.now);
    assert_eq!(bench.actions(), [Action::Tell(Verdict::Good)]);
    assert_eq!(bench.check.poll_timeout(), Some(start + MS * 300));
}

#[test]
fn one_that_cannot_be_killed_is_waited_for() {
    let mut bench = Bench::new(SETTINGS, Verdict::Pending);
    bench.wait(Duration::from_secs(10));
    assert_eq!(bench.actions(), [Action::Run, Action::Tell(Verdict::Failed), Action::Kill]);
    assert_eq!(bench.check.poll_timeout(), None);
    bench.check.handle_exit(false, bench.now);
    bench.wait(MS * 100);
    assert_eq!(bench.actions().first(), Some(&Action::Run));
}

#[test]
fn an_exit_that_nobody_waits_for_changes_nothing() {
    let mut bench = Bench::new(SETTINGS, Verdict::Pending);
    assert_eq!(bench.run(true), Some(Verdict::Good));
    assert_eq!(bench.actions(), [Action::Run]);
    bench.check.handle_exit(true, bench.now);
    bench.check.handle_exit(false, bench.now);
    assert_eq!(bench.actions(), []);
}

proptest! {
    #[test]
    fn one_run_at_a_time_and_verdicts_by_the_counts(
        rise in 1_u8..5, fall in 1_u8..5,
        steps in prop::collection::vec((any::<bool>(), 0_u64..300), 1..200),
    ) {
        let settings = Settings { rise, fall, ..SETTINGS };
        let mut bench = Bench::new(settings, Verdict::Pending);
        let (mut running, mut killed) = (false, false);
        let mut last_start: Option<Instant> = None;
        let mut results = Vec::new();
        let mut verdict = Verdict::Pending;
        for (passed, millis) in steps {
            bench.wait(Duration::from_millis(millis));
            let was_running = running;
            for action in bench.actions() {
                match action {
                    Action::Run => {
                        prop_assert!(!running);
                        running = true;
                        killed = false;
                        last_start = Some(bench.now);
                    }
                    Action::Kill => {
                        prop_assert!(running && !killed);
                        killed = true;
                        results.push(false);
                    }
                    Action::Tell(told) => {
                        prop_assert_ne!(told, verdict);
                        verdict = told;
                    }
                }
            }
            prop_assert!(running || was_running || bench.check.poll_timeout().is_some(), "a check that sleeps for ever");
            if running {
                if !killed {
                    results.push(passed);
                }
                bench.check.handle_exit(passed, bench.now);
                running = false;
                while let Some(Action::Tell(told)) = bench.check.poll_action() {
                    prop_assert_ne!(told, verdict);
                    verdict = told;
                }
            }
            let row = |wanted: bool| results.iter().rev().take_while(|result| **result == wanted).count();
            if row(false) >= usize::from(fall) { prop_assert_eq!(verdict, Verdict::Failed); }
            if row(true) >= usize::from(rise) { prop_assert_eq!(verdict, Verdict::Good); }
        }
        prop_assert!(last_start.is_some());
    }
}
