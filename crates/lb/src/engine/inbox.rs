//! What other threads want of a worker.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use mio::{Registry, Token, Waker};
use tokio::sync::oneshot;

use super::moving::{Exported, Import};

use super::steering::{Look, Steer};
use super::worker::{Front, Settings};
use crate::pool::Pool;

/// An order to a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// A backend went down: its connections are to be closed.
    Sweep,
    /// There is room under the connection limit again.
    Room,
    /// The limit is reached, and another worker has nobody left who could make room.
    MakeRoom,
    /// Give copies of the listeners, with the address of each by its number.
    Copies(oneshot::Sender<Vec<(u16, OwnedFd)>>),
    /// Leave clients that come in the kernel's queue until [`Order::Unhold`]; then the reply.
    Hold(oneshot::Sender<()>),
    /// Accept again.
    Unhold,
    /// Another process accepts: close the listeners without taking anybody off their queues.
    Release,
    /// Give away connections, at most so many.
    Export(usize, oneshot::Sender<Exported>),
    /// Serve these.
    Import(Vec<Import>),
    /// Close so many of the connections that relay and cannot be given away.
    Shed(usize),
    /// These settings from now on.
    Settings(Arc<Settings>),
    /// These backends from now on.
    Pool(Arc<Pool>),
    /// Accept no more, and end when the clients have left.
    Stop,
    /// Close what is left.
    Close,
    /// Tell of connections.
    Look(Look),
    /// Do something with some of them.
    Steer(Steer),
    /// The addresses, those before first and in their places.
    Fronts(Arc<[Front]>),
    /// Listen at the address of that number.
    Listen(TcpListener, u16),
    /// Have systemd keep what is listened on.
    Keep,
    /// Listen there no more.
    Unlisten(u16),
}

/// Orders that a worker has not yet taken. Each is the result of something rare, and the worker takes all of them at its
/// next turn, so their number is bounded by who may ask rather than by a limit here.
#[derive(Debug)]
pub(crate) struct Inbox {
    orders: Mutex<VecDeque<Order>>,
    waker: Waker,
}

impl Inbox {
    /// An inbox whose owner polls `registry` and is woken with `token`.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        Ok(Self { orders: Mutex::default(), waker: Waker::new(registry, token)? })
    }

    /// Gives an order. From any thread.
    pub(crate) fn post(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.wake();
    }

    /// Has the worker take a turn.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a worker cannot be woken: it sees orders at its next beat");
        }
    }

    /// The orders, the oldest first.
    pub(crate) fn take(&self) -> VecDeque<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
