//! `evermq lab`: the whole four-host stack and a client host on one machine, each host in namespaces of its own.
//!
//! ```text
//!   lab up ---- starts ----> keeper: first process of a process id namespace that holds the whole lab,
//!                              |     network namespace with the switch
//!                              +---- host lb1:     first process of its own pid, network, mount and UTS namespaces
//!                              |       +---- evermq-lb, evermq-vip, evermq admin
//!                              +---- host broker1 ...
//! ```
//! When the keeper ends, however it ends, the kernel ends every process in its process id namespace, and network, mounts and
//! names go with them: nothing can stay behind but a directory, which `lab down` removes.
//!
//! Without root all of this stands in a user namespace, whose root the invoking user is.
//!
//! | module | subject |
//! |---|---|
//! | [`plan`] | hosts, addresses, programs of a lab |
//! | [`registry`] | labs on disk, whether they live |
//! | [`files`] | cluster file and certificates |
//! | [`namespace`] | making and entering namespaces, what to do where they are refused |
//! | [`network`] | switch and cables |
//! | [`mounts`] | what a host sees of the file system |
//! | [`keeper`], [`host`], [`programs`] | the processes that make up a lab |
//! | [`wire`], [`remote`] | how commands talk to them |
//! | [`up`], [`ready`] | starting a lab, and waiting until it works |
//! | [`exec`], [`commands`], [`status`], [`view`] | what one does with a lab |
//! | [`demo`] | faults, and what they cost |

mod clock;
mod commands;
mod demo;
mod error;
mod exec;
mod files;
mod host;
mod interrupt;
mod keeper;
mod mounts;
mod namespace;
mod network;
mod notify;
mod plan;
mod programs;
mod ready;
mod registry;
mod remote;
mod status;
mod up;
mod view;
mod wire;

use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

use self::error::LabError;
use self::registry::Lab;
use crate::output;

/// `evermq lab ...`
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Which lab; several can be up at once
    #[arg(long, global = true, value_name = "NAME", default_value = registry::DEFAULT_NAME)]
    name: String,
    /// Where labs are kept [default: /run/evermq-lab, or a directory of the user's own]
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    /// Start two load balancers, two brokers and a client host, with certificates, all programs and the endpoints for operators
    Up(up::UpArgs),
    /// Run a command in a host; its exit status is passed on
    Exec(exec::ExecArgs),
    /// Take out a host's cable and kill every process in it
    Kill(HostArg),
    /// Put in a host's cable, end its part in a cut; start it and its programs where they are dead
    Heal(HostArg),
    /// Take out a host's cable, or put it in
    Cable(CableArgs),
    /// Cut hosts off from each other, and from nobody else, until one of them is healed
    Cut(CutArgs),
    /// Start a program of a host
    Start(ProgramArg),
    /// Ask a program of a host to end (SIGTERM), and wait until it has
    Stop(ProgramArg),
    /// Send a program of a host a signal
    KillProgram(SignalArgs),
    /// Show hosts, cables, programs, and who holds the VIP
    Status(JsonArg),
    /// Print the logs of a host's programs
    Logs(LogsArgs),
    /// End the lab; nothing of it is left
    Down,
    /// Kill a load balancer and a broker under load, and show what that costs
    Demo(demo::DemoArgs),
    /// The lab's first process
    #[command(name = "__keeper", hide = true)]
    Keeper(keeper::KeeperArgs),
    /// A host's first process
    #[command(name = "__host", hide = true)]
    Host(host::HostArgs),
    /// The demo's clients
    #[command(name = "__clients", hide = true)]
    Clients(demo::ClientsArgs),
}

#[derive(Debug, Args)]
struct HostArg {
    /// The host: lb1, lb2, broker1, broker2 or client
    host: String,
}

#[derive(Debug, Args)]
struct CableArgs {
    /// The host: lb1, lb2, broker1, broker2 or client
    host: String,
    /// in or out
    #[arg(value_parser = ["on", "off"])]
    state: String,
}

#[derive(Debug, Args)]
struct CutArgs {
    /// The hosts: two or more of lb1, lb2, broker1, broker2 and client
    #[arg(required = true, num_args = 2..)]
    hosts: Vec<String>,
}

#[derive(Debug, Args)]
struct ProgramArg {
    /// The host: lb1, lb2, broker1 or broker2
    host: String,
    /// The program: evermq-lb, evermq-vip, evermq-broker or evermq-admin
    program: String,
}

#[derive(Debug, Args)]
struct SignalArgs {
    #[command(flatten)]
    program: ProgramArg,
    /// KILL, TERM, STOP, CONT or another signal's name
    #[arg(long, default_value = "KILL", value_parser = commands::signal_named)]
    signal: Signal,
}

#[derive(Debug, Args)]
struct JsonArg {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct LogsArgs {
    /// The host: lb1, lb2, broker1, broker2 or client
    host: String,
    /// The program; all of the host's if not given
    program: Option<String>,
    /// Only so many lines of each log, from its end
    #[arg(long, short = 'n', value_name = "LINES")]
    lines: Option<usize>,
}

/// Does what the command line asks for. Must be called while the process has one thread.
#[must_use]
pub fn run(arguments: LabArgs) -> ExitCode {
    let is_exec = matches!(arguments.command, LabCommand::Exec(_));
    match dispatch(arguments) {
        Ok(code) => code,
        Err(error) => {
            output::complain(&text_of(&error));
            match error {
                _ if is_exec => ExitCode::from(exec::FAILED),
                LabError::Config(_) | LabError::Setting(_) | LabError::Name(_) | LabError::UnknownHost(_) => 2.into(),
                LabError::Interrupted => 130.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn dispatch(arguments: LabArgs) -> Result<ExitCode, LabError> {
    let lab = Lab::new(&arguments.name, arguments.dir.as_deref())?;
    match arguments.command {
        LabCommand::Up(arguments) => up::run(&lab, &arguments)?,
        LabCommand::Exec(arguments) => return exec::run(&lab, &arguments),
        LabCommand::Demo(arguments) => return demo::run(&lab, &arguments),
        LabCommand::Down => down(&lab)?,
        LabCommand::Status(arguments) => {
            let status = status::look(&lab)?;
            let printed = if arguments.json { output::print_json(&status) } else { output::print(&status.text()) };
            printed.map_err(LabError::io("cannot write the output"))?;
        }
        LabCommand::Keeper(arguments) => keeper::run(arguments)?,
        LabCommand::Host(arguments) => host::run(arguments)?,
        LabCommand::Clients(arguments) => return demo::run_clients(&arguments),
        other => {
            lab.must_be_up()?;
            change(&lab, other)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Commands that change something in a lab that is up, and say nothing where they succeed.
fn change(lab: &Lab, command: LabCommand) -> Result<(), LabError> {
    match command {
        LabCommand::Kill(arguments) => commands::kill(lab, &arguments.host),
        LabCommand::Heal(arguments) => commands::heal(lab, &arguments.host),
        LabCommand::Cable(arguments) => commands::cable(lab, &arguments.host, arguments.state == "on"),
        LabCommand::Cut(arguments) => commands::cut(lab, &arguments.hosts),
        LabCommand::Start(arguments) => commands::start(lab, &arguments.host, &arguments.program),
        LabCommand::Stop(arguments) => commands::stop(lab, &arguments.host, &arguments.program),
        LabCommand::KillProgram(SignalArgs { program, signal }) => {
            commands::signal(lab, &program.host, &program.program, signal)
        }
        LabCommand::Logs(arguments) => {
            commands::logs(lab, &arguments.host, arguments.program.as_deref(), arguments.lines)
        }
        LabCommand::Up(_)
        | LabCommand::Exec(_)
        | LabCommand::Status(_)
        | LabCommand::Down
        | LabCommand::Demo(_)
        | LabCommand::Keeper(_)
        | LabCommand::Host(_)
        | LabCommand::Clients(_) => Ok(()),
    }
}

fn down(lab: &Lab) -> Result<(), LabError> {
    let text = if lab.remove()? { "is down; nothing of it is left" } else { "was not up" };
    output::print(&format!("lab \"{}\" {text}\n", lab.name())).map_err(LabError::io("cannot write the output"))
}

/// The error with its causes; a report of the cluster file names them itself.
fn text_of(error: &LabError) -> String {
    if let LabError::Config(report) = error {
        return report.to_string();
    }
    let mut text = format!("evermq lab: {error}");
    // `Io` and `Kernel` say their cause in their own text.
    let mut cause = if matches!(error, LabError::Certificates(_)) { error.source() } else { None };
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
