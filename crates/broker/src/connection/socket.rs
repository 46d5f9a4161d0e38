//! Reading, writing, the timer and the end of a connection.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use evermq_mqtt::codec;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::buffers::{Buffers, KEEP, MIN_ROOM, READ};
use super::rest::Rest;
use super::{Connection, Input, MAX_PACKETS, Phase, Turn};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Reads once and decodes every whole packet.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Input {
        let mut input = Input::default();
        // A large packet grows in a buffer of its own; the start of a small one goes in front of what comes now.
        let is_own = self.undecoded || self.unread.len() > KEEP;
        let buffer = if is_own {
            self.unread.buffer()
        } else {
            buffers.input.clear();
            buffers.input.extend_from_slice(self.unread.as_slice());
            &mut buffers.input
        };
        if !self.undecoded {
            if buffer.capacity() - buffer.len() < MIN_ROOM {
                // Doubles with what has come, never with what a header promises.
                buffer.reserve(READ.max(buffer.len()));
            }
            match pin!(self.stream.read_buf(buffer)).poll(cx) {
                Poll::Pending => return input,
                Poll::Ready(Ok(0)) => input.lost = Some(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(read)) => buffers.tally.read(read),
                Poll::Ready(Err(error)) => input.lost = Some(error),
            }
        }
        input.any = true;
        while buffers.packets.len() < MAX_PACKETS {
            match codec::decode(buffer, self.version, &self.limits) {
                Ok(Some(packet)) => buffers.packets.push(packet),
                Ok(None) => break,
                Err(error) => {
                    buffer.clear();
                    input.malformed = Some(error);
                    break;
                }
            }
        }
        self.undecoded = buffers.packets.len() == MAX_PACKETS && !buffer.is_empty();
        if buffer.is_empty() {
            self.unread = Rest::default();
        } else if !is_own {
            self.unread = Rest::new(if buffer.len() > KEEP { buffer.split() } else { BytesMut::from(&buffer[..]) });
        }
        input
    }

    /// Writes what is left from before, then the turn's output; what the socket does not take is kept.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> io::Result<()> {
        let written = self.write_out(cx, buffers);
        // What a connection that has failed did not take must not be there for the next one that uses the buffer.
        buffers.output.clear();
        written
    }

    fn write_out(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, self.unsent.as_slice())? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => self.unsent.advance(written),
                Poll::Pending => break,
            }
            self.unflushed = true;
        }
        let output = &mut buffers.output;
        buffers.tally.written(output.len());
        if self.unsent.is_empty() {
            let mut done = 0;
            while done < output.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &output[done..])? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => done += written,
                    Poll::Pending => break,
                }
                self.unflushed = true;
            }
            self.unsent.extend_from_slice(&output[done..]);
        } else {
            self.unsent.extend_from_slice(output);
        }
        if self.unflushed {
            self.unflushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_pending();
        }
        Ok(())
    }

    /// Whether the timer has fired.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let fired = self.armed.is_some() && self.timer.as_mut().poll(cx).is_ready();
        if fired {
            self.armed = None;
        }
        fired
    }

    /// Sees to it that the timer fires at `deadline` at the latest. It is not moved for each packet: when it fires too early,
    /// it is set anew.
    pub(super) fn arm(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|armed| armed <= deadline) && self.phase == Phase::Serving {
            return;
        }
        self.armed = Some(deadline);
        self.timer.as_mut().reset(deadline.into());
        if self.timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Ends the connection so that the client sees the last packet: a socket that is closed with unread bytes is reset, and
    /// what was written is lost.
    pub(super) fn poll_close(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Turn {
        if !self.held.is_empty() || !self.unsent.is_empty() || self.unflushed {
            return Turn::Wait;
        }
        if self.phase == Phase::Closing {
            match Pin::new(&mut self.stream).poll_shutdown(cx) {
                Poll::Pending => return Turn::Wait,
                Poll::Ready(Err(_)) => return Turn::Done,
                Poll::Ready(Ok(())) => self.phase = Phase::Lingering,
            }
        }
        buffers.input.clear();
        buffers.input.reserve(MIN_ROOM);
        let read = pin!(self.stream.read_buf(&mut buffers.input)).poll(cx);
        buffers.input.clear();
        match read {
            Poll::Pending => Turn::Wait,
            Poll::Ready(Ok(0) | Err(_)) => Turn::Done,
            Poll::Ready(Ok(_)) => Turn::Again,
        }
    }
}
