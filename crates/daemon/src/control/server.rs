//! Serving the control socket, and passing it on to another process.
//!
//! Who has not been answered yet, or watches the health, passes with the socket: neither notices. Who is being answered is
//! answered by the process that he asked.

use std::io;
use std::os::fd::{AsFd as _, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Answer, Control, MAX_CLIENTS, MAX_REQUEST};
use crate::health::{HEALTH_BEAT, HealthLine};
use crate::{events, limits, process};

/// How long accepting rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks whether everybody who can be passed on has stopped.
const TURN: Duration = Duration::from_millis(1);

/// A control socket with those that are connected to it.
#[derive(Debug)]
pub struct Estate {
    /// Where they connect.
    pub listener: UnixListener,
    /// Who is connected and can be passed on.
    pub clients: Vec<Client>,
}

/// One connection that can be passed on.
#[derive(Debug)]
pub struct Client {
    /// The connection; does not block.
    pub stream: UnixStream,
    /// Of a request that is not whole yet.
    pub received: Vec<u8>,
    /// Of a line that did not go out whole.
    pub unsent: Vec<u8>,
    /// It watches the health.
    pub watches: bool,
}

/// Which descriptors connections get.
#[derive(Debug, Clone, Copy, Default)]
pub struct Placement {
    /// The lowest one for a connection on which health is told, so that the kernel closes it apart from all others when this
    /// process is killed; any where none is named.
    pub health_from: Option<RawFd>,
}

/// Takes the socket from a [`serve_estate`] that goes on without it, and can give it back.
#[derive(Debug, Clone)]
pub struct Lender(mpsc::Sender<Order>);

/// The server's side of a [`Lender`].
#[derive(Debug)]
pub struct Lending(mpsc::Receiver<Order>);

#[derive(Debug)]
enum Order {
    Copy(oneshot::Sender<UnixListener>),
    Take(oneshot::Sender<Estate>),
    GiveBack(Estate),
}

/// A lender, and what [`serve_estate`] needs for it.
#[must_use]
pub fn lending() -> (Lender, Lending) {
    // One order at a time: its giver waits for the answer, or is the only one.
    let (sender, receiver) = mpsc::channel(1);
    (Lender(sender), Lending(receiver))
}

impl Lender {
    /// The listener once more, which is served as before. None where it is gone, or the server has ended.
    pub async fn copy(&self) -> Option<UnixListener> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Order::Copy(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Takes the socket and everybody who can be passed on. None where it is gone already, or the server has ended.
    pub async fn take(&self) -> Option<Estate> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Order::Take(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Has it served again; where the server has ended, all of it is closed.
    pub async fn give_back(&self, estate: Estate) {
        let _ = self.0.send(Order::GiveBack(estate)).await;
    }
}

/// Answers requests until `shutdown`, also of those that another process had begun to serve.
///
/// # Errors
/// The listener does not belong to a runtime that can drive it.
pub async fn serve_estate(
    estate: Estate,
    control: Control,
    placement: Placement,
    mut lending: Lending,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let mut server =
        Server { control, placement, tasks: JoinSet::new(), stop: CancellationToken::new(), portable: Arc::default() };
    let mut listener = Some(server.adopt(estate)?);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(order) = lending.0.recv() => match order {
                Order::Copy(reply) => if let Some(listener) = &listener {
                    // Whoever asked has gone.
                    let _ = reply.send(listener.as_fd().try_clone_to_owned()?.into());
                },
                Order::Take(reply) => if let Some(taken) = listener.take() {
                    let estate = Estate { listener: taken.into_std()?, clients: server.collect().await };
                    // Whoever asked has gone: it is served as before.
                    if let Err(estate) = reply.send(estate) {
                        listener = Some(server.adopt(estate)?);
                    }
                },
                Order::GiveBack(estate) => listener = Some(server.adopt(estate)?),
            },
            Some(_) = server.tasks.join_next(), if !server.tasks.is_empty() => {}
            accepted = accept(listener.as_ref()), if server.tasks.len() < MAX_CLIENTS => match accepted {
                Ok(stream) => server.spawn(stream, Vec::new(), Vec::new(), false),
                Err(error) => {
                    tracing::warn!(%error, "control socket cannot accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept(listener: Option<&tokio::net::UnixListener>) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

struct Server {
    control: Control,
    placement: Placement,
    /// Each gives its connection back if it was stopped.
    tasks: JoinSet<Option<(Client, Portable)>>,
    stop: CancellationToken,
    /// Tasks that would give one.
    portable: Arc<AtomicUsize>,
}

impl Server {
    fn adopt(&mut self, estate: Estate) -> io::Result<tokio::net::UnixListener> {
        self.stop = CancellationToken::new();
        for Client { stream, received, unsent, watches } in estate.clients {
            match tokio::net::UnixStream::from_std(stream) {
                Ok(stream) => self.spawn(stream, received, unsent, watches),
                Err(error) => tracing::debug!(%error, "a control connection could not be taken over"),
            }
        }
        tokio::net::UnixListener::from_std(estate.listener)
    }

    fn spawn(&mut self, stream: tokio::net::UnixStream, received: Vec<u8>, unsent: Vec<u8>, watches: bool) {
        let portable = Portable::new(&self.portable);
        let connection = Connection {
            stream,
            received,
            unsent,
            control: self.control.clone(),
            placement: self.placement,
            stop: self.stop.clone(),
        };
        self.tasks.spawn(async move {
            connection.serve(watches, portable).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "control connection ended");
                None
            })
        });
    }

    /// Stops everybody who can be passed on.
    async fn collect(&mut self) -> Vec<Client> {
        self.stop.cancel();
        let mut clients = Vec::new();
        while self.portable.load(Ordering::Acquire) > 0 {
            // One that turns out to have a whole request does not end.
            if let Ok(Some(Ok(Some((client, _portable))))) = tokio::time::timeout(TURN, self.tasks.join_next()).await {
                clients.push(client);
            }
        }
        clients
    }
}

/// Counts a task that would give its connection back, until it is seen that it has ended or that it will not.
struct Portable(Arc<AtomicUsize>);

impl Portable {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Portable {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Connection {
    stream: tokio::net::UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    control: Control,
    placement: Placement,
    stop: CancellationToken,
}

impl Connection {
    async fn serve(mut self, watches: bool, portable: Portable) -> io::Result<Option<(Client, Portable)>> {
        if watches {
            return Ok(self.watch().await?.map(|client| (client, portable)));
        }
        if !self.read_request().await? {
            return Ok(Some((self.into_client(false)?, portable)));
        }
        let request = match serde_json::from_slice::<Value>(&self.received) {
            Ok(request) => request,
            Err(error) => {
                drop(portable);
                return self.write_error(&format!("not a request: {error}")).await.map(|()| None);
            }
        };
        if request["request"] == "health" {
            return Ok(self.watch().await?.map(|client| (client, portable)));
        }
        drop(portable);
        self.answer(&request).await.map(|()| None)
    }

    /// Reads one line, or to the end; `false` if it was stopped before.
    async fn read_request(&mut self) -> io::Result<bool> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                self.received.truncate(end);
                return Ok(true);
            }
            let left = MAX_REQUEST.saturating_sub(self.received.len() as u64);
            let mut reader = (&mut self.stream).take(left);
            let read = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(false),
                read = reader.read_buf(&mut self.received) => read?,
            };
            if read == 0 {
                return Ok(true);
            }
        }
    }

    /// Tells the health until the program ends or this is stopped.
    async fn watch(mut self) -> io::Result<Option<Client>> {
        self.stream = placed(self.stream, self.placement)?;
        loop {
            // What another process had begun to say comes before anything new.
            if self.unsent.is_empty() {
                let health = *self.control.health.borrow_and_update();
                self.unsent = line(&serde_json::to_value(HealthLine { health })?);
            }
            let written = tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.into_client(true).map(Some),
                written = self.stream.write(&self.unsent) => written?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.unsent.drain(..written);
            if !self.unsent.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.into_client(true).map(Some),
                changed = self.control.health.changed() => if changed.is_err() { return Ok(None); },
                () = tokio::time::sleep(HEALTH_BEAT) => {}
            }
        }
    }

    async fn answer(mut self, request: &Value) -> io::Result<()> {
        match request["request"].as_str() {
            Some("state") => {
                let state = (self.control.state)();
                self.write_line(&json!({ "ok": state })).await
            }
            Some("events") => self.write_line(&json!({ "ok": events::answer(request) })).await,
            Some("about") => self.write_line(&json!({ "ok": process::about() })).await,
            Some(name) => match (self.control.requests)(name, request) {
                Some(answer) => self.write_answer(answer).await,
                None => self.write_error(&format!("unknown request {name:?}")).await,
            },
            None => self.write_error("not a request: {\"request\":NAME} is missing").await,
        }
    }

    async fn write_answer(mut self, mut answer: Answer) -> io::Result<()> {
        loop {
            match answer {
                Answer::Ok(value) => return self.write_line(&json!({ "ok": value })).await,
                Answer::Error(text) => return self.write_error(&text).await,
                Answer::Lines(lines) => {
                    for line in &lines {
                        self.write_line(line).await?;
                    }
                    return Ok(());
                }
                Answer::Stream(lines) => return self.stream(lines).await,
                Answer::Later(later) => answer = later.await,
            }
        }
    }

    /// Who has gone is seen by the end of his side, so that lines are not made for nobody.
    async fn stream(mut self, mut lines: mpsc::Receiver<Value>) -> io::Result<()> {
        let mut heard = [0; 64];
        loop {
            tokio::select! {
                next = lines.recv() => match next {
                    Some(value) => self.write_line(&value).await?,
                    None => return Ok(()),
                },
                read = self.stream.read(&mut heard) => if read? == 0 { return Ok(()); },
            }
        }
    }

    async fn write_error(mut self, text: &str) -> io::Result<()> {
        self.write_line(&json!({ "error": text })).await
    }

    async fn write_line(&mut self, value: &Value) -> io::Result<()> {
        self.stream.write_all(&line(value)).await
    }

    fn into_client(self, watches: bool) -> io::Result<Client> {
        let Self { stream, received, unsent, .. } = self;
        Ok(Client { stream: stream.into_std()?, received, unsent, watches })
    }
}

/// The connection under the descriptor that it is to have; where there is none so high, under the one that it has.
fn placed(stream: tokio::net::UnixStream, placement: Placement) -> io::Result<tokio::net::UnixStream> {
    let Some(lowest) = placement.health_from else { return Ok(stream) };
    let stream = stream.into_std()?;
    let stream = match limits::raise_descriptor(&stream, lowest) {
        Ok(raised) => raised.into(),
        Err(error) => {
            tracing::warn!(%error, lowest, "health is told under a low descriptor: evermq-vip may hear late of a kill");
            stream
        }
    };
    tokio::net::UnixStream::from_std(stream)
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.push(b'\n');
    line
}
