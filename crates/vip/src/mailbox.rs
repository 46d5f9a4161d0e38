//! What the ordinary thread has to say to the real-time one, which never waits for it.
//!
//! A ring of a fixed size without locks (the writer, stopped in the middle of a letter, keeps nobody from reading those
//! before it) and an eventfd that ends the reader's `ppoll`. What a letter brings in boxes is freed on the ordinary thread:
//! the real-time thread sends back what it has replaced (see [`crate::report`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};
use rtrb::{Consumer, Producer, RingBuffer};

/// Verdicts of every track at once, several times over.
const LETTERS: usize = 256;
/// A full mailbox means that the real-time thread does not run; whoever has to say something tries again after this.
const AGAIN: Duration = Duration::from_millis(10);

/// Where letters are posted. Cloned freely.
#[derive(Debug)]
pub struct Post<T> {
    ring: Arc<Mutex<Producer<T>>>,
    wake: Arc<EventFd>,
}

/// Where the real-time thread takes them.
#[derive(Debug)]
pub struct Mailbox<T> {
    ring: Consumer<T>,
    wake: Arc<EventFd>,
}

/// Both ends.
///
/// # Errors
/// No descriptor is left.
pub fn mailbox<T>() -> io::Result<(Post<T>, Mailbox<T>)> {
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let wake = Arc::new(wake);
    let (producer, consumer) = RingBuffer::new(LETTERS);
    Ok((Post { ring: Arc::new(Mutex::new(producer)), wake: wake.clone() }, Mailbox { ring: consumer, wake }))
}

impl<T> Clone for Post<T> {
    fn clone(&self) -> Self {
        Self { ring: self.ring.clone(), wake: self.wake.clone() }
    }
}

impl<T> Post<T> {
    /// Posts a letter.
    ///
    /// # Errors
    /// The mailbox is full; here is the letter again.
    pub fn send(&self, letter: T) -> Result<(), T> {
        let pushed = self.ring.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        pushed.map_err(|rtrb::PushError::Full(letter)| letter)?;
        // It fails only where the counter is at its end, and then the reader is awake.
        let _ = self.wake.write(1);
        Ok(())
    }

    /// Posts a letter, and waits for room if need be. Cancel-safe: cancelled, it has not been posted.
    pub async fn deliver(&self, mut letter: T) {
        while let Err(refused) = self.send(letter) {
            letter = refused;
            tokio::time::sleep(AGAIN).await;
        }
    }
}

impl<T> Mailbox<T> {
    /// To be called when the descriptor is readable, before the letters are taken: one that comes meanwhile wakes again.
    pub fn clear(&self) {
        let _ = self.wake.read();
    }

    /// The next letter.
    pub fn take(&mut self) -> Option<T> {
        self.ring.pop().ok()
    }
}

impl<T> AsFd for Mailbox<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn readable<T>(mailbox: &Mailbox<T>) -> bool {
        poll(&mut [PollFd::new(mailbox.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn letters_come_in_order_and_wake_the_reader() {
        let (post, mut mailbox) = mailbox().unwrap();
        assert!(!readable(&mailbox) && mailbox.take().is_none());
        for letter in 0..3 {
            post.clone().send(letter).unwrap();
        }
        assert!(readable(&mailbox));
        mailbox.clear();
        assert!(!readable(&mailbox));
        assert_eq!([mailbox.take(), mailbox.take(), mailbox.take(), mailbox.take()], [Some(0), Some(1), Some(2), None]);
    }

    #[test]
    fn a_full_mailbox_gives_the_letter_back_and_delivery_waits_for_room() {
        let (post, mut mailbox) = mailbox().unwrap();
        for letter in 0..LETTERS {
            post.send(letter).unwrap();
        }
        assert_eq!(post.send(7), Err(7));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let delivery = post.deliver(8);
            tokio::pin!(delivery);
            assert!(tokio::time::timeout(AGAIN / 2, &mut delivery).await.is_err());
            assert_eq!(mailbox.take(), Some(0));
            delivery.await;
        });
        assert_eq!(std::iter::from_fn(|| mailbox.take()).last(), Some(8));
    }
}
