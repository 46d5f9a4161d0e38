//! A host: the first process of its process id namespace, which does what an init does.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

use super::error::LabError;
use super::notify::Notices;
use super::programs::Programs;
use super::wire::{self, HostRequest, Started};
use super::{clock, mounts, namespace, network, plan, registry};

/// The file name of its socket.
pub(super) const SOCKET: &str = "host.sock";

/// What the keeper writes to a host whose cable is in.
pub(super) const GO: &[u8] = b"go\n";

/// How a host is started by the keeper. Its standard input is a socket to the keeper.
#[derive(Debug, clap::Args)]
pub(super) struct HostArgs {
    /// Its name
    name: String,
    /// The lab's directory
    #[arg(long)]
    lab_dir: PathBuf,
    /// Where the programs are
    #[arg(long)]
    bin_dir: PathBuf,
    /// Start programs again that end by themselves
    #[arg(long)]
    restart: bool,
}

impl HostArgs {
    /// The arguments of this program that make it such a host.
    pub(super) fn command_line(name: &str, lab_dir: &str, bin_dir: &str, restart: bool) -> Vec<String> {
        let mut line = vec!["lab", "__host", name, "--lab-dir", lab_dir, "--bin-dir", bin_dir];
        line.extend(restart.then_some("--restart"));
        line.into_iter().map(str::to_owned).collect()
    }
}

/// Serves until the keeper kills it or ends.
pub(super) fn run(arguments: HostArgs) -> Result<(), LabError> {
    let mut keeper = keeper_socket().map_err(LabError::io("cannot use the keeper's socket"))?;
    // The keeper says so when the cable is in; it ends the wait by its own end, too.
    io::Read::read_exact(&mut keeper, &mut [0; GO.len()]).map_err(LabError::io("the keeper has ended"))?;
    match Host::start(arguments) {
        Ok(host) => {
            wire::write_line(&mut keeper, &Started::Ready).map_err(LabError::io("cannot answer the keeper"))?;
            host.serve(&keeper)
        }
        Err(error) => {
            let _ = wire::write_line(&mut keeper, &Started::Failed(error.to_string()));
            Err(error)
        }
    }
}

/// The socket that a new keeper or host has as its standard input.
pub(super) fn keeper_socket() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

struct Host {
    listener: UnixListener,
    signals: SignalFd,
    notices: Notices,
    programs: Programs,
    /// Of its namespaces and its root directory.
    descriptors: Vec<OwnedFd>,
}

impl Host {
    fn start(arguments: HostArgs) -> Result<Self, LabError> {
        let HostArgs { name, lab_dir, bin_dir, restart } = arguments;
        let plan = plan::Host::named(&name).ok_or_else(|| LabError::UnknownHost(name.clone()))?;
        let place = registry::host_directory(&lab_dir, &name);
        let open = |path: &PathBuf| {
            wire::open_directory(path).map_err(LabError::io(format!("cannot open {}", path.display())))
        };
        // All of these before the lab's directory may be covered by the host's own /run.
        let etc = open(&place.join("etc"))?;
        let logs = open(&place.join("logs"))?;
        match fs::remove_file(place.join(SOCKET)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LabError::io("cannot remove the host's old socket")(error));
            }
            _ => {}
        }
        let listener = wire::listen(&place, SOCKET).map_err(LabError::io("cannot make the host's socket"))?;
        nix::unistd::sethostname(&name)
            .map_err(|errno| namespace::refused("cannot set the host's name", errno.into()))?;
        mounts::make(&name, &etc)?;
        connect(plan).map_err(|error| namespace::refused("cannot set up the host's network", error))?;
        let signals = child_signals().map_err(LabError::errno("cannot watch child processes"))?;
        let notices = Notices::open().map_err(LabError::io("cannot make the socket that programs notify"))?;
        let mut descriptors = namespace::own().map_err(LabError::io("cannot open the host's namespaces"))?;
        descriptors.push(open(&PathBuf::from("/"))?);
        let mut programs = Programs::new(plan.programs, bin_dir, logs, restart);
        // What cannot be started shows in the state, as with a program that ends at once.
        with_children_signalling(&mut programs, |programs| {
            let _ = programs.start_all();
        });
        Ok(Self { listener, signals, notices, programs, descriptors })
    }

    fn serve(mut self, keeper: &UnixStream) -> Result<(), LabError> {
        loop {
            let timeout = self.programs.poll_timeout().map(|due| due.saturating_duration_since(clock::now()));
            let mut waited = [
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(keeper.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.notices.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut waited, clock::poll_timeout(timeout)) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(LabError::errno("cannot wait for requests")(errno)),
            }
            let [listening, _, kept, _] = waited.map(|descriptor| descriptor.any().unwrap_or(true));
            if kept {
                // The keeper never writes: it has ended.
                return Ok(());
            }
            while let Ok(Some(_)) = self.signals.read_signal() {}
            // Before the one that it replaces is taken note of as ended.
            while let Some(pid) = self.notices.next_main_process() {
                self.programs.replace(pid);
            }
            self.programs.reap(clock::now());
            with_children_signalling(&mut self.programs, |programs| programs.handle_timeout(clock::now()));
            if listening && let Ok((stream, _)) = self.listener.accept() {
                // A client that leaves early loses its answer, nothing else.
                let _ = self.serve_one(&stream);
            }
        }
    }

    fn serve_one(&mut self, stream: &UnixStream) -> io::Result<()> {
        let request = match wire::read_request(stream) {
            Ok(request) => request,
            Err(error) => return wire::answer(stream, &Err(format!("not a request: {error}")), &[]),
        };
        let programs = &mut self.programs;
        let done = match request {
            HostRequest::Enter => {
                let descriptors: Vec<_> = self.descriptors.iter().map(OwnedFd::as_fd).collect();
                return wire::answer(stream, &Ok(Value::Null), &descriptors);
            }
            HostRequest::Programs => {
                let states = serde_json::to_value(programs.states()).map_err(|error| error.to_string());
                return wire::answer(stream, &states, &[]);
            }
            HostRequest::Start { program } => with_children_signalling(programs, |programs| match &program {
                Some(program) => programs.start(program),
                None => programs.start_all(),
            }),
            HostRequest::Stop { program } => programs.stop(&program),
            HostRequest::Signal { program, signal } => Signal::try_from(signal)
                .map_err(|_| format!("{signal} is not a signal"))
                .and_then(|signal| programs.signal(&program, signal)),
        };
        wire::answer(stream, &done.map(|()| Value::Null), &[])
    }
}

/// The host's network card gets its address.
fn connect(plan: &plan::Host) -> io::Result<()> {
    let mut links = network::Links::open()?;
    links.set_up("lo", true)?;
    links.add_address(network::INTERFACE, plan.address(), plan::PREFIX_LENGTH)?;
    links.set_up(network::INTERFACE, true)
}

/// A descriptor that is readable when a child process has ended.
pub(super) fn child_signals() -> nix::Result<SignalFd> {
    let children = SigSet::from(Signal::SIGCHLD);
    children.thread_block()?;
    SignalFd::with_flags(&children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Starts programs with no signal blocked, which they would inherit. What ended meanwhile is taken note of afterwards.
fn with_children_signalling<T>(programs: &mut Programs, start: impl FnOnce(&mut Programs) -> T) -> T {
    let children = SigSet::from(Signal::SIGCHLD);
    let unblocked = children.thread_unblock();
    let result = start(programs);
    if unblocked.is_ok() {
        let _ = children.thread_block();
    }
    programs.reap(clock::now());
    result
}
