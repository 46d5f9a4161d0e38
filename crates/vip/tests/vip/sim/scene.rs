//! What the hosts of a simulation have in common, and the bounds that follow from it.

use std::time::Duration;

use evermq_config::vip::VrrpVersion;

/// How long an address lingers beyond the longest skew.
const MARGIN: Duration = Duration::from_millis(10);

/// SplitMix64: enough for histories, and the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the hosts have in common.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    pub(crate) version: VrrpVersion,
    /// Of the first host, the second one, and so on around.
    pub(crate) intervals: Vec<Duration>,
    pub(crate) preempt: bool,
    pub(crate) preempt_delay: Duration,
    pub(crate) start_delay: Duration,
    /// All hosts have one priority.
    pub(crate) equal: bool,
    /// Two virtual routers in a sync group, in the place of one.
    pub(crate) grouped: bool,
    /// The ranks of the second one are the other way round.
    pub(crate) crossed: bool,
    /// Nobody is master without the permission of most hosts.
    pub(crate) permission: bool,
}

impl Scene {
    /// VRRP 3 with adverts every 20 ms, or VRRP 2 with adverts every second, and one virtual router.
    pub(crate) fn plain(version: VrrpVersion, preempt: bool) -> Self {
        let interval = match version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => Duration::from_millis(20),
        };
        Self {
            version,
            intervals: vec![interval],
            preempt,
            preempt_delay: Duration::ZERO,
            start_delay: Duration::ZERO,
            equal: false,
            grouped: false,
            crossed: false,
            permission: false,
        }
    }

    /// Any of them, of VRRP 3 with short intervals.
    pub(crate) fn any(random: &mut Random) -> Self {
        let mut scene = Self::plain(VrrpVersion::V3, random.chance(50));
        let interval = scene.intervals[0];
        scene.equal = random.chance(20);
        scene.grouped = random.chance(40);
        scene.crossed = random.chance(30);
        scene.permission = random.chance(30);
        if random.chance(20) {
            scene.intervals = vec![interval, interval / 2, interval * 3];
        }
        if random.chance(20) {
            scene.preempt_delay = interval * random.below(50) as u32;
        }
        if random.chance(20) {
            scene.start_delay = interval * random.below(50) as u32;
        }
        scene
    }

    /// The longest interval.
    pub(crate) fn interval(&self) -> Duration {
        self.intervals.iter().copied().max().unwrap()
    }

    fn skew(&self) -> Duration {
        match self.version {
            VrrpVersion::V2 => Duration::from_secs(1),
            VrrpVersion::V3 => self.interval(),
        }
    }

    /// `D`.
    pub(super) fn delay(&self) -> Duration {
        self.intervals.iter().copied().min().unwrap() / 10
    }

    pub(super) fn no_master(&self) -> Duration {
        let races = if self.grouped { self.interval() * 20 } else { Duration::ZERO };
        self.interval() * 3 + self.skew() + self.delay() + races
    }

    pub(crate) fn longest_linger(&self) -> Duration {
        self.skew() + MARGIN
    }

    pub(super) fn routers(&self) -> usize {
        if self.grouped { 2 } else { 1 }
    }
}
