//! The two lb hosts, each with its agent: who holds the VIP since when, and faults that are timed where they strike.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evermq_e2e::{Lab, wait};
use serde_json::Value;

/// How long an agent may take to answer; it waits for ends of programs, too.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a host was from a moment on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) at: f64,
    pub(crate) held: bool,
    pub(crate) carrier: bool,
}

/// The agent in one host.
pub(crate) struct Agent {
    host: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<Value>,
    looks: Arc<Mutex<Vec<Look>>>,
}

impl Agent {
    /// Starts it, and waits until it has looked.
    pub(crate) fn start(lab: &Lab, host: &'static str) -> Self {
        let program = std::env::current_exe().expect("a program knows its own path").display().to_string();
        let mut command = lab.command(host, &[&program, "agent"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("evermq can be run");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let looks = Arc::<Mutex<Vec<Look>>>::default();
        let (seen, (sender, answers)) = (looks.clone(), channel());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let Ok(value) = serde_json::from_str::<Value>(&line) else { continue };
                match (value["at"].as_f64(), value["held"].as_bool(), value["carrier"].as_bool()) {
                    (Some(at), Some(held), Some(carrier)) => {
                        seen.lock().unwrap_or_else(PoisonError::into_inner).push(Look { at, held, carrier });
                    }
                    _ => drop(sender.send(value)),
                }
            }
        });
        let input = child.stdin.take();
        let agent = Self { host, child, input, answers, looks };
        wait::until("the agent looks", PATIENCE, || agent.last());
        agent
    }

    /// The name of its host.
    pub(crate) fn host(&self) -> &'static str {
        self.host
    }

    /// Every change so far, the first look first.
    pub(crate) fn looks(&self) -> Vec<Look> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn last(&self) -> Option<Look> {
        self.looks().last().copied()
    }

    /// Whether its host has the VIP.
    pub(crate) fn held(&self) -> bool {
        self.last().is_some_and(|look| look.held)
    }

    /// Asks it, in the words of its protocol.
    pub(crate) fn ask(&self, request: &str) -> Value {
        let mut input = self.input.as_ref().expect("there until dropped");
        writeln!(input, "{request}").expect("the agent reads");
        self.answers.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{}: no answer to {request:?}", self.host))
    }

    /// Sends a signal to a program's processes, which must be there. Gives when.
    pub(crate) fn signal(&self, signal: &str, which: &str, program: &str) -> f64 {
        let answer = self.ask(&format!("signal {signal} {which} {program}"));
        assert!(answer["processes"].as_u64() > Some(0), "{}: {which} {program} does not run", self.host);
        answer["sent"].as_f64().expect("a time")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Its input ends, and with that it does. A frozen or dead host's does not.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both agents; the first one's host has the VIP.
pub(crate) struct Pair {
    pub(crate) active: Agent,
    pub(crate) standby: Agent,
}

impl Pair {
    /// Starts both, and waits until one host has the VIP, and for a moment keeps it.
    pub(crate) fn start(lab: &Lab) -> Self {
        let agents = ["lb1", "lb2"].map(|host| Agent::start(lab, host));
        let holds = |agents: &[Agent; 2]| -> Option<bool> {
            let [first, second] = agents.each_ref().map(Agent::held);
            (first != second).then_some(first)
        };
        let (first, _) = wait::until("one lb host holds the VIP", PATIENCE, || holds(&agents));
        let [lb1, lb2] = agents;
        if first { Self { active: lb1, standby: lb2 } } else { Self { active: lb2, standby: lb1 } }
    }

    /// The spans of time in which both hosts have the VIP, until `end`.
    pub(crate) fn both(&self, end: f64) -> Vec<(f64, f64)> {
        both(&self.active.looks(), &self.standby.looks(), end)
    }
}

fn both(first: &[Look], second: &[Look], end: f64) -> Vec<(f64, f64)> {
    let held_at = |looks: &[Look], at: f64| looks.iter().rev().find(|look| look.at <= at).is_some_and(|look| look.held);
    let mut moments: Vec<f64> = first.iter().chain(second).map(|look| look.at).filter(|at| *at < end).collect();
    moments.push(end);
    moments.sort_by(f64::total_cmp);
    let spans = moments.windows(2).map(|pair| (pair[0], pair[1]));
    spans.filter(|(at, _)| held_at(first, *at) && held_at(second, *at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(changes: &[(f64, bool)]) -> Vec<Look> {
        changes.iter().map(|(at, held)| Look { at: *at, held: *held, carrier: true }).collect()
    }

    #[test]
    fn spans_with_two_holders() {
        let first = looks(&[(0.0, true), (50.0, false), (80.0, true)]);
        let second = looks(&[(0.0, false), (40.0, true), (60.0, false), (90.0, true)]);
        assert_eq!(both(&first, &second, 100.0), [(40.0, 50.0), (90.0, 100.0)]);
        assert_eq!(both(&first, &looks(&[(0.0, false)]), 100.0), []);
    }
}
