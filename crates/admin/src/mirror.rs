//! What all hosts say, for whoever looks at the page of one of them.
//!
//! A task for each host asks it once a second, as long as somebody has looked within [`INTEREST`]: nobody who looks has to wait
//! for a host that is dead. They end with [`Mirror::run`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, Said};
use crate::local;
use crate::overview::{Look, Overview, Plan};
use crate::remote::Door;
use crate::report::HostAnswer;
use crate::sampler::{PERIOD, Sampler};
use crate::timeline;

/// Nobody has looked for so long: nobody is asked any more.
const INTEREST: Duration = Duration::from_secs(10);
/// For one answer.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// What was asked longer ago is asked again before it is shown.
const FRESH: Duration = Duration::from_secs(4);
/// Transitions that are shown.
const SHOWN: usize = 100;

/// All hosts of the cluster.
#[derive(Debug)]
pub struct Mirror {
    plan: Plan,
    own: Arc<Sampler>,
    known: Mutex<Known>,
    looked: watch::Sender<Option<Instant>>,
    heard: watch::Sender<u64>,
}

#[derive(Debug)]
struct Known {
    looks: Vec<(Look, Option<Instant>)>,
    journal: Journal,
}

/// How far one host's lines have been read.
#[derive(Default)]
struct Reading {
    process: u64,
    last: u64,
}

/// How a host is asked.
#[derive(Debug)]
pub enum Way {
    /// It is this one.
    Own,
    /// By its endpoint.
    Door(Door),
}

impl Mirror {
    /// Nobody is asked yet.
    #[must_use]
    pub fn new(plan: Plan, own: Arc<Sampler>) -> Arc<Self> {
        let not_yet = || (Look::NotAsked("it has not been asked yet".to_owned()), None);
        let looks = plan.hosts.iter().map(|_| not_yet()).collect();
        let known = Mutex::new(Known { looks, journal: Journal::default() });
        Arc::new(Self { plan, own, known, looked: watch::channel(None).0, heard: watch::channel(0).0 })
    }

    /// Asks the hosts, each in its way and in the plan's order, until `stop`.
    pub async fn run(self: Arc<Self>, ways: Vec<Way>, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for (index, way) in ways.into_iter().enumerate() {
            tasks.spawn(Arc::clone(&self).follow(index, way));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }

    async fn follow(self: Arc<Self>, index: usize, mut way: Way) {
        let mut looked = self.looked.subscribe();
        let mut reading = Reading::default();
        loop {
            let is_of_interest = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < INTEREST);
            if looked.wait_for(is_of_interest).await.is_err() {
                return;
            }
            let begun = Instant::now();
            let answer = match &mut way {
                Way::Own => {
                    self.own.first().await;
                    Ok(self.own.answer(reading.last))
                }
                Way::Door(door) => ask(door, &mut reading).await,
            };
            self.take(index, answer, &mut reading);
            tokio::time::sleep_until(begun + PERIOD).await;
        }
    }

    fn take(&self, index: usize, answer: Result<HostAnswer, String>, reading: &mut Reading) {
        let mut known = self.known();
        let look = match answer {
            Ok(HostAnswer { report, process, last, events }) => {
                for said in events {
                    known.journal.add(Said { host: report.host.clone(), ..said });
                }
                (reading.process, reading.last) = (process, last);
                Look::Said(report)
            }
            Err(why) => Look::Silent(why),
        };
        if let Some(place) = known.looks.get_mut(index) {
            *place = (look, Some(Instant::now()));
        }
        drop(known);
        self.heard.send_modify(|times| *times += 1);
    }

    /// How the cluster is. Its transitions only where there is something after line `after`.
    pub async fn show(&self, after: u64) -> Value {
        self.looked.send_replace(Some(Instant::now()));
        let mut heard = self.heard.subscribe();
        let fresh =
            heard.wait_for(|_| self.known().looks.iter().all(|(_, at)| at.is_some_and(|at| at.elapsed() < FRESH)));
        // What is not there by then is shown as what it is.
        let _ = tokio::time::timeout(TIMEOUT * 2, fresh).await;
        let known = self.known();
        let looks: Vec<Look> = known.looks.iter().map(|(look, _)| look.clone()).collect();
        let last = known.journal.last();
        let said = if last == after { None } else { Some(known.journal.after(0)) };
        drop(known);
        let now_ms = local::now_ms();
        let transitions = said.map(|said| {
            let all = timeline::transitions(&said);
            all[all.len().saturating_sub(SHOWN)..].to_vec()
        });
        json!({
            "time_ms": now_ms,
            "overview": Overview::new(&self.plan, &looks, now_ms),
            "last": last,
            "transitions": transitions,
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(door: &mut Door, reading: &mut Reading) -> Result<HostAnswer, String> {
    let answer = host_answer(door, reading.last, TIMEOUT).await?;
    // Another process: its numbers began anew, and what it said first may be missing.
    if reading.last > 0 && answer.process != reading.process {
        *reading = Reading::default();
        return host_answer(door, 0, TIMEOUT).await;
    }
    Ok(answer)
}

/// What a host says, with the lines after number `after`.
///
/// # Errors
/// Why there is no answer, in words.
pub async fn host_answer(door: &mut Door, after: u64, timeout: Duration) -> Result<HostAnswer, String> {
    let answer = door.get(&format!("/api/host?after={after}"), timeout).await.map_err(|error| error.to_string())?;
    serde_json::from_value(answer)
        .map_err(|error| format!("its answer is not understood ({error}); is it of the same version?"))
}
