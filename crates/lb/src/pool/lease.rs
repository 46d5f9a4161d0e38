//! What a client holds of a backend; all of it gives itself back.

use std::sync::Arc;

use super::Member;

/// A client's place at a backend; gives it back when dropped.
#[derive(Debug)]
pub struct Lease {
    member: Arc<Member>,
    generation: u64,
    index: u32,
    /// It counts as a handshake under way.
    handshaking: bool,
}

impl Lease {
    /// For a member of which all has been taken that a new connection needs.
    pub(super) fn new(member: &Arc<Member>, index: usize, generation: u64) -> Self {
        let mut lease = Self::adopted(member, index, generation);
        lease.handshaking = true;
        lease
    }

    /// For a member of which a connection's place has been taken.
    pub(super) fn adopted(member: &Arc<Member>, index: usize, generation: u64) -> Self {
        let index = u32::try_from(index).expect("a file with fewer than 2^32 backends");
        Self { member: Arc::clone(member), generation, index, handshaking: false }
    }

    /// The backend's index in the pool that chose it.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index as usize
    }

    /// The backend.
    #[must_use]
    pub const fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Whether the backend went down since it was chosen.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.member.generation() != self.generation
    }

    /// The connection has been made.
    pub fn begin(&self) {
        self.member.count();
    }

    /// The handshake is over: somebody else may begin one.
    pub fn handshaken(&mut self) {
        if self.give_back_handshake() {
            self.member.count_answered();
        }
    }

    /// Whether there was one to give back.
    fn give_back_handshake(&mut self) -> bool {
        let was_handshaking = std::mem::replace(&mut self.handshaking, false);
        if was_handshaking {
            self.member.give_back_handshake();
        }
        was_handshaking
    }

    /// The handshake takes too long: it counts no more, so that clients that do not end theirs keep nobody else out.
    pub fn abandon_handshake(&mut self) {
        if std::mem::replace(&mut self.handshaking, false) {
            self.member.give_back_handshake();
        }
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub const fn is_handshaking(&self) -> bool {
        self.handshaking
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.give_back_handshake();
        self.member.give_back_connection();
    }
}
