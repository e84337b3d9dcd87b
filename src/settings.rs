//! What decisions and child objects need of the operator's own configuration. How it is read from flags and secrets is the
//! program's business.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use streamjob_api::spec::ImagePullPolicy;

#[derive(Debug, Clone)]
pub struct Settings {
    /// Image of jobs that name none.
    pub engine_image: String,
    /// When that image is pulled; Kubernetes' default if absent.
    pub image_pull_policy: Option<ImagePullPolicy>,
    pub token_key: TokenKey,
}

/// The operator's secret, from which the token of every job derives: nothing has to be read from the jobs' namespaces.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

impl TokenKey {
    pub fn new(key: impl Into<Vec<u8>>) -> TokenKey {
        TokenKey(key.into())
    }

    /// The bearer token of the job with this uid: a job of the same name that comes later has another one.
    pub fn token(&self, job_uid: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(job_uid.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        // RFC 4231, test case 2.
        let token = TokenKey::new("Jefe").token("what do ya want for nothing?");
        assert_eq!(token, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_ne!(TokenKey::new("Jefe").token("a"), TokenKey::new("Jefe").token("b"));
        assert_ne!(TokenKey::new("Jefe").token("a"), TokenKey::new("other").token("a"));
    }

    #[test]
    fn the_key_is_not_printed() {
        assert_eq!(format!("{:?}", TokenKey::new("Jefe")), "TokenKey(…)");
    }
}
