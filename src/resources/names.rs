//! Names of a job's objects. A job's name has at most [`LONGEST_JOB_NAME`] characters and a revision's number at most five
//! digits, so that all of them fit into labels, also with what Kubernetes appends.

use sha2::{Digest, Sha256};

pub const LONGEST_JOB_NAME: usize = 45;
/// Of labels, and of most names.
const LONGEST_LABEL: usize = 63;

/// The stored spec of a revision.
pub fn controller_revision(job: &str, revision: i64) -> String {
    format!("{job}-{revision}")
}

/// The job file of a revision.
pub fn config_map(job: &str, revision: i64) -> String {
    format!("{job}-{revision}")
}

/// Deployment and service of a revision's coordinator.
pub fn coordinator(job: &str, revision: i64) -> String {
    format!("{job}-c{revision}")
}

/// Stateful set and service of a revision's workers.
pub fn workers(job: &str, revision: i64) -> String {
    format!("{job}-w{revision}")
}

/// Where people find the REST API of the job.
pub fn service(job: &str) -> String {
    job.to_owned()
}

pub fn service_account(job: &str) -> String {
    job.to_owned()
}

pub fn disruption_budget(job: &str) -> String {
    job.to_owned()
}

/// Of this very job, not of an earlier one of the same name: what is there under this name has the right content.
pub fn token_secret(job: &str, uid: &str) -> String {
    let short: String = uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    format!("{job}-token-{short}")
}

/// The claim made from a template.
pub fn claim(job: &str) -> String {
    format!("{job}-state")
}

/// The pod that deletes files of a job.
pub fn job_dispose_pod(job: &str) -> String {
    format!("{job}-dispose")
}

/// The pod that deletes the files of a savepoint.
pub fn savepoint_dispose_pod(savepoint: &str) -> String {
    shortened(savepoint, LONGEST_LABEL - "-dispose".len()) + "-dispose"
}

/// Names that people choose without our limits; still different when two of them begin alike.
pub(super) fn shortened(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(name)[..4]);
    let kept: String = name.chars().take(longest - hash.len() - 1).collect();
    format!("{}-{hash}", kept.trim_end_matches(['-', '.']))
}

pub(super) fn label_value(name: &str) -> String {
    shortened(name, LONGEST_LABEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_different() {
        let (one, other) = ("s".repeat(100) + "1", "s".repeat(100) + "2");
        let (one, other) = (savepoint_dispose_pod(&one), savepoint_dispose_pod(&other));
        assert_ne!(one, other);
        assert_eq!((one.len(), other.len()), (63, 63));
        assert_eq!(savepoint_dispose_pod("before-upgrade"), "before-upgrade-dispose");
        let dotted = format!("{}.{}", "s".repeat(45), "x".repeat(60));
        assert!(!savepoint_dispose_pod(&dotted).contains(".-"), "no name of Kubernetes has these side by side");
    }
}
