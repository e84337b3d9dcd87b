//! Stories on a real cluster, with real pods: jobs live through upgrades, failures and deletion, and what they wrote is checked.
//!
//! Needs KUBECONFIG, kubectl, helm, and the images of engine, operator, MinIO and busybox in the cluster; `make e2e` sees to all of it.
//! Nothing here asserts how long something takes; what is measured is printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod harness;
mod lifecycle;
