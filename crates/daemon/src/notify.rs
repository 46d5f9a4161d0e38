//! What systemd is told (sd_notify(3)): readiness, signs of life, sockets to keep. Without `NOTIFY_SOCKET` nothing happens.

use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sd_notify::NotifyState;

/// Signs of life in the time that systemd gives for one: those of a slow machine may be late.
const SIGNS: u32 = 4;

/// The program serves; `status` is shown by `systemctl status`.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What the program does now, for `systemctl status`.
pub fn status(text: &str) {
    send(&[NotifyState::Status(text)]);
}

/// The program has begun to stop.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Another process is the program from now on: systemd watches it, and listens to it, instead of this one.
pub fn main_process(process: u32) {
    send(&[NotifyState::MainPid(process)]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// When systemd is to have the next sign of life (`WatchdogSec=`). Pure but for [`Watchdog::from_environment`].
///
/// Whoever has one asks it again and again from the loop whose life it stands for, and only while that goes round.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    every: Option<Duration>,
    due: Option<Instant>,
}

impl Watchdog {
    /// As systemd says to this process; also to one that an upgrade has started, which has its predecessor's environment
    /// without that one's number.
    #[must_use]
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let of_another = variable("WATCHDOG_PID").is_some_and(|process| process.parse() != Ok(std::process::id()));
        let time = variable("WATCHDOG_USEC").filter(|_| !of_another).and_then(|time| time.parse().ok());
        Self::new(time.filter(|time| *time > 0).map(Duration::from_micros))
    }

    /// A sign at least every `time`; none is asked for without one.
    #[must_use]
    pub fn new(time: Option<Duration>) -> Self {
        Self { every: time.map(|time| time / SIGNS), due: None }
    }

    /// How often there is to be a sign, if at all.
    #[must_use]
    pub const fn every(&self) -> Option<Duration> {
        self.every
    }

    /// The loop has gone round; whether systemd is to hear of it now.
    pub fn handle_turn(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else { return false };
        let is_due = self.due.is_none_or(|due| due <= now);
        if is_due {
            self.due = Some(now + every);
        }
        is_due
    }
}

/// A sign of life.
pub fn alive() {
    send(&[NotifyState::Watchdog]);
}

/// Has systemd keep a copy of a file for the unit's next process. Whether it was told.
pub(crate) fn store(name: &str, file: BorrowedFd<'_>) -> bool {
    // That a socket hangs up is no reason to drop it (FDPOLL).
    tell(&format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n"), Some(file))
}

/// Has systemd close the copies of that name. Whether it was told.
pub(crate) fn remove(name: &str) -> bool {
    tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None)
}

/// Never waits: workers that relay say this too.
fn tell(text: &str, file: Option<BorrowedFd<'_>>) -> bool {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return false };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let send = || -> std::io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address?)?;
        let files = file.as_ref().map(|file| [file.as_raw_fd()]);
        let rights = files.as_ref().map(|files| ControlMessage::ScmRights(files));
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(text.as_bytes())], rights.as_slice(), flags, None)?;
        Ok(())
    };
    let sent = send();
    if let Err(error) = &sent {
        tracing::warn!(%error, "systemd does not keep what it is to keep for the next process");
    }
    sent.is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a virtual clock has to start somewhere")]

    use super::*;

    #[test]
    fn there_are_four_signs_in_the_time_for_one() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        let signs = (0..100).filter(|tenth| watchdog.handle_turn(start + Duration::from_millis(100 * tenth))).count();
        assert_eq!(signs, 4);
        assert!(watchdog.handle_turn(start + Duration::from_secs(60)), "a late one is due at once");
        assert!(!watchdog.handle_turn(start + Duration::from_secs(60)));
    }

    #[test]
    fn nobody_asks_nobody_is_told() {
        let mut watchdog = Watchdog::new(None);
        assert!(!watchdog.handle_turn(Instant::now()));
        assert_eq!(watchdog.every(), None);
    }
}
