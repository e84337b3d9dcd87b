//! Reconciles: observe (read the caches, decide nothing), plan (elsewhere, pure), act (one effect after the other). Here is
//! everything of it that reads and writes; nothing here decides what happens to a job.

mod act;
mod backoff;
mod cache;
mod observe;
mod pulse;
mod run;
mod tokens;
mod trim;
mod wakes;
mod watches;
mod world;

pub use cache::JobKey;
pub use run::{Context, RECONCILE, run};
pub use watches::start as watch;
pub use world::World;
