//! The VRRP state machine of one virtual router (RFC 9568 §6, RFC 3768 §6). Pure: no socket, no clock.
//!
//! ```text
//!                        +--------------+
//!         +------------->|  Initialize  |<-------------+
//!         |              +--------------+              |
//!         |                |          |                |
//!   unfit, shutdown   fit: startup   fit: startup    unfit, shutdown
//!         |                |          | of the owner    (hand-over)
//!         |                v          v                |
//!   +-----+--------+     master-down timer     +-------+------+
//!   |              |-------------------------->|              |
//!   |    Backup    |     (and permission)      |    Master    |
//!   |              |<--------------------------|              |
//!   +--------------+   a better router's advert,+-------------+
//!                      woke late, permission lost,
//!                      last resort (hand-over)
//! ```
//!
//! A *hand-over* sends an advertisement of priority 0; the address lingers, for a bounded time, until the successor is heard.
//! `Master` is the state that RFC 9568 calls Active; RFC 5798, keepalived and most operators say master.
//!
//! Beyond the RFC, each marked at its branch:
//! - *fit* and *unfit* are the RFC's Startup and Shutdown events, driven by this host's health (see [`crate::track`]);
//! - a master that leaves keeps the address until its successor is heard (see `linger.rs`);
//! - a master that sinks to [`LAST_RESORT`] hands over instead of waiting to be preempted, and with preemption off a
//!   backup still takes the VIP from such a master;
//! - a master that finds itself later than its own master-down interval steps back and listens before it sends;
//! - when two masters have met, or someone else claims the address, the one that stays repeats its announcement;
//! - an address owner (priority 255) that meets another one gives way to the higher address, where the RFC would let both
//!   discard each other's advertisements and be master for ever;
//! - a master may need permission (see `permission.rs`) and company (see `group.rs`).
//!
//! # Bounds
//! With `I` the longest advertisement interval among the routers, `D` the longest delay of the network, `S` the longest skew
//! (just below `I`, in VRRP 2 just below 1 s), and machines that are woken when they ask:
//!
//! - two masters that reach each other exist for at most `I + D`, and `I + D` more for each advertisement between them that
//!   is lost: the better one advertises every `I`, and the first advert that arrives ends it;
//! - a fit host has a master within its reach after `3 I + S + D`, whatever is lost: nothing but a master's advert extends
//!   the wait;
//! - a host that has handed over keeps its address for at most `S` and 10 ms.
//!
//! `preempt_delay`, `start_delay` and a permission that is not given make the second one longer; they never touch the others.

mod action;
mod backup;
mod group;
mod initialize;
mod input;
mod linger;
mod master;
mod permission;
mod reload;
mod timers;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evermq_config::vip::VrrpVersion;

pub use self::action::{Action, Reason, State, Transition};
use self::backup::Heard;
use self::input::Event;
pub use self::input::{Advert, Settings};
use self::permission::{Challenges, Permission};
use self::timers::{Timers, ran_out};
use crate::track::{Cause, Effective, LAST_RESORT};

/// Priority of the address owner (RFC 9568 §5.2.4).
pub const OWNER: u8 = 255;

/// Room for what one input can say, so that nothing is allocated while the program runs.
const ACTIONS: usize = 16;

/// One virtual router on one host.
#[derive(Debug)]
pub struct Fsm {
    settings: Settings,
    state: State,
    /// What would be started with; none where this host is unfit. Of Initialize.
    fit: Option<(u8, Cause)>,
    /// The effective priority; meaningless in Initialize.
    priority: u8,
    /// Master_Adver_Interval: the current master's.
    master_interval: Duration,
    /// What becoming master would be for.
    waiting: Reason,
    following: Option<IpAddr>,
    /// The last word of the master that is followed, of a backup.
    heard: Option<Heard>,
    /// Since when a master of lower rank is heard without a break, of a backup.
    lower_since: Option<Instant>,
    permission: Permission,
    challenges: Challenges,
    /// Whether a sync group decides when this router becomes master.
    grouped: bool,
    timers: Timers,
    /// Another master was answered since the last regular advertisement.
    asserted: bool,
    claimed_at: Option<Instant>,
    actions: VecDeque<Action>,
}

impl Fsm {
    /// A virtual router in Initialize, waiting to become fit. Its start delay begins.
    #[must_use]
    pub fn new(settings: Settings, now: Instant) -> Self {
        let start = (!settings.start_delay.is_zero()).then(|| now + settings.start_delay);
        Self {
            settings,
            state: State::Initialize,
            fit: None,
            priority: LAST_RESORT,
            master_interval: settings.interval,
            waiting: Reason::NoMaster,
            following: None,
            heard: None,
            lower_since: None,
            permission: Permission::None,
            challenges: Challenges::default(),
            grouped: false,
            timers: Timers { start, ..Timers::default() },
            asserted: false,
            claimed_at: None,
            actions: VecDeque::with_capacity(ACTIONS),
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

    /// Someone removed an address of this router from the interface.
    pub fn handle_address_lost(&mut self, now: Instant) {
        self.feed(Event::AddressLost, now);
    }

    /// Someone else's claim of an address of this router was seen on the wire, by ARP or neighbour discovery.
    ///
    /// A master defends the address: it announces it again, as often as it would answer another master. It does not give way
    /// to a claim, for a claim has no rank and anyone can send one: a better router ends this by its advertisements. While
    /// the address only lingers here, the claim is its successor's, and it goes.
    pub fn handle_conflict(&mut self, now: Instant) {
        self.feed(Event::Conflict, now);
    }

    /// The program has to stop.
    pub fn handle_shutdown(&mut self, now: Instant) {
        self.feed(Event::Shutdown, now);
    }

    /// A deadline of [`Fsm::poll_timeout`] has passed.
    ///
    /// Adverts that wait in the socket must be handled first: they tell a backup that was late that its master is alive.
    pub fn handle_timeout(&mut self, now: Instant) {
        if ran_out(self.timers.release, now) {
            self.feed(Event::ReleaseTimer, now);
        }
        if ran_out(self.timers.start, now) {
            self.feed(Event::StartTimer, now);
        }
        if let Some(due) = self.timers.master_down.filter(|due| *due <= now) {
            // Far too late: this program did not run, so silence proves nothing. Listen once more.
            if now.duration_since(due) > self.master_down_interval() {
                self.timers.master_down = Some(now + self.master_down_interval());
            } else {
                self.feed(Event::MasterDownTimer, now);
            }
        }
        if ran_out(self.timers.adver, now) {
            self.feed(Event::AdverTimer, now);
        }
        if self.timers.take_announcement(self.settings.garp_refresh, now) {
            self.feed(Event::AnnounceTimer, now);
        }
        if ran_out(self.timers.permission, now) {
            self.feed(Event::PermissionTimer, now);
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
        self.patience(self.master_interval)
    }

    /// How long a master of this advertisement interval may be silent.
    fn patience(&self, interval: Duration) -> Duration {
        interval * 3 + self.skew_of(interval)
    }

    fn skew(&self) -> Duration {
        self.skew_of(self.master_interval)
    }

    /// Skew_Time, in which a higher priority comes first. Exact: with whole seconds or centiseconds all backups would fire
    /// together.
    fn skew_of(&self, interval: Duration) -> Duration {
        self.longest_skew(interval) * (256 - u32::from(self.priority)) / 256
    }

    /// What no router's skew reaches: the master's interval (RFC 9568 §6.1), or a second (RFC 3768 §6.1).
    fn longest_skew(&self, interval: Duration) -> Duration {
        match self.settings.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => interval,
        }
    }

    fn feed(&mut self, event: Event, now: Instant) {
        self.notice_pause(now);
        self.step(event, now);
    }

    /// Before anything else: a master that did not run for a master-down interval is none any more.
    fn notice_pause(&mut self, now: Instant) {
        if let Some(silent) = self.silent_for(now)
            && silent > self.master_down_interval()
        {
            self.step(Event::Paused { silent }, now);
        }
    }

    /// For a master: time since its last regular advertisement.
    fn silent_for(&self, now: Instant) -> Option<Duration> {
        self.timers.adver.map(|due| now.saturating_duration_since(due) + self.settings.interval)
    }

    /// The transition table (RFC 9568 §6.4); each state has its part in a file of its own.
    fn step(&mut self, event: Event, now: Instant) {
        match self.state {
            State::Initialize => self.step_in_initialize(event, now),
            State::Backup => self.step_in_backup(event, now),
            State::Master => self.step_in_master(event, now),
        }
    }

    fn is_owner(&self) -> bool {
        self.priority == OWNER
    }

    fn send_advert(&mut self, priority: u8) {
        let action = Action::SendAdvert { priority };
        // Said once, it answers all that was read at once.
        if self.actions.back() != Some(&action) {
            self.actions.push_back(action);
        }
    }

    fn follow(&mut self, master: IpAddr) {
        if self.following != Some(master) {
            self.following = Some(master);
            // Two masters that take turns do not fill the queue.
            if matches!(self.actions.back(), Some(Action::Follows { .. })) {
                self.actions.pop_back();
            }
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
