//! The state as the control socket shows it, kept up by the events of the real-time thread.
//!
//! The first virtual router's fields stand at the top, as if it were the only one; all of them stand in `instances`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use evermq_config::VipConfig;
use evermq_daemon::health::Health;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::counters::{Counter, TickleCounters};
use crate::report::{Event, What};
use crate::track::names::{Change, Names, Shown};

mod instance;

pub use self::instance::{HISTORY, InstanceStatus, Moved};

/// What the program shows.
#[derive(Debug)]
pub struct Status {
    host: String,
    /// By slot; none where no virtual router is.
    instances: Vec<Option<InstanceStatus>>,
    names: Names,
    standing: Shown,
    file: PathBuf,
    loaded: String,
    error: Option<String>,
    quorum: Option<Arc<Mutex<evermq_quorum::State>>>,
    tickles: Arc<TickleCounters>,
    events_dropped: Arc<Counter>,
}

impl Status {
    /// The status of a program that has just started with the cluster file `file`.
    #[must_use]
    pub fn new(config: &VipConfig, file: PathBuf, events_dropped: Arc<Counter>, now: SystemTime) -> Self {
        Self {
            host: config.host.to_string(),
            instances: Vec::new(),
            names: Names::new(&config.tracks),
            standing: Shown::new(&config.tracks),
            file,
            loaded: written(now),
            error: None,
            quorum: None,
            tickles: Arc::default(),
            events_dropped,
        }
    }

    /// A virtual router begins, or goes on as this one.
    pub fn place(&mut self, slot: usize, instance: InstanceStatus) {
        if self.instances.len() <= slot {
            self.instances.resize_with(slot + 1, || None);
        }
        match &mut self.instances[slot] {
            Some(known) if known.name == instance.name => known.take_over(instance),
            other => *other = Some(instance),
        }
    }

    /// A virtual router has gone.
    pub fn clear(&mut self, slot: usize) {
        if let Some(instance) = self.instances.get_mut(slot) {
            *instance = None;
        }
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.instances.len()
    }

    /// The virtual router in a slot.
    #[must_use]
    pub fn instance(&self, slot: usize) -> Option<&InstanceStatus> {
        self.instances.get(slot)?.as_ref()
    }

    /// The virtual router in a slot, to be changed.
    pub fn instance_mut(&mut self, slot: usize) -> Option<&mut InstanceStatus> {
        self.instances.get_mut(slot)?.as_mut()
    }

    /// The first address of the virtual router in a slot, for logs.
    #[must_use]
    pub fn vip(&self, slot: usize) -> String {
        let first = self.instance(slot).and_then(|instance| instance.router.addresses.first());
        first.map(ToString::to_string).unwrap_or_default()
    }

    /// Every virtual router, by slot.
    pub fn instances(&self) -> impl Iterator<Item = &InstanceStatus> {
        self.instances.iter().flatten()
    }

    /// Another configuration is in force.
    pub fn loaded(&mut self, config: &VipConfig, now: SystemTime) {
        self.standing = self.standing.reloaded(&config.tracks);
        self.names = Names::new(&config.tracks);
        self.loaded = written(now);
        self.error = None;
    }

    /// The file was read again and is not in force; none where it is no other than what is.
    pub fn refused(&mut self, error: Option<String>) {
        self.error = error;
    }

    /// What others keep up to date: the quorum, where one is asked, and the count of clients that were told of takeovers.
    pub fn show(&mut self, quorum: Option<Arc<Mutex<evermq_quorum::State>>>, tickles: Arc<TickleCounters>) {
        self.quorum = quorum;
        self.tickles = tickles;
    }

    /// The names of what is tracked.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// What the host is judged by.
    #[must_use]
    pub fn standing(&self) -> &Shown {
        &self.standing
    }

    /// Events that were lost.
    #[must_use]
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped.get()
    }

    /// The quorum, where one is asked.
    #[must_use]
    pub fn quorum(&self) -> Option<evermq_quorum::State> {
        self.quorum.as_ref().map(|shown| shown.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// The same, for whoever counts them.
    #[must_use]
    pub fn tickle_counters(&self) -> Arc<TickleCounters> {
        self.tickles.clone()
    }

    /// How many clients were told of takeovers.
    #[must_use]
    pub fn tickles(&self) -> &TickleCounters {
        &self.tickles
    }

    /// Takes in what happened; gives the change of a track, to be logged.
    pub fn apply(&mut self, event: &Event) -> Option<Change> {
        if let What::Part(part) = event.what {
            return self.standing.apply(part);
        }
        let names = &self.names;
        if let Some(Some(instance)) = self.instances.get_mut(event.slot) {
            instance.apply(event, names, &written(event.time));
        }
        None
    }

    /// How this program is, for whoever asks its control socket: as its best virtual router.
    #[must_use]
    pub fn health(&self) -> Health {
        let healths = self.instances().map(InstanceStatus::health);
        healths
            .min_by_key(|health| [Health::Up, Health::Degraded, Health::Down].iter().position(|one| one == health))
            .unwrap_or(Health::Down)
    }

    /// The answer to the control request `state`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let reasons = self.reasons();
        let shown: Vec<Value> = self.instances().map(|instance| instance.to_json(&reasons)).collect();
        let mut state = match shown.first() {
            Some(first) => first.clone(),
            None => json!({ "state": "none", "reason": "the cluster file says mode = \"none\"" }),
        };
        if let (Value::Object(state), Some(first)) = (&mut state, self.instances().next()) {
            // Beside `instances` these say nothing.
            for key in ["name", "vrid", "version", "family", "vips", "reasons"] {
                state.remove(key);
            }
            state.insert("vip".to_owned(), first.vip());
        }
        state["host"] = json!(self.host);
        state["instances"] = json!(shown);
        state["tracks"] = json!(self.standing.tracks);
        state["config"] = json!({ "file": self.file, "loaded": self.loaded, "error": self.error });
        state["events_dropped"] = json!(self.events_dropped.get());
        state["tickle"] = json!(*self.tickles);
        if let Some(quorum) = self.quorum() {
            state["quorum"] = json!(quorum);
        }
        state
    }

    /// Everything that the effective priority is made of, beside the configured one.
    fn reasons(&self) -> Vec<String> {
        let tracks = self.standing.tracks.iter().filter_map(|track| {
            let effect = track.effect.as_ref()?;
            Some(format!("track \"{}\" is {}: {effect}", track.name, track.state))
        });
        std::iter::once(self.standing.lb_reason.clone()).chain(tracks).collect()
    }
}

/// RFC 3339, UTC, to the millisecond.
#[must_use]
pub fn written(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    let time = time.replace_millisecond(time.millisecond()).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
