//! What clients reach through the VIP: a TCP listener on each host, in the place of `evermq-lb`.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Host, SOON, VIP};

const PORT: u16 = 9000;
/// What a client waits for the greeting: far longer than a busy machine takes, far shorter than the second that a lost SYN costs.
const PATIENCE: Duration = Duration::from_millis(400);

/// Greets every client with the last byte of its host's address.
pub(crate) struct Service {
    listener: TcpListener,
    clients: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub(crate) fn start(host: &Host) -> Self {
        let listener = host.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap());
        let (accepting, clients) = (listener.try_clone().unwrap(), Arc::<Mutex<Vec<TcpStream>>>::default());
        let (name, accepted) = (name(host), clients.clone());
        let thread = std::thread::spawn(move || {
            while let Ok((mut client, _)) = accepting.accept() {
                // One that has gone by now need not be greeted.
                if client.write_all(&[name]).is_ok() {
                    accepted.lock().unwrap().push(client);
                }
            }
        });
        Self { listener, clients, thread: Some(thread) }
    }
}

/// kill -9: nobody listens, and every connection ends.
impl Drop for Service {
    fn drop(&mut self) {
        nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for client in self.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}

/// What a client saw that connected again and again, without a pause, while the VIP moved.
#[derive(Debug, Clone)]
pub(crate) struct Outage {
    /// From the first attempt that was not greeted to the greeting of the other host; zero if every attempt was greeted.
    pub(crate) time: Duration,
    /// The longest that one attempt took to be connected or refused, but for the first, which has to find the neighbour.
    pub(crate) longest: Duration,
    /// Attempts that were refused, or reset before the greeting.
    pub(crate) refused: u32,
    /// Connections made with the old host that the move cut before the greeting.
    pub(crate) cut: u32,
}

/// Connects, in the calling thread's namespace, until it is the host of this name that greets. Calls `first` after the first
/// greeting.
pub(crate) fn connect_until(host: u8, mut first: impl FnMut()) -> Outage {
    let start = Instant::now();
    let (mut greeted, mut failing) = (0_u64, None);
    let mut outage = Outage { time: Duration::ZERO, longest: Duration::ZERO, refused: 0, cut: 0 };
    loop {
        let attempt = Instant::now();
        assert!(attempt - start < SOON * 2, "10.77.0.{host} does not answer: {outage:?}");
        let connected = TcpStream::connect_timeout(&SocketAddrV4::new(VIP, PORT).into(), SOON);
        if greeted > 0 {
            outage.longest = outage.longest.max(attempt.elapsed());
        }
        match connected.and_then(|stream| greeting(&stream)) {
            Ok(name) => {
                greeted += 1;
                if greeted == 1 {
                    first();
                }
                if name == host {
                    outage.time = failing.map_or(Duration::ZERO, |since: Instant| since.elapsed());
                    return outage;
                }
            }
            Err(error) => {
                failing.get_or_insert(attempt);
                match error.kind() {
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => {
                        outage.refused += 1;
                    }
                    ErrorKind::WouldBlock => outage.cut += 1,
                    _ => panic!("{error} after {:?}: {outage:?}", attempt.elapsed()),
                }
            }
        }
    }
}

/// Which host's service a client is connected to. The client speaks first, as with TLS: if its connection stands on a host
/// that has no VIP any more, the new one resets it. What that host still had to say is lost without a word.
fn greeting(mut stream: &TcpStream) -> io::Result<u8> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"?")?;
    let mut name = [0];
    stream.read_exact(&mut name)?;
    Ok(name[0])
}

/// What the greeting of a host's service is.
pub(crate) fn name(host: &Host) -> u8 {
    host.address.octets()[3]
}
