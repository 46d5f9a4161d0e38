//! The new process's side: drives [`Takeover`] with the old process at the other end.
//!
//! First [`meet`], or [`find`] where systemd has restarted the unit, before anything is bound; then, once this process could serve, [`Predecessor::succeed`], one future on the
//! control thread.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use evermq_daemon::control;

use super::bequest;
use super::channel::{Channel, ChannelError, Frame, Left};
use super::handover::START;
use super::message::{
    Batch, Begin, ControlClient, Hello, Message, Offer, Record, RefusedConnection, Socket, Took, Word,
};
use super::parcel::{self, Carried};
use super::takeover::{Action, Event, Takeover};

/// For the backends, where nobody serves until this process does.
const ALONE: Duration = Duration::from_millis(500);

/// What the new process can do with what it is given.
pub(crate) trait Heir {
    /// Waits until this process could serve: its workers turn, and those backends are up for it, too.
    fn prepare(&mut self, up: &[String]) -> impl Future<Output = Result<(), String>> + Send;
    /// Accepts, and answers on the control socket, also to those who had connected before.
    fn take_charge(&mut self, clients: Vec<control::Client>, words: Vec<Word>) -> impl Future<Output = ()> + Send;
    /// Why that connection cannot be served here.
    fn objection(&self, record: &Record) -> Option<String>;
    /// Serves them, whatever has happened in the meantime.
    fn import(&mut self, connections: Vec<Carried>) -> impl Future<Output = ()> + Send;
    /// This process is the program now.
    fn settle(&mut self) -> impl Future<Output = ()> + Send;
    /// The old process has ended.
    fn farewell(&mut self) -> impl Future<Output = ()> + Send;
}

/// Why this process does not succeed another one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    /// The channel.
    #[error("cannot take over from the process before: {0}")]
    Channel(#[from] ChannelError),
    /// The channel's socket.
    #[error("cannot take over from the process before: {0}")]
    Io(#[from] io::Error),
    /// It is late.
    #[error("the process before has not offered anything within {} s", START.as_secs())]
    Slow,
    /// It says something else.
    #[error("the process before does not offer anything: {0}")]
    Strange(String),
    /// This process is not to serve.
    #[error("the process before goes on: {0}")]
    NotNeeded(String),
}

/// The process before this one.
#[derive(Debug)]
pub(crate) struct Predecessor {
    machine: Takeover,
    channel: Left,
    up: Vec<String>,
    /// It has ended, and left what it had.
    gone: bool,
}

/// The sockets that it listens on.
#[derive(Debug, Default)]
pub(crate) struct Sockets(Vec<(Socket, OwnedFd)>);

/// Says hello, and takes what is offered. Blocks.
///
/// # Errors
/// See [`TakeError`].
pub(crate) fn meet(channel: OwnedFd) -> Result<(Predecessor, Sockets), TakeError> {
    open(|| Channel::new(channel), false)
}

/// What the process before has left, where systemd has restarted the unit. Blocks.
///
/// # Errors
/// See [`TakeError`]; it is lost.
pub(crate) fn find() -> Result<Option<(Predecessor, Sockets)>, TakeError> {
    bequest::receive()?.map(|left| open(|| left.enter(), true)).transpose()
}

fn open(channel: impl FnOnce() -> io::Result<Channel>, gone: bool) -> Result<(Predecessor, Sockets), TakeError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut channel = channel()?;
        let offered = tokio::time::timeout(START, hear_offer(&mut channel)).await.map_err(|_| TakeError::Slow)?;
        let (machine, offer, sockets) = offered?;
        let sockets = Sockets(offer.sockets.into_iter().zip(sockets).collect());
        Ok((Predecessor { machine, channel: channel.leave(), up: offer.up, gone }, sockets))
    })
}

async fn hear_offer(channel: &mut Channel) -> Result<(Takeover, Offer, Vec<OwnedFd>), TakeError> {
    let mut machine = Takeover::new();
    // To greet is the first thing, and the only one before an offer.
    let _ = machine.poll_action();
    match channel.send(&Message::Hello(Hello::ours()), &[], &[]).await {
        // What it has said before its end is still to be read.
        Ok(()) | Err(ChannelError::Ended) => {}
        Err(error) => return Err(error.into()),
    }
    let Frame { message, descriptors, .. } = channel.receive().await?;
    let Message::Offer(offer) = message else { return Err(TakeError::Strange(format!("{message:?}"))) };
    if offer.sockets.len() != descriptors.len() {
        return Err(TakeError::Channel(ChannelError::Missing));
    }
    machine.handle_event(Event::Offer);
    // To prepare: what the caller does until it calls `succeed` or `refuse`.
    let _ = machine.poll_action();
    Ok((machine, offer, descriptors))
}

impl Sockets {
    /// Those of a listener with that address; where that leaves the port open, of that name.
    pub(crate) fn clients(&mut self, listener: &str, wanted: SocketAddr) -> Vec<std::net::TcpListener> {
        let found = self.take(|socket| match socket {
            Socket::Clients { name, address } if wanted.port() == 0 => name == listener && address.ip() == wanted.ip(),
            Socket::Clients { address, .. } => *address == wanted,
            _ => false,
        });
        found.into_iter().map(Into::into).collect()
    }

    /// The control socket of that path.
    pub(crate) fn control(&mut self, wanted: &Path) -> Option<UnixListener> {
        let found = self.take(|socket| matches!(socket, Socket::Control { path } if Path::new(path) == wanted));
        found.into_iter().next().map(Into::into)
    }

    /// Where other lbs connect.
    pub(crate) fn peers(&mut self, wanted: SocketAddr) -> Option<std::net::TcpListener> {
        let found = self.take(|socket| matches!(socket, Socket::Peers { address } if *address == wanted));
        found.into_iter().next().map(Into::into)
    }

    /// Those of clients that nobody has asked for.
    pub(crate) fn rest(&mut self) -> Vec<std::net::TcpListener> {
        let found = self.take(|socket| matches!(socket, Socket::Clients { .. }));
        found.into_iter().map(Into::into).collect()
    }

    fn take(&mut self, wanted: impl Fn(&Socket) -> bool) -> Vec<OwnedFd> {
        self.0.extract_if(.., |(socket, _)| wanted(socket)).map(|(_, socket)| socket).collect()
    }
}

impl Predecessor {
    /// Whether it has ended, and left what it had.
    pub(crate) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// This process cannot serve: the other one goes on.
    pub(crate) fn refuse(self, reason: &str) {
        let Self { mut machine, channel, .. } = self;
        machine.handle_event(Event::Prepared(Err(reason.to_owned())));
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        runtime.block_on(async {
            // Without these words its end says enough.
            if let (Some(Action::Refuse(reason)), Ok(mut channel)) = (machine.poll_action(), channel.enter()) {
                let _ = channel.send(&Message::Refused { reason }, &[], &[]).await;
            }
        });
    }

    /// Takes over, and waits for the end of the other process. Gives its outcome early only where this process is not to
    /// serve.
    ///
    /// # Errors
    /// The other process goes on.
    pub(crate) async fn succeed(self, heir: &mut impl Heir) -> Result<(), TakeError> {
        let Self { mut machine, channel, up, gone } = self;
        let mut link =
            Link { channel: channel.enter()?, clients: Vec::new(), words: Vec::new(), batches: HashMap::new() };
        let prepared = if gone {
            if tokio::time::timeout(ALONE, heir.prepare(&up)).await.is_err() {
                tracing::warn!(?up, "serving, although not all that were up are so already");
            }
            Ok(())
        } else {
            heir.prepare(&up).await
        };
        machine.handle_event(Event::Prepared(prepared));
        loop {
            while let Some(action) = machine.poll_action() {
                if matches!(action, Action::Farewell) {
                    heir.farewell().await;
                    return Ok(());
                }
                link.act(action, heir).await?;
            }
            let event = match link.channel.receive().await {
                Ok(frame) => link.hear(frame),
                Err(ChannelError::Ended) => Event::Lost,
                Err(error) if machine.in_charge() => {
                    tracing::error!(%error, "the process before is not understood any more: it is left alone");
                    Event::Lost
                }
                Err(error) => Event::Strange(error.to_string()),
            };
            machine.handle_event(event);
        }
    }
}

/// The channel, and what has come over it and is not dealt with.
struct Link {
    channel: Channel,
    clients: Vec<control::Client>,
    words: Vec<Word>,
    batches: HashMap<u64, Vec<Carried>>,
}

impl Link {
    fn hear(&mut self, frame: Frame) -> Event {
        let Frame { message, raw, descriptors } = frame;
        match message {
            Message::Begin(Begin { control, words }) => match control_clients(control, &raw, descriptors) {
                Some(clients) => {
                    (self.clients, self.words) = (clients, words);
                    Event::Begin
                }
                None => Event::Strange("what it says of the control socket does not fit together".to_owned()),
            },
            Message::Batch(Batch { batch, connections }) => match parcel::unpack(connections, &raw, descriptors) {
                Ok(connections) => {
                    self.batches.insert(batch, connections);
                    Event::Batch(batch)
                }
                Err(error) => {
                    tracing::error!(%error, "connections are lost");
                    Event::Strange(error.to_string())
                }
            },
            Message::Settled => Event::Settled,
            // A later version may say more than this one knows; what matters, it says in words of the common version.
            Message::Unknown => {
                tracing::debug!("the process before says something that is not known here");
                Event::Strange("it says something that is not known here".to_owned())
            }
            other => Event::Strange(format!("it says what only the new process says: {other:?}")),
        }
    }

    async fn act(&mut self, action: Action, heir: &mut impl Heir) -> Result<(), TakeError> {
        match action {
            Action::Ready => self.say(&Message::Ready).await,
            Action::Refuse(reason) => self.say(&Message::Refused { reason }).await,
            Action::Began => self.say(&Message::Began).await,
            Action::TakeCharge => {
                heir.take_charge(std::mem::take(&mut self.clients), std::mem::take(&mut self.words)).await;
            }
            Action::Took(batch) => self.take(batch, heir).await,
            Action::Import(batch) => {
                if let Some(connections) = self.batches.remove(&batch) {
                    heir.import(connections).await;
                }
            }
            Action::Settle => heir.settle().await,
            Action::Exit(reason) => return Err(TakeError::NotNeeded(reason)),
            // These were done by `meet`, and by the caller.
            Action::Greet | Action::Prepare | Action::Farewell => {}
        }
        Ok(())
    }

    /// Writes the deed of a batch, without what has to stay.
    async fn take(&mut self, batch: u64, heir: &impl Heir) {
        let Some(connections) = self.batches.get_mut(&batch) else { return };
        let mut refused = Vec::new();
        for (index, connection) in connections.iter().enumerate() {
            if let Some(reason) = heir.objection(&connection.record) {
                refused.push(RefusedConnection { index, reason });
            }
        }
        let mut index = 0;
        connections.retain(|_| {
            index += 1;
            !refused.iter().any(|refused| refused.index == index - 1)
        });
        self.say(&Message::Took(Took { batch, refused })).await;
    }

    /// Where the other process has ended, what it gave is this one's all the same; the channel says so next.
    async fn say(&mut self, message: &Message) {
        if let Err(error) = self.channel.send(message, &[], &[]).await {
            tracing::debug!(%error, "the process before was not told");
        }
    }
}

/// Who is connected to the control socket; none if it does not fit together.
fn control_clients(control: Vec<ControlClient>, raw: &[u8], descriptors: Vec<OwnedFd>) -> Option<Vec<control::Client>> {
    if control.len() != descriptors.len() {
        return None;
    }
    let mut rest = raw;
    let mut take = |length: usize| {
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(bytes.to_vec())
    };
    let mut clients = Vec::with_capacity(descriptors.len());
    for (client, stream) in control.into_iter().zip(descriptors) {
        let (received, unsent) = (take(client.received)?, take(client.unsent)?);
        clients.push(control::Client { stream: UnixStream::from(stream), received, unsent, watches: client.watches });
    }
    Some(clients)
}
