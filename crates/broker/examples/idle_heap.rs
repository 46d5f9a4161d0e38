//! What idle connections keep on the heap: `idle_heap [CONNECTIONS]`, plain TCP.
//!
//! Serves in this process with an allocator that counts, connects that many clients, and prints the sizes of which there is
//! about one or more for each connection. Takes two open files for each.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::unwrap_used, reason = "a failed measurement ends the program")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use evermq_broker::Driver;
use evermq_config::broker::{Broker, Store};
use evermq_config::{BrokerConfig, ClusterName, HostName, TlsFiles};
use tokio_util::sync::CancellationToken;

/// Sizes are told apart up to here.
const LARGEST: usize = 8192;

struct Counting;

static LIVE: [AtomicI64; LARGEST + 1] = [const { AtomicI64::new(0) }; LARGEST + 1];

// SAFETY: the system's allocator does everything; counting neither allocates nor fails.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE[layout.size().min(LARGEST)].fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE[layout.size().min(LARGEST)].fetch_sub(1, Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn snapshot() -> Vec<i64> {
    LIVE.iter().map(|count| count.load(Relaxed)).collect()
}

fn connect(address: SocketAddr, number: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let id = format!("idle-client-{number:06}");
    let mut packet = vec![0x10, u8::try_from(12 + id.len()).unwrap(), 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0];
    packet.push(u8::try_from(id.len()).unwrap());
    packet.extend(id.as_bytes());
    stream.write_all(&packet).unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [0x20, 2, 0, 0]);
    stream
}

/// Nobody asks for it here, but a broker has one.
fn certificates(directory: &std::path::Path) -> TlsFiles {
    let made = rcgen::generate_simple_self_signed(vec!["broker1".to_owned()]).unwrap();
    let path = |name| directory.join(name);
    std::fs::write(path("crt"), made.cert.pem()).unwrap();
    std::fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
    TlsFiles { ca: path("crt"), cert: path("crt"), key: path("key") }
}

fn main() {
    let count: usize = std::env::args().nth(1).map_or(5000, |text| text.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = BrokerConfig {
        host: HostName::new("broker1").unwrap(),
        cluster: ClusterName::new("idle").unwrap(),
        broker: Broker {
            listen: any,
            listen_plain: Some(any),
            store: Store { path: directory.path().join("store"), ..Broker::default().store },
            ..Broker::default()
        },
        bridges: Vec::new(),
        lbs: Vec::new(),
        quorum: None,
        peer_listen: any,
        peers: Vec::new(),
        tls: certificates(directory.path()),
        control_socket: directory.path().join("sock"),
    };
    let driver = Driver::start(&config).unwrap();
    let address = driver.listen_plain().unwrap();
    let stop = CancellationToken::new();
    let token = stop.clone();
    let thread = std::thread::spawn(move || driver.run(&token));
    drop((0..100).map(|number| connect(address, number)).collect::<Vec<_>>());
    let before = snapshot();
    let mut streams = Vec::with_capacity(count);
    streams.extend((0..count).map(|number| connect(address, number)));
    let after = snapshot();
    let mut total = 0.0;
    println!("  size  for each connection");
    for (size, (after, before)) in after.iter().zip(before).enumerate() {
        let each = (after - before) as f64 / count as f64;
        if each.abs() >= 0.4 {
            println!("{size:6}  {each:.2}");
            total += size as f64 * each;
        }
    }
    println!("{total:6.0} bytes in all, but for what tables and the allocator itself add");
    stop.cancel();
    thread.join().unwrap().unwrap();
}
