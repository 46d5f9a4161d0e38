//! Random inputs, invariants after each.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Input(Input),
    /// Time passes, and the machine is woken as it asks.
    Wait(Duration),
    /// Time passes, and nobody wakes the machine.
    Sleep(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![Just(0), Just(1), Just(99), Just(100), Just(101), any::<u8>()];
    let source = prop_oneof![Just(LOW), Just(OWN), Just(HIGH)];
    let interval = prop_oneof![Just(INTERVAL), (1_u64..=4095).prop_map(|count| Duration::from_millis(count * 10))];
    let heard = (source, priority, interval)
        .prop_map(|(source, priority, interval)| Input::Advert(Advert { source, priority, interval }));
    let effective = prop_oneof![Just(unfit()), Just(silent()), Just(sunk()), (2_u8..=254).prop_map(fit),];
    prop_oneof![
        4 => heard.prop_map(Step::Input),
        2 => effective.prop_map(|effective| Step::Input(Input::Fit(effective))),
        1 => Just(Step::Input(Input::AddressLost)),
        1 => Just(Step::Input(Input::Shutdown)),
        6 => (0_u64..100_000).prop_map(|micros| Step::Wait(Duration::from_micros(micros))),
        1 => (0_u64..500).prop_map(|millis| Step::Sleep(Duration::from_millis(millis))),
    ]
}

/// The world outside of the machine.
struct World {
    fsm: Fsm,
    now: Instant,
    state: State,
    holds: bool,
    /// Since the hand-over, while the address is still there.
    lingers: Option<Instant>,
}

impl World {
    fn check(&mut self, input: Option<Input>) -> Result<(), TestCaseError> {
        let did = actions(&mut self.fsm);
        for (index, action) in did.iter().enumerate() {
            match *action {
                Action::AddAddress => {
                    let put_back = matches!(input, Some(Input::AddressLost));
                    prop_assert!(!self.holds || put_back, "added twice");
                    self.holds = true;
                }
                Action::RemoveAddress => {
                    prop_assert!(self.holds, "removed twice");
                    self.holds = false;
                    self.lingers = None;
                }
                Action::SendAdvert { priority: 0 } => {
                    prop_assert!(self.state == State::Master, "only a master leaves");
                    self.lingers = Some(self.now);
                }
                Action::SendAdvert { .. } | Action::SendGarp => {
                    prop_assert!(self.holds, "claims without the address");
                    let becomes = did[index..]
                        .iter()
                        .any(|action| matches!(action, Action::Moved(Transition { to: State::Master, .. })));
                    prop_assert!(self.state == State::Master || becomes, "claims and is not master");
                }
                Action::Moved(Transition { from, to, .. }) => {
                    prop_assert_eq!(from, self.state);
                    prop_assert_ne!(from, to);
                    if to == State::Master {
                        self.lingers = None;
                    }
                    prop_assert_eq!(self.holds, to == State::Master || self.lingers.is_some());
                    self.state = to;
                }
                Action::Follows { master } => prop_assert_ne!(master, OWN),
            }
        }
        prop_assert_eq!(self.state, self.fsm.state(), "a change that was not reported");
        prop_assert_eq!(self.holds, self.state == State::Master || self.lingers.is_some());
        prop_assert_eq!(self.fsm.lingers(), self.lingers.is_some());
        let due = self.fsm.poll_timeout();
        let left = due.map(|due| due.saturating_duration_since(self.now));
        if let Some(since) = self.lingers {
            prop_assert!(due.is_some_and(|due| due <= since + LINGER), "nothing ends the lingering");
        }
        match self.state {
            State::Initialize => prop_assert!(left.is_none() || self.lingers.is_some()),
            State::Backup => prop_assert!(left.is_some_and(|left| left <= self.fsm.master_interval * 4)),
            State::Master => prop_assert!(left.is_some_and(|left| left <= INTERVAL)),
        }
        Ok(())
    }

    fn wake_until(&mut self, end: Instant) -> Result<(), TestCaseError> {
        while let Some(due) = self.fsm.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.fsm.handle_timeout(self.now);
            prop_assert!(self.fsm.poll_timeout().is_none_or(|next| next > self.now), "a timer that does not move on");
            self.check(None)?;
        }
        self.now = end;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_address_and_the_timers_always_fit_the_state(preempt: bool, steps in prop::collection::vec(step(), 1..200)) {
        let fsm = Fsm::new(settings(preempt));
        let mut world = World { fsm, now: Instant::now(), state: State::Initialize, holds: false, lingers: None };
        for step in steps {
            match step {
                Step::Input(input) => {
                    let now = world.now;
                    match input {
                        Input::Fit(effective) => world.fsm.handle_effective(effective, now),
                        Input::Advert(advert) => world.fsm.handle_advert(advert, now),
                        Input::AddressLost => world.fsm.handle_address_lost(now),
                        Input::Shutdown => world.fsm.handle_shutdown(now),
                        Input::Timeout => world.fsm.handle_timeout(now),
                    }
                    world.check(Some(input))?;
                }
                Step::Wait(time) => world.wake_until(world.now + time)?,
                Step::Sleep(time) => world.now += time,
            }
        }
    }
}
