//! The running job as its coordinator describes it: `GET /v1/status`, and requests to stop it.
//!
//! Tolerant: fields that are missing or new do not matter, so that supervisor and coordinator may change apart.

use serde::Deserialize;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A local process that takes longer is stopped or gone.
const TIMEOUT: Duration = Duration::from_secs(2);
const LARGEST_ANSWER: u64 = 64 << 20;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    pub state: String,
    /// Why the job is not running, or why it last restarted.
    pub reason: Option<String>,
    pub restarts: u64,
    pub checkpoints: Checkpoints,
    /// In topological order.
    pub operators: Vec<Operator>,
    pub workers: Vec<Worker>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Checkpoints {
    pub completed: u64,
    pub failed: u64,
    pub in_progress: u64,
    pub last_id: Option<u64>,
    pub last_duration_ms: Option<u64>,
    pub last_bytes_new: Option<u64>,
    pub last_bytes_total: Option<u64>,
    /// Unix milliseconds.
    pub last_completed_at: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Operator {
    pub uid: String,
    pub name: String,
    pub parallelism: u32,
    pub records_in: u64,
    pub records_out: u64,
    /// Unix milliseconds of event time.
    pub watermark: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Worker {
    pub id: String,
    pub pid: u32,
    pub metrics_addr: Option<String>,
}

/// What the coordinator says now.
pub async fn fetch(rest: SocketAddr) -> Result<Status, String> {
    let (code, body) = request(rest, "GET", "/v1/status").await?;
    if code != 200 {
        return Err(format!("the coordinator answered {code}"));
    }
    serde_json::from_slice(&body).map_err(|error| format!("the coordinator's status: {error}"))
}

/// Asks for a last checkpoint and the end of the processes.
pub async fn suspend(rest: SocketAddr) -> Result<(), String> {
    let (code, _) = request(rest, "POST", "/v1/suspend").await?;
    if (200..300).contains(&code) { Ok(()) } else { Err(format!("the coordinator answered {code}")) }
}

async fn request(address: SocketAddr, method: &str, path: &str) -> Result<(u16, Vec<u8>), String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LARGEST_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => parse_answer(&answer).ok_or_else(|| "the coordinator's answer is no HTTP".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

/// Code and body of an answer that ends with its connection.
fn parse_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((code, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        type Answer = Option<(u16, &'static [u8])>;
        let table: [(&[u8], Answer); 5] = [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", Some((200, b"{}"))),
            (b"HTTP/1.1 202 Accepted\r\n\r\n", Some((202, b""))),
            (b"HTTP/1.1 200 OK\r\n", None),
            (b"", None),
            (b"SSH-2.0\r\n\r\n", None),
        ];
        for (answer, expected) in table {
            assert_eq!(parse_answer(answer), expected.map(|(code, body)| (code, body.to_vec())));
        }
    }

    #[test]
    fn fields_that_are_missing_or_new_do_not_matter() {
        let status: Status =
            serde_json::from_str(r#"{"state": "Running", "novelty": [1], "checkpoints": {"completed": 2}}"#).unwrap();
        assert_eq!(status.state, "Running");
        assert_eq!(status.checkpoints.completed, 2);
        assert_eq!(status.operators, []);
    }

    #[tokio::test]
    async fn asks_a_real_socket() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0u8; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /v1/status HTTP/1.1\r\n"));
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"state\":\"Running\",\"restarts\":3}").await.unwrap();
        });
        assert_eq!(fetch(address).await.unwrap().restarts, 3);
        // Nobody listens any more.
        assert!(fetch(address).await.is_err());
    }
}
