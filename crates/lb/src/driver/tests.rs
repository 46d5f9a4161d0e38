use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc;

use evermq_config::BackendConfig;
use evermq_config::HostName;
use evermq_config::lb::{Balance, Mode, Queue, SourceLimits};
use evermq_daemon::listen::SocketOptions;

use super::binding::Listeners;
use super::room::HEALTH_DESCRIPTORS;
use super::*;
use crate::backend::Standing;
use crate::engine::ended::{Ended, Sink};
use crate::engine::listener;
use crate::engine::threads::Threads;
use crate::engine::worker::{Front, Settings};
use crate::routes::Routes;

/// Holds the thread on which a connection ends until the test lets go.
#[derive(Debug)]
struct Hang(Mutex<mpsc::Receiver<()>>);

impl Sink for Hang {
    fn ended(&self, _: &Ended<'_>) {
        let _ = self.0.lock().unwrap().recv();
    }
}

struct Bench {
    pool: Arc<Pool>,
    address: SocketAddr,
    threads: Threads,
    overseer: Overseer,
    health: watch::Receiver<Health>,
    release: mpsc::Sender<()>,
}

fn socket() -> SocketOptions {
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) }
}

fn listeners() -> (SocketAddr, Listeners) {
    let (address, bound) = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2, socket(), 0, Vec::new()).unwrap();
    (address, bound.into_iter().map(|listener| (0, listener)).collect())
}

/// Workers that run on a port of their own, and two backends that nobody probes.
fn bench((address, listeners): (SocketAddr, Listeners)) -> Bench {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let peers = ["a", "b"].map(|name| BackendConfig::of_cluster(HostName::new(name).unwrap(), nobody, None));
    let pool = Arc::new(Pool::new(&peers, &crate::pool::tests::settings(Balance::LeastConn), clock()));
    let group = pool.group("brokers").unwrap();
    let seconds = Duration::from_secs;
    let lost = CancellationToken::new();
    let (release, hang) = mpsc::channel();
    let common = Common {
        limit: 100,
        pool: Arc::clone(&pool),
        sources: Arc::new(Sources::new(SourceLimits { connections: None, rate: None }, clock())),
        settings: Arc::new(Settings {
            greeting_timeout: seconds(10),
            connect_timeout: seconds(1),
            idle_timeout: None,
            handshakes: 10,
            tls: None,
            socket: socket(),
            queue: Queue { size: 10, timeout: seconds(1) },
            accept_proxy_from: Vec::new(),
            routes: Routes::new(&[], &[], |name| pool.group(name)).unwrap(),
        }),
        fronts: [Front { name: "main".into(), address, mode: Mode::Passthrough, group, figures: Arc::default() }]
            .into(),
        sink: Arc::new(Hang(Mutex::new(hang))),
        lost: lost.clone(),
    };
    let listeners = listeners.into_iter().map(|listener| vec![listener]).collect();
    let made = threads::make(&common, listeners, |_| None).unwrap();
    let (alive, _) = tokio::sync::mpsc::channel(1);
    let workers = Arc::clone(&made.workers);
    let threads = made.start(&alive).unwrap();
    let (sender, health) = watch::channel(Health::Down);
    let desk = Arc::new(crate::desk::tests::desk(&pool, &common.fronts, workers, health.clone()));
    let belongings = Belongings {
        desk: Arc::clone(&desk),
        lender: control::lending().0,
        control_path: PathBuf::new(),
        peers: None,
        singular: CancellationToken::new(),
        settled: CancellationToken::new(),
    };
    let overseer = Overseer {
        desk,
        pulse: Pulse::new(2),
        condition: Condition { draining: false, worker_lost: false, worker_stalled: true, any_backend: false },
        health: sender,
        lost,
        upgrades: Upgrades { program: None, belongings, requests: tokio::sync::mpsc::channel(1).1, running: None },
        stages: watch::channel(Stage::Alone).1,
    };
    Bench { pool, address, threads, overseer, health, release }
}

#[tokio::test]
async fn a_worker_that_hangs_turns_the_health_down_and_its_return_up_again() {
    let Bench { pool, address, threads, overseer, mut health, release } = bench(listeners());
    let shutdown = CancellationToken::new();
    let overseer = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { overseer.run(&shutdown, Duration::from_secs(1)).await }
    });
    health.wait_for(|&health| health == Health::Degraded).await.unwrap();
    pool.set_standing(1, Standing::Up, clock());
    health.wait_for(|&health| health == Health::Up).await.unwrap();

    // It is no TLS, so the connection ends, and the worker hangs over it.
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET").unwrap();
    let limit = crate::pulse::BEAT * (crate::pulse::MISSED_SAMPLES + 10);
    tokio::time::timeout(limit, health.wait_for(|&health| health == Health::Down)).await.unwrap().unwrap();

    release.send(()).unwrap();
    tokio::time::timeout(limit, health.wait_for(|&health| health == Health::Up)).await.unwrap().unwrap();
    let _ = client.read(&mut [0]);
    shutdown.cancel();
    assert_eq!(overseer.await.unwrap(), Drained::Finished);
    assert_eq!(*health.borrow(), Health::Down);
    threads.join().unwrap();
}

#[tokio::test]
async fn a_listener_that_is_lost_hands_over_and_ends_the_others() {
    let (address, mut listeners) = listeners();
    // accept(2) on it fails for good.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.set_nonblocking(true).unwrap();
    listeners[1].1 = silent.into();
    let Bench { threads, overseer, health, .. } = bench((address, listeners));
    let never = CancellationToken::new();
    let run = overseer.run(&never, Duration::from_secs(1));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), run).await.unwrap(), Drained::Finished);
    assert_eq!(*health.borrow(), Health::Down);
    let error = format!("{:#}", threads.join().unwrap_err());
    assert!(error.contains("listening socket cannot be used"), "{error}");
}

#[test]
fn listeners_have_the_highest_descriptors_then_health_and_all_others_fit_below() {
    for (max_connections, listeners, others, files) in
        [(1000, 2, 216, 100_000), (1000, 2, 216, 256), (20_000, 6, 400, 1 << 20), (1, 1, 200, 64)]
    {
        let room = Room::of(max_connections, listeners, others, files);
        let (health, listening) =
            (room.health_from.unsigned_abs() as usize, room.listeners_from.unsigned_abs() as usize);
        assert!(room.connections >= 1 && room.connections <= max_connections);
        assert_eq!(listening - health, HEALTH_DESCRIPTORS);
        assert!(listening + listeners <= files, "{room:?}");
        if files > others + 2 {
            assert!(2 * room.connections + others - listeners - HEALTH_DESCRIPTORS <= health, "{room:?}");
        }
    }
    assert_eq!(Room::of(1000, 2, 216, 256).connections, 20);
}
