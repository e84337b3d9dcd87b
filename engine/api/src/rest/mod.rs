//! What goes over the coordinator's REST API: the JSON of Apache Flink 2.3's endpoints, and that of our own ones.
//!
//! Only shapes: field names, types and defaults. Who answers what is the coordinator's business, who asks the command
//! line's; both use these types, so that they cannot disagree. Times are Unix milliseconds, durations milliseconds,
//! sizes bytes, unless a field says otherwise. Ids of jobs, vertices and triggers are 32 lower-case hexadecimal digits.

pub mod checkpoints;
pub mod cluster;
mod java;
pub mod jobs;
pub mod operations;
pub mod vertices;

pub use java::SerializedThrowable;

use serde::{Deserialize, Serialize};

/// The body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub errors: Vec<String>,
}

/// Whether this names a job, a vertex or a trigger: 32 hexadecimal digits, of either case.
pub fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert!(is_id("0123456789abcdefABCDEF0123456789"));
        for bad in [
            "",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdefa",
            "g123456789abcdef0123456789abcdef",
        ] {
            assert!(!is_id(bad), "{bad}");
        }
    }
}
