//! How a worker finds its coordinator: name, connection, pauses, and a log that tells of changes instead of attempts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A name server that takes longer has no answer.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// An address that takes longer is that of a machine that is gone; the name may stand for another one by now.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts at first: a coordinator that died is most often there again at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const FIRST_PAUSES: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// After a refusal. A coordinator that runs another program does not change its mind; another one may come.
const REFUSED_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct Search {
    /// `host:port`.
    name: String,
    /// What the name stood for when it was last looked up with success.
    known: Vec<SocketAddr>,
    alone_since: Instant,
    /// What was last said to be wrong.
    said: Option<String>,
}

impl Search {
    pub fn new(name: &str) -> Search {
        Search { name: name.to_owned(), known: Vec::new(), alone_since: Instant::now(), said: None }
    }

    /// One attempt; the reason why there is no connection.
    pub async fn connect(&mut self) -> Result<TcpStream, String> {
        let looked_up = tokio::time::timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host(self.name.as_str())).await;
        let mut reason = match looked_up {
            Ok(Ok(addresses)) => {
                self.known = addresses.collect();
                "its name stands for no address".to_owned()
            }
            // Where it was is better than nowhere.
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its name cannot be looked up in time".to_owned(),
        };
        for address in &self.known {
            reason = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => format!("{address}: {error}"),
                Err(_) => format!("{address}: no answer"),
            };
        }
        Err(reason)
    }

    /// The coordinator took this worker on.
    pub fn found(&mut self) {
        self.said = None;
    }

    /// A session has ended.
    pub fn lost(&mut self, reason: &str) {
        tracing::warn!(coordinator = self.name, reason, "lost the coordinator, all tasks stopped");
        self.alone_since = Instant::now();
        self.said = None;
    }

    /// An attempt led nowhere.
    pub fn failed(&mut self, reason: &str) {
        if self.is_news(reason) {
            tracing::info!(coordinator = self.name, reason, "looking for the coordinator");
        }
    }

    /// Waits before the next attempt.
    pub async fn refused(&mut self, reason: &str) {
        if self.is_news(reason) {
            tracing::error!(
                coordinator = self.name,
                reason,
                "the coordinator refuses this worker, which asks again every {} s",
                REFUSED_PAUSE.as_secs()
            );
        }
        tokio::time::sleep(REFUSED_PAUSE).await;
    }

    fn is_news(&mut self, reason: &str) -> bool {
        let news = self.said.as_deref() != Some(reason);
        if news {
            self.said = Some(reason.to_owned());
        }
        news
    }

    pub fn alone_for(&self) -> Duration {
        self.alone_since.elapsed()
    }

    pub async fn pause(&self) {
        let pause = if self.alone_for() < FIRST_PAUSES { FIRST_PAUSE } else { PAUSE };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_at_every_attempt_and_the_last_address_serves_when_it_cannot_be() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut search = Search::new(&format!("localhost:{port}"));
        search.connect().await.unwrap();
        search.name = format!("no-such-name.invalid:{port}");
        search.connect().await.unwrap();
        drop(listener);
        assert!(search.connect().await.is_err());
        let mut unknown = Search::new(&format!("no-such-name.invalid:{port}"));
        assert!(unknown.connect().await.is_err());
    }

    #[test]
    fn what_is_said_once_is_not_repeated() {
        let mut search = Search::new("x:1");
        assert!(search.is_news("refused"));
        assert!(!search.is_news("refused"));
        assert!(search.is_news("no answer"));
        search.found();
        assert!(search.is_news("no answer"));
    }
}
