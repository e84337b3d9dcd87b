//! Decides: from what was observed to what is done next. Pure and total; no clock, no client.

pub mod effect;
pub mod observed;

pub use effect::{Effect, EngineCall, Plan};
pub use observed::Observed;
