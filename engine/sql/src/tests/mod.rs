//! Plans whole jobs against a connector in memory and runs their graphs, operator by operator, in one thread.

mod aggregation;
mod errors;
mod harness;
mod jobs;
mod nexmark;
mod upgrades;
