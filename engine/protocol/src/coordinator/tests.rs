//! Tests of the coordinator against a small world: a journal, a manifest store and tasks that do as they are told.

mod checkpoints;
mod claims;
mod disorder;
mod ends;
mod failures;
mod rescaling;
mod savepoints;
mod stopping;
mod world;
