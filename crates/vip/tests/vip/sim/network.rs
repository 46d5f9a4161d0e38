//! Events on the virtual clock, and adverts on their way.

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Deliver { to: usize, from: usize, router: usize, priority: u8 },
    Beat(usize),
    Fault,
}

impl Sim {
    pub(super) fn push(&mut self, at: Instant, what: What) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, what)));
    }

    pub(super) fn send(&mut self, from: usize, router: usize, priority: u8) {
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            if !self.reach(from, to) {
                continue;
            }
            if self.random.chance(self.loss) {
                for pair in [self.pair(router, from, to), self.pair(router, to, from)] {
                    if let Some(rivals) = &mut self.rivals[pair] {
                        rivals.lost += 1;
                    }
                }
                continue;
            }
            let copies = if self.random.chance(1) { 2 } else { 1 };
            for _ in 0..copies {
                let longest = self.scene.delay();
                let random = Duration::from_nanos(self.random.below(longest.as_nanos() as u64));
                let delay = if self.ordered { longest } else { random };
                let arrives = self.now + delay;
                if priority > 0
                    && let Some(Linger { told, .. }) = &mut self.hosts[to].seats[router].lingers
                {
                    self.overlaps += u64::from(told.is_none());
                    *told = Some(told.map_or(arrives, |told| told.min(arrives)));
                }
                self.push(arrives, What::Deliver { to, from, router, priority });
            }
        }
    }

    /// Runs until `end`.
    pub(crate) fn run(&mut self, end: Instant) {
        loop {
            let timer = (0..self.hosts.len())
                .filter_map(|index| {
                    let daemon = self.running(index)?;
                    let health = daemon.tracker.poll_timeout().filter(|_| !daemon.stopping);
                    let due = [daemon.routers.poll_timeout(), health].into_iter().flatten().min()?;
                    Some((due, index))
                })
                .min();
            let queued = self.queue.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = [timer.map(|(due, _)| due), queued].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = self.now.max(at);
            // Whoever was master until this moment counts until this moment.
            self.check();
            if queued.is_some_and(|queued| queued <= at) {
                let Reverse((.., what)) = self.queue.pop().unwrap();
                self.happen(what);
            } else if let Some((_, index)) = timer {
                self.wake(index);
            }
            self.vote();
            self.check();
        }
        self.now = end;
        self.check();
    }

    fn happen(&mut self, what: What) {
        let now = self.now;
        match what {
            What::Deliver { to, from, router, priority } => {
                // In flight while the network was cut: gone.
                if !self.reach(from, to) {
                    return;
                }
                let (source, interval) = (self.hosts[from].seats[router].address, self.hosts[from].interval);
                let advert = Advert { source, priority, interval };
                if self.hosts[to].frozen {
                    self.hosts[to].backlog.push((router, advert));
                } else if let Some(daemon) = self.running(to) {
                    daemon.routers.handle_advert(router, advert, now);
                    self.drain(to);
                    self.end_if_done(to);
                }
            }
            What::Beat(index) => {
                if let Some(health) = self.hosts[index].lb
                    && let Some(daemon) = self.running(index).filter(|daemon| daemon.linked && !daemon.stopping)
                {
                    daemon.tracker.handle_health(health, now);
                    self.drain(index);
                }
                self.push(now + HEALTH_BEAT, What::Beat(index));
            }
            What::Fault => {
                self.fault();
                let next = self.scene.interval() * (50 + self.random.below(10_000) as u32) / 1000;
                self.push(now + next, What::Fault);
            }
        }
    }
}
