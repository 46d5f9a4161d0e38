//! The two kinds of TLS connections that the lb has, as one: [`Records`] with what the lb asks of its clients.

use std::sync::Arc;

use evermq_daemon::tls::{Output, Received, Records, TlsFault, Unbuffered as _};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};

use super::certificates::take_asked;
use super::info::{Identity, TlsInfo};
use evermq_daemon::tls::Revocations;

/// One end of a TLS connection.
pub trait Session {
    /// Takes in bytes from the socket: adds what they carry to `plain`, and what has to be sent to `out`, also where it
    /// fails: an alert that says why.
    ///
    /// # Errors
    /// The connection is of no more use.
    fn receive(&mut self, ciphertext: &mut [u8], plain: &mut Output, out: &mut Output) -> Result<Received, TlsFault>;

    /// Adds records that carry `plain` to `out`, after what rustls itself has to say.
    ///
    /// # Errors
    /// The handshake is not over, or this direction is closed.
    fn send(&mut self, plain: &[u8], out: &mut Output) -> Result<(), TlsFault>;

    /// Adds a close_notify to `out`, once: nothing more will be sent. Nothing before the handshake is over.
    fn close(&mut self, out: &mut Output);

    /// What was agreed on.
    fn info(&self) -> TlsInfo<'_>;
}

/// The lb as a client's server.
pub struct ServerSide {
    connection: Records<UnbufferedServerConnection>,
    /// Looked at when the handshake is over, then let go.
    revocations: Option<Arc<Revocations>>,
    sni: Option<Box<str>>,
}

/// The lb as a broker's client.
pub struct ClientSide(Records<UnbufferedClientConnection>);

impl ServerSide {
    pub(super) fn new(config: Arc<ServerConfig>, revocations: Arc<Revocations>) -> Result<Self, TlsFault> {
        let connection = Records::new(UnbufferedServerConnection::new(config)?);
        Ok(Self { connection, revocations: Some(revocations), sni: None })
    }

    /// The name that the client asked for, once.
    pub const fn take_sni(&mut self) -> Option<Box<str>> {
        self.sni.take()
    }

    /// Who the client is by its certificate, if it has shown one.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        Identity::of(self.connection.tls().peer_certificates()?.first()?)
    }

    /// That certificate (X.509, DER).
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        Some(self.connection.tls().peer_certificates()?.first()?)
    }

    /// A ticket brings back a certificate as it was checked then; what has become of it since is checked here.
    fn check_resumed(&self, revocations: &Revocations) -> Result<(), TlsFault> {
        let tls = self.connection.tls();
        if tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(());
        }
        tls.peer_certificates().map_or(Ok(()), |chain| revocations.check(chain, super::tickets::wall()))
    }
}

impl Session for ServerSide {
    fn receive(&mut self, ciphertext: &mut [u8], plain: &mut Output, out: &mut Output) -> Result<Received, TlsFault> {
        let before = plain.len();
        let received = self.connection.receive(ciphertext, plain, out);
        if let Some(asked) = take_asked() {
            self.sni = Some(asked);
        }
        let received = received?;
        if received.handshaken
            && let Some(revocations) = self.revocations.take()
            && let Err(fault) = self.check_resumed(&revocations)
        {
            plain.truncate(before);
            self.connection.close(out);
            return Err(fault);
        }
        Ok(received)
    }

    fn send(&mut self, plain: &[u8], out: &mut Output) -> Result<(), TlsFault> {
        self.connection.send(plain, out)
    }

    fn close(&mut self, out: &mut Output) {
        self.connection.close(out);
    }

    fn info(&self) -> TlsInfo<'_> {
        TlsInfo::of(self.connection.tls().state())
    }
}

impl ClientSide {
    pub(super) fn new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsFault> {
        Ok(Self(Records::new(UnbufferedClientConnection::new(config, name)?)))
    }

    /// Adds the first message to `out`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn start(&mut self, out: &mut Output) -> Result<(), TlsFault> {
        self.0.receive(&mut [], &mut Output::default(), out).map(drop)
    }
}

impl Session for ClientSide {
    fn receive(&mut self, ciphertext: &mut [u8], plain: &mut Output, out: &mut Output) -> Result<Received, TlsFault> {
        self.0.receive(ciphertext, plain, out)
    }

    fn send(&mut self, plain: &[u8], out: &mut Output) -> Result<(), TlsFault> {
        self.0.send(plain, out)
    }

    fn close(&mut self, out: &mut Output) {
        self.0.close(out);
    }

    fn info(&self) -> TlsInfo<'_> {
        TlsInfo::of(self.0.tls().state())
    }
}
