//! Talks to the coordinators of jobs: requests, and one long poll a coordinator that keeps the newest answer at hand. Decides
//! nothing about what is asked of them.

mod client;
mod follow;
mod tally;

pub use client::{CallError, EngineClient, Target};
pub use follow::{Engines, News};
pub use tally::Tally;
