//! `lab up`: files, keeper, hosts, programs, and the wait until all of it works.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::LabError;
use super::interrupt::Interrupt;
use super::keeper::{self, KeeperArgs};
use super::namespace::{self, Process};
use super::plan::{self, Program};
use super::registry::{Lab, State};
use super::{clock, files, ready};
use crate::output;

/// How long the keeper may take to start five hosts.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(30);

/// `evermq lab up`
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct UpArgs {
    /// Where evermq-vip, evermq-lb and evermq-broker are [default: the directory of this program]
    #[arg(long, value_name = "DIR")]
    pub(super) bin_dir: Option<PathBuf>,
    /// A setting of the cluster file, for example lb.balance=round_robin; may be given again
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Start programs again that end by themselves, after 100 ms, as systemd would
    #[arg(long)]
    pub(super) restart: bool,
    /// Do not wait until the programs work
    #[arg(long)]
    pub(super) no_wait: bool,
}

/// A lab that ends with this process until it is told to stay.
pub(super) struct Tethered {
    keeper: UnixStream,
}

impl Tethered {
    /// Lets the lab live on.
    pub(super) fn release(mut self) -> Result<(), LabError> {
        std::io::Write::write_all(&mut self.keeper, keeper::DETACH).map_err(LabError::io("the lab's keeper has ended"))
    }
}

/// Makes the lab, waits, and prints how to use it.
pub(super) fn run(lab: &Lab, arguments: &UpArgs) -> Result<(), LabError> {
    let started = clock::now();
    let interrupt = Interrupt::new()?;
    let tethered = start(lab, arguments, |text| say(started, text))?;
    if !arguments.no_wait {
        match ready::wait(lab, &interrupt, |text| say(started, text)) {
            Ok(()) => {}
            Err(LabError::Interrupted) => {
                lab.remove()?;
                return Err(LabError::Interrupted);
            }
            Err(error) => {
                // It stays up, so that one can look at it.
                tethered.release()?;
                return Err(LabError::NotReady(format!(
                    "{error}\nthe lab stays up: look at it with `evermq lab{0} status`, end it with `evermq lab{0} down`",
                    lab.options()
                )));
            }
        }
    }
    tethered.release()?;
    print(&usage(lab))
}

/// Makes the lab and starts its programs. If that fails, nothing is left.
pub(super) fn start(lab: &Lab, arguments: &UpArgs, mut say: impl FnMut(&str)) -> Result<Tethered, LabError> {
    let bin_dir = bin_dir(arguments.bin_dir.as_deref())?;
    let lock = lab.create()?;
    let made = (|| {
        files::make(lab, &arguments.set)?;
        say("certificates and cluster file are made");
        let tethered = start_keeper(lab, arguments, bin_dir, lock)?;
        let names: Vec<_> = plan::HOSTS.iter().map(|host| host.name).collect();
        say(&format!("{} run on a switch of their own", names.join(", ")));
        Ok(tethered)
    })();
    if made.is_err() {
        // The first error is the one that matters.
        let _ = lab.remove();
    }
    made
}

fn start_keeper(lab: &Lab, arguments: &UpArgs, bin_dir: PathBuf, lock: File) -> Result<Tethered, LabError> {
    let (ours, theirs) = UnixStream::pair().map_err(LabError::io("cannot make a socket"))?;
    let log = lab.directory().join("keeper.log");
    let log = File::create(&log).map_err(LabError::io(format!("cannot make {}", log.display())))?;
    let line = KeeperArgs {
        lab_dir: lab.directory().to_owned(),
        bin_dir: bin_dir.clone(),
        restart: arguments.restart,
        lock: lock.as_raw_fd(),
    };
    let process = Process {
        arguments: &line.command_line(),
        socket: theirs.as_fd(),
        log: log.as_fd(),
        inherit: Some(lock.as_fd()),
    };
    let pid = namespace::start_privileged_or_not(&process)?;
    drop((theirs, lock));
    lab.write_state(&State { keeper: pid.as_raw(), bin_dir })?;
    ours.set_read_timeout(Some(KEEPER_TIMEOUT)).map_err(LabError::io("cannot wait for the lab's keeper"))?;
    keeper::wire_started(&ours, "the lab's keeper does not start").map_err(|error| match error {
        LabError::NotReady(text) => {
            let said = super::commands::tail(&lab.directory().join("keeper.log"), 10);
            LabError::NotReady(format!("{text}\n{said}").trim_end().to_owned())
        }
        other => other,
    })?;
    Ok(Tethered { keeper: ours })
}

/// Where the programs are, all of them.
fn bin_dir(named: Option<&Path>) -> Result<PathBuf, LabError> {
    let directory = match named {
        Some(directory) => directory.to_owned(),
        None => {
            let program = std::env::current_exe().map_err(LabError::io("cannot find this program's directory"))?;
            program.parent().map(Path::to_owned).unwrap_or_default()
        }
    };
    let absolute = directory
        .canonicalize()
        .map_err(LabError::io(format!("cannot use {} as the programs' directory", directory.display())))?;
    for (program, _) in Program::ALL.map(Program::command) {
        if !absolute.join(program).is_file() {
            return Err(LabError::NoProgram { program, directory: absolute });
        }
    }
    if absolute.starts_with("/run") || absolute.starts_with("/etc") {
        return Err(LabError::Refused(format!(
            "the programs' directory {} cannot be seen in a host, which has a /run and /etc of its own; copy them elsewhere",
            absolute.display()
        )));
    }
    Ok(absolute)
}

fn say(started: Instant, text: &str) {
    let elapsed = clock::now().saturating_duration_since(started).as_secs_f64();
    // Whoever reads this may have left.
    let _ = output::print(&format!("{elapsed:6.2} s  {text}\n"));
}

fn print(text: &str) -> Result<(), LabError> {
    output::print(text).map_err(LabError::io("cannot write the output"))
}

fn usage(lab: &Lab) -> String {
    let (name, options) = (lab.name(), lab.options());
    // As it was called, so that the lines below work as they stand.
    let program = std::env::args().next().unwrap_or_else(|| "evermq".to_owned());
    let lab_command = format!("{program} lab{options}");
    let client = |command: &str, user: &str, rest: &str| {
        format!(
            "{lab_command} exec client -- evermq {command} -h {vip} -p {port} --cafile /etc/evermq/tls/ca.crt \
             --cert /etc/evermq/tls/{user}.crt --key /etc/evermq/tls/{user}.key {rest}",
            vip = plan::VIP,
            port = plan::VIP_PORT
        )
    };
    let subscribe = client("sub", "sub", "-t 'lines/#' -v");
    let publish = client("pub", "pub", "-t lines/1 -m hello -q 1");
    format!(
        "
lab \"{name}\" is up; clients connect to {service} from the host `client`

  subscribe          {subscribe}
  publish            {publish}
  look               {lab_command} status
  as an operator     {lab_command} exec client -- evermq status      (or events, logs, drain broker1)
  its page           https://{page}/ for browsers in the lab: docs/admin.md
  kill a host        {lab_command} kill lb1        (cable out, every process dead)
  bring it back      {lab_command} heal lb1
  kill a program     {lab_command} kill-program broker1 evermq-broker
  unplug a cable     {lab_command} cable broker1 off
  cut off            {lab_command} cut lb1 lb2     (from each other, from nobody else)
  read a log         {lab_command} logs lb1 evermq-vip
  a shell in a host  {lab_command} exec lb1 -- sh
  end                {lab_command} down
",
        service = plan::service(),
        page = plan::page()
    )
}
