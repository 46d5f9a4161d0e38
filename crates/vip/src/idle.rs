//! `mode = "none"`: a cloud's load balancer stands before the lb hosts, and there is nothing to hold.
//!
//! The program runs all the same, so that a unit that is installed everywhere does not fail, and says on its control socket
//! that it does nothing.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use evermq_config::VipConfig;
use evermq_daemon::control::{self, Answer, Control};
use evermq_daemon::health::Health;
use evermq_daemon::{notify, pulse, shutdown};
use tokio::sync::watch;

use crate::status::Status;

/// Serves the control socket until SIGTERM or SIGINT.
///
/// # Errors
/// The system has no runtime to give.
pub fn run(config: &VipConfig, listener: UnixListener, file: &Path) -> anyhow::Result<()> {
    let over = shutdown::on_signal()?;
    let status = Mutex::new(Status::new(config, file.to_owned(), Arc::default(), crate::wall_clock()));
    let state = move || status.lock().map(|status| status.to_json()).unwrap_or_default();
    let (_health, health) = watch::channel(Health::Up);
    let requests = |name: &str, _: &serde_json::Value| {
        (name == "reload").then(|| {
            Answer::Error(
                "with mode = \"none\" nothing is reloaded; restart evermq-vip after a change of `mode`".to_owned(),
            )
        })
    };
    let control = Control { state: Arc::new(state), health, requests: Arc::new(requests) };
    // Others may need this host's vote, though it asks for none.
    let voter = config.quorum.as_ref().map(evermq_quorum::voter_thread).transpose()?;
    tracing::info!("the cluster file says mode = \"none\", so no address is held; a change of it needs a restart");
    notify::ready("no address is held (mode = \"none\")");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            served = control::serve(listener, control, over.clone()) => served,
            () = pulse::watch_over(Vec::new(), over.clone()) => Ok(()),
        }
    })?;
    notify::stopping();
    if let Some(voter) = voter {
        voter.stop();
    }
    Ok(())
}
