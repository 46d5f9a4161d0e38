//! The VRRP state machine of one virtual router (RFC 9568 §6). Pure: no socket, no clock.
//!
//! ```text
//!                        +--------------+
//!         +------------->|  Initialize  |<-------------+
//!         |              +--------------+              |
//!         |                     |                      |
//!   unfit, shutdown           fit: startup       unfit, shutdown
//!         |                     |                 (hand-over)
//!         |                     v                      |
//!   +-----+--------+     master-down timer     +-------+------+
//!   |              |-------------------------->|              |
//!   |    Backup    |                           |    Master    |
//!   |              |<--------------------------|              |
//!   +--------------+   a better router's advert,+-------------+
//!                      woke late,
//!                      last resort (hand-over)
//! ```
//!
//! A *hand-over* sends an advertisement of priority 0; the address lingers, for a bounded time, until the successor is heard.
//! `Master` is the state that RFC 9568 calls Active; RFC 5798, keepalived and most operators say master.
//!
//! Beyond the RFC, each marked at its branch:
//! - *fit* and *unfit* are the RFC's Startup and Shutdown events, driven by the local lb (see [`crate::track`]);
//! - a master that leaves keeps the address until its successor is heard (see `linger.rs`);
//! - a master that sinks to [`LAST_RESORT`] hands over instead of waiting to be preempted, and with preemption off a
//!   backup still takes the VIP from such a master;
//! - a master that finds itself later than its own master-down interval steps back and listens before it sends;
//! - when two masters have met, the one that stays repeats its gratuitous ARP.

mod action;
mod input;
mod linger;
mod timers;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

pub use self::action::{Action, Reason, State, Transition};
use self::input::Event;
pub use self::input::{Advert, Settings};
use self::timers::Timers;
use crate::track::{Cause, Effective, LAST_RESORT};

/// Shortest time between two bursts of gratuitous ARP that answer another master.
const RECLAIM_PAUSE: Duration = Duration::from_secs(1);

/// One virtual router on one host.
#[derive(Debug)]
pub struct Fsm {
    settings: Settings,
    state: State,
    /// The effective priority; meaningless in Initialize.
    priority: u8,
    /// Master_Adver_Interval: the current master's.
    master_interval: Duration,
    /// What becoming master would be for.
    waiting: Reason,
    following: Option<Ipv4Addr>,
    timers: Timers,
    /// Another master was answered since the last regular advertisement.
    asserted: bool,
    claimed_at: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Fsm {
    /// A virtual router in Initialize, waiting to become fit.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Initialize,
            priority: LAST_RESORT,
            master_interval: settings.interval,
            waiting: Reason::NoMaster,
            following: None,
            timers: Timers::default(),
            asserted: false,
            claimed_at: None,
            actions: VecDeque::with_capacity(8),
        }
    }

    /// The current state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    /// The effective priority changed. A first fit one is the RFC's Startup event, none is its Shutdown event.
    pub fn handle_effective(&mut self, effective: Effective, now: Instant) {
        let cause = effective.cause;
        self.feed(effective.priority.map_or(Event::Unfit { cause }, |priority| Event::Fit { priority, cause }), now);
    }

    /// An advertisement arrived and passed every check of RFC 9568 §7.1.
    pub fn handle_advert(&mut self, advert: Advert, now: Instant) {
        // RFC 9568 §6.4.3 compares addresses; one's own address would be a loop in the network, not a router.
        if advert.source != self.settings.address {
            self.feed(Event::Advert(advert), now);
        }
    }

    /// Someone removed the VIP from the interface.
    pub fn handle_address_lost(&mut self, now: Instant) {
        self.feed(Event::AddressLost, now);
    }

    /// The program has to stop.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.feed(Event::Shutdown, now);
    }

    /// A deadline of [`Fsm::poll_timeout`] has passed.
    ///
    /// Adverts that wait in the socket must be handled first: they tell a backup that was late that its master is alive.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timers.release.is_some_and(|due| due <= now) {
            self.feed(Event::ReleaseTimer, now);
        }
        if let Some(due) = self.timers.master_down.filter(|due| *due <= now) {
            // Far too late: this program did not run, so silence proves nothing. Listen once more.
            if now.duration_since(due) > self.master_down_interval() {
                self.timers.master_down = Some(now + self.master_down_interval());
            } else {
                self.feed(Event::MasterDownTimer, now);
            }
        }
        if self.timers.adver.is_some_and(|due| due <= now) {
            self.feed(Event::AdverTimer, now);
        }
        if self.timers.garp.is_some_and(|due| due <= now) {
            self.feed(Event::GarpTimer, now);
        }
        if self.timers.overlap.is_some_and(|due| due <= now) {
            self.feed(Event::OverlapTimer, now);
        }
    }

    /// When [`Fsm::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Master_Down_Interval (RFC 9568 §6.1: Active_Down_Interval).
    #[must_use]
    pub fn master_down_interval(&self) -> Duration {
        self.master_interval * 3 + self.skew()
    }

    /// Skew_Time, in which a higher priority comes first. Exact: with whole seconds or centiseconds all backups would fire
    /// together.
    fn skew(&self) -> Duration {
        self.master_interval * (256 - u32::from(self.priority)) / 256
    }

    fn feed(&mut self, event: Event, now: Instant) {
        if let Some(silent) = self.silent_for(now)
            && silent > self.master_down_interval()
        {
            self.step(Event::Paused { silent }, now);
        }
        self.step(event, now);
    }

    /// For a master: time since its last regular advertisement.
    fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.timers.adver.map(|due| now.saturating_duration_since(due) + self.settings.interval)
    }

    /// The transition table (RFC 9568 §6.4).
    fn step(&mut self, event: Event, now: Instant) {
        match (self.state, event) {
            // §6.4.1 Initialize
            (State::Initialize, Event::Fit { priority, cause }) => {
                self.priority = priority;
                self.enter_backup(Reason::Health(cause), now);
            }
            (State::Initialize, Event::Unfit { cause }) => self.release_if_frozen(cause),
            (State::Initialize, Event::Advert(advert)) => self.release_to(advert),
            (State::Initialize, Event::ReleaseTimer | Event::AddressLost) => self.release(),
            (
                State::Initialize,
                Event::MasterDownTimer
                | Event::AdverTimer
                | Event::GarpTimer
                | Event::OverlapTimer
                | Event::Paused { .. }
                | Event::Shutdown,
            ) => {}

            // §6.4.2 Backup
            (State::Backup, Event::Fit { priority, .. }) => self.change_rank_as_backup(priority),
            (State::Backup, Event::Unfit { cause }) => {
                self.release_if_frozen(cause);
                self.enter_initialize(Reason::Health(cause));
            }
            (State::Backup, Event::Shutdown) => self.enter_initialize(Reason::Shutdown),
            (State::Backup, Event::Advert(advert)) => {
                self.release_to(advert);
                self.hear_as_backup(advert, now);
            }
            (State::Backup, Event::MasterDownTimer) => self.enter_master(now),
            (State::Backup, Event::ReleaseTimer | Event::AddressLost) => self.release(),
            (State::Backup, Event::AdverTimer | Event::GarpTimer | Event::OverlapTimer | Event::Paused { .. }) => {}

            // §6.4.3 Master (Active)
            (State::Master, Event::Fit { priority, cause }) => self.change_rank_as_master(priority, cause, now),
            (State::Master, Event::Unfit { cause }) => {
                self.hand_over(now);
                self.release_if_frozen(cause);
                self.enter_initialize(Reason::Health(cause));
            }
            (State::Master, Event::Shutdown) => {
                self.hand_over(now);
                self.enter_initialize(Reason::Shutdown);
            }
            (State::Master, Event::Advert(advert)) => self.hear_as_master(advert, now),
            (State::Master, Event::AdverTimer) => self.advertise_on_time(now),
            (State::Master, Event::GarpTimer) => {
                self.timers.garp = None;
                self.claim(now);
            }
            (State::Master, Event::OverlapTimer) => {
                self.timers.overlap = None;
                self.claim(now);
            }
            // Beyond the RFC: another host may be master by now, and even if it ranks lower it was right to take over.
            // Nothing is sent before a whole master-down interval was listened to.
            (State::Master, Event::Paused { silent }) => {
                self.actions.push_back(Action::RemoveAddress);
                self.enter_backup(Reason::Paused { silent }, now);
            }
            (State::Master, Event::AddressLost) => {
                self.actions.push_back(Action::AddAddress);
                self.claim(now);
            }
            (State::Master, Event::MasterDownTimer | Event::ReleaseTimer) => {}
        }
    }

    fn hear_as_backup(&mut self, advert: Advert, now: Instant) {
        if advert.priority == 0 {
            // RFC 9568 §6.4.2: the master leaves; the next one is found within a skew time.
            self.waiting = Reason::MasterLeft { master: advert.source };
            self.timers.master_down = Some(now + self.skew());
            return;
        }
        self.follow(advert.source);
        // Without preemption any master is obeyed, but not one of last resort: its lb reaches no broker.
        let obeyed = !self.settings.preempt && advert.priority > LAST_RESORT;
        if obeyed || advert.priority >= self.priority {
            self.master_interval = advert.interval;
            self.waiting = Reason::MasterSilent { master: advert.source };
            self.timers.master_down = Some(now + self.master_down_interval());
        } else {
            self.waiting = Reason::Preempted { master: advert.source, priority: advert.priority };
        }
    }

    fn hear_as_master(&mut self, advert: Advert, now: Instant) {
        let theirs = (advert.priority, advert.source);
        if advert.priority == 0 {
            // RFC 9568 §6.4.3: whoever leaves, this host stays.
            self.send_advert();
            self.timers.adver = Some(now + self.settings.interval);
        } else if theirs > (self.priority, self.settings.address) {
            self.actions.push_back(Action::RemoveAddress);
            let reason = Reason::Outranked { master: advert.source, priority: advert.priority };
            self.enter_backup(reason, now);
            self.follow(advert.source);
            self.master_interval = advert.interval;
            self.waiting = Reason::MasterSilent { master: advert.source };
            self.timers.master_down = Some(now + self.master_down_interval());
        } else {
            // RFC 9568 §6.4.3: assert the state at once; but once between two regular advertisements, or two routers that
            // both think themselves better would answer each other without end. Neighbours may have learned the other's
            // hardware address.
            if !std::mem::replace(&mut self.asserted, true) {
                self.send_advert();
            }
            self.reclaim(now);
        }
    }

    /// The deadline keeps what had passed of it: a rank moves it by the change of skew alone.
    fn change_rank_as_backup(&mut self, priority: u8) {
        let before = self.skew();
        self.priority = priority;
        self.timers.master_down = self.timers.master_down.map(|due| due - before + self.skew());
    }

    fn change_rank_as_master(&mut self, priority: u8, cause: Cause, now: Instant) {
        if priority == self.priority {
            return;
        }
        let sinks = priority == LAST_RESORT;
        self.priority = priority;
        if sinks {
            self.hand_over(now);
            self.enter_backup(Reason::Health(cause), now);
        } else {
            self.send_advert();
            self.timers.adver = Some(now + self.settings.interval);
        }
    }

    fn enter_initialize(&mut self, reason: Reason) {
        self.timers = Timers { release: self.timers.release, ..Timers::default() };
        self.following = None;
        self.move_to(State::Initialize, reason);
    }

    fn enter_backup(&mut self, reason: Reason, now: Instant) {
        self.master_interval = self.settings.interval;
        self.waiting = Reason::NoMaster;
        self.following = None;
        let master_down = Some(now + self.master_down_interval());
        self.timers = Timers { master_down, release: self.timers.release, ..Timers::default() };
        self.move_to(State::Backup, reason);
    }

    /// The address stands first: neighbours that learn of it from the ARP may use it at once.
    fn enter_master(&mut self, now: Instant) {
        self.following = None;
        self.asserted = false;
        let lingered = self.lingers();
        let left = matches!(self.waiting, Reason::MasterLeft { .. });
        self.timers = Timers {
            adver: Some(now + self.settings.interval),
            overlap: left.then(|| now + Self::linger_time(self.master_interval)),
            ..Timers::default()
        };
        // A master keeps its own interval, and its master-down interval tells when its peers give it up.
        self.master_interval = self.settings.interval;
        if !lingered {
            self.actions.push_back(Action::AddAddress);
        }
        self.claim(now);
        self.send_advert();
        if !self.settings.garp_repeat_delay.is_zero() {
            self.timers.garp = Some(now + self.settings.garp_repeat_delay);
        }
        self.move_to(State::Master, self.waiting);
    }

    fn advertise_on_time(&mut self, now: Instant) {
        self.asserted = false;
        self.send_advert();
        let interval = self.settings.interval;
        // From deadline to deadline, so that a late wake-up does not slow the beat down.
        let next = self.timers.adver.map(|due| due + interval).filter(|next| *next > now);
        self.timers.adver = Some(next.unwrap_or(now + interval));
    }

    fn send_advert(&mut self) {
        self.actions.push_back(Action::SendAdvert { priority: self.priority });
    }

    fn claim(&mut self, now: Instant) {
        self.claimed_at = Some(now);
        self.actions.push_back(Action::SendGarp);
    }

    /// One burst now and one later, never more often than [`RECLAIM_PAUSE`], whatever the other side sends.
    fn reclaim(&mut self, now: Instant) {
        let again = self.claimed_at.map_or(now, |claimed| claimed + RECLAIM_PAUSE);
        if again <= now {
            self.claim(now);
            let pending = self.timers.garp.filter(|due| *due > now);
            self.timers.garp = pending.or(Some(now + RECLAIM_PAUSE));
        } else {
            self.timers.garp.get_or_insert(again);
        }
    }

    fn follow(&mut self, master: Ipv4Addr) {
        if self.following != Some(master) {
            self.following = Some(master);
            self.actions.push_back(Action::Follows { master });
        }
    }

    fn move_to(&mut self, to: State, reason: Reason) {
        let from = std::mem::replace(&mut self.state, to);
        self.actions.push_back(Action::Moved(Transition { from, to, reason }));
    }
}

#[cfg(test)]
mod tests;
