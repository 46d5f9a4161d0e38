//! `lab demo`: a lab, a publisher and a subscriber through the VIP, three faults, and what each of them cost.
//!
//! | module | subject |
//! |---|---|
//! | [`scenario`] | the faults, in order |
//! | [`load`], [`events`] | the clients' process, and what it says |
//! | [`observer`], [`outage`] | how long each fault was felt |
//! | [`report`] | what is printed |
//! | [`clients`] | that process: [`publisher`], [`subscriber`], [`prober`] |
//! | [`session`] | one MQTT connection |
//! | [`tally`] | what became of each message |

mod clients;
mod events;
mod load;
mod observer;
mod outage;
mod prober;
mod publisher;
mod report;
mod scenario;
mod session;
mod subscriber;
mod tally;

use std::path::PathBuf;
use std::process::ExitCode;

use self::report::Voice;
use super::error::LabError;
use super::interrupt::Interrupt;
use super::registry::{self, Lab};
use super::up::{self, UpArgs};

pub(super) use self::clients::{ClientsArgs, run_clients};

/// `evermq lab demo`
#[derive(Debug, clap::Args)]
pub(super) struct DemoArgs {
    /// Where evermq-vip, evermq-lb and evermq-broker are [default: the directory of this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// A setting of the cluster file, for example vip.advert_interval=100ms; may be given again
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Messages per second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Milliseconds between two new connections
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=1000))]
    probe_interval: u64,
    /// Print the account as JSON; what happens meanwhile goes to standard error
    #[arg(long)]
    json: bool,
}

/// Runs the demo in a lab of its own; fails where a message was lost.
pub(super) fn run(lab: &Lab, arguments: &DemoArgs) -> Result<ExitCode, LabError> {
    // A lab that is up under the default name is somebody's work.
    let own = if lab.name() == registry::DEFAULT_NAME { lab.beside("demo")? } else { lab.clone() };
    let interrupt = Interrupt::new()?;
    let voice = Voice::new(arguments.json);
    let up = UpArgs { bin_dir: arguments.bin_dir.clone(), set: arguments.set.clone(), ..UpArgs::default() };
    let clients = ClientsArgs { rate: arguments.rate, probe_interval: arguments.probe_interval };
    // Until the end of this function the lab's life hangs on this process.
    let tethered = up::start(&own, &up, |text| voice.say(text))?;
    let result = scenario::run(&own, &interrupt, &voice, &clients);
    drop(tethered);
    let removed = own.remove();
    let account = result?;
    removed?;
    voice.account(&account)?;
    Ok(if account.messages.lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
