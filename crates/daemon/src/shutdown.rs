//! SIGTERM and SIGINT: a token that every part of a program watches. SIGHUP: the cluster file is to be read again.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

/// A token that the first SIGTERM or SIGINT cancels; a second one ends the process at once.
///
/// Blocks both signals in the calling thread, so that threads made later inherit it: call this before any other thread is
/// made. SIGHUP is ignored, so that a closed terminal does not end a daemon, until [`on_hang_up`] is called.
///
/// # Errors
/// The thread that waits for signals could not be made.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    // SAFETY: SigIgn installs no handler, so no code of ours runs in signal context.
    unsafe { nix::sys::signal::signal(Signal::SIGHUP, nix::sys::signal::SigHandler::SigIgn) }?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            if cancel.is_cancelled() {
                tracing::warn!(%signal, "second signal: stopping at once");
                std::process::exit(1);
            }
            tracing::info!(%signal, "stopping");
            cancel.cancel();
        }
    })?;
    Ok(token)
}

/// Calls `ask` for each SIGHUP until `end`.
pub async fn on_hang_up(end: CancellationToken, mut ask: impl FnMut()) {
    let mut signals = match tokio::signal::unix::signal(SignalKind::hangup()) {
        Ok(signals) => signals,
        Err(error) => return tracing::error!(%error, "SIGHUP does nothing: `evermq reload` does the same"),
    };
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(()) = signals.recv() => ask(),
        }
    }
}
