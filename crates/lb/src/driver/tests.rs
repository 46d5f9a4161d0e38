use std::sync::mpsc;
use std::task::{Wake, Waker};

use evermq_config::HostName;
use evermq_config::cluster::Balance;
use evermq_config::roles::Peer;

use super::*;
use crate::backend::Standing;

/// Holds the thread that wakes it until the test lets go.
struct Hang(Mutex<mpsc::Receiver<()>>);

impl Wake for Hang {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let _ = self.0.lock().unwrap().recv();
    }
}

struct Bench {
    pool: Arc<Pool>,
    workers: Arc<[Arc<Worker>]>,
    threads: workers::Workers,
    overseer: Overseer,
    health: watch::Receiver<Health>,
}

fn socket() -> SocketOptions {
    SocketOptions { keepalive: Duration::from_secs(30), user_timeout: Duration::from_secs(30) }
}

fn listeners() -> Vec<std::net::TcpListener> {
    listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2, socket()).unwrap().1
}

/// Workers that run on a port of their own, and two backends that nobody probes.
fn bench(listeners: Vec<std::net::TcpListener>) -> Bench {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let peers = ["a", "b"].map(|name| Peer { name: HostName::new(name).unwrap(), address });
    let pool = Arc::new(Pool::new(&peers, Balance::LeastConn));
    let gate = Arc::new(Gate::new(100));
    let socket = socket();
    let settings = Settings { connect_timeout: Duration::from_secs(1), socket };
    let workers: Arc<[_]> =
        (0..2).map(|_| Arc::new(Worker::new(Arc::clone(&pool), Arc::clone(&gate), settings, None))).collect();
    let orders = Orders::default();
    let (alive, _) = tokio::sync::mpsc::channel(1);
    let threads = spawn_workers(&workers, listeners, &orders, alive).unwrap();
    let (sender, health) = watch::channel(Health::Down);
    let overseer = Overseer {
        pool: Arc::clone(&pool),
        workers: Arc::clone(&workers),
        pulse: Pulse::new(2),
        condition: Condition { draining: false, worker_lost: false, worker_stalled: true, any_backend: false },
        health: sender,
        orders,
    };
    Bench { pool, workers, threads, overseer, health }
}

#[tokio::test]
async fn a_worker_that_hangs_turns_the_health_down_and_its_return_up_again() {
    let Bench { pool, workers, threads, overseer, mut health } = bench(listeners());
    let shutdown = CancellationToken::new();
    let overseer = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { overseer.run(&shutdown, Duration::from_secs(1)).await }
    });
    health.wait_for(|&health| health == Health::Degraded).await.unwrap();
    pool.set_standing(1, Standing::Up);
    health.wait_for(|&health| health == Health::Up).await.unwrap();

    let (release, hang) = mpsc::channel();
    let registration = workers[0].register(0, Waker::from(Arc::new(Hang(Mutex::new(hang)))));
    pool.set_standing(0, Standing::Down);
    workers[0].sweep();
    let limit = crate::pulse::BEAT * (crate::pulse::MISSED_SAMPLES + 10);
    tokio::time::timeout(limit, health.wait_for(|&health| health == Health::Down)).await.unwrap().unwrap();

    release.send(()).unwrap();
    tokio::time::timeout(limit, health.wait_for(|&health| health == Health::Up)).await.unwrap().unwrap();
    drop(registration);
    shutdown.cancel();
    assert_eq!(overseer.await.unwrap(), Drained::Finished);
    assert_eq!(*health.borrow(), Health::Down);
    threads.join().unwrap();
}

#[tokio::test]
async fn a_listener_that_is_lost_hands_over_and_ends_the_others() {
    let mut listeners = listeners();
    // accept(2) on it fails for good.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.set_nonblocking(true).unwrap();
    listeners[1] = silent.into();
    let Bench { threads, overseer, health, .. } = bench(listeners);
    let never = CancellationToken::new();
    let run = overseer.run(&never, Duration::from_secs(1));
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), run).await.unwrap(), Drained::Finished);
    assert_eq!(*health.borrow(), Health::Down);
    let error = format!("{:#}", threads.join().unwrap_err());
    assert!(error.contains("listening socket cannot be used"), "{error}");
}
