//! The power fails: the broker runs on a disk that then has, of what it was not asked to keep, any part and in any order.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use evermq_broker::Driver;
use evermq_config::BrokerConfig;
use evermq_store::simulated::{Chance, Simulated};
use tokio_util::sync::CancellationToken;

use super::check::Totals;
use super::{run, say, seed, soak_time};
use crate::running::{PATIENCE, Site};

/// Room for this many bytes more, where there is little.
const LITTLE: u64 = 200_000;
const SEGMENT: u64 = 32 << 10;

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Plenty,
    /// Little on the disk, in every other life.
    LittleOnDisk,
    /// Little within `max_size`, always: it has to free itself after each start, and at the end.
    LittleAllowed,
}

/// A broker inside the test, on a disk of its own.
struct Life {
    address: SocketAddr,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

impl Life {
    /// `None` if the power fails while it starts.
    fn begin(config: &BrokerConfig, disk: &Simulated) -> Option<Self> {
        let driver = Driver::start_on(config, |settings, now| disk.open_store(settings, now)).ok()?;
        let stop = CancellationToken::new();
        let (address, token) = (driver.listen_plain()?, stop.clone());
        Some(Self { address, stop, thread: std::thread::spawn(move || driver.run(&token)) })
    }

    /// Until the power has failed, which the broker notices, or has failed now.
    fn end(self, disk: &Simulated, chance: &mut Chance) -> Simulated {
        let since = evermq_broker::connection::clock();
        let most = Duration::from_millis(100 + chance.below(900) as u64);
        while !self.thread.is_finished() && since.elapsed() < most {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let image = disk.after_power_loss(Chance::new(chance.below(1 << 30) as u64));
        // What it still does is of no account: its disk takes nothing.
        self.stop.cancel();
        let since = evermq_broker::connection::clock();
        while !self.thread.is_finished() {
            assert!(since.elapsed() < PATIENCE, "the broker does not end");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        image
    }
}

#[derive(Debug, Default)]
struct Lives {
    begun: usize,
    failed_starts: usize,
}

fn lives(seed: u64, count: usize, room: Room) -> (Totals, Lives) {
    let site = Site::new();
    let mut config = site.config("broker1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &[]);
    config.broker.store.segment_size = SEGMENT;
    config.broker.store.max_size = if room == Room::LittleAllowed { 32 * SEGMENT } else { 1 << 30 };
    config.broker.max_queued_messages = 1_000_000;
    config.broker.max_queued_bytes = 1 << 30;
    config.broker.drain_timeout = Duration::from_millis(200);
    let mut lives = Lives::default();
    let mut last = None;
    let totals = run(seed, |clients, chance| {
        let mut disk = Simulated::default();
        let mut is_first = true;
        let since = clients.now();
        while lives.begun < count || !clients.is_enough(room != Room::Plenty) {
            clients.go_on("a history that proves something", since);
            disk.set_sync_time(Duration::from_micros(100 * chance.below(20) as u64));
            if !is_first {
                // To read a file takes some; sometimes it fails before all are read.
                let reading = 4 * disk.names().len();
                let operations = match chance.one_in(4) {
                    true => chance.below(60 + reading),
                    false => 2 * reading + chance.below(1500),
                } as u64;
                disk.lose_power_after(operations, Chance::new(chance.below(1 << 30) as u64));
                if room == Room::LittleOnDisk && lives.begun % 2 == 1 {
                    disk.set_capacity(Some(disk.used() + LITTLE));
                }
            }
            let Some(life) = Life::begin(&config, &disk) else {
                lives.failed_starts += 1;
                disk = disk.after_power_loss(Chance::new(chance.below(1 << 30) as u64));
                continue;
            };
            clients.is_at(Some(life.address));
            lives.begun += 1;
            if std::mem::take(&mut is_first) {
                clients.until("subscribers", || clients.subscribed.load(std::sync::atomic::Ordering::SeqCst) == 3);
            }
            let image = life.end(&disk, chance);
            clients.is_at(None);
            disk = image;
        }
        disk.set_sync_time(Duration::from_micros(100));
        let life = Life::begin(&config, &disk).unwrap();
        clients.is_at(Some(life.address));
        std::thread::park_timeout(Duration::from_millis(100));
        last = Some(life);
    });
    if let Some(life) = last {
        life.stop.cancel();
        life.thread.join().unwrap().unwrap();
    }
    say(&format!("{totals:?} {lives:?}"));
    (totals, lives)
}

#[test]
fn what_it_acknowledged_is_there_when_the_power_comes_back() {
    let (totals, _) = lives(seed(), 8, Room::Plenty);
    // Otherwise it would prove little.
    assert!(totals.wills > 5 && totals.retained > 0, "{totals:?}");
}

#[test]
fn so_it_is_when_there_is_no_room() {
    for room in [Room::LittleOnDisk, Room::LittleAllowed] {
        lives(seed(), 4, room);
    }
}

/// As long as it is to go on, each time from another seed.
#[test]
#[ignore = "as long as EVERMQ_SECONDS says"]
fn soak() {
    let mut chance = Chance::new(seed());
    let end = evermq_broker::connection::clock() + soak_time();
    while evermq_broker::connection::clock() < end {
        let seed = chance.below(1_000_000) as u64;
        say(&format!("EVERMQ_SEED={seed}"));
        let room = [Room::Plenty, Room::Plenty, Room::LittleOnDisk, Room::LittleAllowed][chance.below(4)];
        lives(seed, 12, room);
    }
}
