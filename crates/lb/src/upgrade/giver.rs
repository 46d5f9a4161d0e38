//! The old process's side: drives [`Handover`] with a real process at the other end.
//!
//! One future, on the control thread; it spawns nothing but the wait for a process that was killed.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::{Duration, Instant};

use evermq_daemon::control;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::channel::{self, Channel, ChannelError, Frame};
use super::handover::{Action, Event, Handover, Outcome, STEP};
use super::message::{Batch, Begin, ControlClient, Message, Offer, RefusedConnection, Word};
use super::parcel::{self, Carried};
use super::program::{CHECK, Program, ProgramError};
use crate::engine::moving::Exported;

/// Connections in one batch. It is as long as a client waits at worst, so not as many as there could be.
pub(crate) const BATCH: usize = 64;

/// What the old process has, and how it lets go of it.
pub(crate) trait Holdings {
    /// Every socket that listens, in copies, and what else the new process must know.
    fn offer(&mut self) -> impl Future<Output = io::Result<(Offer, Vec<OwnedFd>)>> + Send;
    /// Accepts no more, and leaves those who are connected to the control socket unanswered.
    fn suspend(&mut self) -> impl Future<Output = ()> + Send;
    /// Who those are.
    fn control_clients(&self) -> &[control::Client];
    /// What operators have said of backends.
    fn words(&self) -> Vec<Word>;
    /// Accepts and answers again.
    fn resume(&mut self) -> impl Future<Output = ()> + Send;
    /// Takes connections that relay from the workers.
    fn export(&mut self, most: usize) -> impl Future<Output = Exported> + Send;
    /// Has the workers serve connections again; those that `stay` are not exported any more.
    fn take_back(&mut self, connections: Vec<Carried>, stay: bool) -> impl Future<Output = ()> + Send;
    /// That process is the program now: closes what listens.
    fn settle(&mut self, successor: u32) -> impl Future<Output = ()> + Send;
}

/// What was handed over when the new process was on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The new process.
    pub(crate) process: u32,
    /// Connections that were moved.
    pub(crate) moved: usize,
    /// Connections that end with the old process, or move later.
    pub(crate) left: usize,
    /// From the first step after it was ready.
    pub(crate) took: Duration,
    /// The longest that one batch was nobody's.
    pub(crate) longest: Duration,
}

/// Why there is nothing to drive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GiveError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("cannot make a channel to the new process: {0}")]
    Io(#[from] io::Error),
}

/// One upgrade.
pub(crate) struct Giver<H> {
    holdings: H,
    channel: Channel,
    child: Child,
    machine: Handover,
    copies: HashMap<u64, Sent>,
    summary: Summary,
    began: Option<Instant>,
    /// Who asked.
    answer: Option<oneshot::Sender<Result<Summary, String>>>,
}

/// A batch that there is no deed for yet.
struct Sent {
    connections: Vec<Carried>,
    since: Instant,
}

impl<H: Holdings> Giver<H> {
    /// Has the new program checked, and starts it.
    ///
    /// # Errors
    /// It does not start, or finds something wrong.
    pub(crate) async fn start(
        program: &Program,
        holdings: H,
        answer: oneshot::Sender<Result<Summary, String>>,
    ) -> Result<Self, (GiveError, oneshot::Sender<Result<Summary, String>>)> {
        match start(program).await {
            Ok((channel, child)) => Ok(Self::new(channel, child, holdings, answer)),
            Err(error) => Err((error, answer)),
        }
    }

    fn new(channel: Channel, child: Child, holdings: H, answer: oneshot::Sender<Result<Summary, String>>) -> Self {
        let summary = Summary { process: child.id(), moved: 0, left: 0, took: Duration::ZERO, longest: Duration::ZERO };
        Self {
            holdings,
            channel,
            child,
            machine: Handover::new(clock()),
            copies: HashMap::new(),
            summary,
            began: None,
            answer: Some(answer),
        }
    }

    /// To the end, or until this process is told to stop while the new one is not in charge yet.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Outcome {
        loop {
            while let Some(action) = self.machine.poll_action() {
                if let Some(outcome) = self.act(action).await {
                    return outcome;
                }
            }
            let due = self.machine.poll_timeout();
            tokio::select! {
                frame = self.channel.receive() => self.hear(frame).await,
                () = expiry(due) => self.machine.handle_timeout(clock()),
                () = stop.cancelled(), if !self.machine.is_settled() && !self.machine.is_doomed() => {
                    let event = Event::Strange("this process was told to stop".to_owned());
                    self.machine.handle_event(event, clock());
                }
            }
        }
    }

    async fn hear(&mut self, frame: Result<Frame, ChannelError>) {
        let event = match frame.map(|frame| frame.message) {
            Ok(Message::Hello(hello)) => match hello.common() {
                Some(_) => Event::Hello,
                None => Event::Strange(format!(
                    "version {} speaks of upgrades in other words (versions {} to {} of the protocol)",
                    hello.program, hello.oldest, hello.newest
                )),
            },
            Ok(Message::Ready) => {
                self.began = Some(clock());
                Event::Ready
            }
            Ok(Message::Refused { reason }) => Event::Refused(reason),
            Ok(Message::Began) => Event::Began,
            Ok(Message::Took(took)) => {
                self.settle_batch(took.batch, took.refused).await;
                Event::Took(took.batch)
            }
            Ok(other) => Event::Strange(format!("it says what only the old process says: {other:?}")),
            Err(ChannelError::Ended) => Event::Lost,
            Err(error) => {
                // What comes after that cannot be understood either: it is as good as gone, and must be.
                self.kill();
                tracing::warn!(%error, "the new process is not understood");
                Event::Lost
            }
        };
        self.machine.handle_event(event, clock());
    }

    async fn act(&mut self, action: Action) -> Option<Outcome> {
        match action {
            Action::Offer => self.offer().await,
            Action::Suspend => {
                self.holdings.suspend().await;
                self.machine.handle_event(Event::Suspended, clock());
            }
            Action::Begin => self.begin().await,
            Action::Export { batch } => self.export(batch).await,
            Action::Release(batch) => drop(self.copies.remove(&batch)),
            Action::TakeBack(batch) => {
                if let Some(sent) = self.copies.remove(&batch) {
                    self.holdings.take_back(sent.connections, false).await;
                }
            }
            Action::Settle => self.settle().await,
            Action::Kill => self.kill(),
            Action::Resume => self.holdings.resume().await,
            Action::End(outcome) => return Some(self.end(outcome).await),
        }
        None
    }

    async fn offer(&mut self) {
        match self.holdings.offer().await {
            Ok((offer, sockets)) => {
                let sockets: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
                send(&mut self.channel, &mut self.machine, &Message::Offer(offer), &[], &sockets).await;
            }
            Err(error) => {
                let event = Event::Strange(format!("this system has no descriptors for an upgrade: {error}"));
                self.machine.handle_event(event, clock());
            }
        }
    }

    async fn begin(&mut self) {
        let (begin, raw, sockets) = begin(&self.holdings);
        send(&mut self.channel, &mut self.machine, &begin, &raw, &sockets).await;
    }

    async fn export(&mut self, batch: u64) {
        let since = clock();
        let Exported { connections, left } = self.holdings.export(BATCH).await;
        self.summary.left = left;
        let moved = connections.len();
        self.machine.handle_event(Event::Exported { moved, left }, clock());
        if moved > 0 {
            let (records, raw, sockets) = parcel::pack(&connections);
            let message = Message::Batch(Batch { batch, connections: records });
            send(&mut self.channel, &mut self.machine, &message, &raw, &sockets).await;
            drop(sockets);
            self.copies.insert(batch, Sent { connections, since });
        }
    }

    /// There is a deed: closes this process's copies of what was taken, and serves the rest again.
    async fn settle_batch(&mut self, batch: u64, refused: Vec<RefusedConnection>) {
        let Some(Sent { connections, since }) = self.copies.get_mut(&batch) else { return };
        let mut stay = Vec::new();
        let mut refused: Vec<_> = refused.into_iter().filter(|refused| refused.index < connections.len()).collect();
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.index));
        refused.dedup_by_key(|refused| refused.index);
        for RefusedConnection { index, reason } in refused {
            let connection = connections.swap_remove(index);
            tracing::info!(client = %connection.record.client, %reason, "a connection ends with the old process");
            stay.push(connection);
        }
        self.summary.moved += connections.len();
        self.summary.longest = self.summary.longest.max(clock().saturating_duration_since(*since));
        if !stay.is_empty() {
            self.holdings.take_back(stay, true).await;
        }
    }

    async fn settle(&mut self) {
        self.holdings.settle(self.summary.process).await;
        send(&mut self.channel, &mut self.machine, &Message::Settled, &[], &[]).await;
        self.summary.took = self.began.map_or(Duration::ZERO, |began| clock().saturating_duration_since(began));
        let Summary { process, moved, left, took, longest } = self.summary;
        tracing::info!(process, moved, left, ?took, longest_wait = ?longest, "the new process has taken over");
        self.reply(Ok(self.summary));
    }

    fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            tracing::debug!(%error, "the new process could not be killed");
        }
    }

    async fn end(&mut self, outcome: Outcome) -> Outcome {
        match outcome {
            Outcome::Failed(reason) => {
                let reason = format!("{reason}{}", self.exit_status().await);
                tracing::warn!(%reason, "no upgrade: this process goes on");
                self.reply(Err(reason.clone()));
                Outcome::Failed(reason)
            }
            outcome @ (Outcome::Done | Outcome::Orphaned(_)) => outcome,
        }
    }

    /// How the new process has ended, in words. It closes its end of the channel when it does.
    async fn exit_status(&mut self) -> String {
        let deadline = tokio::time::Instant::now() + STEP;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return format!(" ({status})"),
                Ok(None) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok(None) | Err(_) => return String::new(),
            }
        }
    }

    fn reply(&mut self, result: Result<Summary, String>) {
        if let Some(answer) = self.answer.take() {
            // Whoever asked has gone; the log says it as well.
            let _ = answer.send(result);
        }
    }
}

/// What the new process is told when it is in charge, with the control connections.
pub(super) fn begin(holdings: &impl Holdings) -> (Message, Vec<u8>, Vec<BorrowedFd<'_>>) {
    let clients = holdings.control_clients();
    let mut raw = Vec::new();
    for client in clients {
        raw.extend_from_slice(&client.received);
        raw.extend_from_slice(&client.unsent);
    }
    let told = |client: &control::Client| ControlClient {
        watches: client.watches,
        received: client.received.len(),
        unsent: client.unsent.len(),
    };
    let begin = Message::Begin(Begin { control: clients.iter().map(told).collect(), words: holdings.words() });
    (begin, raw, clients.iter().map(|client| client.stream.as_fd()).collect())
}

async fn start(program: &Program) -> Result<(Channel, Child), GiveError> {
    program.check(CHECK).await?;
    let (ours, theirs) = channel::pair()?;
    let channel = Channel::new(ours)?;
    let child = program.start(theirs)?;
    tracing::info!(path = %program.path().display(), process = child.id(), "upgrade: a new process has been started");
    Ok((channel, child))
}

/// Where the other process has ended, its end of the channel says so next.
async fn send(
    channel: &mut Channel,
    machine: &mut Handover,
    message: &Message,
    raw: &[u8],
    sockets: &[BorrowedFd<'_>],
) {
    let failed = match tokio::time::timeout(STEP, channel.send(message, raw, sockets)).await {
        Ok(Ok(()) | Err(ChannelError::Ended)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it does not listen".to_owned(),
    };
    machine.handle_event(Event::Strange(failed), clock());
}

async fn expiry(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
