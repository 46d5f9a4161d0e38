//! A storm on a virtual clock: all clients come back at once, the brokers take so many in a second.

#![expect(clippy::print_stdout, reason = "figures for docs/benchmarks.md")]

use std::collections::BinaryHeap;

use super::*;
use crate::backend::Standing;
use crate::pool::{Choice, Lease, PoolSettings, Wanted};

const CLIENTS: u32 = 20_000;
const WORKERS: usize = 2;
const RATE: u32 = 500;
const STEP: Duration = Duration::from_millis(1);

struct Client {
    number: u32,
    source: IpAddr,
}

/// A worker with its room, as the engine drives it.
struct Worker {
    room: WaitingRoom<Client>,
    retry: Option<Instant>,
}

struct Storm {
    pool: Pool,
    now: Instant,
    workers: Vec<Worker>,
    /// Handshakes under way: when they end, and whose they are.
    handshakes: BinaryHeap<(std::cmp::Reverse<Instant>, u32)>,
    leases: BTreeMap<u32, Lease>,
    /// Each connection: when, to which backend, for which client.
    made: Vec<(Instant, usize, u32)>,
    refused: usize,
    steps: usize,
}

fn settings() -> PoolSettings {
    let mut settings = crate::pool::tests::settings(Balance::LeastConn);
    settings.handshakes.rate_per_backend = Some(RATE);
    settings
}

impl Storm {
    fn new(queue: usize, timeout: Duration) -> Self {
        let now = Instant::now();
        let backend = |name: &str| {
            BackendConfig::of_cluster(evermq_config::HostName::new(name).unwrap(), ([127, 0, 0, 1], 1).into(), None)
        };
        let pool = Pool::new(&[backend("a"), backend("b")], &settings(), now);
        pool.set_standing(0, Standing::Up, now);
        pool.set_standing(1, Standing::Up, now);
        let worker = |_| Worker { room: WaitingRoom::new(queue / WORKERS, timeout), retry: None };
        Self {
            pool,
            now,
            workers: (0..WORKERS).map(worker).collect(),
            handshakes: BinaryHeap::new(),
            leases: BTreeMap::new(),
            made: Vec::new(),
            refused: 0,
            steps: 0,
        }
    }

    fn wanted(&self, client: &Client) -> Wanted<'static> {
        let group = self.pool.group("brokers").unwrap();
        Wanted { group, source: client.source, client_id: None, tried: &[], kind: AddressKind::Tls }
    }

    fn arrive(&mut self, worker: usize, client: Client) {
        let room = &self.workers[worker].room;
        match self.pool.choose_behind(&self.wanted(&client), self.now, |lane| room.has_waiters(lane)) {
            Choice::Go(lease) => self.place(client.number, lease),
            Choice::Wait(lane) => {
                let worker = &mut self.workers[worker];
                worker.retry.get_or_insert(self.pool.retry_at(lane, self.now));
                match worker.room.push(client.source, lane, client, self.now) {
                    Push::Waits(_) => {}
                    Push::WaitsInsteadOf(..) | Push::Refused(_) => self.refused += 1,
                }
            }
            Choice::Nobody => panic!("both are up"),
        }
    }

    fn place(&mut self, number: u32, lease: Lease) {
        // Between 5 and 200 ms for a handshake.
        let takes = Duration::from_millis(5 + u64::from(number.wrapping_mul(2_654_435_761) % 196));
        self.made.push((self.now, lease.index(), number));
        self.handshakes.push((std::cmp::Reverse(self.now + takes), number));
        self.leases.insert(number, lease);
    }

    fn step(&mut self) {
        self.now += STEP;
        while self.handshakes.peek().is_some_and(|(ends, _)| ends.0 <= self.now) {
            let (_, number) = self.handshakes.pop().unwrap();
            self.leases.get_mut(&number).unwrap().handshaken();
        }
        // Threads have no order; on a clock of whole milliseconds they meet often.
        self.steps += 1;
        let first = self.steps;
        for index in (0..WORKERS).map(|index| (index + first) % WORKERS) {
            let mut worker = std::mem::replace(
                &mut self.workers[index],
                Worker { room: WaitingRoom::new(0, Duration::ZERO), retry: None },
            );
            self.refused += worker.room.handle_timeout(self.now).len();
            if worker.retry.is_some_and(|retry| retry <= self.now) {
                let mut placed = Vec::new();
                worker.room.serve(64, |client| match self.pool.choose(&self.wanted(client), self.now) {
                    Choice::Go(lease) => {
                        placed.push((client.number, lease));
                        Verdict::Placed
                    }
                    Choice::Wait(_) => Verdict::StillFull,
                    Choice::Nobody => panic!("both are up"),
                });
                for (number, lease) in placed {
                    self.place(number, lease);
                }
                worker.retry = worker.room.lanes().map(|lane| self.pool.retry_at(lane, self.now)).min();
            }
            self.workers[index] = worker;
        }
    }

    fn waiting(&self) -> usize {
        self.workers.iter().map(|worker| worker.room.len()).sum()
    }

    /// In no window were there more than the rate allows, and a burst.
    fn assert_rate_was_kept(&self) {
        for backend in 0..2 {
            let times: Vec<Instant> = self.made.iter().filter(|made| made.1 == backend).map(|made| made.0).collect();
            for window in [10, 100, 1000, 10_000_u64] {
                let most = usize::try_from(u64::from(RATE) * window / 1000 + u64::from(RATE) / 20 + 1).unwrap();
                let window = Duration::from_millis(window);
                for (first, &from) in times.iter().enumerate() {
                    let count = times[first..].partition_point(|&at| at < from + window);
                    assert!(count <= most, "backend {backend}: {count} in {window:?}");
                }
            }
        }
    }
}

#[test]
fn twenty_thousand_come_back_at_once() {
    let mut storm = Storm::new(20_000, Duration::from_secs(30));
    let start = storm.now;
    for number in 0..CLIENTS {
        // A quarter of them from one address.
        let source = if number % 4 == 0 { source(1) } else { IpAddr::from((0x0A00_0000_u32 + number).to_be_bytes()) };
        storm.arrive(number as usize / 4 % WORKERS, Client { number, source });
    }
    while storm.waiting() > 0 {
        storm.step();
        assert!(storm.now - start < Duration::from_secs(30), "{} wait still", storm.waiting());
    }
    assert_eq!((storm.made.len(), storm.refused), (CLIENTS as usize, 0));
    storm.assert_rate_was_kept();

    // Both are kept busy to the end: no second has more than the rate or less than nine tenths, and they have half each.
    let elapsed = storm.now - start;
    let seconds = usize::try_from(elapsed.as_secs()).unwrap();
    for second in 0..seconds {
        let within = |at: Instant| (at - start).as_secs() == second as u64;
        let count = storm.made.iter().filter(|made| within(made.0)).count();
        assert!((900..=1000).contains(&count), "second {second}: {count}");
    }
    assert!((20.0..21.5).contains(&elapsed.as_secs_f64()), "{elapsed:?}");
    let counts = storm.pool.members().iter().map(|member| member.connections()).collect::<Vec<_>>();
    assert!(counts[0].abs_diff(counts[1]) <= 100, "{counts:?}");

    let mut waits: Vec<Duration> = storm.made.iter().map(|made| made.0 - start).collect();
    waits.sort_unstable();
    let percentile = |percent: usize| waits[waits.len() * percent / 100];
    println!("20,000 clients, 2 x 500/s: p50 {:?}, p99 {:?}, all {elapsed:?}", percentile(50), percentile(99));
    assert!(percentile(99) < Duration::from_secs(21));
    // The crowd behind one address has had its turns after all others.
    let alone = storm.made.iter().filter(|made| made.2 % 4 != 0).map(|made| made.0 - start).max().unwrap();
    assert!(alone < Duration::from_secs(17), "{alone:?}");
}

#[test]
fn a_trickle_during_a_storm_from_one_address_does_not_wait_for_it() {
    let mut storm = Storm::new(20_000, Duration::from_secs(30));
    let start = storm.now;
    for number in 0..10_000 {
        storm.arrive(number as usize % WORKERS, Client { number, source: source(1) });
    }
    let mut came = BTreeMap::new();
    for number in 10_000..10_100 {
        for _ in 0..50 {
            storm.step();
        }
        let source = IpAddr::from((0x0A00_0000_u32 + number).to_be_bytes());
        came.insert(number, storm.now);
        storm.arrive(number as usize % WORKERS, Client { number, source });
    }
    while storm.waiting() > 0 {
        storm.step();
        assert!(storm.now - start < Duration::from_secs(30), "{} wait still", storm.waiting());
    }
    let waited = |made: &(Instant, usize, u32)| came.get(&made.2).map(|&came| made.0 - came);
    let longest = storm.made.iter().filter_map(waited).max().unwrap();
    println!("a client beside 10,000 of one address waits for {longest:?} at most");
    assert!(longest <= Duration::from_millis(100), "{longest:?}");
    storm.assert_rate_was_kept();
}

#[test]
fn what_does_not_fit_is_refused_at_once_or_after_the_timeout() {
    let mut storm = Storm::new(4000, Duration::from_secs(2));
    for number in 0..10_000 {
        let source = IpAddr::from((0x0A00_0000_u32 + number).to_be_bytes());
        storm.arrive(number as usize % WORKERS, Client { number, source });
    }
    let at_once = 10_000 - 4000 - storm.made.len();
    assert_eq!((storm.refused, storm.waiting()), (at_once, 4000));
    for _ in 0..2100 {
        storm.step();
    }
    assert_eq!(storm.waiting(), 0);
    assert_eq!(storm.made.len() + storm.refused, 10_000);
    assert!((1850..=2000).contains(&storm.made.len()), "{}", storm.made.len());
}
