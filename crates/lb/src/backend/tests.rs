#![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

use proptest::prelude::*;

use super::*;

fn gone() -> [Failure; 6] {
    [
        Failure::Refused,
        Failure::Unreachable("no route".to_owned()),
        Failure::ConnectTimeout,
        Failure::HandshakeTimeout,
        Failure::Closed,
        Failure::NoAnswer,
    ]
}

fn rejected() -> Failure {
    Failure::Rejected("bad certificate".to_owned())
}

fn local() -> Failure {
    Failure::Local("too many open files".to_owned())
}

/// A connection that was refused, where the group can do without the backend.
fn refused() -> Failed {
    failed(Refusal::Refused)
}

fn failed(refusal: Refusal) -> Failed {
    Failed { refusal, answered: 0, may_eject: true }
}

/// A backend of that standing, its actions taken.
fn backend(standing: Standing, now: Instant) -> Backend {
    let mut backend = Backend::new();
    match standing {
        Standing::Unproven => {}
        Standing::Up => backend.handle_alive(Reason::SessionUp),
        Standing::Suspect => {
            backend.handle_alive(Reason::SessionUp);
            backend.handle_refusal(refused(), now);
        }
        Standing::Rejecting => backend.handle_session_failed(rejected()),
        Standing::NotReady => {
            backend.handle_alive(Reason::SessionUp);
            backend.handle_readiness(Readiness::NotReady);
        }
        Standing::Draining => {
            backend.handle_alive(Reason::SessionUp);
            backend.handle_readiness(Readiness::Draining);
        }
        Standing::Down => backend.handle_session_failed(Failure::Refused),
    }
    while backend.poll_action().is_some() {}
    assert_eq!(backend.standing(), standing);
    backend
}

#[derive(Debug, Clone)]
enum Input {
    Alive,
    SessionFailed(Failure),
    Refusal,
    /// Where the group cannot do without it.
    Bounded,
    Says(Readiness),
}

fn apply(backend: &mut Backend, input: Input, now: Instant) {
    match input {
        Input::Alive => backend.handle_alive(Reason::SessionUp),
        Input::SessionFailed(failure) => backend.handle_session_failed(failure),
        Input::Refusal => backend.handle_refusal(refused(), now),
        Input::Bounded => backend.handle_refusal(Failed { may_eject: false, ..refused() }, now),
        Input::Says(readiness) => backend.handle_readiness(readiness),
    }
}

#[test]
fn every_transition() {
    use Standing::{Down, Draining, NotReady, Rejecting, Suspect, Unproven, Up};
    // From, then: session up, session gone, session rejected, local trouble, client refused, the same where it cannot be
    // left out, says ready, not ready, draining.
    let table = [
        (Unproven, [Up, Down, Rejecting, Unproven, Down, Down, Unproven, Unproven, Unproven]),
        (Up, [Up, Down, Rejecting, Down, Suspect, Up, Up, NotReady, Draining]),
        (Suspect, [Suspect, Down, Rejecting, Down, Suspect, Suspect, Suspect, NotReady, Draining]),
        (Rejecting, [Up, Down, Rejecting, Rejecting, Down, Down, Rejecting, Rejecting, Rejecting]),
        (NotReady, [NotReady, Down, Rejecting, Down, NotReady, NotReady, Up, NotReady, Draining]),
        (Draining, [Draining, Down, Rejecting, Down, Draining, Draining, Up, NotReady, Draining]),
        (Down, [Up, Down, Rejecting, Down, Down, Down, Down, Down, Down]),
    ];
    let mut seen = table.map(|(from, _)| from);
    seen.sort_by_key(|standing| *standing as u8);
    let mut all = Standing::ALL;
    all.sort_by_key(|standing| *standing as u8);
    assert_eq!(seen, all);
    let now = Instant::now();
    for (from, expected) in table {
        for failure in gone() {
            check(from, Input::SessionFailed(failure), expected[1], now);
        }
        check(from, Input::Alive, expected[0], now);
        check(from, Input::SessionFailed(rejected()), expected[2], now);
        check(from, Input::SessionFailed(local()), expected[3], now);
        check(from, Input::Refusal, expected[4], now);
        check(from, Input::Bounded, expected[5], now);
        check(from, Input::Says(Readiness::Ready), expected[6], now);
        check(from, Input::Says(Readiness::NotReady), expected[7], now);
        check(from, Input::Says(Readiness::Draining), expected[8], now);
    }
}

fn check(from: Standing, input: Input, to: Standing, now: Instant) {
    let mut backend = backend(from, now);
    apply(&mut backend, input.clone(), now);
    let context = format!("{from:?} {input:?}");
    assert_eq!(backend.standing(), to, "{context}");
    if from != to {
        let change = backend.poll_action();
        assert!(
            matches!(&change, Some(Action::Change { from: f, to: t, .. }) if (*f, *t) == (from, to)),
            "{context}: {change:?}"
        );
        if to == Standing::Down {
            assert_eq!(backend.poll_action(), Some(Action::CloseClients), "{context}");
        }
    }
    assert_eq!(backend.poll_action(), None, "{context}");
    assert_eq!(backend.poll_timeout().is_some(), to == Standing::Suspect, "{context}");
}

#[test]
fn ejection_ends_to_the_millisecond_and_doubles_up_to_its_longest() {
    let mut now = Instant::now();
    let mut backend = backend(Standing::Up, now);
    for expected in [100, 200, 400, 800, 1000, 1000] {
        backend.handle_refusal(refused(), now);
        assert_eq!(backend.standing(), Standing::Suspect);
        let end = now + Duration::from_millis(expected);
        assert_eq!(backend.poll_timeout(), Some(end));
        backend.handle_timeout(end - Duration::from_millis(1));
        assert_eq!(backend.standing(), Standing::Suspect);
        backend.handle_timeout(end);
        assert_eq!(backend.standing(), Standing::Up);
        now = end;
    }
    backend.handle_refusal(refused(), now + EJECTION_FORGOTTEN);
    assert_eq!(backend.poll_timeout(), Some(now + EJECTION_FORGOTTEN + EJECTION_FIRST));
}

#[test]
fn clients_that_were_on_their_way_together_are_one_refusal() {
    let now = Instant::now();
    let mut backend = backend(Standing::Up, now);
    for delay in [0, 1, 5, 49] {
        backend.handle_refusal(refused(), now + Duration::from_millis(delay));
    }
    assert_eq!(backend.poll_timeout(), Some(now + EJECTION_FIRST));
    backend.handle_refusal(failed(Refusal::TimedOut), now + Duration::from_millis(60));
    assert_eq!(backend.poll_timeout(), Some(now + Duration::from_millis(60) + 2 * EJECTION_FIRST));
}

#[test]
fn a_new_session_forgives_refusals() {
    let now = Instant::now();
    let mut backend = backend(Standing::Suspect, now);
    backend.handle_session_failed(Failure::Closed);
    backend.handle_alive(Reason::SessionUp);
    assert_eq!(backend.standing(), Standing::Up);
    assert_eq!(backend.poll_timeout(), None);
    backend.handle_refusal(refused(), now + Duration::from_millis(1));
    assert_eq!(backend.poll_timeout(), Some(now + Duration::from_millis(1) + EJECTION_FIRST));
}

#[test]
fn representations_go_both_ways() {
    for standing in Standing::ALL {
        assert_eq!(Standing::from_u8(standing as u8), Some(standing));
    }
    assert_eq!(Standing::from_u8(7), None);
    for refusal in Refusal::ALL {
        assert_eq!(Refusal::from_u8(refusal as u8), Some(refusal));
    }
    assert_eq!(Refusal::from_u8(5), None);
}

#[test]
fn who_says_that_it_ends_gets_nobody_and_keeps_those_that_it_has() {
    for (readiness, standing) in [(Readiness::NotReady, Standing::NotReady), (Readiness::Draining, Standing::Draining)]
    {
        let mut backend = backend(Standing::Up, Instant::now());
        backend.handle_readiness(readiness);
        let reason = Reason::Says(readiness);
        assert_eq!(backend.poll_action(), Some(Action::Change { from: Standing::Up, to: standing, reason }));
        assert_eq!(backend.poll_action(), None);
        assert_eq!(standing.rank(), None);
        assert!(standing.has_session());
    }
}

#[test]
fn what_a_client_can_bring_about_counts_only_several_times_in_a_row() {
    let now = Instant::now();
    for refusal in [Refusal::ResetEarly, Refusal::HandshakeTimeout] {
        let mut backend = backend(Standing::Up, now);
        let fail = |backend: &mut Backend, answered| {
            backend.handle_refusal(Failed { answered, ..failed(refusal) }, now);
            backend.standing()
        };
        // Others get in meanwhile: it is that one client.
        for answered in 0..100 {
            assert_eq!(fail(&mut backend, answered), Standing::Up);
        }
        for _ in 2..DOUBTFUL_LIMIT {
            assert_eq!(fail(&mut backend, 99), Standing::Up);
        }
        assert_eq!(fail(&mut backend, 99), Standing::Suspect);
        assert_eq!(backend.poll_timeout(), Some(now + EJECTION_FIRST));
    }
}

#[test]
fn what_a_client_can_bring_about_closes_nobody_elses_connection() {
    let now = Instant::now();
    for standing in [Standing::Unproven, Standing::Rejecting] {
        let mut backend = backend(standing, now);
        for _ in 0..3 * DOUBTFUL_LIMIT {
            backend.handle_refusal(failed(Refusal::ResetEarly), now);
        }
        assert_eq!(backend.standing(), standing);
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let failure = proptest::sample::select([&gone()[..], &[rejected(), local()]].concat());
    let says = proptest::sample::select(Readiness::ALL.to_vec());
    prop_oneof![
        Just(Input::Alive),
        failure.prop_map(Input::SessionFailed),
        Just(Input::Refusal),
        Just(Input::Bounded),
        says.prop_map(Input::Says)
    ]
}

proptest! {
    #[test]
    fn changes_form_a_chain_and_clients_are_closed_exactly_when_it_goes_down(
        steps in proptest::collection::vec((any_input(), 0_u64..3000), 0..60)
    ) {
        let mut now = Instant::now();
        let mut backend = Backend::new();
        let mut shown = Standing::Unproven;
        for (input, wait) in steps {
            apply(&mut backend, input, now);
            now += Duration::from_millis(wait);
            backend.handle_timeout(now);
            let mut went_down = 0;
            let mut closed = 0;
            while let Some(action) = backend.poll_action() {
                match action {
                    Action::Change { from, to, .. } => {
                        prop_assert_eq!(from, shown);
                        prop_assert_ne!(from, to);
                        shown = to;
                        went_down += usize::from(to == Standing::Down);
                    }
                    Action::CloseClients => closed += 1,
                }
            }
            prop_assert_eq!(shown, backend.standing());
            prop_assert_eq!(went_down, closed);
            prop_assert_eq!(backend.poll_timeout().is_some(), shown == Standing::Suspect);
            prop_assert!(backend.poll_timeout().is_none_or(|at| at > now && at <= now + EJECTION_LONGEST));
        }
    }
}
