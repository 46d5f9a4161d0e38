//! The store as a whole.

mod damage;
mod files;
mod full;
mod model;
mod power;
pub(crate) mod sample;
mod threads;
