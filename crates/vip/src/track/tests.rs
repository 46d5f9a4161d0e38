#![expect(clippy::disallowed_methods, reason = "a test needs some instant to count from")]

use std::path::PathBuf;

use evermq_config::vip::{Script, Track, TrackWhat};
use proptest::prelude::*;

use super::names::{Names, Shown};
use super::*;

const HOLD: Duration = Duration::from_millis(60);
const SETTINGS: Settings = Settings { lb_timeout: Duration::from_secs(3600), hold_down: HOLD };

fn script(name: &str, weight: i16) -> Track {
    let script = Script {
        command: vec!["/bin/true".to_owned()],
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        user: None,
        shell: false,
    };
    Track { name: name.to_owned(), what: TrackWhat::Script(script), weight }
}

fn file(name: &str, weight: i16) -> Track {
    Track { name: name.to_owned(), what: TrackWhat::File { path: PathBuf::from("/run/x") }, weight }
}

fn interface(name: &str, weight: i16) -> Track {
    Track { name: name.to_owned(), what: TrackWhat::Interface { name: "eth1".to_owned() }, weight }
}

/// A tracker whose lb is up, with the actions so far taken.
fn up(tracks: &[Track]) -> (Tracker, Instant) {
    let now = Instant::now();
    let mut tracker = Tracker::new(SETTINGS, Tracks::new(tracks), now);
    tracker.handle_connected(now);
    tracker.handle_health(Health::Up, now);
    tracker.handle_timeout(now + HOLD);
    actions(&mut tracker);
    (tracker, now + HOLD)
}

fn actions(tracker: &mut Tracker) -> Vec<Action> {
    std::iter::from_fn(|| tracker.poll_action()).collect()
}

fn priority(tracker: &Tracker) -> (Option<u8>, Cause) {
    let effective = tracker.standing().effective(100);
    (effective.priority, effective.cause)
}

const T0: TrackId = TrackId(0);
const T1: TrackId = TrackId(1);

#[test]
fn each_weight_does_what_it_says() {
    for (track, verdict, expected) in [
        (script("s", 0), Verdict::Pending, (None, Cause::TrackPending(T0))),
        (script("s", 0), Verdict::Failed, (None, Cause::TrackFailed(T0))),
        (script("s", 0), Verdict::Good, (Some(100), Cause::LbUp)),
        (script("s", -20), Verdict::Pending, (Some(80), Cause::TrackPending(T0))),
        (script("s", -20), Verdict::Failed, (Some(80), Cause::TrackFailed(T0))),
        (script("s", -20), Verdict::Good, (Some(100), Cause::LbUp)),
        (script("s", 20), Verdict::Pending, (Some(100), Cause::TrackPending(T0))),
        (script("s", 20), Verdict::Failed, (Some(100), Cause::TrackFailed(T0))),
        (script("s", 20), Verdict::Good, (Some(120), Cause::TrackGood(T0))),
        (file("f", 0), Verdict::Value(0), (Some(100), Cause::LbUp)),
        (file("f", 0), Verdict::Value(-1), (None, Cause::TrackValue(T0))),
        (file("f", 2), Verdict::Value(5), (Some(110), Cause::TrackValue(T0))),
        (file("f", 2), Verdict::Value(-5), (Some(90), Cause::TrackValue(T0))),
        (file("f", -2), Verdict::Value(5), (Some(90), Cause::TrackValue(T0))),
        (file("f", -2), Verdict::Value(i32::MIN), (Some(254), Cause::TrackValue(T0))),
        (file("f", 253), Verdict::Value(i32::MIN), (Some(2), Cause::TrackValue(T0))),
        (interface("i", 0), Verdict::of_interface(false), (None, Cause::TrackFailed(T0))),
        (interface("i", 0), Verdict::of_interface(true), (Some(100), Cause::LbUp)),
        (interface("i", -253), Verdict::of_interface(false), (Some(2), Cause::TrackFailed(T0))),
    ] {
        let (mut tracker, now) = up(std::slice::from_ref(&track));
        tracker.handle_track(0, verdict, now);
        assert_eq!(priority(&tracker), expected, "{track:?} {verdict:?}");
    }
}

#[test]
fn the_owner_is_faulted_but_never_adjusted_and_others_do_not_become_owners() {
    let standing = |level, adjustment| Standing { level, adjustment, cause: Cause::LbUp };
    for (level, adjustment, base, expected) in [
        (Level::Full, -100, 255, Some(255)),
        (Level::Degraded, 0, 255, Some(LAST_RESORT)),
        (Level::Fault, 0, 255, None),
        (Level::Full, 253, 100, Some(254)),
        (Level::Full, -253, 254, Some(2)),
        (Level::Full, 0, 254, Some(254)),
        (Level::Full, -1, 2, Some(2)),
        (Level::Degraded, 50, 100, Some(LAST_RESORT)),
        (Level::Full, i16::MIN, 100, Some(2)),
        (Level::Full, i16::MAX, 100, Some(254)),
    ] {
        assert_eq!(standing(level, adjustment).effective(base).priority, expected, "{level} {adjustment} {base}");
    }
}

#[test]
fn the_parts_are_told_before_the_whole_and_only_changes() {
    let (mut tracker, now) = up(&[script("a", 0), script("b", -30)]);
    tracker.handle_track(0, Verdict::Good, now);
    let standing = Standing { level: Level::Full, adjustment: -30, cause: Cause::TrackPending(T1) };
    let part = |id, state, effect| Action::Part(Part::Track { id, state, effect });
    assert_eq!(actions(&mut tracker), [part(T0, TrackState::Good, Effect::None), Action::Standing(standing)]);
    tracker.handle_track(0, Verdict::Good, now);
    assert_eq!(actions(&mut tracker), []);
    tracker.handle_track(1, Verdict::Failed, now);
    let standing = Standing { cause: Cause::TrackFailed(T1), ..standing };
    let effect = Effect::Adjust(-30);
    assert_eq!(actions(&mut tracker), [part(T1, TrackState::Failed, effect), Action::Standing(standing)]);
    tracker.handle_health(Health::Down, now);
    assert_eq!(
        actions(&mut tracker),
        [
            Action::Part(Part::Lb { level: Level::Fault, cause: Cause::LbDown }),
            Action::Standing(Standing { level: Level::Fault, adjustment: -30, cause: Cause::LbDown }),
        ]
    );
    tracker.handle_track(7, Verdict::Failed, now);
    assert_eq!(actions(&mut tracker), [], "a track that does not exist");
}

#[test]
fn weights_add_up_and_the_largest_loss_is_the_cause() {
    let (mut tracker, now) = up(&[script("a", -10), script("b", -30), script("c", 5)]);
    for index in 0..3 {
        tracker.handle_track(index, Verdict::Failed, now);
    }
    assert_eq!(priority(&tracker), (Some(60), Cause::TrackFailed(T1)));
    tracker.handle_track(2, Verdict::Good, now);
    assert_eq!(priority(&tracker), (Some(65), Cause::TrackFailed(T1)));
    tracker.handle_track(1, Verdict::Good, now);
    assert_eq!(priority(&tracker), (Some(95), Cause::TrackFailed(T0)));
    tracker.handle_track(0, Verdict::Good, now);
    assert_eq!(priority(&tracker), (Some(105), Cause::TrackGood(TrackId(2))));
}

#[test]
fn an_interface_is_decided_at_once_and_held_down_when_it_comes_back() {
    let (mut tracker, mut now) = up(&[interface("i", 0)]);
    tracker.handle_track(0, Verdict::Good, now);
    assert_eq!(priority(&tracker), (Some(100), Cause::LbUp));
    tracker.handle_track(0, Verdict::Failed, now);
    assert_eq!(priority(&tracker), (None, Cause::TrackFailed(T0)));
    tracker.handle_track(0, Verdict::Good, now);
    assert_eq!(priority(&tracker), (None, Cause::TrackHeldDown(T0)));
    now += HOLD;
    assert_eq!(tracker.poll_timeout(), Some(now));
    tracker.handle_timeout(now);
    assert_eq!(priority(&tracker), (Some(100), Cause::LbUp));
    // Again within the flap memory: by way of the last resort, and longer.
    tracker.handle_track(0, Verdict::Failed, now);
    tracker.handle_track(0, Verdict::Good, now);
    now += HOLD;
    tracker.handle_timeout(now);
    assert_eq!(priority(&tracker), (Some(LAST_RESORT), Cause::TrackHeldDown(T0)));
    now += HOLD * 2;
    assert_eq!(tracker.poll_timeout(), Some(now));
    tracker.handle_timeout(now);
    assert_eq!(priority(&tracker), (Some(100), Cause::LbUp));
}

#[test]
fn a_reload_keeps_verdicts_of_what_stays_and_does_not_fault_what_is_new() {
    let old = [script("a", 0), interface("i", -10), file("f", 1)];
    let (mut tracker, now) = up(&old);
    tracker.handle_track(0, Verdict::Good, now);
    tracker.handle_track(1, Verdict::Failed, now);
    tracker.handle_track(2, Verdict::Value(7), now);
    assert_eq!(priority(&tracker).0, Some(97));
    actions(&mut tracker);
    let new = [file("f", 2), script("new", 0), interface("i", -20), script("a", 0), script("other", -50)];
    let given_back = tracker.handle_settings(SETTINGS, Tracks::reloaded(&old, &new));
    assert_eq!(given_back.len(), 3);
    assert_eq!(priority(&tracker), (Some(94), Cause::TrackFailed(TrackId(2))));
    let parts = actions(&mut tracker);
    let tracks = parts.iter().filter(|action| matches!(action, Action::Part(Part::Track { .. }))).count();
    assert_eq!((tracks, parts.len()), (5, 6), "every track and the new standing: {parts:?}");
    tracker.handle_track(1, Verdict::Failed, now);
    assert_eq!(priority(&tracker), (None, Cause::TrackFailed(T1)));
    // Another command is another thing.
    let mut changed = script("a", 0);
    if let TrackWhat::Script(script) = &mut changed.what {
        script.command.push("-v".to_owned());
    }
    let new_tracks = Tracks::reloaded(&new, std::slice::from_ref(&changed));
    let given_back = tracker.handle_settings(SETTINGS, new_tracks);
    assert_eq!(given_back.len(), 5);
    assert_eq!(priority(&tracker), (Some(100), Cause::LbUp));
}

#[test]
fn the_state_shows_every_part_by_name() {
    let tracks = [script("disk", -20), file("drain", 0)];
    let (mut tracker, now) = up(&tracks);
    let (mut shown, names) = (Shown::new(&tracks), Names::new(&tracks));
    tracker.handle_track(0, Verdict::Failed, now);
    tracker.handle_track(1, Verdict::Value(3), now);
    let changes: Vec<_> = actions(&mut tracker)
        .into_iter()
        .filter_map(|action| match action {
            Action::Part(part) => shown.apply(part),
            Action::Connect | Action::Standing(_) => None,
        })
        .map(|change| format!("{} {} {} {}", change.name, change.from, change.to, change.effect.unwrap_or_default()))
        .collect();
    assert_eq!(changes, ["disk pending failed -20", "drain pending 3 fault"]);
    let json = serde_json::to_value(&shown).unwrap();
    assert_eq!(json["tracks"][0]["effect"], "-20");
    assert_eq!(json["tracks"][0]["kind"], "script");
    assert_eq!(json["tracks"][1]["state"], "3");
    assert_eq!(names.cause(tracker.standing().cause), "track \"drain\" has its number");
    assert_eq!(tracker.standing().cause.to_string(), "track 2 has its number");
    let reason = crate::fsm::Reason::Health(Cause::TrackFailed(T0));
    assert_eq!(names.reason(reason), "track \"disk\" has failed");
    assert_eq!(shown.state(&script("disk", 7)), Some(TrackState::Failed));
    assert_eq!(shown.state(&file("disk", 7)), None, "another object");
    let shown = shown.reloaded(&[file("other", 1), script("disk", -5)]);
    assert_eq!((shown.tracks[0].state.as_str(), shown.tracks[1].state.as_str()), ("pending", "failed"));
    assert_eq!(shown.tracks[1].weight, -5);
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Pending),
        Just(Verdict::Good),
        Just(Verdict::Failed),
        (-300_i32..300).prop_map(Verdict::Value)
    ]
}

proptest! {
    #[test]
    fn any_verdicts_leave_a_priority_within_bounds_and_no_room_is_outgrown(
        weights in prop::collection::vec(-253_i16..=253, 0..12),
        steps in prop::collection::vec((0_usize..12, any_verdict(), 0_u64..100), 0..100),
        base in 2_u8..=254,
    ) {
        let kinds: [fn(&str, i16) -> Track; 3] = [script, file, interface];
        let tracks: Vec<_> = weights.iter().enumerate().map(|(n, weight)| kinds[n % 3]("t", *weight)).collect();
        let (mut tracker, mut now) = up(&tracks);
        let room = tracker.tracks.actions.capacity();
        let mut told = tracker.standing();
        let mut last = vec![Verdict::Pending; tracks.len()];
        for (index, verdict, millis) in steps {
            now += Duration::from_millis(millis);
            if tracker.poll_timeout().is_some_and(|due| due <= now) {
                tracker.handle_timeout(now);
            }
            tracker.handle_track(index, verdict, now);
            if let Some(last) = last.get_mut(index) {
                *last = verdict;
            }
            for action in actions(&mut tracker) {
                if let Action::Standing(standing) = action {
                    prop_assert_ne!(standing, told, "told twice");
                    told = standing;
                }
            }
            prop_assert_eq!(told, tracker.standing());
            prop_assert_eq!(tracker.tracks.actions.capacity(), room, "the real-time thread would have allocated");
            match told.effective(base).priority {
                None => prop_assert_eq!(told.level, Level::Fault),
                Some(LAST_RESORT) => prop_assert_eq!(told.level, Level::Degraded),
                Some(priority) => prop_assert!((2..=254).contains(&priority)),
            }
            let faulty = weights.iter().zip(&last).any(|(weight, verdict)| *weight == 0 && match verdict {
                Verdict::Good | Verdict::Value(0) => false,
                Verdict::Failed | Verdict::Pending | Verdict::Value(_) => true,
            });
            prop_assert!(!faulty || told.level == Level::Fault, "{:?}", last);
        }
    }
}
