//! Following one client's packets as they come and go, for an operator (`evermq trace`).
//!
//! A connection of a client that nobody follows looks at one flag of its own for each turn, and that is all. Lines wait in a
//! queue of [`DEPTH`]; what a slow reader makes overflow is counted and said, and holds up nobody. What a packet shows is in
//! [`packet`]: never a payload unless it is asked for, never a password or what AUTH carries.

pub mod packet;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use evermq_mqtt::Text;
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Lines that wait for their reader: some seconds of a busy client.
pub const DEPTH: usize = 4096;
/// Followers at once; each costs the client that it follows.
pub const MOST: usize = 16;

/// Who is followed, and by whom.
#[derive(Debug, Default)]
pub struct Tracer {
    /// How many there are: none as a rule, and then there is nothing to look up.
    active: AtomicUsize,
    next: AtomicU64,
    followers: Mutex<HashMap<Text, Vec<Follower>>>,
}

#[derive(Debug)]
struct Follower {
    number: u64,
    payloads: bool,
    lines: mpsc::Sender<Value>,
    dropped: u64,
}

/// Somebody follows a client until this is dropped.
#[derive(Debug)]
pub struct Following {
    tracer: Arc<Tracer>,
    client_id: Text,
    number: u64,
}

/// There are [`MOST`] already.
#[derive(Debug, thiserror::Error)]
#[error("{MOST} traces run already; end one first")]
pub struct TooMany;

impl Tracer {
    /// Follows the client, which need not be connected yet.
    ///
    /// # Errors
    /// Too many are followed already.
    pub fn follow(
        self: &Arc<Self>,
        client_id: &Text,
        payloads: bool,
    ) -> Result<(Following, mpsc::Receiver<Value>), TooMany> {
        let (lines, receiver) = mpsc::channel(DEPTH);
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut followers = self.followers.lock();
        if self.active.load(Ordering::Relaxed) >= MOST {
            return Err(TooMany);
        }
        self.active.fetch_add(1, Ordering::Relaxed);
        let client_id = client_id.detached();
        followers.entry(client_id.clone()).or_default().push(Follower { number, payloads, lines, dropped: 0 });
        Ok((Following { tracer: Arc::clone(self), client_id, number }, receiver))
    }

    /// Whether somebody follows the client.
    #[must_use]
    pub fn is_followed(&self, client_id: &Text) -> bool {
        self.active.load(Ordering::Relaxed) > 0 && self.followers.lock().contains_key(client_id)
    }

    /// Tells the client's followers. The line is made for each, for not everybody wants payloads (its argument).
    pub fn tell(&self, client_id: &Text, line: impl Fn(bool) -> Value) {
        let mut followers = self.followers.lock();
        for follower in followers.get_mut(client_id).into_iter().flatten() {
            follower.tell(&line);
        }
    }
}

impl Follower {
    fn tell(&mut self, line: &impl Fn(bool) -> Value) {
        // What was lost is said before what comes after it.
        if self.dropped > 0 {
            let lost = json!({ "event": "lines lost", "count": self.dropped });
            if self.lines.try_send(lost).is_err() {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        if self.lines.capacity() == 0 || self.lines.try_send(line(self.payloads)).is_err() {
            self.dropped += 1;
        }
    }
}

impl Following {
    /// The client.
    #[must_use]
    pub fn client_id(&self) -> &Text {
        &self.client_id
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut followers = self.tracer.followers.lock();
        if let Some(of_client) = followers.get_mut(&self.client_id) {
            of_client.retain(|follower| follower.number != self.number);
            if of_client.is_empty() {
                followers.remove(&self.client_id);
            }
        }
        self.tracer.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::new(text).unwrap()
    }

    #[test]
    fn only_the_followed_client_is_told_of() {
        let tracer = Arc::new(Tracer::default());
        let (following, mut lines) = tracer.follow(&text("a"), false).unwrap();
        let (_with_payloads, mut more) = tracer.follow(&text("a"), true).unwrap();
        assert_eq!(["a", "b"].map(|id| tracer.is_followed(&text(id))), [true, false]);
        tracer.tell(&text("b"), |_| json!("b"));
        tracer.tell(&text("a"), |payloads| json!(payloads));
        assert_eq!((lines.try_recv().unwrap(), more.try_recv().unwrap()), (json!(false), json!(true)));
        assert!(lines.try_recv().is_err());
        drop(following);
        assert!(tracer.is_followed(&text("a")));
        drop(_with_payloads);
        assert!(!tracer.is_followed(&text("a")));
        assert!(more.try_recv().is_err());
    }

    #[test]
    fn what_a_slow_reader_misses_is_counted() {
        let tracer = Arc::new(Tracer::default());
        let (_following, mut lines) = tracer.follow(&text("a"), false).unwrap();
        for number in 0..DEPTH + 5 {
            tracer.tell(&text("a"), |_| json!(number));
        }
        for number in 0..DEPTH {
            assert_eq!(lines.try_recv().unwrap(), json!(number));
        }
        assert!(lines.try_recv().is_err());
        tracer.tell(&text("a"), |_| json!("after"));
        assert_eq!(lines.try_recv().unwrap(), json!({ "event": "lines lost", "count": 5 }));
        assert_eq!(lines.try_recv().unwrap(), json!("after"));
    }

    #[test]
    fn followers_are_bounded() {
        let tracer = Arc::new(Tracer::default());
        let all: Vec<_> = (0..MOST).map(|_| tracer.follow(&text("a"), false).unwrap()).collect();
        assert!(tracer.follow(&text("b"), false).is_err());
        drop(all);
        assert!(tracer.follow(&text("b"), false).is_ok());
    }
}
