//! The same client, the same backend: weighted rendezvous hashing (highest random weight) with bounded loads.
//!
//! Every backend gets a score from its name and the client's key, and the highest wins. When a backend leaves, only its
//! own clients move, each to its second choice; when one comes, it takes its share from all others and nobody else moves.
//! Unlike a ring there is nothing to build or to keep, and weights are exact. No backend gets more than [`BOUND`] of its
//! share of all connections, so a key that many have in common (a NAT's address) does not fell one broker.
//!
//! All lb hosts must agree, of whichever version they are, so the hash is one with a published definition and test
//! vectors: SipHash-1-3 with the fixed key below. That of the standard library may change with any release. Who chooses
//! his client identifiers so that all fall on one backend meets the bound.

use std::hash::Hasher as _;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::Load;

/// Of its share of the connections, a backend gets at most so many quarters.
const BOUND: (u128, u128) = (5, 4);
const KEY: (u64, u64) = (0x6576_6572_6d71_2d6c, 0x622f_6861_7368_2f31);

/// What the choice depends on, for a client at `address`.
#[must_use]
pub fn address_key(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => key(&address.octets()),
        IpAddr::V6(address) => key(&address.octets()),
    }
}

/// What the choice depends on, for a client identifier; for a backend's name, its [`Load::identity`].
#[must_use]
pub fn key(bytes: &[u8]) -> u64 {
    hash(KEY, bytes)
}

/// The open backend with the highest score of those below their bound.
pub(super) fn choose(loads: &[Load], key: u64) -> Option<usize> {
    let weights: u128 = super::open(loads).map(|(_, load)| u128::from(load.weight())).sum();
    let connections: u128 = super::open(loads).map(|(_, load)| load.connections as u128).sum();
    // At least one is below: all of them at 5/4 of the whole would be more than the whole.
    let below = |load: &Load| {
        let bound = ((connections + 1) * u128::from(load.weight()) * BOUND.0).div_ceil((weights * BOUND.1).max(1));
        (load.connections as u128) < bound
    };
    super::open(loads)
        .filter(|(_, load)| below(load))
        .max_by(|(_, a), (_, b)| score(a, key).total_cmp(&score(b, key)))
        .map(|(index, _)| index)
}

/// An exponential variate divided by the weight wins as often as its weight says; this is its reciprocal.
fn score(load: &Load, key: u64) -> f64 {
    let hash = hash((load.identity, KEY.1), &key.to_le_bytes());
    // 53 bits, all that a float holds; never 0 and never 1.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    load.weight() as f64 / -uniform.ln()
}

fn hash((key0, key1): (u64, u64), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(key0, key1);
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests;
