//! Reading, writing, the timer and the end of a connection.

use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use evermq_mqtt::Version;
use evermq_mqtt::codec::{self, PacketType};
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
            if is_own {
                make_room_for_rest(buffer, self.version);
            } else if buffer.capacity() - buffer.len() < MIN_ROOM {
                // As large each time, so that the same memory is taken again where it is free.
                buffer.reserve(READ + KEEP - buffer.len());
            }
            match pin!(self.stream.read_buf(buffer)).poll(cx) {
                Poll::Pending => return input,
                Poll::Ready(Ok(0)) => input.lost = Some(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(read)) => buffers.tally.read(read),
                Poll::Ready(Err(error)) => input.lost = Some(error),
            }
        }
        input.any = true;
        let mut piece;
        let mut buffer = buffer;
        if !is_own && begins_with_message(buffer, self.version) {
            // Small messages get a piece of memory of their own, for all that have come together. So the buffer is there for the
            // next read while they are on their way, and stays in this processor's cache; and who is done with one of them in
            // another thread does not disturb those that are decoded meanwhile.
            piece = BytesMut::from(&buffer[..]);
            buffer.clear();
            buffer = &mut piece;
        }
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

/// Makes room in the buffer of one large packet: at most for its rest, so that what it keeps alive is no larger than it is.
/// Doubles with what has come, never with what a header promises.
fn make_room_for_rest(buffer: &mut BytesMut, version: Version) {
    if buffer.capacity() > buffer.len() {
        return;
    }
    let rest = codec::packet_len(buffer, version).map_or(READ, |len| len.saturating_sub(buffer.len()));
    // Not `reserve`, which takes more than it is asked for.
    let mut larger = BytesMut::with_capacity(buffer.len() + rest.clamp(1, READ.max(buffer.len())));
    larger.extend_from_slice(buffer);
    *buffer = larger;
}

/// Whether a small PUBLISH comes first.
fn begins_with_message(buffer: &[u8], version: Version) -> bool {
    buffer.first().is_some_and(|first| first >> 4 == PacketType::Publish as u8)
        && codec::packet_len(buffer, version).is_some_and(|len| len <= KEEP && len <= buffer.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PUBLISH at QoS 0 with a payload of so many bytes.
    fn publish(payload: usize) -> Vec<u8> {
        let remaining = 3 + payload;
        let mut packet = vec![0x30];
        let mut rest = remaining;
        while rest > 0 {
            packet.push(u8::try_from(rest % 128).unwrap() | if rest > 127 { 0x80 } else { 0 });
            rest /= 128;
        }
        packet.extend_from_slice(&[0, 1, b't']);
        packet.resize(packet.len() + payload, 7);
        packet
    }

    #[test]
    fn the_buffer_of_a_large_packet_ends_with_it_and_grows_with_what_has_come() {
        for payload in [10_000, 65_536, 70_000, 200_000, 1_000_000] {
            let packet = publish(payload);
            let mut buffer = BytesMut::from(&packet[..KEEP + 1]);
            while buffer.len() < packet.len() {
                let before = buffer.len();
                make_room_for_rest(&mut buffer, Version::V5);
                let room = buffer.capacity() - before;
                assert!(room > 0, "a read without room looks like the end of the connection");
                assert!(buffer.capacity() <= packet.len(), "{} for {}", buffer.capacity(), packet.len());
                assert!(room <= READ.max(before), "{room} for {before} that have come");
                buffer.extend_from_slice(&packet[before..before + room]);
            }
            assert_eq!(buffer, packet);
        }
    }

    #[test]
    fn room_that_is_there_is_used_first() {
        let mut buffer = BytesMut::with_capacity(20_000);
        buffer.extend_from_slice(&publish(100_000)[..10_000]);
        let (place, capacity) = (buffer.as_ptr(), buffer.capacity());
        make_room_for_rest(&mut buffer, Version::V5);
        assert_eq!((buffer.as_ptr(), buffer.capacity()), (place, capacity));
    }

    #[test]
    fn only_a_small_whole_message_has_what_came_copied() {
        let begins = |bytes: &[u8]| begins_with_message(bytes, Version::V4);
        let small = publish(64);
        assert!(begins(&small));
        assert!(begins(&[small.clone(), publish(100_000)].concat()));
        assert!(!begins(&small[..small.len() - 1]), "it waits for its rest");
        assert!(!begins(&publish(KEEP)));
        assert!(!begins(&[0x40, 2, 0, 1]), "an acknowledgement keeps nothing");
        assert!(!begins(&[]));
    }
}
