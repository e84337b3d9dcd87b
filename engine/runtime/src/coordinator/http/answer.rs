//! What every endpoint has in common: errors in Flink's form, and reading bodies.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use streamjob_api::rest::{ErrorBody, is_id};

/// Why a request was not served.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

pub(super) type Answer<T> = Result<Json<T>, Refusal>;

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_FOUND, message)
    }

    pub fn conflict(message: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::CONFLICT, message)
    }

    /// A part of the path or of the query that is not what it has to be.
    pub fn bad_parameter(name: &str, value: &str, expected: &str) -> Refusal {
        Refusal::bad_request(format!(
            "Bad request, could not parse parameters: Cannot resolve path parameter ({name}) from value \"{value}\": \
             expected {expected}."
        ))
    }

    /// The loop does not answer.
    pub fn stopping() -> Refusal {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "The coordinator is starting or stopping; try again.")
    }

    pub fn from_a_page() -> Refusal {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "This request comes from a web page and the job has no token; set STREAMJOB_TOKEN to allow such requests.",
        )
    }

    pub fn unauthorized() -> Refusal {
        Refusal::new(
            StatusCode::UNAUTHORIZED,
            "This request changes something and needs the job's token: send \"Authorization: Bearer <token>\".",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { errors: vec![self.message] })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer realm=\"streamjob\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

pub(super) async fn not_found(uri: Uri) -> Refusal {
    Refusal::not_found(format!("Not found: {}", uri.path()))
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not something that {} does.", uri.path()))
}

/// A request's body, whole; an empty one counts as an empty object.
pub(super) struct Body(Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Bytes::from_request(request, state).await {
            Ok(bytes) => Ok(Body(bytes)),
            Err(rejection) => {
                let status = BytesRejection::status(&rejection);
                let message = match status {
                    StatusCode::PAYLOAD_TOO_LARGE => {
                        format!("The request's body has more than {} bytes.", super::LARGEST_BODY)
                    }
                    _ => format!("The request's body cannot be read: {}.", rejection.body_text()),
                };
                Err(Refusal::new(status, message))
            }
        }
    }
}

impl Body {
    /// `kind` names in messages what was expected.
    pub fn json<T: DeserializeOwned>(&self, kind: &str) -> Result<T, Refusal> {
        let bytes: &[u8] = if self.0.is_empty() { b"{}" } else { &self.0 };
        serde_json::from_slice(bytes)
            .map_err(|error| Refusal::bad_request(format!("Request did not match expected format {kind}: {error}.")))
    }

    pub fn text(&self) -> Result<&str, Refusal> {
        std::str::from_utf8(&self.0).map_err(|error| Refusal::bad_request(format!("The body is no UTF-8: {error}.")))
    }
}

/// The caller's name for a request, or one of our own.
pub(super) fn trigger_id(given: Option<String>) -> Result<String, Refusal> {
    match given {
        None => Ok(uuid::Uuid::new_v4().simple().to_string()),
        Some(given) if is_id(&given) => Ok(given.to_lowercase()),
        Some(given) => Err(Refusal::bad_request(format!(
            "Request did not match expected format: triggerId is \"{given}\", expected 32 hexadecimal digits."
        ))),
    }
}

/// A trigger in the path.
pub(super) fn trigger_of_path(given: &str) -> Result<String, Refusal> {
    if is_id(given) {
        Ok(given.to_lowercase())
    } else {
        Err(Refusal::bad_parameter("triggerid", given, "32 hexadecimal digits"))
    }
}

pub(super) fn unknown_trigger(trigger: &str) -> Refusal {
    Refusal::not_found(format!("Operation not found under key: {trigger}"))
}
