//! Random inputs, invariants after each.

use proptest::prelude::*;

use super::super::linger::MARGIN;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Input(Input),
    Settings(Settings),
    /// Time passes, and the machine is woken as it asks.
    Wait(Duration),
    /// Time passes, and nobody wakes the machine.
    Sleep(Duration),
}

/// Settings, and how much slower than 20 ms they are.
fn any_settings(version: VrrpVersion, permission: bool) -> impl Strategy<Value = Settings> {
    let unit = unit(version);
    let delay = move || prop_oneof![2 => Just(0), 1 => 1_u32..20].prop_map(move |count| unit * count);
    let bools = (any::<bool>(), prop_oneof![9 => Just(true), 1 => Just(false)]);
    (bools, delay(), delay(), delay(), delay(), 1_u32..3).prop_map(
        move |((preempt, peers), preempt_delay, start_delay, garp_repeat_delay, garp_refresh, count)| Settings {
            address: OWN,
            version,
            interval: unit * count,
            preempt,
            preempt_delay,
            start_delay,
            garp_repeat_delay,
            garp_refresh,
            peers,
            permission,
        },
    )
}

fn unit(version: VrrpVersion) -> Duration {
    match version {
        VrrpVersion::V2 => Duration::from_secs(1),
        VrrpVersion::V3 => INTERVAL,
    }
}

fn step(version: VrrpVersion, permission: bool) -> impl Strategy<Value = Step> {
    let unit = unit(version);
    let priority = prop_oneof![Just(0), Just(1), Just(99), Just(100), Just(101), any::<u8>()];
    let source = prop_oneof![Just(LOW), Just(OWN), Just(HIGH)];
    let interval = prop_oneof![Just(unit), (1_u64..=4095).prop_map(|count| Duration::from_millis(count * 10))];
    let heard = (source, priority, interval)
        .prop_map(|(source, priority, interval)| Input::Advert(Advert { source, priority, interval }));
    let effective = prop_oneof![Just(unfit()), Just(silent()), Just(sunk()), (2_u8..=255).prop_map(fit)];
    prop_oneof![
        4 => heard.prop_map(Step::Input),
        2 => effective.prop_map(|effective| Step::Input(Input::Fit(effective))),
        1 => Just(Step::Input(Input::AddressLost)),
        1 => Just(Step::Input(Input::Conflict)),
        2 => any::<bool>().prop_map(|granted| Step::Input(Input::Permission(granted))),
        1 => any::<bool>().prop_map(|at_once| Step::Input(Input::GroupLeaves { at_once })),
        1 => Just(Step::Input(Input::GroupLeads)),
        1 => Just(Step::Input(Input::Shutdown)),
        1 => any_settings(version, permission).prop_map(Step::Settings),
        6 => (0_u32..5000).prop_map(move |part| Step::Wait(unit * part / 1000)),
        1 => (0_u32..25).prop_map(move |count| Step::Sleep(unit * count)),
    ]
}

/// The world outside of the machine.
struct World {
    fsm: Fsm,
    settings: Settings,
    now: Instant,
    state: State,
    holds: bool,
    /// When the address is gone, while it is still there after the hand-over.
    lingers: Option<Instant>,
    sought: bool,
    granted: bool,
    started: Instant,
}

impl World {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            fsm: Fsm::new(settings, now),
            settings,
            now,
            state: State::Initialize,
            holds: false,
            lingers: None,
            sought: false,
            granted: false,
            started: now + settings.start_delay,
        }
    }

    fn linger(&self) -> Duration {
        MARGIN
            + match self.settings.version {
                VrrpVersion::V2 => Duration::from_secs(1),
                VrrpVersion::V3 => self.settings.interval,
            }
    }

    fn check(&mut self, input: Option<Input>) -> Result<(), TestCaseError> {
        let did = actions(&mut self.fsm);
        prop_assert!(did.len() <= ACTIONS, "more than there is room for");
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
                    self.lingers = self.holds.then(|| self.now + self.linger());
                }
                Action::SendAdvert { .. } | Action::SendGarp => {
                    let becomes = did[index..]
                        .iter()
                        .any(|action| matches!(action, Action::Moved(Transition { to: State::Master, .. })));
                    let claims = self.holds && (self.state == State::Master || becomes);
                    let asks = self.state == State::Backup && self.sought && !self.granted;
                    let challenges = asks && matches!(action, Action::SendAdvert { priority: 2.. });
                    prop_assert!(claims || challenges, "claims without the address");
                }
                Action::Moved(transition) => self.move_as(transition)?,
                Action::Follows { master } => prop_assert_ne!(master, OWN),
                Action::SeekPermission => {
                    prop_assert!(self.settings.permission && !self.sought);
                    self.sought = true;
                }
                Action::YieldPermission => {
                    prop_assert!(self.sought);
                    (self.sought, self.granted) = (false, false);
                }
            }
        }
        self.check_state()
    }

    fn move_as(&mut self, Transition { from, to, .. }: Transition) -> Result<(), TestCaseError> {
        prop_assert_eq!(from, self.state);
        prop_assert_ne!(from, to);
        if to == State::Master {
            self.lingers = None;
            prop_assert!(self.granted || !self.settings.permission, "master without permission");
        }
        prop_assert!(self.now >= self.started, "started too early");
        prop_assert_eq!(self.holds, to == State::Master || self.lingers.is_some());
        self.state = to;
        Ok(())
    }

    fn check_state(&mut self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.state, self.fsm.state(), "a change that was not reported");
        prop_assert_eq!(self.holds, self.state == State::Master || self.lingers.is_some());
        prop_assert_eq!(self.fsm.lingers(), self.lingers.is_some());
        let due = self.fsm.poll_timeout();
        let left = due.map(|due| due.saturating_duration_since(self.now));
        if let Some(end) = self.lingers {
            prop_assert!(due.is_some_and(|due| due <= end), "nothing ends the lingering");
        }
        match self.state {
            State::Initialize => {
                let starts = self.fsm.timers.start == Some(self.started);
                prop_assert!(left.is_none() || self.lingers.is_some() || starts);
                prop_assert!(!self.sought);
            }
            State::Backup => {
                let asks = self.sought && self.settings.permission;
                prop_assert!(asks || left.is_some_and(|left| left <= self.fsm.master_interval * 4));
            }
            State::Master => {
                prop_assert!(left.is_some_and(|left| left <= self.settings.interval));
                prop_assert!(self.granted || !self.settings.permission);
            }
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

    fn run(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        for step in steps {
            match step {
                Step::Input(input) => {
                    if let Input::Permission(granted) = input {
                        self.granted = self.sought && granted;
                    }
                    give(&mut self.fsm, input, self.now);
                    if matches!(input, Input::Shutdown) && self.now < self.started {
                        // There is nothing left to start.
                        self.started = self.now;
                    }
                    self.check(Some(input))?;
                }
                Step::Settings(settings) => {
                    self.settings = settings;
                    self.fsm.handle_settings(settings, self.now);
                    self.check(None)?;
                }
                Step::Wait(time) => self.wake_until(self.now + time)?,
                Step::Sleep(time) => self.now += time,
            }
        }
        Ok(())
    }
}

fn histories() -> impl Strategy<Value = (Settings, Vec<Step>)> {
    let version = prop_oneof![Just(VrrpVersion::V2), Just(VrrpVersion::V3)];
    (version, any::<bool>()).prop_flat_map(|(version, permission)| {
        (any_settings(version, permission), prop::collection::vec(step(version, permission), 1..200))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_address_and_the_timers_always_fit_the_state((settings, steps) in histories()) {
        World::new(settings).run(steps)?;
    }
}
