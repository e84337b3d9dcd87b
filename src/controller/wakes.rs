//! Which objects are to be reconciled. Each waits once, however often it is named, so that there are never more than objects.

use futures::Stream;
use futures::stream;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use tokio::sync::Notify;

pub struct Wakes<T> {
    waiting: Mutex<HashSet<T>>,
    some: Notify,
}

impl<T> Default for Wakes<T> {
    fn default() -> Self {
        Wakes { waiting: Mutex::default(), some: Notify::new() }
    }
}

impl<T: Clone + Eq + Hash + Send + 'static> Wakes<T> {
    pub fn wake(&self, object: T) {
        self.waiting.lock().insert(object);
        self.some.notify_one();
    }

    /// Whatever waits, now and later. For one reader.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = T> + Send {
        stream::unfold(self, |wakes| async move {
            loop {
                let next = {
                    let mut waiting = wakes.waiting.lock();
                    let next = waiting.iter().next().cloned();
                    next.and_then(|next| waiting.take(&next))
                };
                match next {
                    Some(next) => return Some((next, wakes)),
                    None => wakes.some.notified().await,
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn each_waits_once() {
        let wakes = Arc::new(Wakes::default());
        wakes.wake(1);
        wakes.wake(2);
        wakes.wake(1);
        let mut stream = Box::pin(wakes.clone().stream());
        let mut first = vec![stream.next().await, stream.next().await];
        first.sort();
        assert_eq!(first, [Some(1), Some(2)]);
        assert!(futures::poll!(stream.next()).is_pending());
        wakes.wake(1);
        assert_eq!(stream.next().await, Some(1));
    }
}
