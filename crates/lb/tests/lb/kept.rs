//! Listening sockets that outlive the process, and connections that outlive a restart: this test is the systemd that keeps them.

use std::io::IoSliceMut;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use evermq_daemon::control;
use evermq_daemon::health::Health;
use evermq_lb::state::State;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, PATIENCE, certs, eventually, ping};

/// What systemd has of the unit.
struct Systemd {
    notices: UnixDatagram,
    path: PathBuf,
    kept: Vec<(String, OwnedFd)>,
    signs_of_life: usize,
}

impl Systemd {
    fn new(name: &str) -> Self {
        let path = certs::path(&format!("notify-{name}-{}", std::process::id()));
        let notices = UnixDatagram::bind(&path).unwrap();
        notices.set_nonblocking(true).unwrap();
        Self { notices, path, kept: Vec::new(), signs_of_life: 0 }
    }

    /// Does what the program has asked for so far.
    fn turn(&mut self) {
        let mut text = [0; 4096];
        let mut space = nix::cmsg_space!([i32; 4]);
        loop {
            let mut parts = [IoSliceMut::new(&mut text)];
            let received = recvmsg::<()>(self.notices.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty());
            let (length, files) = match received {
                Ok(message) => {
                    let rights = message.cmsgs().unwrap().flat_map(|control| match control {
                        ControlMessageOwned::ScmRights(files) => files,
                        _ => Vec::new(),
                    });
                    // SAFETY: the kernel has made these for this process just now.
                    let files: Vec<_> = rights.map(|file| unsafe { OwnedFd::from_raw_fd(file) }).collect();
                    (message.bytes, files)
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return,
                Err(error) => panic!("{error}"),
            };
            self.obey(&String::from_utf8_lossy(&text[..length]), files);
        }
    }

    fn obey(&mut self, text: &str, files: Vec<OwnedFd>) {
        let name = text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or_default();
        if text.contains("FDSTOREREMOVE=1") {
            self.kept.retain(|(kept, _)| kept != name);
        } else if text.contains("FDSTORE=1") {
            assert!(text.contains("FDPOLL=0"), "{text}");
            if !self.kept.iter().any(|(kept, _)| kept == name) {
                self.kept.extend(files.into_iter().map(|file| (name.to_owned(), file)));
            }
        } else if text.contains("WATCHDOG=1") {
            self.signs_of_life += 1;
        }
    }

    fn has_only_listeners(&self) -> bool {
        self.kept.iter().all(|(name, _)| name.starts_with("listen-"))
    }

    /// Lets go of what has hung up: systemd before 246 does so whatever it was told.
    fn forget_what_hung_up(&mut self) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::os::fd::AsFd as _;
        self.kept.retain(|(_, file)| {
            let mut files = [PollFd::new(file.as_fd(), PollFlags::empty())];
            poll(&mut files, PollTimeout::ZERO).unwrap();
            !files[0].any().unwrap_or(false)
        });
    }

    /// Starts the program with what is kept, as systemd does: from descriptor 3 on.
    fn start(&self, file: &Path) -> Child {
        let names: Vec<_> = self.kept.iter().map(|(name, _)| name.as_str()).collect();
        let give: String =
            (3..).zip(&self.kept).map(|(to, (_, file))| format!("{to}<&{} ", file.as_raw_fd())).collect();
        // They are inherited by the shell alone, under the numbers that they have here.
        for (_, file) in &self.kept {
            inherit(file, true);
        }
        let script = format!("export LISTEN_PID=$$; exec \"$@\" {give}");
        let program = env!("CARGO_BIN_EXE_evermq-lb");
        let child = Command::new("bash")
            .args(["-c", &script, "bash", program, "--host", "lb1", "--config"])
            .arg(file)
            .env("NOTIFY_SOCKET", &self.path)
            .env("LISTEN_FDS", self.kept.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("WATCHDOG_USEC", "400000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for (_, file) in &self.kept {
            inherit(file, false);
        }
        child
    }
}

fn inherit(file: &OwnedFd, inherit: bool) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let flags = if inherit { FdFlag::empty() } else { FdFlag::FD_CLOEXEC };
    fcntl(file, FcntlArg::F_SETFD(flags)).unwrap();
}

/// Killed and waited for when dropped.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    fn wait(&mut self) {
        eventually("ends", || self.0.try_wait().unwrap());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn cluster_file(listen: &[SocketAddr], broker: &Broker) -> (PathBuf, PathBuf) {
    let run_dir = certs::path(&format!("run-kept-{}", listen[0].port()));
    let file = certs::path(&format!("kept-{}.toml", listen[0].port()));
    let directory = certs::directory().display();
    let more: String = listen[1..]
        .iter()
        .map(|address| format!("[[lb.listeners]]\nname = \"more-{}\"\nlisten = \"{address}\"\n", address.port()))
        .collect();
    let text = format!(
        "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
         [lb]\nlisten = \"{first}\"\nworkers = 2\n{more}\
         [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
         [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
         [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
         [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n",
        run_dir = run_dir.display(),
        first = listen[0],
        broker_port = broker.address.port(),
    );
    std::fs::write(&file, text).unwrap();
    (file, run_dir.join("lb.sock"))
}

fn serves(control: &Path) {
    let request = serde_json::json!({ "request": "state" });
    eventually("serves", || {
        let answer = control::request(control, &request, PATIENCE).ok()?;
        let state: State = serde_json::from_value(answer).unwrap();
        (state.health == Health::Up).then_some(())
    });
}

fn is_refused(address: SocketAddr) -> Option<()> {
    TcpStream::connect(address).is_err().then_some(())
}

#[test]
fn whoever_connects_between_two_processes_waits_and_is_served() {
    let broker = Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)));
    let (address, gone) = (evermq_ports::free_address(), evermq_ports::free_address());
    let (file, control) = cluster_file(&[address, gone], &broker);
    let mut systemd = Systemd::new(&address.port().to_string());
    let mut first = Process(systemd.start(&file));
    serves(&control);
    eventually("both sockets of both addresses are kept", || {
        systemd.turn();
        (systemd.kept.len() == 4).then_some(())
    });
    first.signal(Signal::SIGKILL);
    first.wait();

    // Nobody accepts, and nobody is refused.
    let mut clients: Vec<TcpStream> = (0..8).map(|_| harness::connect(address).unwrap()).collect();
    let (file, control) = cluster_file(&[address], &broker);
    let mut second = Process(systemd.start(&file));
    clients.iter_mut().for_each(ping);
    serves(&control);
    eventually("what is not listened on any more is let go", || {
        systemd.turn();
        (systemd.kept.len() == 2).then_some(())
    });
    // Also by whoever has the socket still, as this test does where systemd would.
    is_refused(gone).expect("nobody is there");

    let before = systemd.signs_of_life;
    eventually("signs of life", || {
        systemd.turn();
        (systemd.signs_of_life > before + 4).then_some(())
    });
    drop(clients);
    second.signal(Signal::SIGTERM);
    second.wait();
    systemd.turn();
    assert!(systemd.kept.is_empty(), "{:?}", systemd.kept);
    is_refused(address).expect("it has stopped");
}

/// A broker, where an lb is to listen before it, the lb's cluster file and control socket.
fn one_address() -> (Broker, SocketAddr, PathBuf, PathBuf) {
    let broker = Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)));
    let address = evermq_ports::free_address();
    let (file, control) = cluster_file(&[address], &broker);
    (broker, address, file, control)
}

/// An lb that systemd has started, with a broker behind it.
struct Scene {
    _broker: Broker,
    address: SocketAddr,
    file: PathBuf,
    control: PathBuf,
    systemd: Systemd,
    first: Process,
}

impl Scene {
    fn new() -> Self {
        let (broker, address, file, control) = one_address();
        let mut systemd = Systemd::new(&address.port().to_string());
        let first = Process(systemd.start(&file));
        serves(&control);
        systemd.turn();
        Self { _broker: broker, address, file, control, systemd, first }
    }
}

fn ask_to_bequeath(control: &Path) -> Result<serde_json::Value, control::ControlError> {
    control::request(control, &serde_json::json!({ "request": "bequeath" }), PATIENCE)
}

fn bequeath(control: &Path) -> serde_json::Value {
    ask_to_bequeath(control).unwrap()
}

/// Its next word.
fn next_health(watcher: &mut impl std::io::BufRead) -> Health {
    let mut line = String::new();
    watcher.read_line(&mut line).unwrap();
    let word: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    serde_json::from_value(word["health"].clone()).unwrap()
}

#[test]
fn a_restart_ends_no_connection_and_nobody_who_watches_the_health_notices() {
    let Scene { _broker, address, file, control, mut systemd, mut first } = Scene::new();
    // More than go into one batch, and than one message takes descriptors of.
    let mut clients: Vec<TcpStream> = (0..300).map(|_| harness::connect(address).unwrap()).collect();
    clients.iter_mut().for_each(ping);
    // Signs of life that nobody reads would fill the socket, as they never do systemd's.
    systemd.turn();
    let watcher = std::os::unix::net::UnixStream::connect(&control).unwrap();
    watcher.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut &watcher, b"{\"request\":\"health\"}\n").unwrap();
    let mut watcher = std::io::BufReader::new(watcher);
    assert_eq!(next_health(&mut watcher), Health::Up);

    let left = bequeath(&control);
    assert_eq!((left["moved"].as_u64(), left["left"].as_u64()), (Some(300), Some(0)), "{left}");
    first.wait();
    systemd.turn();
    systemd.forget_what_hung_up();
    // Bytes on their way when nobody has the connection.
    std::io::Write::write_all(&mut clients[7], b"between").unwrap();
    let mut late = harness::connect(address).unwrap();

    let mut second = Process(systemd.start(&file));
    let mut answer = [0; 7];
    std::io::Read::read_exact(&mut clients[7], &mut answer).unwrap();
    assert_eq!(&answer, b"between");
    clients.iter_mut().for_each(ping);
    ping(&mut late);
    assert_eq!(next_health(&mut watcher), Health::Up);
    eventually("nothing of it is left with systemd", || {
        systemd.turn();
        systemd.has_only_listeners().then_some(())
    });

    // Of a process that is killed later there is nothing to be found.
    second.signal(Signal::SIGKILL);
    second.wait();
    let third = Process(systemd.start(&file));
    ping(&mut harness::connect(address).unwrap());
    drop(third);
}

#[test]
fn what_was_left_for_a_program_that_cannot_start_ends() {
    let Scene { _broker, address, file, control, mut systemd, mut first } = Scene::new();
    let mut client = harness::connect(address).unwrap();
    ping(&mut client);
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "no such file\n").unwrap();
    let refused = ask_to_bequeath(&control).unwrap_err().to_string();
    assert!(refused.contains("refuses"), "{refused}");
    ping(&mut client);

    // The file gets wrong only afterwards.
    std::fs::write(&file, good).unwrap();
    bequeath(&control);
    first.wait();
    systemd.turn();
    std::fs::write(&file, "no such file\n").unwrap();
    let mut second = Process(systemd.start(&file));
    second.wait();
    systemd.turn();
    assert!(systemd.has_only_listeners(), "{:?}", systemd.kept);
    is_closed(&mut client);
}

/// A client whose connection was mixed up with another one's would get that one's answers.
#[test]
fn what_is_not_whole_is_not_used() {
    let Scene { _broker, address, file, control, mut systemd, mut first } = Scene::new();
    let mut client = harness::connect(address).unwrap();
    ping(&mut client);
    bequeath(&control);
    first.wait();
    systemd.turn();
    // Of another bequest, as it would be if systemd had not heard that it came to nothing.
    let (queue, _end) = std::os::unix::net::UnixStream::pair().unwrap();
    systemd.kept.push(("bequest-files-1".to_owned(), queue.into()));
    let _second = Process(systemd.start(&file));
    is_closed(&mut client);
    ping(&mut harness::connect(address).unwrap());
    eventually("nothing of it is left with systemd", || {
        systemd.turn();
        systemd.has_only_listeners().then_some(())
    });
}

fn is_closed(client: &mut TcpStream) {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let read = std::io::Read::read(client, &mut [0; 8]);
    assert!(
        matches!(read, Ok(0) | Err(_))
            && !matches!(&read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock),
        "{read:?}"
    );
}

#[test]
fn without_systemd_nothing_is_left_and_the_process_goes_on() {
    let (_broker, address, file, control) = one_address();
    let command = [env!("CARGO_BIN_EXE_evermq-lb"), "--host", "lb1", "--config"];
    let child = Command::new(command[0])
        .args(&command[1..])
        .arg(&file)
        .env_remove("NOTIFY_SOCKET")
        .stderr(Stdio::null())
        .spawn();
    let _process = Process(child.unwrap());
    serves(&control);
    let mut client = harness::connect(address).unwrap();
    ping(&mut client);
    assert!(ask_to_bequeath(&control).unwrap_err().to_string().contains("systemd"));
    ping(&mut client);
    ping(&mut harness::connect(address).unwrap());
}

#[test]
fn a_program_that_cannot_start_leaves_nobody_waiting() {
    let broker = Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (file, _) = cluster_file(&[address], &broker);
    std::fs::write(&file, "no such file\n").unwrap();
    let mut systemd = Systemd::new(&address.port().to_string());
    systemd.kept.push(("listen-1".to_owned(), listener.into()));
    let mut process = Process(systemd.start(&file));
    process.wait();
    is_refused(address).expect("nobody will come");
}
