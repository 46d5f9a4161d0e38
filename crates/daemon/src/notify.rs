//! Readiness for systemd (sd_notify(3)). Without `NOTIFY_SOCKET` nothing happens.

use sd_notify::NotifyState;

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
