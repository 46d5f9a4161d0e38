//! Names and numbers as keys.

use std::hash::Hasher;
use std::sync::Arc;

/// Names of brokers, each once: there are few.
#[derive(Debug, Default)]
pub(crate) struct Origins(Vec<Arc<str>>);

impl Origins {
    /// The name, shared.
    pub(crate) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(origin) = self.0.iter().find(|origin| ***origin == *name) {
            return Arc::clone(origin);
        }
        let origin = Arc::<str>::from(name);
        self.0.push(Arc::clone(&origin));
        origin
    }
}

/// For numbers that this program gave out itself: nobody can choose them so that they collide.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64((*byte).into());
        }
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: consecutive numbers get far apart in the upper bits, where tables look.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26);
    }
}
