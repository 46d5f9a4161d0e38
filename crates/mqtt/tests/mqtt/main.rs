//! Packets as bytes: recorded ones, arbitrary ones, and what may not be.

mod captures;
mod fuzzed;
mod malformed;
mod other_codecs;
mod round_trip;
mod strategy;
