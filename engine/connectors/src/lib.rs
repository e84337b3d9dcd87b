//! The connectors of the engine: where tables are read from and written to.
//!
//! Each module offers one [`Connector`](streamjob_dataflow::connector::Connector); formats of files are in `format`.
//! Nothing here decides when a checkpoint is taken or complete, or how an instance is placed.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod blackhole;
mod datagen;
mod error;
mod filesystem;
mod format;
mod nexmark;
mod options;
mod pace;
mod print;
mod projection;
mod random;
mod rows;
mod stripes;
mod text;

#[cfg(test)]
mod testing;

pub use error::ConnectorError;

use std::sync::Arc;
use streamjob_dataflow::connector::Connectors;

/// Every connector of the binary.
pub fn all() -> Connectors {
    Connectors::new(vec![
        Arc::new(blackhole::BlackholeConnector),
        Arc::new(datagen::DatagenConnector),
        Arc::new(filesystem::FilesystemConnector),
        Arc::new(nexmark::NexmarkConnector),
        Arc::new(print::PrintConnector),
    ])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_option_is_documented_once() {
        for connector in super::all().iter() {
            let mut seen = BTreeSet::new();
            for option in connector.options() {
                assert!(!option.description.is_empty(), "{} {}", connector.name(), option.name);
                assert!(seen.insert(option.name), "{} {} twice", connector.name(), option.name);
            }
        }
    }
}
