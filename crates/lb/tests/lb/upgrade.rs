//! A new process of the program takes over while clients are connected: real processes, real sockets, real signals.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::harness::broker::{Broker, Clients};
use crate::harness::{self, AT_ONCE, PATIENCE, certs, eventually, ping};
use evermq_daemon::control::{self, ControlError};
use evermq_daemon::health::{Health, HealthLine};
use evermq_lb::state::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// An lb whose program is a file of its own, so that it can be replaced. All of its processes are killed when it is dropped.
struct Lb {
    first: RefCell<Child>,
    address: SocketAddr,
    broker_port: u16,
    control: PathBuf,
    config: PathBuf,
    program: PathBuf,
    log: PathBuf,
    processes: RefCell<Vec<u32>>,
    _directory: tempfile::TempDir,
}

impl Lb {
    fn start(broker: &Broker, more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let (address, broker_port) = (evermq_ports::free_address(), broker.address.port());
        let (config, program, log) = (path("evermq.toml"), path("evermq-lb"), path("log"));
        copy(env!("CARGO_BIN_EXE_evermq-lb").as_ref(), &program);
        write_config(&config, address, broker_port, more);
        let first = Command::new(&program)
            .args(["--host", "lb1", "--config"])
            .arg(&config)
            .env("EVERMQ_LOG", "info,evermq_lb=debug")
            .stdout(std::fs::File::create(&log).unwrap())
            .stderr(std::fs::OpenOptions::new().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let processes = RefCell::new(vec![first.id()]);
        let control = config.parent().unwrap().join("run/lb.sock");
        let first = RefCell::new(first);
        let lb = Self { first, address, broker_port, control, config, program, log, processes, _directory: directory };
        eventually("serves", || lb.state().filter(|state| state.health == Health::Up));
        lb
    }

    fn state(&self) -> Option<State> {
        let answer = control::request(&self.control, &json!({"request": "state"}), PATIENCE).ok()?;
        Some(serde_json::from_value(answer).unwrap())
    }

    /// Replaces the program, as a package manager does: under the same name, another file.
    fn install(&self, content: &[u8]) {
        let text = self.program.with_extension("text");
        std::fs::write(&text, content).unwrap();
        std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.install_file(&text);
    }

    fn install_good(&self) {
        self.install_file(env!("CARGO_BIN_EXE_evermq-lb").as_ref());
    }

    fn install_file(&self, file: &Path) {
        let new = self.program.with_extension("new");
        copy(file, &new);
        std::fs::rename(&new, &self.program).unwrap();
    }

    fn upgrade(&self) -> Result<Value, ControlError> {
        let answer = upgrade(&self.control)?;
        self.processes.borrow_mut().push(u32::try_from(answer["process"].as_u64().unwrap()).unwrap());
        Ok(answer)
    }

    /// The process that was started last.
    fn last(&self) -> u32 {
        *self.processes.borrow().last().unwrap()
    }

    fn client(&self) -> TcpStream {
        let mut client = harness::connect(self.address).unwrap();
        ping(&mut client);
        client
    }

    fn watch(&self) -> Watcher {
        Watcher::start(&self.control)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for the end of the process that was started first.
    fn wait_first(&self) -> Option<i32> {
        eventually("the first process ends", || self.first.borrow_mut().try_wait().unwrap()).code()
    }
}

impl Drop for Lb {
    fn drop(&mut self) {
        for process in self.processes.borrow().iter().chain(&children(&self.processes.borrow())) {
            let _ = kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.first.borrow_mut().wait();
        if std::thread::panicking() {
            eprintln_log(&self.log());
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log of a test that failed")]
fn eprintln_log(log: &str) {
    eprintln!("{log}");
}

/// By a process of its own: a file that this one has open for writing, and with it any process that another test is about
/// to start, cannot be run (ETXTBSY).
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
}

fn upgrade(control: &Path) -> Result<Value, ControlError> {
    control::request(control, &json!({"request": "upgrade"}), PATIENCE * 2)
}

fn write_config(file: &Path, listen: SocketAddr, broker_port: u16, more: &str) {
    let directory = certs::directory().display();
    let text = format!(
        "[cluster]\nname = \"test\"\nrun_dir = \"{run_dir}\"\n\
         [lb]\nlisten = \"{listen}\"\n{more}\n\
         [broker]\nlisten = \"0.0.0.0:{broker_port}\"\n\
         [tls]\nca = \"{directory}/ca.crt\"\ncert = \"{directory}/{{host}}.crt\"\nkey = \"{directory}/{{host}}.key\"\n\
         [[hosts]]\nname = \"lb1\"\naddress = \"127.0.0.1\"\nroles = [\"lb\"]\n\
         [[hosts]]\nname = \"broker1\"\naddress = \"127.0.0.2\"\nroles = [\"broker\"]\n",
        run_dir = file.parent().unwrap().join("run").display()
    );
    std::fs::write(file, text).unwrap();
}

/// Processes that those have started.
fn children(of: &[u32]) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        if parent.is_some_and(|parent| of.contains(&parent)) {
            found.push(process);
        }
    }
    found
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Watches the health as evermq-vip does, on a thread.
struct Watcher {
    beats: Arc<AtomicUsize>,
    not_up: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    /// The longest time without a word, in microseconds.
    silence: Arc<AtomicUsize>,
}

impl Watcher {
    fn start(control: &Path) -> Self {
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
    fn assert_unbroken(&self) {
        let before = self.beats.load(Ordering::SeqCst);
        eventually("the health is told on", || (self.beats.load(Ordering::SeqCst) > before + 2).then_some(()));
        assert!(!self.ended.load(Ordering::SeqCst), "end of file");
        assert_eq!(self.not_up.load(Ordering::SeqCst), 0);
    }
}

/// Clients that send all the time and want every byte back.
struct Crowd {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    alive: usize,
    dead: usize,
    rounds: usize,
    slowest: Duration,
}

const THREADS: usize = 4;

impl Crowd {
    fn start(lb: &Lb, count: usize) -> Self {
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

    fn finish(self) -> Tally {
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

fn echoing() -> Broker {
    Broker::start_at("broker1", Clients::Echoed, SocketAddr::from(([127, 0, 0, 2], 0)))
}

#[test]
fn hundreds_of_clients_do_not_notice_that_another_process_serves_them() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let watcher = lb.watch();
    let crowd = Crowd::start(&lb, 400);
    let first = lb.last();
    for generation in 0..3 {
        lb.install_good();
        let answer = lb.upgrade().unwrap();
        assert_eq!((answer["moved"].as_u64(), answer["left"].as_u64()), (Some(400), Some(0)), "{answer}");
        if generation == 0 {
            assert_eq!(lb.wait_first(), Some(0), "the old process ends");
        }
        let before = lb.processes.borrow()[generation];
        eventually("the one before ends", || (!children_or_self(before)).then_some(()));
        assert_eq!(control::listener(&lb.control), Some(lb.last().cast_signed()));
        // The new process's threads count them when they come to them.
        eventually("all are there", || {
            let state = lb.state().unwrap();
            ((state.connections.current, state.backends[0].connections) == (400, 400)).then_some(())
        });
        // Whoever comes now is served, too.
        drop(lb.client());
        eventually("the newcomer has left", || (lb.state().unwrap().connections.current == 400).then_some(()));
    }
    assert_ne!(first, lb.last());
    watcher.assert_unbroken();
    let silence = Duration::from_micros(watcher.silence.load(Ordering::SeqCst) as u64);
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (400, 0), "{tally:?}");
    assert!(tally.slowest < AT_ONCE && silence < AT_ONCE, "{tally:?}, {silence:?}");
}

/// Whether the process is there and not a corpse.
fn children_or_self(process: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{process}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// Writes until nothing is taken for a while; gives how much.
fn fill(stream: &mut TcpStream, seed: u8) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut written = 0;
    loop {
        let piece: Vec<u8> = (written..written + 4096).map(|at| byte_at(at, seed)).collect();
        match stream.write(&piece) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return written,
        }
    }
}

fn byte_at(at: usize, seed: u8) -> u8 {
    (at % 251) as u8 ^ seed
}

fn read_exactly(stream: &mut TcpStream, count: usize, seed: u8) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    let wrong = bytes.iter().enumerate().find(|&(at, &byte)| byte != byte_at(at, seed));
    assert_eq!(wrong, None, "not what was sent");
}

#[test]
fn what_was_kept_half_closed_or_on_its_way_arrives() {
    let broker = Broker::start_at("broker1", Clients::HandedOver, SocketAddr::from(([127, 0, 0, 2], 0)));
    let lb = Lb::start(&broker, "workers = 2");
    let connect = || {
        let client = harness::connect(lb.address).unwrap();
        (client, broker.accept())
    };
    // Neither side reads: everything between the two is full, both ways.
    let (mut client, mut server) = connect();
    let (up, down) = (fill(&mut client, 0), fill(&mut server, 0xa5));
    assert!(up > 64 * 1024 && down > 64 * 1024);
    // One that has said all it will, and gets an answer later.
    let (mut half, mut half_server) = connect();
    half.write_all(b"question").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    let mut question = Vec::new();
    half_server.read_to_end(&mut question).unwrap();
    assert_eq!(question, b"question");
    // And one whose end of file waits behind what is kept.
    let (mut ending, mut ending_server) = connect();
    let sent = fill(&mut ending, 7);
    ending.shutdown(Shutdown::Write).unwrap();

    let answer = lb.upgrade().unwrap();
    assert_eq!(answer["moved"], 3, "{answer}");
    assert_eq!(lb.wait_first(), Some(0));
    read_exactly(&mut server, up, 0);
    read_exactly(&mut client, down, 0xa5);
    // Nothing came twice: what comes next is what is sent next.
    client.write_all(b"on").unwrap();
    let mut word = [0; 2];
    server.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"on");

    half_server.write_all(b"answer").unwrap();
    drop(half_server);
    let mut answer = Vec::new();
    half.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");

    read_exactly(&mut ending_server, sent, 7);
    assert_eq!(harness::read(&mut ending_server, &mut [0]).unwrap(), 0, "end of file");
    drop(ending_server);

    // Counted over both processes.
    drop((client, server));
    let counted = format!("bytes_in={} bytes_out={down}", up + 2 + harness::hello().len());
    eventually("the counters tell all", || lb.log().contains(&counted).then_some(()));
}

#[test]
fn a_new_program_that_is_no_good_changes_nothing() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let watcher = lb.watch();
    let crowd = Crowd::start(&lb, 40);
    let refused = |needle: &str| {
        let error = lb.upgrade().unwrap_err().to_string();
        assert!(error.contains(needle), "{error}");
        drop(lb.client());
    };
    lb.install(b"#!/bin/sh\necho 'evermq-lb: wrong machine' >&2\nexit 2\n");
    refused("wrong machine");
    // It likes the file, and then does not start.
    lb.install(b"#!/bin/sh\ncase \"$*\" in *--check*) exit 0;; esac\nexit 3\n");
    refused("exit status: 3");
    lb.install(b"no program at all");
    refused("cannot start");
    std::fs::remove_file(&lb.program).unwrap();
    refused("cannot start");
    lb.install_good();
    write_config(&lb.config, lb.address, lb.broker_port, "workers = \"many\"");
    refused("workers");
    // The file is good, but the new process cannot have an address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[[lb.listeners]]\nname = \"other\"\nlisten = \"{}\"", taken.local_addr().unwrap());
    write_config(&lb.config, lb.address, lb.broker_port, &more);
    refused("another program has port");
    // The file names a broker elsewhere, which is not up.
    write_config(&lb.config, lb.address, 1, "workers = 2");
    refused("does not reach broker1");

    write_config(&lb.config, lb.address, lb.broker_port, "workers = 2");
    assert_eq!(lb.upgrade().unwrap()["moved"], 40);
    watcher.assert_unbroken();
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (40, 0), "{tally:?}");
}

#[test]
fn more_or_fewer_workers_serve_all_listeners() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let crowd = Crowd::start(&lb, 40);
    for workers in [1, 3, 2] {
        write_config(&lb.config, lb.address, lb.broker_port, &format!("workers = {workers}"));
        let before = lb.last();
        lb.upgrade().unwrap();
        eventually("the one before ends", || (!children_or_self(before)).then_some(()));
        assert_eq!(lb.state().unwrap().workers, workers);
        // The kernel spreads them over all sockets that listen: none may be without an owner.
        let newcomers: Vec<_> = (0..24).map(|_| lb.client()).collect();
        drop(newcomers);
    }
    let tally = crowd.finish();
    assert_eq!((tally.alive, tally.dead), (40, 0), "{tally:?}");
}

#[test]
fn sigusr2_asks_for_an_upgrade_and_strangers_follow_when_they_have_spoken() {
    let broker = echoing();
    let lb = Lb::start(&broker, "workers = 2");
    let mut silent = TcpStream::connect(lb.address).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    eventually("accepted", || (lb.state().unwrap().connections.current == 1).then_some(()));
    let first = lb.last();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGUSR2).unwrap();
    eventually("another process is in charge", || lb.log().contains("this process has taken over").then_some(()));
    let second = control::listener(&lb.control).unwrap().cast_unsigned();
    lb.processes.borrow_mut().push(second);
    // It has not said anything, so it is the old process's still.
    assert!(children_or_self(first));
    let error = lb.upgrade().unwrap_err().to_string();
    assert!(error.contains("still has connections"), "{error}");
    silent.write_all(harness::hello()).unwrap();
    ping(&mut silent);
    assert_eq!(lb.wait_first(), Some(0), "it has moved");
    ping(&mut silent);
    assert_eq!(lb.state().unwrap().connections.current, 1);
}

/// Has an upgrade begin, and waits until the new process has some of the connections; gives its number.
fn half_way(lb: &Lb) -> (u32, JoinHandle<Result<Value, ControlError>>) {
    let control = lb.control.clone();
    let asked = std::thread::spawn(move || upgrade(&control));
    let old = lb.last();
    let new = eventually("a new process", || {
        // The one before it only checks the file.
        children(&[old]).into_iter().find(|&process| {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains("EVERMQ_UPGRADE_FD")
        })
    });
    lb.processes.borrow_mut().push(new);
    eventually("some connections have moved", || (descriptors(new) > 200 || !children_or_self(old)).then_some(()));
    (new, asked)
}

#[test]
fn a_new_process_that_is_killed_half_way_leaves_the_rest_to_the_old_one() {
    let broker = echoing();
    // The moment is a matter of milliseconds, so it may be missed; then another lb is tried.
    for _ in 0..20 {
        let lb = Lb::start(&broker, "workers = 2");
        let watcher = lb.watch();
        let crowd = Crowd::start(&lb, 600);
        let (new, asked) = half_way(&lb);
        kill(Pid::from_raw(new.cast_signed()), Signal::SIGKILL).unwrap();
        let answer = asked.join().unwrap();
        if answer.is_ok() {
            crowd.stop.store(true, Ordering::SeqCst);
            continue;
        }
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("SIGKILL"), "{error}");
        // The old one serves as before, and whoever watches has heard of nothing.
        drop(lb.client());
        watcher.assert_unbroken();
        let tally = crowd.finish();
        assert!(tally.alive > 0 && tally.dead > 0, "half way: {tally:?}");
        assert_eq!(tally.alive + tally.dead, 600);
        // Exactly those that live are its own.
        lb.processes.borrow_mut().pop();
        lb.install_good();
        eventually("the next one works", || lb.upgrade().ok());
        return;
    }
    panic!("never half way");
}

#[test]
fn an_old_process_that_is_killed_half_way_leaves_what_it_has_given() {
    let broker = echoing();
    for _ in 0..20 {
        let lb = Lb::start(&broker, "workers = 2");
        let watcher = lb.watch();
        let crowd = Crowd::start(&lb, 600);
        let (new, asked) = half_way(&lb);
        let old = lb.processes.borrow()[0];
        kill(Pid::from_raw(old.cast_signed()), Signal::SIGKILL).unwrap();
        let _ = lb.first.borrow_mut().wait();
        let answered = asked.join().unwrap();
        if answered.is_ok() {
            crowd.stop.store(true, Ordering::SeqCst);
            continue;
        }
        drop(lb.client());
        watcher.assert_unbroken();
        assert_eq!(control::listener(&lb.control), Some(new.cast_signed()));
        let tally = crowd.finish();
        assert!(tally.alive > 0 && tally.dead > 0, "half way: {tally:?}");
        assert_eq!(tally.alive + tally.dead, 600);
        return;
    }
    panic!("never half way");
}
