//! Tables: what is observed, and what follows. What comes of it over time is in `tests/simulation`.

mod changes;
mod fixture;
mod savepoints;
mod steps;
mod verdicts;
