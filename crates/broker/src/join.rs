//! A broker that is new to its cluster: it lets clients in when it has what the others have.
//!
//! New is who knows nothing of any other broker's log and has no session: nobody misses it meanwhile. It gets the retained
//! messages of each peer and then that peer's log, up to where that was when the two connected. Until then lbs hear that it is
//! not ready, clients wait for their CONNACK, and systemd has not heard that it has started.
//!
//! | peers | it is ready |
//! |---|---|
//! | all have given what they have | at once |
//! | some, or all, do not answer | [`ANSWER_WITHIN`] after the start, if the others have given what they have |
//! | some answer and do not give it: they do not know this broker yet, or have a lot | when they have, at the latest after `broker.join_timeout`, with a warning |
//!
//! [`judge`] is pure; a task of the driver's looks again and again.

use std::sync::Arc;
use std::time::Duration;

use evermq_bridge::{Bridge, Filling};
use evermq_config::BrokerConfig;
use evermq_daemon::cluster_topics::Readiness;
use evermq_daemon::notify;
use evermq_store::Recovered;
use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::connection::clock;

/// For a peer to answer: two attempts to connect to one that is just starting.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How often is looked.
const LOOK: Duration = Duration::from_millis(10);

/// Why it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// It has what all of them have.
    Filled,
    /// It has what those have that answer; these do not.
    Without(Vec<String>),
    /// These answer, and have not given what they have in time.
    Late(Vec<String>),
}

/// Whether the broker is ready, after it has `waited`; otherwise for whom it waits.
///
/// # Errors
/// It is not, and waits for these.
pub fn judge(peers: &[Filling], waited: Duration, limit: Duration) -> Result<Joined, Vec<String>> {
    let names = |wanted: &dyn Fn(&Filling) -> bool| -> Vec<String> {
        peers.iter().filter(|peer| wanted(peer)).map(|peer| peer.name.clone()).collect()
    };
    let missing = names(&|peer| !peer.is_filled);
    let owing = names(&|peer| !peer.is_filled && peer.answers);
    if missing.is_empty() {
        Ok(Joined::Filled)
    } else if owing.is_empty() && waited >= ANSWER_WITHIN.min(limit) {
        Ok(Joined::Without(missing))
    } else if !owing.is_empty() && waited >= limit {
        Ok(Joined::Late(owing))
    } else {
        Err(missing)
    }
}

/// How long at most this broker waits, if it is new to its cluster.
#[must_use]
pub fn limit(config: &BrokerConfig, recovered: &Recovered) -> Option<Duration> {
    let is_new = !config.peers.is_empty() && recovered.sessions.is_empty() && recovered.mesh.applied.is_empty();
    is_new.then_some(config.broker.join_timeout)
}

/// Where there is a limit, nobody is let in until [`spawn`] has it so.
pub fn begin(broker: &Broker, limit: Option<Duration>) {
    if limit.is_some() {
        broker.gate.close("joins the cluster: waits for what the other brokers have".to_owned());
        broker.cluster.announce(Readiness::NotReady, "it is new to its cluster", clock());
    }
}

/// Says that the broker is ready, when it is. The task ends with the set.
#[must_use]
pub fn spawn(broker: &Arc<Broker>, bridge: &Arc<Bridge>, limit: Option<Duration>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    match limit {
        Some(limit) => drop(tasks.spawn(run(Arc::clone(broker), Arc::clone(bridge), limit))),
        None => notify::ready("serving MQTT clients"),
    }
    tasks
}

/// Until the broker is ready, which it then says. Cancel-safe.
async fn run(broker: Arc<Broker>, bridge: Arc<Bridge>, limit: Duration) {
    let begun = clock();
    let mut waits_for = Vec::new();
    let joined = loop {
        match judge(&bridge.filling(), clock().saturating_duration_since(begun), limit) {
            Ok(joined) => break joined,
            Err(missing) if missing != waits_for => {
                let text = format!("joins the cluster: waits for what {} has", missing.join(", "));
                notify::status(&text);
                broker.gate.close(text);
                waits_for = missing;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    };
    let milliseconds = clock().saturating_duration_since(begun).as_millis();
    let reason = match &joined {
        Joined::Filled => "it has what the other brokers have",
        Joined::Without(_) => "it has what those brokers have that answer",
        Joined::Late(_) => "join_timeout is over",
    };
    match &joined {
        Joined::Filled => tracing::info!(milliseconds, "joined the cluster"),
        Joined::Without(away) => {
            tracing::info!(
                milliseconds,
                away = away.join(" "),
                "joined the cluster without brokers that do not answer"
            );
        }
        Joined::Late(owing) => tracing::warn!(
            milliseconds,
            missing = owing.join(" "),
            "clients are let in without all that these brokers have: they answer, and have not given it within \
             broker.join_timeout; if they do not know this host, reload them with the cluster file that has it"
        ),
    }
    broker.gate.open();
    if !broker.drain.is_wanted() {
        broker.cluster.announce(Readiness::Ready, reason, clock());
    }
    notify::ready("serving MQTT clients");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn peer(name: &str, answers: bool, is_filled: bool) -> Filling {
        Filling { name: name.to_owned(), answers, is_filled }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_whole_table() {
        let (full, owing, away) = (peer("full", true, true), peer("owing", true, false), peer("away", false, false));
        let none = Duration::ZERO;
        let late = LIMIT;
        let cases = [
            (vec![], none, Ok(Joined::Filled)),
            (vec![full.clone()], none, Ok(Joined::Filled)),
            (vec![away.clone()], none, Err(names(&["away"]))),
            (vec![away.clone()], ANSWER_WITHIN, Ok(Joined::Without(names(&["away"])))),
            (vec![full.clone(), away.clone()], none, Err(names(&["away"]))),
            (vec![full.clone(), away.clone()], ANSWER_WITHIN, Ok(Joined::Without(names(&["away"])))),
            (vec![owing.clone(), away.clone()], ANSWER_WITHIN, Err(names(&["owing", "away"]))),
            (vec![owing.clone(), full.clone()], ANSWER_WITHIN, Err(names(&["owing"]))),
            (vec![owing.clone(), away.clone()], late, Ok(Joined::Late(names(&["owing"])))),
            (vec![owing, full], late, Ok(Joined::Late(names(&["owing"])))),
        ];
        for (peers, waited, expected) in cases {
            assert_eq!(judge(&peers, waited, LIMIT), expected, "{peers:?} after {waited:?}");
        }
        assert_eq!(judge(&[away], none, Duration::ZERO), Ok(Joined::Without(names(&["away"]))), "who is not to wait");
    }
}
