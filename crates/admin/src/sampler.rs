//! Asks the programs of this host again and again, so that it costs them the same however many watch.
//!
//! Tasks: [`Sampler::run`] has a future for each program, none of them spawned; what blocks runs on a thread of the runtime's
//! pool, one for each program at the most.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use evermq_daemon::control;
use evermq_daemon::events::{self, Page};
use evermq_daemon::health::Health;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::PROGRAM;
use crate::journal::{Journal, Mark};
use crate::local::{self, Program};
use crate::rates::Meter;
use crate::report::{HostAnswer, HostReport, ProgramReport, word};

/// Between two questions to a program.
pub const PERIOD: Duration = Duration::from_secs(1);
/// The same for the first [`SETTLING`]: programs of a host that starts become ready one after the other.
const EAGER: Duration = Duration::from_millis(100);
/// How long a host takes to start.
const SETTLING: Duration = Duration::from_secs(5);
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of this host.
#[derive(Debug)]
pub struct Sampler {
    host: String,
    process: u64,
    programs: Vec<Program>,
    known: Mutex<Known>,
    heard: watch::Sender<()>,
}

#[derive(Debug)]
struct Known {
    reports: Vec<Option<ProgramReport>>,
    journal: Journal,
    own: Mark,
}

/// What one program's future remembers.
#[derive(Default)]
struct Watch {
    meter: Meter,
    mark: Mark,
    shown: Option<(Health, Option<u32>)>,
}

impl Sampler {
    /// For the programs of a host.
    #[must_use]
    pub fn new(host: String, programs: Vec<Program>) -> Arc<Self> {
        let programs: Vec<_> = programs.into_iter().filter(|program| program.name != PROGRAM).collect();
        let known = Known { reports: vec![None; programs.len()], journal: Journal::default(), own: Mark::default() };
        Arc::new(Self {
            host,
            process: local::now_ms(),
            programs,
            known: Mutex::new(known),
            heard: watch::channel(()).0,
        })
    }

    /// Asks until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..self.programs.len() {
            tasks.spawn(Arc::clone(&self).watch(index));
        }
        stop.cancelled().await;
        tasks.shutdown().await;
    }

    async fn watch(self: Arc<Self>, index: usize) {
        let mut watch = Watch::default();
        let begun = Instant::now();
        let mut next = begun;
        loop {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + if begun.elapsed() < SETTLING { EAGER } else { PERIOD };
            let (program, after) = (self.programs[index].clone(), watch.mark.last);
            let asked = tokio::task::spawn_blocking(move || {
                let report = local::ask(&program, TIMEOUT);
                let page = if report.error.is_none() { ask_events(&program, after) } else { None };
                (program, report, page)
            });
            // It panicked, or the runtime ends.
            let Ok((program, report, page)) = asked.await else { continue };
            let mut page = page;
            while let Some(told) = page.take() {
                if !self.known().journal.add_page(program.name, &mut watch.mark, told) {
                    let again = program.clone();
                    page = tokio::task::spawn_blocking(move || ask_events(&again, 0)).await.ok().flatten();
                }
            }
            self.take(index, report, &mut watch);
        }
    }

    fn take(&self, index: usize, mut report: ProgramReport, watch: &mut Watch) {
        report.rates = watch.meter.handle_state(&report.state, Instant::now().into_std());
        let (program, pid) = (report.program.as_str(), report.about.as_ref().map(|about| about.pid));
        if let Some((from, before)) = watch.shown {
            let restarted = pid.is_some() && before.is_some() && pid != before;
            if restarted || from != report.health {
                let reason = match (&report.error, restarted) {
                    (Some(error), _) => error.as_str(),
                    (None, true) => "another process answers",
                    (None, false) => "as it says",
                };
                tracing::info!(program, from = word(from), to = word(report.health), reason, "program");
            }
        }
        let before = watch.shown.and_then(|(_, pid)| pid);
        watch.shown = Some((report.health, pid.or(before)));
        self.known().reports[index] = Some(report);
        self.heard.send_replace(());
    }

    /// Until every program has been asked, or could not be in the time for that.
    pub async fn first(&self) {
        let mut heard = self.heard.subscribe();
        let all = heard.wait_for(|()| self.known().reports.iter().all(Option::is_some));
        // What has not answered by then is missing in the report.
        let _ = tokio::time::timeout(TIMEOUT * 2, all).await;
    }

    /// How this host is, with the lines after number `after`.
    #[must_use]
    pub fn answer(&self, after: u64) -> HostAnswer {
        let mut known = self.known();
        let Known { reports, journal, own } = &mut *known;
        // What this process says itself.
        let _ = journal.add_page(PROGRAM, own, events::after(own.last));
        let reports = reports.iter().flatten().cloned().collect();
        HostAnswer {
            report: HostReport::new(self.host.clone(), local::now_ms(), reports),
            process: self.process,
            last: journal.last(),
            events: journal.after(after),
        }
    }

    /// How each program was when it was asked last; those that have not been are missing.
    #[must_use]
    pub fn conditions(&self) -> Value {
        let known = self.known();
        known.reports.iter().flatten().map(|report| (report.program.clone(), json!(word(report.health)))).collect()
    }

    /// The programs of this host.
    #[must_use]
    pub fn programs(&self) -> &[Program] {
        &self.programs
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ask_events(program: &Program, after: u64) -> Option<Page> {
    let answer = control::request(&program.socket, &json!({ "request": "events", "after": after }), TIMEOUT);
    // A program of an older version does not know the question.
    answer.ok().and_then(|answer| serde_json::from_value(answer).ok())
}
