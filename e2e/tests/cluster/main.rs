//! Stories on a real cluster, with real pods: jobs live through upgrades, failures and deletion, and what they wrote is checked.
//!
//! Needs KUBECONFIG, kubectl, helm, and the images of engine, operator, MinIO and busybox in the cluster; `make e2e` sees to all of it.
//! Nothing here asserts how long something takes; what is measured is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The same story on each kind of storage.
macro_rules! on_each_storage {
    ($($story:ident),* $(,)?) => {
        mod on_claim {
            $(#[tokio::test] async fn $story() { super::$story($crate::harness::Storage::Claim).await })*
        }
        mod on_s3 {
            $(#[tokio::test] async fn $story() { super::$story($crate::harness::Storage::S3).await })*
        }
    };
}

mod chaos;
mod deletion;
mod diagnosis;
mod failures;
mod harness;
mod lifecycle;
mod machine;
mod operator;
mod rejected;
mod restoring;
mod savepoints;
mod upgrades;
