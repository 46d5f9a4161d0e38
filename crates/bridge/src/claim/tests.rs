use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn claim(client: &str, time: u64, origin: &str) -> Arc<Claim> {
    Arc::new(Claim {
        client_id: Text::new(client).unwrap(),
        user: None,
        stamp: Stamp { time, origin: Arc::from(origin) },
        clean_start: false,
    })
}

fn actions(outbox: &mut Outbox) -> Vec<Action> {
    std::iter::from_fn(|| outbox.poll_action()).collect()
}

#[test]
fn the_newer_connection_wins_and_a_tie_goes_to_the_later_name() {
    let at = |time, origin| claim("c", time, origin);
    assert!(at(1, "a").is_newer_than(Standing::Unknown, "b"));
    assert!(at(6, "a").is_newer_than(Standing::Since(5), "b"));
    assert!(!at(4, "a").is_newer_than(Standing::Since(5), "b"));
    assert!(!at(5, "a").is_newer_than(Standing::Since(5), "b"));
    assert!(at(5, "b").is_newer_than(Standing::Since(5), "a"));
    assert!(!at(u64::MAX, "a").is_newer_than(Standing::Coming, "b"));
}

#[test]
fn a_peer_hears_of_everybody_first_and_then_of_each() {
    let mut outbox = Outbox::default();
    let [one, two, three] = [claim("1", 1, "a"), claim("2", 2, "a"), claim("3", 3, "a")];
    assert!(!outbox.handle_claim(&one), "there is nobody to tell");
    assert_eq!(actions(&mut outbox), []);
    outbox.handle_up();
    assert!(!outbox.handle_claim(&one), "it is one of all");
    assert_eq!(actions(&mut outbox), [Action::Everybody]);
    assert!(outbox.handle_claim(&two), "whoever sends sleeps");
    assert!(!outbox.handle_claim(&three), "whoever sends is awake");
    assert_eq!(actions(&mut outbox), [Action::One(two), Action::One(Arc::clone(&three))]);
    assert!(outbox.handle_claim(&three));
    outbox.handle_down();
    assert_eq!(actions(&mut outbox), []);
    outbox.handle_up();
    assert_eq!(actions(&mut outbox), [Action::Everybody]);
}

#[test]
fn a_burst_is_bounded_and_nobody_is_left_out() {
    let mut outbox = Outbox::default();
    outbox.handle_up();
    actions(&mut outbox);
    let one = claim("c", 1, "a");
    for _ in 0..=MAX_NEWS {
        outbox.handle_claim(&one);
    }
    assert_eq!(actions(&mut outbox), [Action::Everybody], "who connected is one of all");
}

/// One broker: connections by client, and what it says to the other ones.
struct Broker {
    name: &'static str,
    wall: u64,
    /// Each client's stamp; [`Standing::Coming`] between CONNECT and its stamp.
    clients: BTreeMap<u8, Standing>,
    clock: crate::clock::HybridClock,
    outboxes: [Outbox; 3],
}

impl Broker {
    fn claim_of(&self, client: u8, time: u64) -> Arc<Claim> {
        claim(&client.to_string(), time, self.name)
    }

    fn accept(&mut self, client: u8) {
        self.clients.insert(client, Standing::Coming);
    }

    fn stamp(&mut self, client: u8) {
        if self.clients.get(&client) == Some(&Standing::Coming) {
            let time = self.clock.next(self.wall);
            self.clients.insert(client, Standing::Since(time));
            let claim = self.claim_of(client, time);
            for outbox in &mut self.outboxes {
                outbox.handle_claim(&claim);
            }
        }
    }

    fn claimed(&mut self, claim: &Claim) {
        self.clock.observe(claim.stamp.time);
        let client: u8 = claim.client_id.as_str().parse().unwrap();
        if let Some(standing) = self.clients.get(&client).copied()
            && claim.is_newer_than(standing, self.name)
        {
            self.clients.remove(&client);
        }
    }

    fn take(&mut self, to: usize) -> Vec<Arc<Claim>> {
        let mut claims = Vec::new();
        while let Some(action) = self.outboxes[to].poll_action() {
            match action {
                Action::One(claim) => claims.push(claim),
                Action::Everybody => claims.extend(self.clients.iter().filter_map(|(client, standing)| {
                    if let Standing::Since(time) = standing { Some(self.claim_of(*client, *time)) } else { None }
                })),
            }
        }
        claims
    }
}

/// Three brokers and the claims between them.
struct World {
    brokers: [Broker; 3],
    /// On the way, by sender and receiver.
    wires: BTreeMap<(usize, usize), VecDeque<Arc<Claim>>>,
}

impl World {
    /// The clocks of the first two stand apart, and the last one's stands still.
    fn new() -> Self {
        let broker = |name| Broker {
            name,
            wall: 0,
            clients: BTreeMap::new(),
            clock: crate::clock::HybridClock::default(),
            outboxes: Default::default(),
        };
        let mut world = Self { brokers: ["a", "b", "c"].map(broker), wires: BTreeMap::new() };
        world.brokers[0].wall = 1_000;
        world
    }

    fn link(&mut self, from: usize, to: usize, is_up: bool) {
        self.wires.remove(&(from, to));
        let outbox = &mut self.brokers[from].outboxes[to];
        if is_up {
            outbox.handle_up();
            self.wires.insert((from, to), VecDeque::new());
        } else {
            outbox.handle_down();
        }
    }

    fn send(&mut self, from: usize, to: usize) {
        let claims = self.brokers[from].take(to);
        if let Some(wire) = self.wires.get_mut(&(from, to)) {
            wire.extend(claims);
        }
    }

    fn receive(&mut self, from: usize, to: usize) -> bool {
        let claim = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        claim.map(|claim| self.brokers[to].claimed(&claim)).is_some()
    }

    fn settle(&mut self) {
        let pairs = || (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to);
        for (from, to) in pairs() {
            if !self.wires.contains_key(&(from, to)) {
                self.link(from, to, true);
            }
        }
        (0..3).for_each(|at| (0..4).for_each(|client| self.brokers[at].stamp(client)));
        for (from, to) in pairs() {
            self.send(from, to);
        }
        for (from, to) in pairs() {
            while self.receive(from, to) {}
        }
    }
}

proptest! {
    /// However connects, claims and broken links fall: at the end each client has one connection, and it is the one with
    /// the newest stamp; while links are up, it is the one that was made last.
    #[test]
    fn one_connection_of_a_client_is_left(
        steps in prop::collection::vec((0..6_u8, 0..3_usize, 0..3_usize, 0..4_u8), 0..200),
    ) {
        let mut world = World::new();
        let mut ever: BTreeMap<u8, usize> = BTreeMap::new();
        for (what, at, to, client) in steps {
            match what {
                0 => { world.brokers[at].accept(client); *ever.entry(client).or_default() += 1; }
                1 => world.brokers[at].stamp(client),
                2 if at != to => world.send(at, to),
                3 if at != to => { world.receive(at, to); }
                4 if at != to => world.link(at, to, client % 2 == 0),
                5 => world.brokers[1].wall += u64::from(client),
                _ => {}
            }
        }
        world.settle();
        for client in ever.keys() {
            let holders: Vec<_> = world.brokers.iter().filter(|broker| broker.clients.contains_key(client)).collect();
            prop_assert_eq!(holders.len(), 1, "client {}", client);
        }
        // From here on all see each other, so whoever connects last has it, whatever the clocks say.
        for (client, at) in [(0, 2), (0, 0), (0, 1), (1, 2), (0, 2)] {
            world.brokers[at].accept(client);
            world.settle();
            let holders: Vec<_> =
                (0..3).filter(|broker| world.brokers[*broker].clients.contains_key(&client)).collect();
            prop_assert_eq!(holders, vec![at], "client {} connected last to {}", client, at);
        }
    }
}
