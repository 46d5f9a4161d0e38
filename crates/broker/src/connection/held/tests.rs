use std::cell::Cell;
use std::convert::Infallible;
use std::task::Waker;

use super::*;

/// A store that is as far as the test says.
#[derive(Default)]
struct Store(Cell<u64>);

impl Progress for Store {
    fn is_durable(&self, at: Position) -> bool {
        at.0 <= self.0.get()
    }

    fn poll_durable(&self, at: Position, _cx: &mut Context<'_>) -> Poll<()> {
        if self.is_durable(at) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Default)]
struct Client {
    store: Store,
    held: Held,
    output: BytesMut,
}

impl Client {
    fn say(&mut self, promise: Promise, position: u64, byte: u8) {
        let write = |out: &mut BytesMut| {
            out.extend_from_slice(&[byte]);
            Ok::<_, Infallible>(())
        };
        let Ok(()) = self.held.write(Some(&self.store), (promise, Position(position)), &mut self.output, write);
    }

    fn heard_at(&mut self, position: u64) -> String {
        self.store.0.set(position);
        self.held.release(Some(&self.store), &mut Context::from_waker(Waker::noop()), &mut self.output);
        String::from_utf8(self.output.split().to_vec()).unwrap()
    }
}

#[test]
fn nothing_waits_that_relies_on_nothing_new() {
    let mut client = Client::default();
    client.store.0.set(5);
    client.say(Promise::First, 0, b'c');
    client.say(Promise::Made, 5, b'a');
    client.say(Promise::None, 9, b'p');
    assert!(client.held.is_empty());
    assert_eq!(client.heard_at(5), "cap");
}

#[test]
fn acknowledgements_leave_in_their_order_and_the_rest_goes_past_them() {
    let mut client = Client::default();
    client.say(Promise::Made, 3, b'1');
    client.say(Promise::None, 9, b'm');
    client.say(Promise::Made, 2, b'2');
    client.say(Promise::Made, 0, b'3');
    client.say(Promise::Made, 7, b'4');
    client.say(Promise::Made, 7, b'5');
    assert_eq!(client.held.len(), 5);
    assert_eq!(client.heard_at(2), "m");
    assert_eq!(client.heard_at(6), "123");
    assert_eq!(client.held.len(), 2);
    client.say(Promise::Made, 8, b'6');
    assert_eq!(client.heard_at(7), "45");
    assert_eq!(client.heard_at(8), "6");
    assert!(client.held.is_empty());
}

#[test]
fn nothing_overtakes_a_connack_or_a_suback() {
    let mut client = Client::default();
    client.say(Promise::First, 3, b'c');
    client.say(Promise::None, 0, b'm');
    client.say(Promise::Made, 4, b'a');
    client.say(Promise::None, 0, b'n');
    assert_eq!(client.heard_at(2), "");
    assert_eq!(client.heard_at(3), "cm");
    assert_eq!(client.heard_at(4), "an");
    client.say(Promise::None, 0, b'o');
    assert_eq!(client.heard_at(4), "o");
}
