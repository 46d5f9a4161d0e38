//! Carrying a plan out: stage by stage, telling each step as it ends, and stopping after the first stage in which one failed.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::act::commands;
use super::plan::{Action, Stage, Wanted};
use super::way::Way;
use crate::output;
use crate::remote::RemoteError;

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// On which host, by its place in the list.
    pub host: usize,
    /// Why.
    pub error: String,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps that failed; the stages after theirs were not begun.
    pub failures: Vec<Failure>,
    /// What programs said that the operator has to know.
    pub notes: Vec<String>,
}

/// Carries the stages out.
#[must_use]
pub fn carry_out(stages: &[Stage], wanted: &[Wanted], way: &Way) -> Outcome {
    let outcome = Mutex::new(Outcome::default());
    let mut packages = BTreeMap::new();
    for stage in stages {
        if let Err(failure) = read_packages(stage, &mut packages) {
            return Outcome { failures: vec![failure], ..into_inner(outcome) };
        }
        let step = |(host, action): &(usize, Action)| {
            let package = match action {
                Action::Install(package) => packages.get(&package.path).map_or(&[][..], Vec::as_slice),
                _ => &[],
            };
            one_step(*host, action, &wanted[*host], package, way, &outcome)
        };
        let at_once = |steps: &[(usize, Action)]| {
            std::thread::scope(|scope| {
                for one in steps {
                    scope.spawn(|| step(one));
                }
            });
        };
        if stage.at_once {
            at_once(&stage.steps);
        } else {
            // The first that fails is the last: what comes after it still serves.
            let _ = stage.steps.iter().all(step);
        }
        if !lock(&outcome).failures.is_empty() {
            at_once(&stage.undo);
            break;
        }
    }
    into_inner(outcome)
}

fn lock(outcome: &Mutex<Outcome>) -> std::sync::MutexGuard<'_, Outcome> {
    outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn into_inner(outcome: Mutex<Outcome>) -> Outcome {
    outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Each package once, though several hosts get it.
fn read_packages(stage: &Stage, packages: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<(), Failure> {
    for (host, action) in &stage.steps {
        let Action::Install(package) = action else { continue };
        if !packages.contains_key(&package.path) {
            let contents = fs::read(&package.path).map_err(|error| Failure {
                host: *host,
                error: format!("cannot read {}: {error}", package.path.display()),
            })?;
            packages.insert(package.path.clone(), contents);
        }
    }
    Ok(())
}

/// Whether it was done.
fn one_step(
    host: usize,
    action: &Action,
    wanted: &Wanted,
    package: &[u8],
    way: &Way,
    outcome: &Mutex<Outcome>,
) -> bool {
    let target = (wanted.host.name.as_str(), wanted.host.address);
    for command in commands(action, wanted, package) {
        let begun = now();
        match way.done(target, &command.what, &command.text, &command.input) {
            Ok(said) => {
                let _ = output::print(&format!("{:<16} {:<44} {}\n", target.0, command.what, took(now() - begun)));
                let notes = said.lines().filter(|line| line.contains("needs a restart"));
                let notes =
                    notes.map(|line| format!("{}: {line} (`evermq deploy --restart` does it, host by host)", target.0));
                lock(outcome).notes.extend(notes);
            }
            Err(error) => {
                let _ = output::print(&format!("{:<16} {:<44} FAILED\n", target.0, command.what));
                lock(outcome).failures.push(Failure { host, error: text(&error) });
                return false;
            }
        }
    }
    true
}

fn text(error: &RemoteError) -> String {
    error.to_string()
}

fn took(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}

#[expect(clippy::disallowed_methods, reason = "how long steps take is told to an operator")]
fn now() -> Instant {
    Instant::now()
}
