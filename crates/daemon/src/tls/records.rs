//! One TLS connection without its socket: records in, plain bytes out, and the other way.
//!
//! Nothing is kept for an idle connection but keys: bytes that are no whole record yet stay with the caller, who presents
//! them again, unchanged and with more behind them. (Within them a handshake message may have been put together in place.)

use rustls::CommonState;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};

use super::fault::TlsFault;
use super::output::Output;

/// What may be kept of a handshake message in several records. A client's certificates with their intermediates have
/// 10 kB at most in practice.
pub const MAX_HANDSHAKE: usize = 32 * 1024;
/// RFC 5246 §6.2.3: type, version, length.
const RECORD_HEADER: usize = 5;
/// What one record adds to what it carries, at most: header, explicit nonce, type, tag.
const RECORD_OVERHEAD: usize = RECORD_HEADER + 8 + 1 + 16;
/// RFC 8446 §5.1: what one record carries at most.
const MAX_FRAGMENT: usize = 16 * 1024;

/// What came of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// So many bytes at the front are done with; the rest has to be presented again, with more behind it.
    pub consumed: usize,
    /// The handshake is over, both sides are who they must be: plain bytes may be sent.
    pub handshaken: bool,
    /// The other side has said that it sends nothing more (close_notify).
    pub closed: bool,
}

/// One end of a TLS connection, a server's or a client's.
pub struct Records<T> {
    tls: T,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Handshaking,
    Open,
    /// We have said that we send nothing more.
    Closed,
    /// An error ended it.
    Failed,
}

/// The two kinds of rustls connections, as one.
pub trait Unbuffered {
    /// rustls' own.
    type Data;
    /// Goes one step with what has come.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    /// What was agreed on.
    fn state(&self) -> &CommonState;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl<T> Records<T> {
    /// A connection that begins.
    pub const fn new(tls: T) -> Self {
        Self { tls, phase: Phase::Handshaking }
    }

    /// rustls' side of it.
    pub const fn tls(&self) -> &T {
        &self.tls
    }
}

impl<T: Unbuffered> Records<T> {
    /// Takes in bytes from the socket: adds what they carry to `plain`, and what has to be sent to `out`, also where it
    /// fails: an alert that says why.
    ///
    /// # Errors
    /// The connection is of no more use.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        plain: &mut Output,
        out: &mut Output,
    ) -> Result<Received, TlsFault> {
        if self.phase == Phase::Failed {
            return Err(TlsFault::Ended);
        }
        let received = self.process(ciphertext, plain, out);
        if received.is_err() {
            self.phase = Phase::Failed;
        }
        received
    }

    fn process(&mut self, ciphertext: &mut [u8], plain: &mut Output, out: &mut Output) -> Result<Received, TlsFault> {
        let mut consumed = 0;
        let mut closed = false;
        loop {
            let rest = ciphertext.get_mut(consumed..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.tls.process(rest);
            consumed += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        plain.extend(record?.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => encode(&mut message, out)?,
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => closed = true,
                Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => break,
                Ok(ConnectionState::Closed) => {
                    closed = true;
                    break;
                }
                // Early data is never offered; a state that this version of rustls does not have is none.
                Ok(_) => return Err(TlsFault::Ended),
                Err(error) => {
                    self.take_alert(out)?;
                    return Err(error.into());
                }
            }
        }
        let handshaken = !self.tls.state().is_handshaking();
        if handshaken && self.phase == Phase::Handshaking {
            self.phase = Phase::Open;
        }
        if closed {
            // RFC 8446 §6.1: what stands behind a close_notify is ignored.
            return Ok(Received { consumed: ciphertext.len(), handshaken, closed });
        }
        check_rest(ciphertext.get(consumed..).unwrap_or_default(), handshaken)?;
        Ok(Received { consumed, handshaken, closed })
    }

    /// The alert that rustls has for the other side after an error.
    fn take_alert(&mut self, out: &mut Output) -> Result<(), TlsFault> {
        while self.tls.state().wants_write() {
            match self.tls.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(mut message)) => encode(&mut message, out)?,
                Ok(_) | Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Adds records that carry `plain` to `out`, after what rustls itself has to say.
    ///
    /// # Errors
    /// The handshake is not over, or this direction is closed.
    pub fn send(&mut self, plain: &[u8], out: &mut Output) -> Result<(), TlsFault> {
        if self.phase != Phase::Open {
            return Err(TlsFault::Ended);
        }
        let records = plain.len().div_ceil(MAX_FRAGMENT);
        self.write(out, |traffic, out| {
            let mut room = plain.len() + records * RECORD_OVERHEAD;
            loop {
                match traffic.encrypt(plain, out.space(room)) {
                    Ok(written) => {
                        out.advance(written);
                        return Ok(());
                    }
                    // Messages of rustls' own go along, such as a key update.
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        room = required_size;
                    }
                    Err(EncryptError::EncryptExhausted) => return Err(TlsFault::Exhausted),
                }
            }
        })
    }

    /// Adds a close_notify to `out`, once: nothing more will be sent. Nothing before the handshake is over.
    pub fn close(&mut self, out: &mut Output) {
        if self.phase != Phase::Open {
            return;
        }
        // Where it fails there is nothing to be said any more.
        let _ = self.write(out, |traffic, out| {
            let mut room = 2 * RECORD_OVERHEAD;
            loop {
                match traffic.queue_close_notify(out.space(room)) {
                    Ok(written) => {
                        out.advance(written);
                        return Ok(());
                    }
                    Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        room = required_size;
                    }
                    Err(EncryptError::EncryptExhausted) => return Err(TlsFault::Exhausted),
                }
            }
        });
        self.phase = Phase::Closed;
    }

    /// Comes to where bytes can be written. Without incoming bytes: rustls holds positions within those that were presented
    /// only where a handshake message is incomplete, and [`check_rest`] lets no connection live on with one.
    fn write(
        &mut self,
        out: &mut Output,
        write: impl FnOnce(&mut WriteTraffic<'_, T::Data>, &mut Output) -> Result<(), TlsFault>,
    ) -> Result<(), TlsFault> {
        loop {
            match self.tls.process(&mut []).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => return write(&mut traffic, out),
                Ok(ConnectionState::EncodeTlsData(mut message)) => encode(&mut message, out)?,
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                Ok(ConnectionState::PeerClosed) => {}
                Ok(_) => return Err(TlsFault::Ended),
                Err(error) => {
                    self.phase = Phase::Failed;
                    return Err(error.into());
                }
            }
        }
    }
}

fn encode<D>(message: &mut EncodeTlsData<'_, D>, out: &mut Output) -> Result<(), TlsFault> {
    let mut room = 0;
    loop {
        match message.encode(out.space(room)) {
            Ok(written) => {
                out.advance(written);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) if required_size > room => {
                room = required_size;
            }
            Err(EncodeError::InsufficientSize(_) | EncodeError::AlreadyEncoded) => return Err(TlsFault::Ended),
        }
    }
}

/// What is left over is the beginning of a record. Whole records are left over only as pieces of one handshake message:
/// bounded in the handshake; afterwards there are only a few short ones (key updates, tickets), which nobody cuts up.
fn check_rest(rest: &[u8], handshaken: bool) -> Result<(), TlsFault> {
    let whole_record = match rest {
        [_, _, _, high, low, payload @ ..] => payload.len() >= usize::from(u16::from_be_bytes([*high, *low])),
        _ => false,
    };
    if rest.len() > MAX_HANDSHAKE || (handshaken && whole_record) {
        return Err(TlsFault::TooLarge);
    }
    Ok(())
}
