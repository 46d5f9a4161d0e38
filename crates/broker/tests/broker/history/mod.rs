//! What clients were told, beside what became of it: a broker that dies again and again, and clients that live on.
//!
//! The clients keep to the protocol to the letter, connect again by themselves, and remember what they were told ([`clients`]).
//! When the broker has died often enough and nothing is under way any more, [`check`] compares:
//!
//! - every message that was acknowledged is with every persistent subscriber, of QoS 2 once and of one publisher in its order;
//! - every subscription is as its SUBACK or UNSUBACK said;
//! - every topic has the retained message that was acknowledged last;
//! - every will of a client that was let in and lost its connection has come, of QoS 2 once;
//! - no message came after it had expired, and no session was forgotten.
//!
//! How the broker dies is for the test: [`killed`] kills the process, [`power`] takes the power from its disk. All that is chosen
//! comes from one number, which a failure names; moments and order of what several threads do come from the machine.

mod check;
mod clients;
mod killed;
mod power;
mod wire;

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evermq_store::simulated::Chance;

/// How long anything may take that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages that are to be acknowledged at least: otherwise it would prove little.
const ENOUGH: usize = 100;

/// What the clients of one broker share.
pub(crate) struct Site {
    /// Where the broker is now.
    address: Mutex<Option<SocketAddr>>,
    started: Instant,
    /// Nothing new is begun.
    winding_down: AtomicBool,
    /// The publishers have all that they are owed.
    published: AtomicBool,
    /// Something went wrong, so nobody need wait.
    failed: AtomicBool,
    subscribed: AtomicUsize,
    /// Messages of the publishers that were acknowledged, and that were refused.
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

impl Site {
    fn new() -> Self {
        Self {
            address: Mutex::new(None),
            started: evermq_broker::connection::clock(),
            winding_down: AtomicBool::new(false),
            published: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            subscribed: AtomicUsize::new(0),
            acknowledged: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        }
    }

    /// The broker is there, or not.
    fn is_at(&self, address: Option<SocketAddr>) {
        *self.address.lock().unwrap() = address;
    }

    fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap()
    }

    fn is_winding_down(&self) -> bool {
        self.winding_down.load(Ordering::SeqCst)
    }

    /// Enough has happened for the history to prove something, with refusals if there `is_no_room`.
    fn is_enough(&self, is_no_room: bool) -> bool {
        self.acknowledged.load(Ordering::SeqCst) > ENOUGH && (!is_no_room || self.refused.load(Ordering::SeqCst) > 0)
    }

    fn now(&self) -> Duration {
        evermq_broker::connection::clock() - self.started
    }

    /// Waits until it is so.
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let since = self.now();
        while !is_so() {
            self.go_on(what, since);
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// To be asked in every wait.
    fn go_on(&self, what: &str, since: Duration) {
        assert!(!self.failed.load(Ordering::SeqCst), "{what}: given up, because something else failed");
        let waited = self.now().saturating_sub(since);
        assert!(waited < PATIENCE, "waited in vain for {what}");
    }
}

/// Says that a thread has failed, so that the others do not wait.
struct Alarm<'a>(&'a Site);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// Lets clients use a broker that `live` starts, kills and starts again until it is to stand; then checks. `live` is done when
/// the broker stands.
fn run(seed: u64, live: impl FnOnce(&Site, &mut Chance)) -> check::Totals {
    let site = Site::new();
    let mut chance = Chance::new(seed);
    let of = |number: u64| Chance::new(seed.wrapping_mul(1_000_003).wrapping_add(number));
    std::thread::scope(|scope| {
        let _alarm = Alarm(&site);
        let site = &site;
        let spawn = |name: &'static str| std::thread::Builder::new().name(name.to_owned());
        let subscriber = |name, manner, chance| {
            spawn(name).spawn_scoped(scope, move || clients::subscriber(site, name, manner, chance)).unwrap()
        };
        let subscribers = [
            subscriber("online", clients::Manner::Online, of(1)),
            subscriber("restless", clients::Manner::Restless, of(2)),
            subscriber("away", clients::Manner::Away, of(3)),
        ];
        let publisher = |name, version, chance| {
            spawn(name).spawn_scoped(scope, move || clients::publisher(site, name, version, chance)).unwrap()
        };
        let publishers =
            [publisher("p5", evermq_mqtt::Version::V5, of(4)), publisher("p4", evermq_mqtt::Version::V4, of(5))];
        let (one, two, three) = (of(6), of(7), of(8));
        let changer = spawn("changer").spawn_scoped(scope, move || clients::changer(site, one)).unwrap();
        let retainer = spawn("retainer").spawn_scoped(scope, move || clients::retainer(site, two)).unwrap();
        let mortals = spawn("mortals").spawn_scoped(scope, move || clients::mortals(site, three)).unwrap();
        live(site, &mut chance);
        site.winding_down.store(true, Ordering::SeqCst);
        let sent = publishers.map(|publisher| publisher.join().unwrap());
        let told = check::Told {
            sent,
            subscribed: changer.join().unwrap(),
            retained: retainer.join().unwrap(),
            wills: mortals.join().unwrap(),
        };
        check::say_that_all_is_sent(site);
        site.published.store(true, Ordering::SeqCst);
        let got = subscribers.map(|subscriber| subscriber.join().unwrap());
        check::check(site, &told, &got)
    })
}

/// `EVERMQ_SEED`, or one that is different each time; said, so that a failure can be run again.
fn seed() -> u64 {
    use std::hash::BuildHasher as _;
    let chosen = std::env::var("EVERMQ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = chosen.unwrap_or_else(|| std::collections::hash_map::RandomState::new().hash_one(0) % 1_000_000);
    say(&format!("EVERMQ_SEED={seed}"));
    seed
}

#[expect(clippy::print_stdout, reason = "shown where the test fails, and by a soak")]
fn say(text: &str) {
    println!("{text}");
}

/// How long a soak goes on: `EVERMQ_SECONDS`, or a minute.
fn soak_time() -> Duration {
    let seconds = std::env::var("EVERMQ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}
