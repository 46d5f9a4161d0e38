//! What an operator is to know of the mesh at once.

use crate::state::{BridgeState, PeerState};

/// How long a peer may be away: a restart takes less.
const AWAY_SECONDS: f64 = 10.0;

/// What is wrong and what to do about it, those who lose messages first; nothing if all is well.
pub(crate) fn of(state: &BridgeState) -> Option<String> {
    let losing = state.peers.iter().filter(|peer| peer.is_losing).map(losing);
    let is_away = |peer: &&PeerState| !peer.is_losing && peer.apart_seconds >= AWAY_SECONDS;
    let away = state.peers.iter().filter(is_away).map(away);
    let all: Vec<String> = losing.chain(away).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn losing(peer: &PeerState) -> String {
    format!(
        "{name} loses messages: more wait for it than broker.peer_queue_messages, peer_queue_bytes and peer_queue_age allow{why}; \
         bring it back, or take it out of the cluster file",
        name = peer.name,
        why = why(peer)
    )
}

fn away(peer: &PeerState) -> String {
    let what = match (peer.connected, peer.receiving) {
        (false, false) => "is away",
        (false, true) => "cannot be reached, though its messages come",
        (true, _) => "is reached, and its messages do not come",
    };
    format!(
        "{name} {what} for {seconds:.0} s{why}; {lag} messages wait for it; look at its host and at the network between, or take it \
         out of the cluster file",
        name = peer.name,
        seconds = peer.apart_seconds,
        why = why(peer),
        lag = peer.lag
    )
}

/// Why the last connection to it ended, if none is there now.
fn why(peer: &PeerState) -> String {
    let error = peer.last_error.as_deref().filter(|_| !peer.connected);
    error.map_or_else(String::new, |error| format!(" ({error})"))
}

#[cfg(test)]
mod tests;
