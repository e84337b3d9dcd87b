//! Who may change something: the token, and what TLS is made of. Neither ever appears in arguments, logs or answers.

use super::Context;
use super::answer::Refusal;
use crate::error::RuntimeError;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::hint::black_box;
use std::path::PathBuf;

const TOKEN: &str = "STREAMJOB_TOKEN";
const TOKEN_FILE: &str = "STREAMJOB_TOKEN_FILE";
const CERT_FILE: &str = "STREAMJOB_TLS_CERT_FILE";
const KEY_FILE: &str = "STREAMJOB_TLS_KEY_FILE";

/// What `Authorization: Bearer` has to carry, and what workers register with.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// From `STREAMJOB_TOKEN`, or the file that `STREAMJOB_TOKEN_FILE` names; none if neither is set.
    ///
    /// # Errors
    /// Both are set, the file cannot be read, or the token cannot be sent in a header.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<Token>, RuntimeError> {
        let token = match (environment(TOKEN), environment(TOKEN_FILE)) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(RuntimeError::Access(format!("{TOKEN} and {TOKEN_FILE} are both set; keep one of them")));
            }
            (Some(token), None) => token,
            (None, Some(file)) => std::fs::read_to_string(&file).map_err(|error| {
                RuntimeError::Access(format!(
                    "{TOKEN_FILE}: cannot read {file}: {error}; name a file that this user can read"
                ))
            })?,
        };
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RuntimeError::Access(format!(
                "the token in {TOKEN} or {TOKEN_FILE} is empty or has characters that a header cannot carry; use letters, \
                 digits and punctuation"
            )));
        }
        Ok(Some(Token(token.to_owned())))
    }

    /// Value of the header `Authorization`.
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    pub(crate) fn is(&self, other: &Token) -> bool {
        self.matches(&other.0)
    }

    /// Takes equally long wherever the first difference is.
    fn matches(&self, given: &str) -> bool {
        let (expected, given) = (self.0.as_bytes(), given.as_bytes());
        let mut difference = expected.len() ^ given.len();
        for (index, byte) in given.iter().enumerate() {
            difference |= usize::from(byte ^ expected[index % expected.len()]);
        }
        black_box(difference) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(...)")
    }
}

/// Certificate chain and private key, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// From `STREAMJOB_TLS_CERT_FILE` and `STREAMJOB_TLS_KEY_FILE`; none if neither is set.
    ///
    /// # Errors
    /// Only one of them is set.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<Option<TlsFiles>, RuntimeError> {
        match (environment(CERT_FILE), environment(KEY_FILE)) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate: certificate.into(), key: key.into() })),
            _ => Err(RuntimeError::Access(format!("TLS needs both {CERT_FILE} and {KEY_FILE}; set the other one too"))),
        }
    }
}

/// Reading is free, everything else needs the token. Without one, web pages are kept out: a page from anywhere can make the
/// browser of this machine's user send requests to loopback addresses, and browsers then say where the page is from.
pub(super) async fn require_token(State(context): State<Context>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(token) = &context.0.rest.token else {
        if !reads && request.headers().contains_key(header::ORIGIN) {
            return Refusal::from_a_page().into_response();
        }
        return next.run(request).await;
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    if reads || given.is_some_and(|given| token.matches(given)) {
        return next.run(request).await;
    }
    tracing::warn!(method = %request.method(), path = request.uri().path(), "a request without the right token was refused");
    Refusal::unauthorized().into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Token {
        Token::from_environment(&|name| (name == TOKEN).then(|| text.to_owned())).unwrap().unwrap()
    }

    #[test]
    fn only_the_same_token_matches() {
        let token = token("s3cret-token");
        assert!(token.matches("s3cret-token"));
        for wrong in ["", "s", "s3cret-tokeN", "s3cret-token2", "s3cret-tokens3cret-token", "S3cret-token"] {
            assert!(!token.matches(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_never_shown() {
        assert_eq!(format!("{:?}", token("s3cret")), "Token(...)");
    }

    #[test]
    fn where_a_token_comes_from() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        std::fs::write(&file, "from-file\n").unwrap();
        let path = file.display().to_string();
        let with = |token: Option<&str>, file: Option<&str>| {
            Token::from_environment(&|name| match name {
                TOKEN => token.map(str::to_owned),
                TOKEN_FILE => file.map(str::to_owned),
                _ => None,
            })
        };
        assert!(with(None, None).unwrap().is_none());
        assert_eq!(with(Some("direct"), None).unwrap().unwrap().header(), "Bearer direct");
        assert_eq!(with(None, Some(&path)).unwrap().unwrap().header(), "Bearer from-file");
        let error = |result: Result<Option<Token>, RuntimeError>| result.unwrap_err().to_string();
        assert!(error(with(Some("a"), Some(&path))).contains("both set"));
        assert!(error(with(None, Some("/no/such/file"))).contains("cannot read /no/such/file"));
        assert!(error(with(Some(" "), None)).contains("empty"));
        let spaced = error(with(Some("two words"), None));
        assert!(spaced.contains("a header cannot carry") && !spaced.contains("two words"), "{spaced}");
    }

    #[test]
    fn tls_needs_both_files() {
        let with = |cert: bool, key: bool| {
            TlsFiles::from_environment(&|name| {
                ((cert && name == CERT_FILE) || (key && name == KEY_FILE)).then(|| name.to_lowercase())
            })
        };
        assert_eq!(with(false, false).unwrap(), None);
        assert!(with(true, true).unwrap().is_some());
        assert!(with(true, false).is_err() && with(false, true).is_err());
    }
}
