//! Who is there while it happens: clients that talk all the time, and evermq-vip that watches the health.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evermq_daemon::health::{Health, HealthLine};

use super::Lb;
use crate::harness::eventually;

/// Watches the health as evermq-vip does, on a thread.
pub(super) struct Watcher {
    beats: Arc<AtomicUsize>,
    not_up: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    /// The longest time without a word, in microseconds.
    pub(super) silence: Arc<AtomicUsize>,
}

impl Watcher {
    pub(super) fn start(control: &Path) -> Self {
        let mut stream = UnixStream::connect(control).unwrap();
        stream.write_all(b"{\"request\":\"health\"}\n").unwrap();
        let watcher =
            Self { beats: Arc::default(), not_up: Arc::default(), ended: Arc::default(), silence: Arc::default() };
        let (beats, not_up) = (Arc::clone(&watcher.beats), Arc::clone(&watcher.not_up));
        let (ended, silence) = (Arc::clone(&watcher.ended), Arc::clone(&watcher.silence));
        std::thread::spawn(move || {
            let mut last = Instant::now();
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                silence.fetch_max(usize::try_from(last.elapsed().as_micros()).unwrap(), Ordering::SeqCst);
                last = Instant::now();
                if serde_json::from_str::<HealthLine>(&line).unwrap().health != Health::Up {
                    not_up.fetch_add(1, Ordering::SeqCst);
                }
                beats.fetch_add(1, Ordering::SeqCst);
            }
            ended.store(true, Ordering::SeqCst);
        });
        eventually("the first word", || (watcher.beats.load(Ordering::SeqCst) > 0).then_some(()));
        watcher
    }

    /// It goes on, and has never said anything but that all is well.
    pub(super) fn assert_unbroken(&self) {
        let before = self.beats.load(Ordering::SeqCst);
        eventually("the health is told on", || (self.beats.load(Ordering::SeqCst) > before + 2).then_some(()));
        assert!(!self.ended.load(Ordering::SeqCst), "end of file");
        assert_eq!(self.not_up.load(Ordering::SeqCst), 0);
    }
}

/// Clients that send all the time and want every byte back.
pub(super) struct Crowd {
    pub(super) stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) alive: usize,
    pub(super) dead: usize,
    rounds: usize,
    pub(super) slowest: Duration,
}

const THREADS: usize = 4;

impl Crowd {
    pub(super) fn start(lb: &Lb, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..THREADS)
            .map(|_| {
                let clients: Vec<_> = (0..count / THREADS).map(|_| lb.client()).collect();
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || talk(clients, &stop))
            })
            .collect();
        Self { stop, threads }
    }

    pub(super) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for thread in self.threads {
            let one = thread.join().unwrap();
            all.alive += one.alive;
            all.dead += one.dead;
            all.rounds += one.rounds;
            all.slowest = all.slowest.max(one.slowest);
        }
        all
    }
}

fn talk(mut clients: Vec<TcpStream>, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut round: u64 = 0;
    loop {
        // One more round after the stop: whoever is here then lives.
        let last = stop.load(Ordering::SeqCst);
        round += 1;
        let word = round.to_be_bytes();
        clients.retain_mut(|client| {
            let start = Instant::now();
            let mut answer = [0; 8];
            let served = client.write_all(&word).is_ok() && client.read_exact(&mut answer).is_ok();
            if !served {
                tally.dead += 1;
                return false;
            }
            assert_eq!(answer, word, "not what was sent");
            tally.slowest = tally.slowest.max(start.elapsed());
            tally.rounds += 1;
            true
        });
        if last {
            tally.alive = clients.len();
            return tally;
        }
    }
}
