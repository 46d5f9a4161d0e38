//! What this program may do beyond an ordinary one: as little as its work needs. Started by systemd as its unit says, it has
//! no more from the start; started as root it lets go of the rest.
//!
//! | capability | who keeps it |
//! |---|---|
//! | `CAP_NET_ADMIN`, `CAP_NET_RAW` | every thread, for addresses and raw sockets |
//! | `CAP_SYS_NICE`, `CAP_IPC_LOCK` | nobody after the start; they stay in the bounding set for a guard that is started later |
//! | `CAP_SETUID`, `CAP_SETGID`, `CAP_KILL` | the ordinary thread, and only where checks or notify programs run as another user |
//!
//! Where there are checks or notify programs, the bounding set stays as it is: one that is to run as root is then root.
//! Without `CAP_DAC_OVERRIDE` root reads and connects to only what its user may: evermq-lb has to run as the same user.
//!
//! Capabilities are a thread's own (capabilities(7)): a thread has those of the one that started it, until it lets go.

use std::io;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::libc::rlim_t;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

const NETWORK: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW];
const REAL_TIME: [Capability; 2] = [Capability::CAP_SYS_NICE, Capability::CAP_IPC_LOCK];
const OTHER_USERS: [Capability; 3] = [Capability::CAP_SETUID, Capability::CAP_SETGID, Capability::CAP_KILL];

/// Capabilities could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// capset or prctl failed.
    #[error("cannot give up capabilities that are not needed: {0}; is a system call filter in the way of capset?")]
    Capabilities(#[from] CapsError),
    /// The limit of locked memory could not be read.
    #[error("cannot read the limit of locked memory: {0}")]
    Limit(#[source] io::Error),
}

/// What is run beside this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    None,
    /// Checks or notify programs.
    Programs,
    /// The same, of which some run as another user.
    ProgramsOfUsers,
}

/// At the start, before any thread: lets go of everything but what some thread will need. Where the kernel does not let it,
/// the program goes on with more privileges than it needs, and says so.
pub fn shed(others: Others) {
    tell(try_shed(others));
}

/// For a thread that has set itself up: lets go of the rest, in the same way.
pub fn settle(others: Others) {
    tell(try_settle(others));
}

fn tell(outcome: Result<(), PrivilegeError>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "more privileges are kept than are needed");
    }
}

fn try_shed(others: Others) -> Result<(), PrivilegeError> {
    // For threads that start later, without the capability that locking memory takes.
    if holds(Capability::CAP_SYS_RESOURCE)? {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
    if others == Others::None && holds(Capability::CAP_SETPCAP)? {
        for other in caps::read(None, CapSet::Bounding)? {
            if !NETWORK.contains(&other) && !REAL_TIME.contains(&other) {
                caps::drop(None, CapSet::Bounding, other)?;
            }
        }
    }
    let users: &[Capability] = if others == Others::ProgramsOfUsers { &OTHER_USERS } else { &[] };
    keep(&[&NETWORK[..], &REAL_TIME, users].concat())
}

fn try_settle(others: Others) -> Result<(), PrivilegeError> {
    let mut kept = NETWORK.to_vec();
    let (locked, _): (rlim_t, rlim_t) =
        getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| PrivilegeError::Limit(error.into()))?;
    if locked != RLIM_INFINITY {
        // Memory that is locked as it comes would not come any more.
        kept.push(Capability::CAP_IPC_LOCK);
    }
    if others == Others::ProgramsOfUsers {
        kept.extend(OTHER_USERS);
    }
    keep(&kept)
}

/// The calling thread has no more than these. What it has not is not asked for.
fn keep(wanted: &[Capability]) -> Result<(), PrivilegeError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = has.iter().copied().filter(|capability| wanted.contains(capability)).collect();
    // Nothing to give up is nothing to be refused: a unit's filter need not permit capset.
    if kept.len() < has.len() {
        let effective = caps::read(None, CapSet::Effective)?;
        caps::set(None, CapSet::Effective, &effective.intersection(&kept).copied().collect())?;
        caps::set(None, CapSet::Permitted, &kept)?;
    }
    Ok(())
}

fn holds(capability: Capability) -> Result<bool, PrivilegeError> {
    Ok(caps::has_cap(None, CapSet::Effective, capability)?)
}
