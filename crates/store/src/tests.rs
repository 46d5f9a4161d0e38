//! The store as a whole.

mod damage;
mod files;
mod full;
mod model;
mod moved;
mod power;
mod reopened;
pub(crate) mod sample;
mod threads;
