use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::session::tests::{delivery, id, start};

fn message(number: u32) -> Delivery {
    delivery(QoS::AtLeastOnce, number, start())
}

fn open(inflight: &Inflight) -> Vec<PacketId> {
    inflight.iter().map(|(id, _)| id).collect()
}

/// What would be sent again, in its order.
fn resent(inflight: &mut Inflight) -> Vec<PacketId> {
    inflight.restart();
    let mut ids = Vec::new();
    while let Some((id, _)) = inflight.next_resend() {
        ids.push(id);
        inflight.resent(id);
    }
    ids
}

#[test]
fn an_exchange_that_never_ends_holds_up_nothing_and_grows_nothing() {
    let mut inflight = Inflight::default();
    let stuck = inflight.begin(message(0));
    let mut before = stuck;
    // More than there are identifiers, three at a time.
    let mut last = VecDeque::new();
    for number in 1..200_000 {
        assert!(inflight.may_begin());
        let id = inflight.begin(message(number));
        assert!(id != stuck && id != before, "{id:?} is in use, or was a moment ago");
        before = id;
        last.push_back(id);
        if last.len() > 2 {
            assert!(inflight.end(last.pop_front().unwrap()).is_some());
        }
        assert!(inflight.ring.len() < SHORT, "{} places for {} exchanges", inflight.ring.len(), inflight.len());
    }
    assert_eq!((inflight.len(), inflight.sent()), (3, 3));
    let expected: Vec<_> = [stuck].into_iter().chain(last).collect();
    assert_eq!(resent(&mut inflight), expected);
    assert!(inflight.get(stuck).is_some());
    assert!(inflight.end(stuck).is_some() && inflight.left.is_none());
    assert!(inflight.end(stuck).is_none() && inflight.get(stuck).is_none());
}

#[test]
fn every_identifier_can_be_in_use() {
    let mut inflight = Inflight::default();
    for number in 0..u32::from(IDS) {
        assert!(inflight.may_begin());
        inflight.begin(message(number));
    }
    assert!(!inflight.may_begin());
    // The one that is free is the one that is used, wherever it is.
    for free in [40_000, 1, 65_535, 17] {
        assert!(inflight.end(id(free)).is_some());
        assert!(inflight.may_begin());
        assert_eq!(inflight.begin(message(0)), id(free));
        assert!(!inflight.may_begin());
    }
    assert_eq!(inflight.len(), usize::from(IDS));
}

#[derive(Debug, Clone)]
enum Step {
    /// So many messages come and go.
    Pass(u16),
    Begin,
    /// One of those that are open ends.
    End(usize),
    Release(usize),
    Restart,
    Recover,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..30_000_u16).prop_map(Step::Pass),
        4 => Just(Step::Begin),
        3 => any::<usize>().prop_map(Step::End),
        1 => any::<usize>().prop_map(Step::Release),
        1 => Just(Step::Restart),
        1 => Just(Step::Recover),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_a_list_of_exchanges_whose_identifiers_differ(steps in prop::collection::vec(step(), 1..60)) {
        let mut inflight = Inflight::default();
        let mut model: Vec<PacketId> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(count) => {
                    for number in 0..count {
                        let id = inflight.begin(message(number.into()));
                        prop_assert!(!model.contains(&id));
                        inflight.end(id);
                    }
                }
                Step::Begin => {
                    let id = inflight.begin(message(0));
                    prop_assert!(!model.contains(&id));
                    model.push(id);
                }
                Step::End(index) if !model.is_empty() => {
                    let id = model.remove(index % model.len());
                    prop_assert!(inflight.end(id).is_some());
                }
                Step::Release(index) if !model.is_empty() => {
                    let id = model[index % model.len()];
                    inflight.get(id).unwrap().stage = Stage::Released;
                }
                Step::End(_) | Step::Release(_) => {}
                Step::Restart => {
                    prop_assert_eq!(&resent(&mut inflight), &model);
                }
                Step::Recover => {
                    let exchanges = inflight.iter().map(|(id, delivery)| (id, delivery.cloned())).collect();
                    inflight = Inflight::recover(exchanges, inflight.next_id());
                    prop_assert_eq!(&resent(&mut inflight), &model);
                }
            }
            prop_assert_eq!(&open(&inflight), &model);
            prop_assert_eq!((inflight.len(), inflight.sent()), (model.len(), model.len()));
            prop_assert!(inflight.ring.len() < ring_bound(model.len().max(1)));
        }
    }
}
