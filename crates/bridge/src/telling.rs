//! Tells peers of clients and of groups: drives [`Outbox`] and [`groups::Outbox`].

use std::sync::Arc;

use bytes::BytesMut;
use evermq_mqtt::Text;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::claim::{Action, Claim, Outbox};
use crate::frame::{self, Frame, claim, group};
use crate::groups;
use crate::mesh::Mesh;
use crate::roster::PeerSlot;

/// Something is added while less than this waits to be sent.
const ROOM: usize = 64 * 1024;

/// What one peer is still to be told, shared between those who let clients in and its dialer.
#[derive(Default)]
pub(crate) struct Tellings {
    outbox: Mutex<Outbox>,
    groups: Mutex<groups::Outbox>,
    news: Notify,
}

impl Tellings {
    /// The peer, which speaks that minor of the protocol, can be told from now on.
    pub(crate) fn begin(&self, minor: u8) {
        if minor >= claim::SINCE_MINOR {
            self.outbox.lock().handle_up();
        }
        if minor >= group::SINCE_MINOR {
            self.groups.lock().handle_up();
        }
    }

    /// It can be told no longer.
    pub(crate) fn end(&self) {
        self.outbox.lock().handle_down();
        self.groups.lock().handle_down();
    }

    /// One claim more.
    pub(crate) fn add(&self, claim: &Arc<Claim>) {
        if self.outbox.lock().handle_claim(claim) {
            self.news.notify_one();
        }
    }

    /// The members of a group have changed.
    pub(crate) fn add_group(&self, filter: &Text) {
        if self.groups.lock().handle_change(filter) {
            self.news.notify_one();
        }
    }

    /// Waits until there is something to tell; may return early. Cancel-safe.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }
}

/// Puts what a peer is to be told on its connection.
#[derive(Default)]
pub(crate) struct Teller {
    /// What is left of everybody.
    everybody: std::vec::IntoIter<Claim>,
    /// What is left of all groups; `None` if the peer has been told that these were all.
    groups: Option<std::vec::IntoIter<Text>>,
}

impl Teller {
    /// Appends to `out` as long as there is room. Whoever sends calls it again when that is sent.
    pub(crate) fn write(&mut self, mesh: &Mesh, peer: &PeerSlot, max_body: u32, out: &mut BytesMut) {
        self.write_claims(mesh, peer, max_body, out);
        self.write_groups(mesh, peer, max_body, out);
    }

    fn write_groups(&mut self, mesh: &Mesh, peer: &PeerSlot, max_body: u32, out: &mut BytesMut) {
        let Some(groups) = mesh.groups.get() else { return };
        let put = |filter: Text, out: &mut BytesMut| {
            let members = groups.members(&filter);
            let group = frame::Group { filter, members };
            if group::group_body(&group) <= max_body as usize {
                frame::encode(&Frame::Group(group), out);
            }
        };
        while out.len() < ROOM {
            if let Some(left) = &mut self.groups {
                if let Some(filter) = left.next() {
                    put(filter, out);
                } else {
                    self.groups = None;
                    frame::encode(&Frame::Groups { is_complete: true }, out);
                }
                continue;
            }
            let action = peer.claims.groups.lock().poll_action();
            match action {
                Some(groups::Action::One(filter)) => put(filter, out),
                Some(groups::Action::All) => {
                    frame::encode(&Frame::Groups { is_complete: false }, out);
                    self.groups = Some(groups.filters().into_iter());
                }
                None => return,
            }
        }
    }

    fn write_claims(&mut self, mesh: &Mesh, peer: &PeerSlot, max_body: u32, out: &mut BytesMut) {
        while out.len() < ROOM {
            if let Some(claim) = self.everybody.next() {
                put(&claim, max_body, out);
                continue;
            }
            let action = peer.claims.outbox.lock().poll_action();
            match action {
                Some(Action::One(claim)) => put(&claim, max_body, out),
                Some(Action::Everybody) => {
                    let everybody = mesh.clients.get().map(|clients| clients.connected());
                    self.everybody = everybody.unwrap_or_default().into_iter();
                }
                None => return,
            }
        }
    }
}

/// One that the peer cannot take is left out: its client could not connect there either.
fn put(claim: &Claim, max_body: u32, out: &mut BytesMut) {
    let Claim { client_id, user, stamp, clean_start } = claim;
    let user = user.as_deref().map(Text::new).transpose();
    // A user whose name cannot be told must not be taken for nobody.
    let Ok(user) = user else { return };
    let claim = frame::Claim { time: stamp.time, clean_start: *clean_start, client_id: client_id.clone(), user };
    if claim::body(&claim) <= max_body as usize {
        frame::encode(&Frame::Claim(claim), out);
    }
}
