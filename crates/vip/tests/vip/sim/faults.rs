//! What goes wrong, and how a history of it ends.

use evermq_vip::track::LAST_RESORT;

use super::*;

/// How long things go wrong, in intervals.
const FAULTS: u32 = 250;
/// A while in which nothing happens any more, in intervals.
const CALM: u32 = 50;

impl Sim {
    pub(super) fn fault(&mut self) {
        self.faults += 1;
        let index = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(12) {
            0 => self.crash(index),
            1 | 2 if self.hosts[index].daemon.is_none() => self.start(index),
            3 => self.stop(index),
            4 => self.freeze(index),
            5 | 6 => self.thaw(index),
            7 => self.set_lb(index, None),
            8 => self.set_lb(index, Some(Health::Degraded)),
            9 | 1 | 2 => self.set_lb(index, Some(Health::Up)),
            10 => {
                for index in 0..self.hosts.len() {
                    self.hosts[index].side = self.random.below(2);
                }
                self.forget_reach();
            }
            _ => {
                self.heal();
                self.loss = if self.random.chance(50) { 0 } else { self.random.below(31) };
            }
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.daemon = None;
        host.permitted = false;
        for seat in &mut host.seats {
            seat.lingers = None;
            seat.asks = Asks::Nothing;
        }
        host.frozen = false;
        host.backlog.clear();
        host.fit_since = [None; 2];
        self.forget_rivals(index);
    }

    fn freeze(&mut self, index: usize) {
        self.hosts[index].frozen = true;
        // Nobody renews it.
        self.hosts[index].permitted = false;
        self.hosts[index].fit_since = [None; 2];
        self.forget_rivals(index);
    }

    /// What waits in the sockets is read before anything is sent.
    fn thaw(&mut self, index: usize) {
        let now = self.now;
        let host = &mut self.hosts[index];
        if !std::mem::take(&mut host.frozen) {
            return;
        }
        let (lb, backlog) = (host.lb, std::mem::take(&mut host.backlog));
        self.revoke(index);
        let Some(daemon) = &mut self.hosts[index].daemon else { return };
        for (router, advert) in backlog {
            daemon.routers.handle_advert(router, advert, now);
        }
        daemon.hear(lb, now);
        self.drain(index);
        // What was due meanwhile comes in the same turn.
        self.wake(index);
    }

    pub(crate) fn set_lb(&mut self, index: usize, lb: Option<Health>) {
        let now = self.now;
        self.hosts[index].lb = lb;
        if let Some(daemon) = self.running(index) {
            daemon.hear(lb, now);
            self.drain(index);
        }
    }

    fn heal(&mut self) {
        for host in &mut self.hosts {
            host.side = 0;
        }
        self.forget_reach();
    }

    /// Faults for a while; then everything is mended, and the hosts have to settle.
    pub(crate) fn history(&mut self) {
        let interval = self.scene.interval();
        let first = self.now + interval * self.random.below(15) as u32;
        self.push(first, What::Fault);
        self.run(self.now + interval * FAULTS);

        self.queue.retain(|Reverse((.., what))| *what != What::Fault);
        self.loss = 0;
        self.heal();
        for index in 0..self.hosts.len() {
            self.thaw(index);
            self.set_lb(index, Some(Health::Up));
            if self.hosts[index].daemon.as_ref().is_none_or(|daemon| daemon.stopping) {
                self.start(index);
            }
        }
        let delays = self.scene.start_delay + self.scene.preempt_delay;
        let holds = LONGEST_HOLD.max(hold_down(interval) * 2);
        self.run(self.now + holds + delays + interval * CALM * if self.scene.grouped { 4 } else { 1 });
        let before = self.moves;
        self.run(self.now + interval * CALM);
        assert_eq!(self.moves, before, "the hosts have not settled");
        self.check_the_end();
    }

    fn check_the_end(&self) {
        let masters = self.masters();
        let holders: Vec<usize> = (0..self.hosts.len()).filter(|index| self.holds(*index)).collect();
        assert_eq!(masters.len(), 1, "one master in the end");
        assert_eq!(masters, holders, "the master alone has the addresses");
        let crossed = self.scene.grouped && self.scene.crossed;
        if self.scene.preempt && !crossed {
            let best = self.hosts.iter().map(|host| host.seats[0].priority).max();
            let master = self.hosts[masters[0]].seats[0].priority;
            assert_eq!(Some(master), best, "with preemption the best host is master in the end");
        }
        for router in 0..self.scene.routers() {
            assert!(self.rank(masters[0], router).0 > Some(LAST_RESORT));
        }
    }
}
