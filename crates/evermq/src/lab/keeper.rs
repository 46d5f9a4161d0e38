//! The keeper: the lab's first process. It holds the switch, starts hosts and kills them, and every process of the lab
//! ends with it.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use super::error::LabError;
use super::host::{GO, HostArgs, child_signals, keeper_socket};
use super::namespace::{self, Process};
use super::network::{self, CableEnd, Links};
use super::wire::{self, HostState, KeeperRequest, Started};
use super::{clock, mounts, plan, registry};

/// The file name of its socket.
pub(super) const SOCKET: &str = "keeper.sock";
/// What `lab up` writes to the keeper when it need not end with it any more.
pub(super) const DETACH: &[u8] = b"detach\n";
/// How long a host may take to be there.
const HOST_TIMEOUT: Duration = Duration::from_secs(10);

/// How the keeper is started. Its standard input is a socket to `lab up`.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct KeeperArgs {
    /// The lab's directory
    #[arg(long)]
    pub(super) lab_dir: PathBuf,
    /// Where the programs are
    #[arg(long)]
    pub(super) bin_dir: PathBuf,
    /// Start programs again that end by themselves
    #[arg(long)]
    pub(super) restart: bool,
    /// The lab's lock, as an inherited descriptor
    #[arg(long)]
    pub(super) lock: RawFd,
}

impl KeeperArgs {
    /// The arguments of this program that make it this keeper.
    pub(super) fn command_line(&self) -> Vec<String> {
        let mut line = vec!["lab".to_owned(), "__keeper".to_owned()];
        line.extend(["--lab-dir".to_owned(), self.lab_dir.display().to_string()]);
        line.extend(["--bin-dir".to_owned(), self.bin_dir.display().to_string()]);
        line.extend(["--lock".to_owned(), self.lock.to_string()]);
        line.extend(self.restart.then(|| "--restart".to_owned()));
        line
    }
}

/// Serves until it is killed, or until `lab up` dies before it is complete.
pub(super) fn run(arguments: KeeperArgs) -> Result<(), LabError> {
    // SAFETY: `lab up` made this descriptor for us and names it on the command line; nothing else here uses it.
    let lock = unsafe { OwnedFd::from_raw_fd(arguments.lock) };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))
        .map_err(LabError::errno("cannot keep the lab's lock"))?;
    let mut starter = keeper_socket().map_err(LabError::io("cannot use the socket of `lab up`"))?;
    match Keeper::start(arguments) {
        Ok(keeper) => {
            wire::write_line(&mut starter, &Started::Ready).map_err(LabError::io("cannot answer `lab up`"))?;
            keeper.serve(starter)
        }
        Err(error) => {
            let _ = wire::write_line(&mut starter, &Started::Failed(error.to_string()));
            Err(error)
        }
    }
}

struct Keeper {
    arguments: KeeperArgs,
    listener: UnixListener,
    signals: SignalFd,
    links: Links,
    hosts: Vec<HostProcess>,
}

struct HostProcess {
    plan: &'static plan::Host,
    /// None while it is dead.
    process: Option<(Pid, UnixStream)>,
    /// Its port is isolated: it does not reach the other hosts that are cut.
    cut: bool,
}

impl Keeper {
    fn start(arguments: KeeperArgs) -> Result<Self, LabError> {
        // A session of its own: the terminal's signals are not for the lab.
        let _ = nix::unistd::setsid();
        let listener =
            wire::listen(&arguments.lab_dir, SOCKET).map_err(LabError::io("cannot make the keeper's socket"))?;
        mounts::separate()?;
        let signals = child_signals().map_err(LabError::errno("cannot watch child processes"))?;
        let mut links = Links::open().map_err(LabError::io("cannot open a netlink socket"))?;
        links.add_switch().map_err(|error| namespace::refused("cannot make the lab's switch (a bridge)", error))?;
        let hosts = plan::HOSTS.iter().map(|plan| HostProcess { plan, process: None, cut: false }).collect();
        let mut keeper = Self { arguments, listener, signals, links, hosts };
        // Brokers first: a load balancer that finds no host at an address asks again only after its `connect_timeout`.
        let (brokers, others): (Vec<_>, Vec<_>) =
            (0..plan::HOSTS.len()).partition(|index| plan::HOSTS[*index].roles.contains(&"broker"));
        for index in brokers.into_iter().chain(others) {
            keeper.start_host(index)?;
        }
        Ok(keeper)
    }

    fn serve(mut self, starter: UnixStream) -> Result<(), LabError> {
        let mut starter = Some(starter);
        loop {
            let mut waited = vec![
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            waited.extend(starter.as_ref().map(|starter| PollFd::new(starter.as_fd(), PollFlags::POLLIN)));
            match poll(&mut waited, clock::poll_timeout(None)) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(LabError::errno("cannot wait for requests")(errno)),
            }
            let readable: Vec<bool> = waited.iter().map(|descriptor| descriptor.any().unwrap_or(true)).collect();
            if readable.get(2) == Some(&true)
                && let Some(starter) = starter.take()
            {
                let mut word = Vec::new();
                let _ = BufReader::new(&starter).read_until(b'\n', &mut word);
                if word != DETACH {
                    return Ok(());
                }
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
            self.reap();
            if readable.first() == Some(&true)
                && let Ok((stream, _)) = self.listener.accept()
            {
                let _ = self.serve_one(&stream);
            }
        }
    }

    fn serve_one(&mut self, stream: &UnixStream) -> io::Result<()> {
        let answer = match wire::read_request(stream) {
            Ok(request) => self.handle(request).map_err(|error| error.to_string()),
            Err(error) => Err(format!("not a request: {error}")),
        };
        wire::answer(stream, &answer, &[])
    }

    fn handle(&mut self, request: KeeperRequest) -> Result<Value, LabError> {
        match request {
            KeeperRequest::Hosts => {
                let state = |host: &HostProcess| HostState {
                    name: host.plan.name.to_owned(),
                    alive: host.process.is_some(),
                    connected: network::is_up(host.plan.name),
                    cut: host.cut,
                };
                let states: Vec<_> = self.hosts.iter().map(state).collect();
                return serde_json::to_value(states).map_err(|error| LabError::Refused(error.to_string()));
            }
            KeeperRequest::Cable { host, connected } => {
                let index = self.index(&host)?;
                if self.hosts.get(index).is_some_and(|host| host.process.is_none()) {
                    return Err(LabError::Refused(format!("{host} is dead; `lab heal {host}` starts it")));
                }
                self.set_cable(&host, connected)?;
            }
            KeeperRequest::Cut { hosts } => self.cut(&hosts)?,
            KeeperRequest::Kill { host } => {
                let index = self.index(&host)?;
                self.kill_host(index)?;
            }
            KeeperRequest::Heal { host } => {
                let index = self.index(&host)?;
                if self.hosts.get(index).is_some_and(|host| host.process.is_none()) {
                    self.start_host(index)?;
                }
                self.set_cable(&host, true)?;
                self.join(index)?;
            }
        }
        Ok(Value::Null)
    }

    fn index(&self, name: &str) -> Result<usize, LabError> {
        self.hosts.iter().position(|host| host.plan.name == name).ok_or_else(|| LabError::UnknownHost(name.to_owned()))
    }

    fn set_cable(&mut self, port: &str, connected: bool) -> Result<(), LabError> {
        let action = format!("cannot {} the cable of {port}", if connected { "put in" } else { "take out" });
        self.links.set_up(port, connected).map_err(LabError::io(action))
    }

    fn cut(&mut self, names: &[String]) -> Result<(), LabError> {
        let indices = names.iter().map(|name| self.index(name)).collect::<Result<Vec<_>, _>>()?;
        // The switch knows one kind of isolated port: two cuts at once would be one.
        if let Some(host) = self.hosts.iter().find(|host| host.cut) {
            let name = host.plan.name;
            return Err(LabError::Refused(format!("{name} is cut off already; `lab heal {name}` ends that")));
        }
        for name in names {
            if self.index(name).ok().and_then(|index| self.hosts.get(index)).is_some_and(|host| host.process.is_none())
            {
                return Err(LabError::Refused(format!("{name} is dead; `lab heal {name}` starts it")));
            }
        }
        for index in indices {
            self.isolate(index, true)?;
        }
        Ok(())
    }

    /// Ends a host's part in a cut. Who is left alone in it reaches everyone.
    fn join(&mut self, index: usize) -> Result<(), LabError> {
        self.isolate(index, false)?;
        let left: Vec<_> =
            (0..self.hosts.len()).filter(|at| self.hosts.get(*at).is_some_and(|host| host.cut)).collect();
        if let [alone] = left[..] {
            self.isolate(alone, false)?;
        }
        Ok(())
    }

    fn isolate(&mut self, index: usize, cut: bool) -> Result<(), LabError> {
        let Some(host) = self.hosts.get_mut(index) else { return Ok(()) };
        let port = host.plan.name;
        if host.process.is_some() && host.cut != cut {
            let action = format!("cannot {} {port}", if cut { "cut off" } else { "join" });
            self.links.isolate(port, cut).map_err(LabError::io(action))?;
        }
        host.cut = cut;
        Ok(())
    }

    fn kill_host(&mut self, index: usize) -> Result<(), LabError> {
        let Some(host) = self.hosts.get_mut(index) else { return Ok(()) };
        let port = host.plan.name;
        let Some((pid, _)) = host.process else { return Ok(()) };
        // The cable first: no FIN and no RST of the dying processes leaves the host.
        self.links.set_up(port, false).map_err(LabError::io(format!("cannot take out the cable of {port}")))?;
        kill(pid, Signal::SIGKILL).map_err(LabError::errno(format!("cannot kill {port}")))?;
        // It is the first process of its namespace, so this waits until the kernel has ended all others.
        waitpid(pid, None).map_err(LabError::errno(format!("cannot wait for the end of {port}")))?;
        host.process = None;
        self.remove_cable(port)
    }

    fn start_host(&mut self, index: usize) -> Result<(), LabError> {
        let Some(plan) = self.hosts.get(index).map(|host| host.plan) else { return Ok(()) };
        let name = plan.name;
        self.remove_cable(name)?;
        let place = registry::host_directory(&self.arguments.lab_dir, name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(place.join("logs/host.log"))
            .map_err(LabError::io(format!("cannot open the log of {name}")))?;
        let (ours, theirs) = UnixStream::pair().map_err(LabError::io("cannot make a socket"))?;
        let lab_dir = self.arguments.lab_dir.display().to_string();
        let bin_dir = self.arguments.bin_dir.display().to_string();
        let line = HostArgs::command_line(name, &lab_dir, &bin_dir, self.arguments.restart);
        // It waits for its cable, which needs its namespaces, before it looks at its network.
        let process = Process { arguments: &line, socket: theirs.as_fd(), log: log.as_fd(), inherit: None };
        let pid = namespace::start(&process, false)
            .map_err(|errno| namespace::refused(format!("cannot make the namespaces of {name}"), errno.into()))?;
        drop(theirs);
        let cable = CableEnd { process: pid, port: name, mac: plan.mac() };
        let plugged = self
            .links
            .add_cable(&cable)
            .map_err(|error| namespace::refused(format!("cannot make the cable of {name} (a veth pair)"), error))
            .and_then(|()| give_go(&ours))
            .and_then(|()| wait_started(&ours, name));
        if let Err(error) = plugged {
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
            let _ = self.remove_cable(name);
            return Err(error);
        }
        if let Some(host) = self.hosts.get_mut(index) {
            host.process = Some((pid, ours));
        }
        Ok(())
    }

    /// The kernel takes a dead host's cable away by itself, but in its own time.
    fn remove_cable(&mut self, port: &str) -> Result<(), LabError> {
        match self.links.delete(port) {
            Err(error) if error.raw_os_error() != Some(nix::libc::ENODEV) => {
                Err(LabError::io(format!("cannot remove the cable of {port}"))(error))
            }
            _ => Ok(()),
        }
    }

    /// A host that somebody else killed is dead, and its port has no cable.
    fn reap(&mut self) {
        for index in 0..self.hosts.len() {
            let Some(host) = self.hosts.get_mut(index) else { return };
            let Some((pid, _)) = host.process else { continue };
            if waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status.pid() == Some(pid)) {
                host.process = None;
                let port = host.plan.name;
                let _ = self.remove_cable(port);
            }
        }
    }
}

/// Tells a new host that its cable is in.
fn give_go(host: &UnixStream) -> Result<(), LabError> {
    let mut host = host;
    io::Write::write_all(&mut host, GO).map_err(LabError::io("cannot talk to a new host"))
}

fn wait_started(host: &UnixStream, name: &str) -> Result<(), LabError> {
    host.set_read_timeout(Some(HOST_TIMEOUT)).map_err(LabError::io("cannot wait for a new host"))?;
    wire_started(host, &format!("host {name} does not start; see hosts/{name}/logs/host.log in the lab's directory"))
}

/// Reads what a new process says of itself; `silent` is the error where it says nothing.
pub(super) fn wire_started(process: &UnixStream, silent: &str) -> Result<(), LabError> {
    let mut line = String::new();
    match BufReader::new(process).read_line(&mut line).map(|_| serde_json::from_str(&line)) {
        Ok(Ok(Started::Ready)) => Ok(()),
        Ok(Ok(Started::Failed(text))) => Err(LabError::Refused(text)),
        Ok(Err(_)) | Err(_) => Err(LabError::NotReady(silent.to_owned())),
    }
}
