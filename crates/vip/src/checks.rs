//! The checks of what is tracked, on the ordinary thread's runtime: scripts, files, processes. Interfaces are the real-time
//! thread's, which sees the kernel's notices itself.
//!
//! No task is spawned: [`Checks::run`] is one future, and dropping it ends every check and kills every script.

mod directory;
mod file;
mod process;
mod script;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use evermq_config::HostName;
use evermq_config::vip::{Track, TrackWhat};

use crate::account::{Account, AccountError};
use crate::program::{Leftovers, Program};
use crate::track::{TrackState, Verdict};

/// What has to be checked, and as whom.
#[derive(Debug)]
pub struct Checks {
    checks: Vec<Check>,
}

#[derive(Debug)]
struct Check {
    index: usize,
    name: String,
    before: Verdict,
    what: What,
}

#[derive(Debug)]
enum What {
    Script { script: evermq_config::vip::Script, program: Program },
    File { path: std::path::PathBuf },
    Process { pid_file: std::path::PathBuf },
}

/// Gives a verdict on the track at an index.
type Tell<'a> = &'a (dyn Fn(usize, Verdict) + Send + Sync);

impl Checks {
    /// Prepares the checks of `tracks`. `before` tells where a track stood before a reload, so that its script goes on
    /// counting from there; none at the start of the program.
    ///
    /// # Errors
    /// A script has to run as a user who is missing, or whom evermq-vip may not become.
    pub fn new(
        tracks: &[Track],
        host: &HostName,
        before: impl Fn(&Track) -> Option<TrackState>,
    ) -> Result<Self, AccountError> {
        let mut checks = Vec::new();
        for (index, track) in tracks.iter().enumerate() {
            let what = match &track.what {
                TrackWhat::Interface { .. } => continue,
                TrackWhat::File { path } => What::File { path: path.clone() },
                TrackWhat::Process { pid_file } => What::Process { pid_file: pid_file.clone() },
                TrackWhat::Script(script) => {
                    let what = format!("the script of track \"{}\"", track.name);
                    let account = Account::of(script.user.as_deref(), &what, "user")?;
                    let environment = [("EVERMQ_TRACK", track.name.clone()), ("EVERMQ_HOST", host.to_string())];
                    let program = Program {
                        command: script::command(script),
                        account,
                        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
                        leftovers: Leftovers::Kill,
                    };
                    What::Script { script: script.clone(), program }
                }
            };
            let before = match before(track) {
                None | Some(TrackState::Pending | TrackState::Added | TrackState::Value(_)) => Verdict::Pending,
                Some(TrackState::Good | TrackState::HeldDown) => Verdict::Good,
                Some(TrackState::Failed) => Verdict::Failed,
            };
            checks.push(Check { index, name: track.name.clone(), before, what });
        }
        Ok(Self { checks })
    }

    /// Whether a script runs as another user than evermq-vip, which needs CAP_SETUID, CAP_SETGID and CAP_KILL.
    #[must_use]
    pub fn switch_users(&self) -> bool {
        self.checks.iter().any(|check| match &check.what {
            What::Script { program, .. } => program.account.switches(),
            What::File { .. } | What::Process { .. } => false,
        })
    }

    /// Checks, for ever: `tell` gets the index of a track and its verdict, each time that it changes. Runs in a runtime with
    /// I/O and time; dropped to stop.
    pub async fn run(self, tell: impl Fn(usize, Verdict) + Send + Sync) -> Infallible {
        let tell: Tell<'_> = &tell;
        let mut running: Vec<Pin<Box<dyn Future<Output = Infallible> + Send + '_>>> =
            self.checks.iter().map(|check| check.run(tell)).collect();
        // A few at most, so that polling all of them costs nothing.
        poll_fn(|context| {
            for check in &mut running {
                if let Poll::Ready(never) = check.as_mut().poll(context) {
                    return Poll::Ready(never);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Check {
    fn run<'a>(&'a self, tell: Tell<'a>) -> Pin<Box<dyn Future<Output = Infallible> + Send + 'a>> {
        let tell = move |verdict| tell(self.index, verdict);
        match &self.what {
            What::Script { script, program } => Box::pin(script::run(script, program, &self.name, self.before, tell)),
            What::File { path } => Box::pin(file::run(path, &self.name, tell)),
            What::Process { pid_file } => Box::pin(process::run(pid_file, &self.name, tell)),
        }
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
