//! Strangers that want to take the broker from its clients.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evermq_broker::connection::clock;
use evermq_mqtt::packet::Connect;
use evermq_mqtt::{Packet, QoS, ReasonCode, Version};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

use crate::client::{Client, connect, message, text};
use crate::listeners::tls;
use crate::program::Program;
use crate::running::{PATIENCE, Running, Site, start, start_with};

/// Strangers that come again and again, on threads of their own, until it is dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Flood {
    fn start(threads: usize, come: impl Fn() + Send + Sync + 'static) -> Self {
        let (stop, came, come) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(come));
        let threads = (0..threads)
            .map(|_| {
                let (stop, came, come) = (Arc::clone(&stop), Arc::clone(&came), Arc::clone(&come));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        come();
                        came.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Self { stop, came, threads }
    }

    /// The longest that a client that is in waits for an answer meanwhile.
    fn longest_wait(&self, client: &mut Client, strangers: usize) -> Duration {
        let (mut longest, began) = (Duration::ZERO, clock());
        while self.came.load(Ordering::Relaxed) < strangers {
            let asked: Instant = clock();
            client.expect_nothing();
            longest = longest.max(clock() - asked);
            assert!(clock() - began < PATIENCE * 3, "the flood does not come");
        }
        longest
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn stream(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(to).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

/// What comes back for `bytes`, until the broker closes.
fn answer(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let Some(mut stream) = stream(to) else { return Vec::new() };
    // It may be closed before all of it is written, or with some of it unread.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn nobody_but(broker: &Running, clients: u64) {
    broker.wait_for("the strangers' end", |state| state["connections"].as_u64() == Some(clients));
}

#[test]
fn tls_handshakes_without_end_do_not_hold_up_who_is_in() {
    let site = Site::new();
    let broker = Program::start(&site, "max_handshakes = 20", None);
    let own = site.ca.issue("device-1", 1);
    let foreign = crate::certs::Ca::new(site.directory.path(), "other-ca").issue("device-1", 1);
    let (mut inside, _) = Client::over(tls(broker.tls, &own, Some(&own)), connect("inside"));
    let (to, before) = (broker.tls, broker.resident());
    let flood = Flood::start(8, {
        let own = own.clone();
        move || {
            // All the way to a certificate that is not good: that costs the broker most.
            let mut stranger = tls(to, &own, Some(&foreign));
            let _ = stranger.write_all(b"x");
            let _ = stranger.read(&mut [0; 16]);
        }
    });
    let longest = flood.longest_wait(&mut inside, 100);
    // On a busy machine of two cores the flood itself takes most of the time.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    // Twenty handshakes at once, each with the two certificates and the keys of its time.
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} kB more");
    // And one more client gets in.
    Client::over(tls(broker.tls, &own, Some(&own)), connect("late")).0.expect_nothing();
    drop(flood);
    broker.wait_for("the strangers' end", || broker.ask("state").unwrap()["connections"] == 1);
    inside.expect_nothing();
}

#[test]
fn connects_without_end_do_not_hold_up_who_is_in() {
    let site = Site::new();
    let broker = Program::start(&site, "", None);
    let mut inside = broker.client("inside");
    let (to, before) = (broker.plain, broker.resident());
    let flood = Flood::start(4, move || {
        if let Some(stream) = stream(to) {
            let mut client = Client::raw_over(stream, Version::V5);
            client.try_connect(connect(""));
        }
    });
    let longest = flood.longest_wait(&mut inside, 500);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    drop(flood);
    let left = |name: &str| broker.ask("state").unwrap()[name].as_u64();
    broker.wait_for("the strangers' end", || (left("connections"), left("sessions")) == (Some(1), Some(1)));
    let grown = broker.resident().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} kB more");
}

/// A stranger at another address of this host.
fn stream_from(address: Ipv4Addr, to: SocketAddr) -> Option<TcpStream> {
    let SocketAddr::V4(to) = to else { return None };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let [a, b, c, d] = address.octets();
    bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).ok()?;
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrIn::from(to)).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    Some(stream)
}

#[test]
fn wrong_passwords_without_end_do_not_hold_up_who_is_in_nor_who_comes_from_elsewhere() {
    let site = Site::new();
    let path = site.directory.path().join("passwords");
    let line = |user: &str| format!("{user}:{}\n", evermq_access::Hash::make(b"right"));
    std::fs::write(&path, ["anna", "bob"].map(line).concat()).unwrap();
    let broker = Program::start(&site, &format!("[broker.auth]\npassword_file = {path:?}"), None);
    let named = |user: &str, password: &str| Connect {
        username: Some(text(user)),
        password: Some(password.as_bytes().to_vec().into()),
        ..connect("")
    };
    let (mut inside, _) = Client::open(broker.plain, named("anna", "right"));
    // 127.0.0.1 is the lb's, which stands for many.
    let flood_from = Ipv4Addr::new(127, 0, 0, 9);
    let (to, before) = (broker.plain, broker.resident());
    let wrong = named("anna", "wrong");
    let flood = Flood::start(4, move || {
        if let Some(stream) = stream_from(flood_from, to) {
            Client::raw_over(stream, Version::V5).try_connect(wrong.clone());
        }
    });
    let longest = flood.longest_wait(&mut inside, 300);
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    // Of the flood's address hardly any is looked at; who has not been here comes in from another one all the same, and from
    // the flood's own who was right before.
    let stranger = stream_from(Ipv4Addr::new(127, 0, 0, 8), to).unwrap();
    assert_eq!(Client::over(stranger, named("bob", "right")).1.reason, ReasonCode::Success);
    let known = stream_from(flood_from, to).unwrap();
    assert_eq!(Client::over(known, named("anna", "right")).1.reason, ReasonCode::Success);
    drop(flood);
    let text = broker.ask("metrics").unwrap()["text"].as_str().unwrap().to_owned();
    let refused = |name: &str| {
        let wanted = format!("evermq_broker_connects_refused_total{{reason=\"{name}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&wanted));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let (looked_at, not) = (refused("Bad User Name or Password"), refused("Connection rate exceeded"));
    assert!(looked_at >= 20 && not > looked_at, "{looked_at} {not}");
    // Each look takes 19 MiB, and the next one the same ones.
    let grown = broker.resident().saturating_sub(before);
    let places = std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64 / 2).max(1);
    assert!(grown < (places * 19 + 20) * 1024, "{grown} kB more");
}

#[test]
fn garbage_is_refused_at_each_door() {
    let (_site, broker) = start();
    let mut inside = broker.client("inside");
    let pieces: [&[u8]; 6] = [
        b"\x00",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\xff\xff\x01",
        &[0xff; 5000],
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ];
    for bytes in pieces {
        for to in [broker.tls, broker.plain] {
            // What a complete record or packet cannot begin with ends at once; the rest when its time is over.
            let mut stream = stream(to).unwrap();
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        inside.expect_nothing();
    }
    nobody_but(&broker, 1);
    assert!(answer(broker.tls, b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01c").len() <= 7, "an alert at most");
}

#[test]
fn one_byte_at_a_time_does_not_buy_more_time() {
    let (_site, broker) = start_with(|config| config.connect_timeout = Duration::from_millis(700));
    // A ClientHello that promises 16 kB, and a CONNECT that promises 127 bytes.
    for (to, bytes) in [(broker.tls, &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..]), (broker.plain, &[0x10, 127, 0, 4])]
    {
        let mut slow = stream(to).unwrap();
        slow.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let began = clock();
        slow.write_all(bytes).unwrap();
        loop {
            // The broker has closed, one way or the other.
            match slow.read(&mut [0; 64]) {
                Ok(0) => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                _ if slow.write_all(b"\x00").is_err() => break,
                _ => assert!(clock() - began < PATIENCE, "it may go on for ever"),
            }
        }
        assert!(clock() - began >= Duration::from_millis(500));
    }
    nobody_but(&broker, 0);
}

#[test]
fn a_client_whose_host_has_gone_is_found_dead() {
    let (_site, broker) = start_with(|config| config.tcp_keepalive = Duration::from_secs(1));
    let half = stream(broker.plain).unwrap();
    let (client, _) = Client::over(half.try_clone().unwrap(), Connect { keep_alive: 0, ..connect("half") });
    broker.wait_for("the client", |state| state["connections"] == 1);
    repair(&half);
    drop((half, client));
    // No keep alive of MQTT was agreed on: TCP's finds out.
    nobody_but(&broker, 0);
}

/// Closed in repair mode, a socket vanishes without a word, as when its host loses power.
fn repair(stream: &TcpStream) {
    let on: nix::libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is an integer of the length that is given.
    let done = unsafe {
        nix::libc::setsockopt(
            stream.as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_REPAIR,
            (&raw const on).cast(),
            size_of_val(&on) as nix::libc::socklen_t,
        )
    };
    assert_eq!(done, 0, "TCP_REPAIR needs CAP_NET_ADMIN: {}", std::io::Error::last_os_error());
}

#[test]
fn without_open_files_accepting_rests_and_recovers() {
    let site = Site::new();
    let program = Program::start(&site, "max_connections = 1000\nworkers = 1", Some(80));
    let mut inside = program.client("inside");
    // Until they are used up: whoever comes then waits in the backlog, accepted by the kernel only.
    let held: Vec<_> = (0..120).map(|_| stream(program.plain).unwrap()).collect();
    program.wait_for("its word", || program.log().contains("cannot accept connections"));
    inside.expect_nothing();
    drop(held);
    program.client("late").expect_nothing();
    program.wait_for("its word", || program.log().contains("connections are accepted again"));
    assert_eq!(program.log().matches("cannot accept connections").count(), 1, "said once\n{}", program.log());
    inside.expect_nothing();
}

/// 400 MB go past it.
#[test]
fn a_client_that_never_reads_costs_little_and_nobody_else() {
    const SIZE: usize = 100_000;
    const COUNT: usize = 4_000;
    let site = Site::new();
    let program = Program::start(&site, "max_queued_bytes = \"10 MiB\"\nmax_queued_messages = 1000", None);
    let mut stuck = program.client("stuck");
    stuck.subscribe_at("t", QoS::AtMostOnce);
    let mut reader = program.client("reader");
    reader.subscribe_at("t", QoS::AtMostOnce);
    let mut publisher = program.client("p");
    let payload = "x".repeat(SIZE);
    let pass = |publisher: &mut Client, reader: &mut Client| {
        publisher.send(&Packet::Publish(message("t", &payload)));
        assert_eq!(reader.message().1.len(), SIZE);
    };
    for _ in 0..20 {
        pass(&mut publisher, &mut reader);
    }
    let (before, mut most) = (program.resident(), 0);
    for number in 20..COUNT {
        pass(&mut publisher, &mut reader);
        if number % 50 == 0 {
            most = most.max(program.resident());
        }
    }
    let grown = most.saturating_sub(before);
    assert!(grown <= 20 * 1024, "{grown} kB more");
    drop(stuck);
}
