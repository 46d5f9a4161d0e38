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

/// A backend of that standing, its actions taken.
fn backend(standing: Standing, now: Instant) -> Backend {
    let mut backend = Backend::new();
    match standing {
        Standing::Unproven => {}
        Standing::Up => backend.handle_session_up(),
        Standing::Suspect => {
            backend.handle_session_up();
            backend.handle_refusal(Refusal::Refused, now);
        }
        Standing::Rejecting => backend.handle_session_failed(rejected()),
        Standing::Down => backend.handle_session_failed(Failure::Refused),
    }
    while backend.poll_action().is_some() {}
    assert_eq!(backend.standing(), standing);
    backend
}

#[derive(Debug, Clone)]
enum Input {
    SessionUp,
    SessionFailed(Failure),
    Refusal,
}

fn apply(backend: &mut Backend, input: Input, now: Instant) {
    match input {
        Input::SessionUp => backend.handle_session_up(),
        Input::SessionFailed(failure) => backend.handle_session_failed(failure),
        Input::Refusal => backend.handle_refusal(Refusal::Refused, now),
    }
}

#[test]
fn every_transition() {
    use Standing::{Down, Rejecting, Suspect, Unproven, Up};
    // From, then: session up, session gone, session rejected, local trouble, client refused.
    let table = [
        (Unproven, [Up, Down, Rejecting, Unproven, Down]),
        (Up, [Up, Down, Rejecting, Down, Suspect]),
        (Suspect, [Suspect, Down, Rejecting, Down, Suspect]),
        (Rejecting, [Up, Down, Rejecting, Rejecting, Down]),
        (Down, [Up, Down, Rejecting, Down, Down]),
    ];
    assert_eq!(table.map(|(from, _)| from).len(), Standing::ALL.len());
    let now = Instant::now();
    for (from, expected) in table {
        for failure in gone() {
            check(from, Input::SessionFailed(failure), expected[1], now);
        }
        check(from, Input::SessionUp, expected[0], now);
        check(from, Input::SessionFailed(rejected()), expected[2], now);
        check(from, Input::SessionFailed(local()), expected[3], now);
        check(from, Input::Refusal, expected[4], now);
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
        backend.handle_refusal(Refusal::Refused, now);
        assert_eq!(backend.standing(), Standing::Suspect);
        let end = now + Duration::from_millis(expected);
        assert_eq!(backend.poll_timeout(), Some(end));
        backend.handle_timeout(end - Duration::from_millis(1));
        assert_eq!(backend.standing(), Standing::Suspect);
        backend.handle_timeout(end);
        assert_eq!(backend.standing(), Standing::Up);
        now = end;
    }
    backend.handle_refusal(Refusal::Refused, now + EJECTION_FORGOTTEN);
    assert_eq!(backend.poll_timeout(), Some(now + EJECTION_FORGOTTEN + EJECTION_FIRST));
}

#[test]
fn clients_that_were_on_their_way_together_are_one_refusal() {
    let now = Instant::now();
    let mut backend = backend(Standing::Up, now);
    for delay in [0, 1, 5, 49] {
        backend.handle_refusal(Refusal::Refused, now + Duration::from_millis(delay));
    }
    assert_eq!(backend.poll_timeout(), Some(now + EJECTION_FIRST));
    backend.handle_refusal(Refusal::TimedOut, now + Duration::from_millis(60));
    assert_eq!(backend.poll_timeout(), Some(now + Duration::from_millis(60) + 2 * EJECTION_FIRST));
}

#[test]
fn a_new_session_forgives_refusals() {
    let now = Instant::now();
    let mut backend = backend(Standing::Suspect, now);
    backend.handle_session_failed(Failure::Closed);
    backend.handle_session_up();
    assert_eq!(backend.standing(), Standing::Up);
    assert_eq!(backend.poll_timeout(), None);
    backend.handle_refusal(Refusal::Refused, now + Duration::from_millis(1));
    assert_eq!(backend.poll_timeout(), Some(now + Duration::from_millis(1) + EJECTION_FIRST));
}

#[test]
fn representations_go_both_ways() {
    for standing in Standing::ALL {
        assert_eq!(Standing::from_u8(standing as u8), Some(standing));
    }
    assert_eq!(Standing::from_u8(5), None);
    for refusal in [Refusal::Refused, Refusal::TimedOut, Refusal::Unreachable] {
        assert_eq!(Refusal::from_u8(refusal as u8), refusal);
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let failure = proptest::sample::select([&gone()[..], &[rejected(), local()]].concat());
    prop_oneof![Just(Input::SessionUp), failure.prop_map(Input::SessionFailed), Just(Input::Refusal)]
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
