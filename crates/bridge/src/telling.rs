//! Tells peers of clients: drives [`Outbox`].

use std::sync::Arc;

use bytes::BytesMut;
use evermq_mqtt::Text;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::claim::{Action, Claim, Outbox};
use crate::frame::{self, Frame, claim};
use crate::mesh::Mesh;
use crate::roster::PeerSlot;

/// Claims are added while less than this waits to be sent.
const ROOM: usize = 64 * 1024;

/// What one peer is still to be told, shared between those who let clients in and its dialer.
#[derive(Default)]
pub(crate) struct Tellings {
    outbox: Mutex<Outbox>,
    news: Notify,
}

impl Tellings {
    /// The peer can be told from now on.
    pub(crate) fn begin(&self) {
        self.outbox.lock().handle_up();
    }

    /// It can be told no longer.
    pub(crate) fn end(&self) {
        self.outbox.lock().handle_down();
    }

    /// One claim more.
    pub(crate) fn add(&self, claim: &Arc<Claim>) {
        if self.outbox.lock().handle_claim(claim) {
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
}

impl Teller {
    /// Appends to `out` as long as there is room. Whoever sends calls it again when that is sent.
    pub(crate) fn write(&mut self, mesh: &Mesh, peer: &PeerSlot, max_body: u32, out: &mut BytesMut) {
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
