//! The bounds, asserted before and after every event.

use super::*;

/// An address that waits for a successor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    pub(super) since: Instant,
    /// When the first advert of a master arrives, once one is on its way.
    pub(super) told: Option<Instant>,
}

/// Two masters that can reach each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rivals {
    since: Instant,
    /// Adverts lost between them.
    pub(super) lost: u32,
}

impl Sim {
    pub(super) fn rank(&self, index: usize, router: usize) -> (Option<u8>, IpAddr) {
        let host = &self.hosts[index];
        let seat = &host.seats[router];
        let base = if self.scene.crossed { seat.priority } else { host.seats[0].priority };
        let standing = host.daemon.as_ref().map(|daemon| daemon.tracker.standing());
        (standing.and_then(|standing| standing.effective(base).priority), seat.address)
    }

    pub(super) fn ranks(&self, index: usize) -> [(Option<u8>, IpAddr); 2] {
        [self.rank(index, 0), self.rank(index, self.scene.routers() - 1)]
    }

    pub(super) fn pair(&self, router: usize, a: usize, b: usize) -> usize {
        let count = self.hosts.len();
        (router * count + a) * count + b
    }

    pub(super) fn forget_rivals(&mut self, index: usize) {
        for router in 0..self.scene.routers() {
            for other in 0..self.hosts.len() {
                for pair in [self.pair(router, index, other), self.pair(router, other, index)] {
                    self.rivals[pair] = None;
                }
            }
        }
    }

    /// Who reaches whom has changed: the bounds count from now.
    pub(super) fn forget_reach(&mut self) {
        self.rivals.fill(None);
        for seat in self.hosts.iter_mut().flat_map(|host| &mut host.seats) {
            // Adverts that were on their way may be lost.
            if let Some(Linger { told, .. }) = &mut seat.lingers {
                *told = None;
            }
            seat.led = [self.now; 2];
        }
    }

    pub(super) fn check(&mut self) {
        self.check_addresses();
        for router in 0..self.scene.routers() {
            // The most there are in any scene.
            let masters: [bool; 5] =
                std::array::from_fn(|index| index < self.hosts.len() && self.is_master(index, router));
            if self.scene.permission {
                // Where there is no majority there is no bound for the wait for one; the end of the history shows it.
                assert!(masters.iter().filter(|master| **master).count() <= 1, "two masters in spite of the quorum");
                continue;
            }
            self.check_masterless(router, masters);
            self.check_rivals(router, masters);
        }
        for index in 0..self.hosts.len() {
            let stopping = self.hosts[index].daemon.as_ref().is_none_or(|daemon| daemon.stopping);
            let master = self.is_master(index, 0);
            let whole = (0..self.scene.routers()).all(|router| self.is_master(index, router) == master);
            assert!(whole || stopping, "half a group is master");
        }
    }

    fn check_masterless(&mut self, router: usize, masters: [bool; 5]) {
        for index in 0..self.hosts.len() {
            for (kind, least) in [(0, 1), (1, 2)] {
                let leads = |master: usize| {
                    masters[master] && self.reach(master, index) && self.rank(master, router).0 >= Some(least)
                };
                if (0..self.hosts.len()).any(leads) {
                    self.hosts[index].seats[router].led[kind] = self.now;
                } else if let Some(fit) = self.hosts[index].fit_since[kind] {
                    let seat = &self.hosts[index].seats[router];
                    let without = self.now.saturating_duration_since(fit.max(seat.led[kind]));
                    assert!(
                        without <= self.scene.no_master(),
                        "{} had no master of priority {least} or more for {without:?}",
                        seat.address
                    );
                }
            }
        }
    }

    fn check_rivals(&mut self, router: usize, masters: [bool; 5]) {
        for a in 0..self.hosts.len() {
            for b in a + 1..self.hosts.len() {
                let pair = self.pair(router, a, b);
                if !(masters[a] && masters[b] && self.reach(a, b)) {
                    self.rivals[pair] = None;
                    continue;
                }
                let Rivals { since, lost } = *self.rivals[pair].get_or_insert(Rivals { since: self.now, lost: 0 });
                let both = self.now - since;
                let bound = (self.scene.interval() + self.scene.delay()) * (lost + 1);
                let [a, b] = [a, b].map(|index| self.hosts[index].seats[router].address);
                assert!(both <= bound, "{a} and {b} were both master for {both:?} with {lost} adverts lost");
            }
        }
    }

    /// Frozen and crashed hosts may have the address for ever; the others have it as master, or for a moment more.
    fn check_addresses(&self) {
        for (index, host) in self.hosts.iter().enumerate().filter(|(_, host)| host.daemon.is_some() && !host.frozen) {
            for (router, seat) in host.seats.iter().enumerate() {
                let address = seat.address;
                let expected = self.is_master(index, router) || seat.lingers.is_some();
                assert_eq!(seat.holds, expected, "{address} holds, or does not");
                let Some(Linger { since, told }) = seat.lingers else { continue };
                let lingers = self.now - since;
                assert!(lingers <= self.scene.longest_linger(), "{address} has kept the address for {lingers:?}");
                assert!(
                    told.is_none_or(|told| self.now <= told),
                    "{address} keeps the address beside a master it heard"
                );
            }
        }
        assert!(!self.covered || (0..self.hosts.len()).any(|index| self.holds(index)), "nobody has the address");
    }
}
