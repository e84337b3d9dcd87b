//! What the stories share: the cluster and what is installed in it, a namespace for each story, jobs and their output.
//!
//! Talks to the API server as a user would; for what only a command line does (exec, scale, helm) it runs that.

mod cluster;
mod job;
pub mod machine;
mod manifest;
mod output;
mod story;

pub use cluster::{Cluster, OPERATOR_NAMESPACE, command, engine_image, tree};
pub use job::{Job, condition, is_true, text};
pub use manifest::{Manifest, Storage};
pub use story::Story;

use std::future::Future;
use std::time::{Duration, Instant};

/// No story waits longer for anything, unless it says so.
pub const PATIENCE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(200);

/// Waits until `probe` yields something; the error says what was last seen instead.
pub async fn eventually<T, F>(what: &str, patience: Duration, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + patience;
    loop {
        let seen = match probe().await {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}; last seen: {seen}");
        tokio::time::sleep(POLL).await;
    }
}
