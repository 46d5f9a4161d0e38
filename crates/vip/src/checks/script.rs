//! Runs a script as [`Check`] says.

use std::convert::Infallible;
use std::process::ExitStatus;
use std::time::Instant;
use std::{future, io};

use evermq_config::vip::Script;

use super::clock;
use crate::program::{Program, Running};
use crate::track::Verdict;
use crate::track::check::{Action, Check, Settings};

/// The program and its arguments: of the file, or a shell with the file's line.
pub(super) fn command(script: &Script) -> Vec<String> {
    if script.shell {
        ["/bin/sh", "-c"].map(str::to_owned).into_iter().chain(script.command.iter().cloned()).collect()
    } else {
        script.command.clone()
    }
}

pub(super) async fn run(
    script: &Script,
    program: &Program,
    name: &str,
    before: Verdict,
    tell: impl Fn(Verdict) + Send + Sync,
) -> Infallible {
    let Script { interval, timeout, rise, fall, .. } = *script;
    let mut check = Check::new(Settings { interval, timeout, rise, fall }, before, clock());
    let mut running = None;
    // A script that cannot be started is told once, not at each run.
    let mut unable = false;
    loop {
        while let Some(action) = check.poll_action() {
            match action {
                Action::Tell(verdict) => tell(verdict),
                Action::Run => match program.spawn() {
                    Ok(started) => {
                        running = Some(started);
                        unable = false;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut unable, true) {
                            refused(name, program, &error);
                        }
                        check.handle_exit(false, clock());
                    }
                },
                Action::Kill => {
                    tracing::debug!(track = name, timeout_ms = timeout.as_millis(), "script takes too long; killed");
                    if let Some(mut late) = running.take() {
                        log(name, &late.stop().await, &late);
                    }
                    check.handle_exit(false, clock());
                }
            }
        }
        tokio::select! {
            // What has ended in time counts as that, however late it is seen.
            biased;
            (ended, script) = end(&mut running) => {
                log(name, &ended, &script);
                check.handle_exit(ended.is_ok_and(|status| status.success()), clock());
            }
            () = until(check.poll_timeout()) => check.handle_timeout(clock()),
        }
    }
}

/// Cancel-safe: the script stays where it is until it has ended.
async fn end(running: &mut Option<Running>) -> (io::Result<ExitStatus>, Running) {
    let ended = match running {
        Some(running) => running.wait().await,
        None => future::pending().await,
    };
    match running.take() {
        Some(script) => (ended, script),
        None => future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => future::pending().await,
    }
}

fn refused(name: &str, program: &Program, error: &io::Error) {
    let hint = if program.account.switches() && error.kind() == io::ErrorKind::PermissionDenied {
        "; running it as another user needs CAP_SETUID and CAP_SETGID, and that user the right to execute it"
    } else {
        ""
    };
    tracing::warn!(
        track = name,
        program = program.command.first(),
        "the script cannot be run, so it fails: {error}{hint}"
    );
}

fn log(name: &str, ended: &io::Result<ExitStatus>, script: &Running) {
    match ended {
        Ok(status) => tracing::debug!(track = name, %status, output = script.output(), "script"),
        Err(error) => tracing::warn!(track = name, %error, "the end of a script was not seen"),
    }
}
