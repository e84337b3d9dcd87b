//! Lets those who watch a job wait for its next change instead of asking again and again. Says that something changed, not
//! what.

use crate::task::unix_ms;
use std::time::Duration;
use tokio::sync::watch;

/// Grows with every change.
#[derive(Clone)]
pub(crate) struct Changes(watch::Sender<u64>);

impl Changes {
    /// Begins with the time, so that numbers grow from one process of a job to the next as well.
    pub fn new() -> Changes {
        Changes(watch::Sender::new(unix_ms() as u64))
    }

    pub fn note(&self) {
        self.0.send_modify(|version| *version += 1);
    }

    pub fn version(&self) -> u64 {
        *self.0.borrow()
    }

    /// Until the version is another one than `known`, for `patience` at most.
    pub async fn beyond(&self, known: u64, patience: Duration) {
        let mut changed = self.0.subscribe();
        // Without a change whoever waits gets what there is.
        let _ = tokio::time::timeout(patience, changed.wait_for(|version| *version != known)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_ends_every_wait_for_it() {
        let changes = Changes::new();
        let known = changes.version();
        let waits: Vec<_> = (0..3)
            .map(|_| {
                let changes = changes.clone();
                tokio::spawn(async move { changes.beyond(known, Duration::from_secs(60)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        changes.note();
        for wait in waits {
            wait.await.unwrap();
        }
        // Known to be old: no wait at all. Known to be new: only as long as one is ready to wait.
        changes.beyond(known, Duration::from_secs(60)).await;
        changes.beyond(known + 1, Duration::ZERO).await;
        assert_eq!(changes.version(), known + 1);
    }
}
