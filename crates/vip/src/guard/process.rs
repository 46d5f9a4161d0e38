//! The guard's own program: reads what the daemon tells, watches it, and does what the machine says.
//!
//! One thread, one `ppoll`. Standard input is the socket pair, standard output the shared page. It ends with its daemon.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::time::Instant;

use evermq_config::cluster::{Log, LogFormat, LogLevel};
use evermq_daemon::control;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::prctl;
use nix::sys::signal::SigSet;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, recv, sendmsg};
use nix::sys::time::TimeSpec;

use super::beat::Beat;
use super::machine::{Action, Duty, Guard, Why};
use super::wire::{Charge, Farewell, Note, Read, Receiver, Setup, Sockets};
use crate::address::Addresses;
use crate::privileges::{self, Others};
use crate::realtime;

/// What a daemon gives its own program to make it a guard.
pub const ARGUMENT: &str = "--guard";

/// Longer than any packet that could announce a successor.
const LARGEST_PACKET: usize = 1500;
/// Packets read before the deadlines get their turn.
const PACKETS_AT_ONCE: usize = 64;

/// Runs the guard until its daemon is gone and nothing is left to do.
#[must_use]
pub fn main() -> ExitCode {
    match Process::start().and_then(Process::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the guard of the VIP has ended");
            ExitCode::FAILURE
        }
    }
}

struct Process {
    notes: Receiver,
    beat: Beat,
    machine: Guard,
    charges: Vec<(Charge, Sockets)>,
    addresses: Addresses,
    setup: Setup,
    /// No more notes come.
    gone: bool,
}

impl Process {
    fn start() -> io::Result<Self> {
        // It ends with its daemon, not with a signal to the whole group: that is the very moment it is there for.
        SigSet::all().thread_block()?;
        prctl::set_name(c"vip-guard")?;
        let beat = Beat::open(io::stdout())?;
        let mut notes = Receiver::new(io::stdin().as_fd().try_clone_to_owned()?);
        let Read::Note(Note::Setup(setup)) = notes.read(true)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "only evermq-vip itself starts its guard"));
        };
        evermq_daemon::log::init(log(&setup));
        realtime::wake_exactly();
        if setup.realtime {
            // The daemon has told its operator what is not permitted.
            let _ = realtime::enter_above();
        }
        privileges::settle(Others::None);
        let addresses = Addresses::open().map_err(io::Error::other)?;
        let machine = Guard::new(clock());
        Ok(Self { notes, beat, machine, charges: Vec::new(), addresses, setup, gone: false })
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            self.read_notes()?;
            let now = clock();
            let (turn, lease_end) = self.beat.last(now)?;
            self.machine.handle_beat(turn, lease_end);
            if self.gone {
                self.machine.handle_gone(now);
                self.hear();
            }
            if self.machine.poll_timeout().is_some_and(|due| due <= now) {
                self.machine.handle_timeout(now);
            }
            while let Some(action) = self.machine.poll_action() {
                match action {
                    Action::Farewell(slot) => self.farewell(slot),
                    Action::Remove { slot, why } => self.remove(slot, why),
                    Action::End => return Ok(()),
                }
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let timeout = self.machine.poll_timeout().map(|due| TimeSpec::from(due.saturating_duration_since(clock())));
        let mut fds = Vec::with_capacity(1 + self.charges.len());
        if !self.gone {
            fds.push(PollFd::new(self.notes.as_fd(), PollFlags::POLLIN));
        }
        for (slot, (_, sockets)) in self.charges.iter().enumerate() {
            if self.machine.lingers(slot) {
                fds.push(PollFd::new(sockets.receive.as_fd(), PollFlags::POLLIN));
            }
        }
        match ppoll(&mut fds, timeout, None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read_notes(&mut self) -> io::Result<()> {
        while !self.gone {
            let now = clock();
            match self.notes.read(false)? {
                Read::Note(Note::Setup(setup)) => self.setup = setup,
                Read::Note(Note::Charge(slot, charge, sockets)) => {
                    let Charge { linger, bound, peers, .. } = charge;
                    self.machine.handle_duty(slot, Duty { linger, bound, peers });
                    match self.charges.get_mut(slot) {
                        Some(known) => *known = (charge, sockets),
                        None => self.charges.push((charge, sockets)),
                    }
                }
                Read::Note(Note::Held(slot)) => self.machine.handle_held(slot, now),
                Read::Note(Note::Released(slot)) => self.machine.handle_released(slot),
                Read::Nothing => return Ok(()),
                Read::Gone => self.gone = true,
            }
        }
        Ok(())
    }

    /// Looks for a successor's advertisement.
    fn hear(&mut self) {
        let mut packet = [0; LARGEST_PACKET];
        for (slot, (charge, sockets)) in self.charges.iter().enumerate() {
            for _ in 0..PACKETS_AT_ONCE {
                if !self.machine.lingers(slot) {
                    break;
                }
                let received = recv(sockets.receive.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT);
                let Ok(length) = received else { break };
                if announces(charge, &packet[..length]) {
                    self.machine.handle_successor(slot);
                }
            }
        }
    }

    fn farewell(&mut self, slot: usize) {
        let Some((charge, sockets)) = self.charges.get(slot) else { return };
        tracing::warn!(instance = %charge.name, "evermq-vip was killed; its guard hands the VIP over");
        // What waits was sent to the master that was.
        let mut packet = [0; LARGEST_PACKET];
        while recv(sockets.receive.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).is_ok() {}
        for farewell in &charge.farewells {
            if let Err(error) = send(&sockets.send, charge, farewell) {
                tracing::warn!(instance = %charge.name, to = %farewell.to, %error, "priority 0 not sent");
            }
        }
    }

    fn remove(&mut self, slot: usize, why: Why) {
        let Some((charge, _)) = self.charges.get(slot) else { return };
        let name = &charge.name;
        match why {
            Why::Killed if self.replaced() => {
                tracing::info!(instance = %name, "evermq-vip runs again, its guard of before touches nothing");
                return;
            }
            Why::Killed => {}
            Why::Frozen { silent } => tracing::warn!(
                instance = %name,
                silent_ms = silent.as_millis(),
                "evermq-vip is frozen, so another host is master by now; its guard takes the VIP away"
            ),
        }
        for address in &charge.addresses {
            if let Err(error) = self.addresses.remove(*address, charge.interface) {
                tracing::error!(instance = %name, %error, "the VIP stays behind; remove it with evermq-vip --release");
            }
        }
    }

    /// Whether another daemon runs in the place of the one that was killed. It has removed what was stale, and what is on
    /// the interface is its own. The dead one may still listen: the kernel closes its sockets one after the other.
    fn replaced(&self) -> bool {
        control::listener(&self.setup.control_socket).is_some_and(|process| process != self.setup.daemon)
    }
}

/// Whether `packet` is an advertisement of some master of this virtual router. Nothing but the lingering hangs on it.
fn announces(charge: &Charge, packet: &[u8]) -> bool {
    let message = match charge.source {
        // A raw socket of IPv4 gives the header as well (raw(7)), one of IPv6 does not.
        IpAddr::V4(_) => {
            let header = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
            packet.get(header..)
        }
        IpAddr::V6(_) => Some(packet),
    };
    // Version and type, VRID, priority (RFC 9568 §5.1); type 1 is an advertisement.
    matches!(message, Some([first, vrid, priority, ..]) if first & 0x0f == 1 && *vrid == charge.vrid && *priority > 0)
}

fn send(socket: &OwnedFd, charge: &Charge, farewell: &Farewell) -> io::Result<()> {
    match (charge.source, farewell.to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: charge.through.cast_signed(),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
            send_with(socket, farewell, ControlMessage::Ipv4PacketInfo(&info), &to)
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                ipi6_ifindex: charge.through,
            };
            let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, charge.through));
            send_with(socket, farewell, ControlMessage::Ipv6PacketInfo(&info), &to)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn send_with(
    socket: &OwnedFd,
    farewell: &Farewell,
    info: ControlMessage<'_>,
    to: &impl SockaddrLike,
) -> io::Result<()> {
    let message = [io::IoSlice::new(&farewell.message)];
    sendmsg(socket.as_raw_fd(), &message, &[info], MsgFlags::MSG_DONTWAIT, Some(to))?;
    Ok(())
}

fn log(setup: &Setup) -> Log {
    let level = match setup.log_level.as_str() {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    };
    Log { level, format: if setup.log_json { LogFormat::Json } else { LogFormat::Text } }
}

#[expect(clippy::disallowed_methods, reason = "the process reads the clock for its machine")]
fn clock() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn charge(source: &str) -> Charge {
        Charge {
            name: "vip".to_owned(),
            vrid: 51,
            addresses: Vec::new(),
            interface: 2,
            through: 2,
            source: source.parse().expect("an address"),
            farewells: Vec::new(),
            linger: Duration::ZERO,
            bound: Duration::ZERO,
            peers: true,
        }
    }

    #[test]
    fn a_successor_is_an_advertisement_of_the_same_router_above_priority_0() {
        let header = [&[0x45][..], &[0; 19]].concat();
        let four = |message: &[u8]| announces(&charge("10.0.0.1"), &[&header, message].concat());
        let six = |message: &[u8]| announces(&charge("fe80::1"), message);
        for heard in [&four as &dyn Fn(&[u8]) -> bool, &six] {
            assert!(heard(&[0x31, 51, 100, 1, 0, 2, 0, 0]));
            assert!(heard(&[0x21, 51, 1, 1]));
            assert!(!heard(&[0x31, 51, 0, 1]), "another one that leaves");
            assert!(!heard(&[0x31, 52, 100, 1]), "another virtual router");
            assert!(!heard(&[0x32, 51, 100, 1]), "no advertisement");
            assert!(!heard(&[0x31, 51]) && !heard(&[]));
        }
        assert!(!announces(&charge("10.0.0.1"), &[]) && !announces(&charge("10.0.0.1"), &[0x4f; 20]));
    }
}
