//! Requests to a running job's REST API, over a socket of their own: what the engine's own client hides shows here.

use crate::harness::Engine;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Status and body of an answer; a body that is no JSON is a string.
pub fn request(address: &str, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, Value) {
    let (status, _, body) = exchange(address, method, path, token, body);
    (status, body)
}

/// As [`request`]; nothing while no coordinator is there, or when it dies in between.
pub fn try_request(address: &str, method: &str, path: &str, token: Option<&str>, body: &str) -> Option<(u16, Value)> {
    try_exchange(address, method, path, token, body).map(|(status, _, body)| (status, body))
}

/// As [`request`], with the answer's headers in lower case.
pub fn exchange(address: &str, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String, Value) {
    try_exchange(address, method, path, token, body).unwrap_or_else(|| panic!("no answer to {method} {path}"))
}

/// Nothing while no coordinator is there, or when it dies in between.
fn try_exchange(
    address: &str,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> Option<(u16, String, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    let authorization = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    // A body that is refused half-way ends the connection.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    Some((status, head.to_lowercase(), value))
}

pub fn get(address: &str, path: &str) -> Value {
    let (status, body) = request(address, "GET", path, None, "");
    assert_eq!(status, 200, "{path}: {body}");
    body
}

/// A running job: where it answers and what it is called.
pub struct Running {
    pub address: String,
    pub job: String,
}

impl Running {
    /// Once all its tasks run.
    pub fn of(engine: &Engine) -> Running {
        let address = engine.rest();
        let job = engine.eventually("all tasks running", || {
            let (status, _, body) = try_exchange(&address, "GET", "/jobs/overview", None, "")?;
            let job = body["jobs"].get(0).filter(|_| status == 200)?;
            let all = job["state"] == "RUNNING" && job["tasks"]["running"] == job["tasks"]["total"];
            all.then(|| job["jid"].as_str().expect("an id").to_owned())
        });
        Running { address, job }
    }

    /// Below the job.
    pub fn path(&self, rest: &str) -> String {
        format!("/jobs/{}{rest}", self.job)
    }

    pub fn get(&self, rest: &str) -> Value {
        get(&self.address, &self.path(rest))
    }

    pub fn post(&self, rest: &str, body: &Value) -> (u16, Value) {
        request(&self.address, "POST", &self.path(rest), None, &body.to_string())
    }

    /// Polls an operation to its end.
    pub fn ended(&self, engine: &Engine, path: &str) -> Value {
        engine.eventually(path, || {
            let (status, body) = request(&self.address, "GET", path, None, "");
            assert_eq!(status, 200, "{path}: {body}");
            (body["status"]["id"] == "COMPLETED").then(|| body["operation"].clone())
        })
    }

    /// Takes a savepoint and gives back its place.
    pub fn savepoint(&self, engine: &Engine, body: &Value) -> String {
        let (status, accepted) = self.post("/savepoints", body);
        assert_eq!(status, 202, "{accepted}");
        let trigger = accepted["request-id"].as_str().expect("a request id").to_owned();
        let ended = self.ended(engine, &self.path(&format!("/savepoints/{trigger}")));
        ended["location"].as_str().unwrap_or_else(|| panic!("no savepoint: {ended}")).to_owned()
    }

    pub fn vertices(&self) -> Vec<String> {
        let plan = self.get("/plan");
        let nodes = plan["plan"]["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| node["id"].as_str().expect("an id").to_owned()).collect()
    }

    pub fn completed(&self) -> u64 {
        self.get("/checkpoints")["counts"]["completed"].as_u64().expect("a number")
    }
}
