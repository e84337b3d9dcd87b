//! Talks to a coordinator's REST API: token, TLS, errors. Knows no endpoint.

use crate::error::CliError;
use reqwest::{Certificate, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use streamjob_api::rest::ErrorBody;
use streamjob_runtime::coordinator::{TlsFiles, Token};
use thiserror::Error;

/// Certificates of the authority that signed the coordinator's.
const CA_FILE: &str = "STREAMJOB_TLS_CA_FILE";
/// For one answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer, or not the wanted one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestError {
    /// Nobody answers there now.
    #[error("{0}")]
    Unreachable(String),
    #[error("{message}")]
    Refused { status: u16, message: String },
}

#[derive(Debug, Clone)]
pub struct Client {
    /// `http://127.0.0.1:8081`.
    base: String,
    http: reqwest::Client,
    token: Option<Token>,
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Client {
    /// Of a coordinator of this machine that has the same environment as this process.
    pub fn local(mut address: SocketAddr) -> Result<Client, CliError> {
        if address.ip().is_unspecified() {
            // Whoever listens everywhere listens here.
            address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
        }
        let scheme = if TlsFiles::from_environment(&environment)?.is_some() { "https" } else { "http" };
        Client::new(&format!("{scheme}://{address}"), TIMEOUT)
    }

    /// # Errors
    /// `address` is no address, or token or certificates cannot be read.
    pub fn at(address: &str) -> Result<Client, CliError> {
        let with_scheme = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        Client::new(with_scheme.trim_end_matches('/').trim_end_matches("/v1"), TIMEOUT)
    }

    pub fn with_timeout(&self, timeout: Duration) -> Result<Client, CliError> {
        Client::new(&self.base, timeout)
    }

    fn new(base: &str, timeout: Duration) -> Result<Client, CliError> {
        let failed = |reason: String| CliError::Rest { address: base.to_owned(), reason };
        match reqwest::Url::parse(base) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
            _ => return Err(failed("it is no address; expected http://HOST:PORT or https://HOST:PORT".into())),
        }
        let mut builder = reqwest::Client::builder().timeout(timeout).no_proxy();
        let authority = environment(CA_FILE)
            .map(Into::into)
            .or(TlsFiles::from_environment(&environment)?.map(|files| files.certificate));
        if let Some(file) = authority.filter(|_| base.starts_with("https")) {
            let pem =
                std::fs::read(&file).map_err(|error| failed(format!("cannot read {}: {error}", file.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| failed(format!("{}: no certificates: {error}", file.display())))?;
            for certificate in certificates {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let http = builder.build().map_err(|error| failed(reasons(&error)))?;
        Ok(Client { base: base.to_owned(), http, token: Token::from_environment(&environment)? })
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RestError> {
        self.send(Method::GET, path, None::<&()>).await
    }

    /// An empty answer reads as `null`.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, RestError> {
        let unreachable = |error: reqwest::Error| RestError::Unreachable(reasons(&error));
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("Authorization", token.header());
        }
        if let Some(body) = body {
            let bytes = serde_json::to_vec(body).map_err(|error| RestError::Unreachable(error.to_string()))?;
            request = request.header("Content-Type", "application/json").body(bytes);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        if status.is_success() {
            return serde_json::from_slice(bytes).map_err(|error| RestError::Refused {
                status: status.as_u16(),
                message: format!("the answer of {path} is not understood: {error}; use the coordinator's own version"),
            });
        }
        let message = match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) if !body.errors.is_empty() => body.errors.join("; "),
            _ => format!("the answer is {status}"),
        };
        let hint = if status.as_u16() == 401 { " (set STREAMJOB_TOKEN or STREAMJOB_TOKEN_FILE)" } else { "" };
        Err(RestError::Refused { status: status.as_u16(), message: format!("{message}{hint}") })
    }
}

/// With all causes: the outermost says only that something went wrong.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Answers one request and gives back what was asked.
    async fn answering(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0u8; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (address, served)
    }

    #[tokio::test]
    async fn answers_and_refusals() {
        let (address, served) = answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]").await;
        let client = Client::at(&address.to_string()).unwrap();
        assert_eq!(client.get::<Vec<u8>>("/v1/x").await, Ok(vec![1]));
        assert!(served.await.unwrap().starts_with("GET /v1/x HTTP/1.1\r\n"));

        let body = "HTTP/1.1 409 Conflict\r\ncontent-length: 28\r\n\r\n{\"errors\":[\"it is stopped\"]}";
        let (address, _) = answering(body).await;
        let refused = Client::at(&format!("http://{address}/")).unwrap().get::<()>("/x").await.unwrap_err();
        assert!(matches!(refused, RestError::Refused { status: 409, .. }), "{refused:?}");

        // Nobody listens any more.
        let gone = Client::at(&address.to_string()).unwrap().get::<()>("/x").await.unwrap_err();
        assert!(matches!(gone, RestError::Unreachable(_)), "{gone:?}");
    }

    #[test]
    fn no_addresses() {
        for bad in ["ftp://a", "http://", "http:// a", ""] {
            assert!(Client::at(bad).is_err(), "{bad}");
        }
        assert_eq!(Client::at("https://host:8081/v1").unwrap().base(), "https://host:8081");
    }
}
