//! Puts the daemon together, in the order that its privileges ask for, and runs it.

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use evermq_config::vip::TrackWhat;
use evermq_config::{QuorumConfig, VipConfig};
use evermq_daemon::command::ConfigSource;
use evermq_daemon::notify::Watchdog;
use evermq_daemon::pulse::Beat;
use evermq_daemon::{metrics, notify};
use evermq_quorum::{Member, QuorumError, Settings, State};

use crate::account::AccountError;
use crate::address::Addresses;
use crate::checks::Checks;
use crate::counters::{Counter, TickleCounters};
use crate::driver::{Driver, Instance, Quorum, TrackedLink, take_signals};
use crate::guard::keeper::{self, Keeper, Line};
use crate::opener::Opener;
use crate::privileges::Others;
use crate::programs::Programs;
use crate::status::{InstanceStatus, Status};
use crate::track::{Tracker, Tracks};
use crate::{clock, control, driver, mailbox, opener, privileges, realtime, reload, report, wall_clock};

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(
    config: VipConfig,
    source: ConfigSource<VipConfig>,
    listener: UnixListener,
    mut addresses: Addresses,
) -> anyhow::Result<()> {
    // First what may take more privileges than are kept: ports, files, interfaces.
    let signals = take_signals()?;
    let metrics = config.vip.metrics.map(metrics::bind).transpose()?;
    let quorum = config.quorum.as_ref().map(vote).transpose()?;
    let dropped = Arc::new(Counter::default());
    let mut status = Status::new(&config, source.path().to_owned(), dropped.clone(), wall_clock());
    let mut opener = Opener::default();
    let instances = open(&config, &mut opener, &mut addresses, &mut status)?;
    let others = others(&config)?;
    privileges::shed(others);

    let (reporter, reports) = report::channel(dropped)?;
    let (post, mailbox) = mailbox::mailbox()?;
    let (keeper, guard) = guard(&config);
    let tickles = Arc::new(TickleCounters::default());
    let routers: Vec<_> = config.instances.iter().map(Some).collect();
    let takeover = opener::takeover(&config, &routers, &tickles)?;
    status.show(quorum.as_ref().map(|quorum| quorum.shown.clone()), tickles);
    let tracked_links = TrackedLink::of(&config.tracks);
    let tracker = Tracker::new(reload::tracker(&config), Tracks::new(&config.tracks), clock());
    let beat = Beat::default();
    let parts = driver::Parts {
        addresses,
        signals,
        reporter,
        mailbox,
        guard,
        quorum,
        takeover,
        tracked_links,
        tracker,
        beat: beat.clone(),
        // Twice for each look at it.
        beat_every: Watchdog::from_environment().every().map(|every| every / 2),
    };
    let driver = Driver::open(instances, &config.lb_socket, parts)?;

    let realtime = config.vip.realtime;
    let parts =
        control::Parts { listener, metrics, status, reports, post, source, config, opener, keeper, others, beat };
    let control = control::start(parts)?;
    hurry(realtime);
    privileges::settle(Others::None);
    notify::ready("waiting for the local lb");
    let outcome = driver.run();
    notify::stopping();
    control.join();
    Ok(outcome?)
}

/// Makes the calling thread the real-time one.
fn hurry(realtime: bool) {
    realtime::wake_exactly();
    if realtime {
        let refused: Vec<_> = realtime::enter().iter().map(ToString::to_string).collect();
        if !refused.is_empty() {
            tracing::warn!("a busy machine may move the VIP: {}", refused.join("; "));
        }
    }
}

fn guard(config: &VipConfig) -> (Option<Keeper>, Option<Box<Line>>) {
    match keeper::start(config.vip.realtime, &config.control_socket) {
        Ok((keeper, line)) => (Some(keeper), Some(Box::new(line))),
        Err(error) => {
            tracing::warn!(%error, "the guard of the VIP could not be started; it is tried again");
            (None, None)
        }
    }
}

/// Opens the sockets of every virtual router, and says so.
fn open(
    config: &VipConfig,
    opener: &mut Opener,
    addresses: &mut Addresses,
    status: &mut Status,
) -> anyhow::Result<Vec<Instance>> {
    opener.filter(config)?;
    let mut instances = Vec::new();
    for (slot, router) in config.instances.iter().enumerate() {
        let instance = opener.open(config, router, Arc::default())?;
        let interface = &instance.carrier;
        for address in &router.addresses {
            // An address that is not there cannot be removed, but the kernel says first whether it would be permitted.
            addresses.remove(*address, interface.index)?;
        }
        if interface.mac.is_none() {
            tracing::warn!(
                interface = interface.name,
                "no hardware address, so neighbours are not told by gratuitous ARP"
            );
        }
        status.place(slot, InstanceStatus::new(&instance, wall_clock()));
        tracing::info!(
            instance = %router.name,
            vip = %status.vip(slot),
            interface = interface.name,
            vrid = %router.vrid,
            priority = router.priority,
            "started"
        );
        instances.push(instance);
    }
    Ok(instances)
}

/// What is run beside this program, as whom it may be.
///
/// # Errors
/// A program has to run as a user who is missing, or whom evermq-vip may not become.
pub(crate) fn others(config: &VipConfig) -> Result<Others, AccountError> {
    let checks = Checks::new(&config.tracks, &config.host, |_| None)?;
    let programs = control::programs::all(config, |_| String::new())?;
    let scripts = config.tracks.iter().any(|track| matches!(track.what, TrackWhat::Script(_)));
    let notified = programs.iter().any(Programs::are_any);
    Ok(match (checks.switch_users() || programs.iter().any(Programs::switch_users), scripts || notified) {
        (true, _) => Others::ProgramsOfUsers,
        (false, true) => Others::Programs,
        (false, false) => Others::None,
    })
}

/// Opens this host's part in the quorum.
fn vote(config: &QuorumConfig) -> Result<Quorum, QuorumError> {
    let member = Member::open(Settings::load(config)?)?;
    let mut shown = State::default();
    member.update_state(&mut shown, clock());
    Ok(Quorum { member, shown: Arc::new(Mutex::new(shown)) })
}
