//! Four clients and one broker: any sequence of connections, takeovers, subscriptions, shared ones too, messages, acknowledgements, lost packets,
//! time, and restarts on what the store has. Beside it runs a model of what the standard wants. What is checked:
//!
//! - CONNACK says that a session is present exactly where there is one, and there are as many sessions and subscriptions as there should be;
//! - a will goes out exactly when it is due, and once;
//! - a session gets the messages of QoS 1 and 2 that it is owed, in their order, and nothing else; unless a queue was full, all of them;
//! - a message of QoS 2 is taken once however often its sender sends it, and given once to each receiver, also through a shared subscription;
//! - packet identifiers in use are not used for something else, and Receive Maximum holds;
//! - queues stay within the broker's budget, and in the end nothing is held.

mod client;
mod mesh;
mod model;
mod site;
mod world;

use self::world::World;

pub(crate) fn run(bytes: &[u8]) {
    let Some((settings, steps)) = bytes.split_first() else { return };
    let mut world = World::new(settings & 1 != 0, settings & 2 != 0);
    // Long stories repeat themselves, and each step costs as much as the ones before together.
    for step in steps.chunks_exact(4).take(400) {
        let [kind, who, a, b] = step else { break };
        world.step(*kind, usize::from(*who), *a, *b);
    }
    world.end();
}
