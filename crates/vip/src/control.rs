//! The ordinary thread beside the real-time one: logs, answers the control socket, tells systemd.
//!
//! One thread with one current-thread runtime. Tasks: the control socket's server, ended by the token; the follower of
//! events, which ends with the real-time thread and then cancels the token. [`Thread::join`] waits for both.

use std::io;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use evermq_daemon::control::Control;
use evermq_daemon::{control, notify};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::report::{Event, Reports, Trouble, What};
use crate::status::Status;
use crate::track::Effective;

/// The running control thread.
#[derive(Debug)]
pub struct Thread(JoinHandle<()>);

/// Starts the thread.
///
/// # Errors
/// The system has no thread or no runtime to give.
pub fn start(listener: UnixListener, status: Status, reports: Reports) -> io::Result<Thread> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let thread = std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        if let Err(error) = runtime.block_on(run(listener, status, reports)) {
            tracing::error!(%error, "the control thread has ended; the VIP is still looked after, but nothing is logged");
        }
    })?;
    Ok(Thread(thread))
}

impl Thread {
    /// Waits until everything that was reported has been logged; the reporter must be gone.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

async fn run(listener: UnixListener, status: Status, reports: Reports) -> io::Result<()> {
    let (health, health_seen) = watch::channel(status.health());
    let status = Arc::new(Mutex::new(status));
    let shown = status.clone();
    // A status of numbers and strings always is JSON; null would be the answer if it were not.
    let state = move || serde_json::to_value(&*lock(&shown)).unwrap_or_default();
    let control = Control { state: Arc::new(state), health: health_seen };
    let over = CancellationToken::new();
    let server = control::serve(listener, control, over.clone());
    let follower = async {
        let followed = follow(reports, &status, &health).await;
        over.cancel();
        followed
    };
    tokio::try_join!(server, follower).map(|_| ())
}

/// Until the reporter is gone. Cancel-safe in no need: only end-of-file ends it.
async fn follow(
    reports: Reports,
    status: &Mutex<Status>,
    health: &watch::Sender<evermq_daemon::health::Health>,
) -> io::Result<()> {
    let mut wake = tokio::net::UnixStream::from_std(reports.wake)?;
    let mut bytes = [0; 64];
    loop {
        let read = wake.read(&mut bytes).await?;
        for event in reports.events.try_iter() {
            let mut status = lock(status);
            log(&event, &status);
            status.apply(&event);
            health.send_replace(status.health());
            if let What::Moved(transition) = event.what {
                notify::status(&format!("{}: {}", transition.to, transition.reason));
            }
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// One INFO line for each change of state; WARN for what an operator may have to mend.
fn log(event: &Event, before: &Status) {
    match event.what {
        What::Moved(moved) => {
            tracing::info!(vip = %before.vip, from = %moved.from, to = %moved.to, reason = %moved.reason, "VRRP state");
        }
        What::Effective(Effective { priority, cause }) => {
            if priority == before.effective_priority {
                tracing::debug!(reason = %cause, "effective priority stays");
            } else {
                let (from, to) = (rank(before.effective_priority), rank(priority));
                tracing::info!(from, to, reason = %cause, "effective priority");
            }
        }
        What::Follows(master) => tracing::debug!(%master, "master heard"),
        What::AddressRestored => tracing::warn!(
            vip = %before.vip,
            interface = before.interface,
            "someone removed the VIP from the interface; it is back (a network manager that flushes foreign addresses? \
             systemd-networkd: KeepConfiguration=static)"
        ),
        What::Trouble(Trouble::AdvertNotSent(errno)) => {
            tracing::warn!(error = %io::Error::from_raw_os_error(errno), "advertisement not sent");
        }
        What::Trouble(Trouble::GarpNotSent(errno)) => {
            tracing::warn!(error = %io::Error::from_raw_os_error(errno), "gratuitous ARP not sent");
        }
        What::Trouble(Trouble::Socket(errno)) => {
            tracing::warn!(error = %io::Error::from_raw_os_error(errno), "VRRP socket");
        }
        What::Trouble(Trouble::Discarded { source, error }) => {
            let source = source.map_or_else(|| "unknown".to_owned(), |source| source.to_string());
            tracing::warn!(source, reason = %error, "advertisement discarded");
        }
        What::Trouble(Trouble::Interval { source, interval }) => tracing::warn!(
            %source,
            interval_ms = interval.as_millis(),
            "this master's advertisement interval is not this host's; it is followed while it is master"
        ),
    }
}

fn rank(priority: Option<u8>) -> String {
    priority.map_or_else(|| "fault".to_owned(), |priority| priority.to_string())
}

fn lock(status: &Mutex<Status>) -> std::sync::MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
