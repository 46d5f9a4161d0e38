//! Frames of WebSocket (RFC 6455 §5).
//!
//! ```text
//!  0 1 2 3 4 5 6 7 8 9 . . . 15
//! +-+-+-+-+-------+-+-------------+-------------------------------+---------------+---------
//! |F|R|R|R| opcode|M| length (7)  | length, 16 or 64 bits, if the | masking key,  | payload
//! |I|S|S|S|  (4)  |A|             | first is 126 or 127           | 32 bits, if M |
//! |N|V|V|V|       |S|             |                               |               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+---------------+---------
//! ```
//!
//! Pure. Payload is unmasked where it lies; a frame's length is never a reason to reserve room for it.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

/// The longest header.
const MAX_HEADER: usize = 14;
/// RFC 6455 §5.5: what a control frame carries at most.
const MAX_CONTROL: usize = 125;

/// What a client's frames broke, and so the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// RFC 6455 §5.1, §5.2, §5.4, §5.5.
    #[error("WebSocket: {0}")]
    Protocol(&'static str),
    /// `[MQTT-6.0.0-1]`.
    #[error("WebSocket: a frame that is not binary")]
    NotBinary,
}

/// What a client said between its bytes of MQTT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// To be answered with the same.
    Ping(Box<[u8]>),
    /// Nothing more comes; to be answered with a Close of this code.
    Close(CloseCode),
}

/// Takes a client's frames apart.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a header, or a control frame's payload as far as it has come.
    kept: Box<[u8]>,
    frame: Option<Frame>,
    /// A message has begun whose last frame has not come.
    in_message: bool,
    closed: bool,
}

/// The present frame.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: OpCode,
    mask: [u8; 4],
    /// Bytes of the payload that have not come.
    rest: u64,
    /// Where in the mask the next one is.
    at: u8,
}

impl Violation {
    /// What the client is told (RFC 6455 §7.4.1).
    #[must_use]
    pub fn code(self) -> CloseCode {
        match self {
            Self::Protocol(_) => CloseCode::Protocol,
            Self::NotBinary => CloseCode::Unsupported,
        }
    }
}

impl Decoder {
    /// Takes in `bytes` and leaves at their front what they carry: so many bytes. What else the client said goes to `said`.
    /// Behind a Close nothing counts.
    ///
    /// # Errors
    /// The connection is to be closed.
    pub fn decode(&mut self, bytes: &mut [u8], said: &mut Vec<Said>) -> Result<usize, Violation> {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() && !self.closed {
            let Some(frame) = &mut self.frame else {
                from += self.take_header(&bytes[from..])?;
                self.finish(said)?;
                continue;
            };
            let left = bytes.len() - from;
            let count = usize::try_from(frame.rest).map_or(left, |rest| rest.min(left));
            let payload = &mut bytes[from..from + count];
            frame.unmask(payload);
            if matches!(frame.opcode, OpCode::Control(_)) {
                self.kept = [&self.kept, &*payload].concat().into();
            } else {
                bytes.copy_within(from..from + count, to);
                to += count;
            }
            from += count;
            self.finish(said)?;
        }
        Ok(to)
    }

    /// Whether the client has said that nothing more comes.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what is missing of the header; so many bytes.
    fn take_header(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let mut header = [0; MAX_HEADER];
        let kept = self.kept.len();
        header[..kept].copy_from_slice(&self.kept);
        let count = bytes.len().min(MAX_HEADER - kept);
        header[kept..kept + count].copy_from_slice(&bytes[..count]);
        let mut cursor = Cursor::new(&header[..kept + count]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Protocol("an unknown kind of frame"))?;
        let Some((parsed, length)) = parsed else {
            self.kept = Box::from(&header[..kept + count]);
            return Ok(count);
        };
        self.kept = Box::default();
        self.frame = Some(self.check(&parsed, length)?);
        let used = usize::try_from(cursor.position()).unwrap_or(MAX_HEADER);
        Ok(used - kept)
    }

    fn check(&mut self, header: &FrameHeader, length: u64) -> Result<Frame, Violation> {
        let broken = |what| Err(Violation::Protocol(what));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return broken("a reserved bit is set, though no extension was agreed on");
        }
        if length > i64::MAX as u64 {
            return broken("a length with its highest bit set");
        }
        let Some(mask) = header.mask else { return broken("a client's frame without a mask") };
        match header.opcode {
            OpCode::Data(Data::Continue) if !self.in_message => return broken("nothing to continue"),
            OpCode::Data(Data::Continue) => self.in_message = !header.is_final,
            OpCode::Data(_) if self.in_message => return broken("a message within a message"),
            OpCode::Data(Data::Binary) => self.in_message = !header.is_final,
            OpCode::Data(Data::Text | Data::Reserved(_)) => return Err(Violation::NotBinary),
            OpCode::Control(_) if !header.is_final => return broken("a control frame in pieces"),
            OpCode::Control(_) if length > MAX_CONTROL as u64 => return broken("a control frame that is too long"),
            OpCode::Control(_) => {}
        }
        Ok(Frame { opcode: header.opcode, mask, rest: length, at: 0 })
    }

    /// Ends the present frame if all of it has come.
    fn finish(&mut self, said: &mut Vec<Said>) -> Result<(), Violation> {
        let Some(frame) = self.frame.filter(|frame| frame.rest == 0) else { return Ok(()) };
        self.frame = None;
        match frame.opcode {
            OpCode::Data(_) | OpCode::Control(Control::Pong) => self.kept = Box::default(),
            OpCode::Control(Control::Ping) => said.push(Said::Ping(std::mem::take(&mut self.kept))),
            OpCode::Control(Control::Close) => {
                said.push(Said::Close(close_code(&std::mem::take(&mut self.kept))?));
                self.closed = true;
            }
            OpCode::Control(Control::Reserved(_)) => return Err(Violation::Protocol("an unknown kind of frame")),
        }
        Ok(())
    }
}

impl Frame {
    /// RFC 6455 §5.3.
    fn unmask(&mut self, payload: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(usize::from(self.at));
        let word = u64::from_ne_bytes([mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3]]);
        let mut words = payload.chunks_exact_mut(8);
        for chunk in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(chunk);
            chunk.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ word).to_ne_bytes());
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        // Below 4, so it fits.
        self.at = ((usize::from(self.at) + payload.len()) % 4) as u8;
        self.rest -= payload.len() as u64;
    }
}

/// RFC 6455 §5.5.1, §7.4: the code to answer with.
fn close_code(payload: &[u8]) -> Result<CloseCode, Violation> {
    match payload {
        [] => Ok(CloseCode::Normal),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() || std::str::from_utf8(reason).is_err() {
                return Err(Violation::Protocol("a Close that says nothing that may be said"));
            }
            Ok(code)
        }
        [_] => Err(Violation::Protocol("half a Close code")),
    }
}

/// Adds a frame of the server's with `payload` to `out`.
pub fn encode(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    // Only a writer could fail, and this one does not.
    let _ = header.format(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests;
