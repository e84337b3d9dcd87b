//! The input gate of a task: one queue a channel, plus the task's mailbox, behind one lock.
//!
//! Producers wait when their channel's byte budget is used up; the mailbox has precedence over data, so control never
//! starves. Which channels are blocked for alignment is told by the task.

use super::{CHANNEL_CREDIT, Element};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use streamjob_dataflow::TaskError;
use streamjob_protocol::coordinator::Barrier;

/// Messages to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    Trigger(Barrier),
    /// A source ends as if it had read everything.
    Drain,
    Complete(u64),
    Aborted(u64),
}

/// Tasks handle mails faster than people and coordinators write them; a queue this long means the task hangs.
const MAX_MAILS: usize = 10_000;

/// An element as it lies in a queue: network data is decoded by the consuming task, not by the socket's reader.
#[derive(Debug)]
pub enum Queued {
    Local(Element),
    Encoded(bytes::Bytes),
}

/// Gets back the credit of consumed bytes; implemented by network channels.
pub trait CreditReturn: Send + Sync {
    fn consumed(&self, bytes: usize);
}

struct ChannelQueue {
    queue: VecDeque<(Queued, usize)>,
    bytes: usize,
    blocked: bool,
    credit: Option<Arc<dyn CreditReturn>>,
}

struct State {
    channels: Vec<ChannelQueue>,
    mails: VecDeque<Mail>,
    /// Where the next look for data starts, so that no channel starves another.
    next: usize,
    failure: Option<String>,
}

pub struct Gate {
    state: Mutex<State>,
    /// The task waits here for elements and mails.
    filled: Condvar,
    /// Local producers wait here for space.
    drained: Condvar,
    cancelled: AtomicBool,
}

#[derive(Debug)]
pub enum Next {
    Mail(Mail),
    Element {
        channel: usize,
        element: Queued,
    },
    /// Nothing until the deadline.
    TimedOut,
}

impl Gate {
    pub fn new(channels: usize) -> Arc<Gate> {
        Arc::new(Gate {
            state: Mutex::new(State {
                channels: (0..channels)
                    .map(|_| ChannelQueue { queue: VecDeque::new(), bytes: 0, blocked: false, credit: None })
                    .collect(),
                mails: VecDeque::new(),
                next: 0,
                failure: None,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
            cancelled: AtomicBool::new(false),
        })
    }

    /// Makes every wait in the task, and every wait of a producer for this task, end with `Cancelled`.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        let _state = self.state.lock();
        self.filled.notify_all();
        self.drained.notify_all();
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The task fails with this at its next step: a connection it depends on is gone.
    pub fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.failure.is_none() {
            state.failure = Some(reason.to_owned());
        }
        self.filled.notify_all();
    }

    pub fn mail(&self, mail: Mail) {
        let mut state = self.state.lock();
        if state.mails.len() < MAX_MAILS {
            state.mails.push_back(mail);
        } else if state.failure.is_none() {
            state.failure = Some("the task does not handle its messages any more".into());
        }
        self.filled.notify_one();
    }

    pub fn set_credit(&self, channel: usize, credit: Arc<dyn CreditReturn>) {
        self.state.lock().channels[channel].credit = Some(credit);
    }

    /// From a local producer, which waits for space; `cancelled` is the producer's own flag.
    pub fn push_local(
        &self,
        channel: usize,
        element: Element,
        bytes: usize,
        producer: &Gate,
    ) -> Result<Duration, TaskError> {
        let mut state = self.state.lock();
        let mut waited = Duration::ZERO;
        // An empty queue takes anything: a batch bigger than the budget must get through.
        while bytes > 0 && state.channels[channel].bytes > 0 && state.channels[channel].bytes + bytes > CHANNEL_CREDIT {
            if self.is_cancelled() || producer.is_cancelled() {
                return Err(TaskError::Cancelled);
            }
            let start = Instant::now();
            // The producer's own cancellation does not signal this gate: look again now and then.
            self.drained.wait_for(&mut state, Duration::from_millis(20));
            waited += start.elapsed();
        }
        let queue = &mut state.channels[channel];
        queue.bytes += bytes;
        queue.queue.push_back((Queued::Local(element), bytes));
        if !queue.blocked {
            self.filled.notify_one();
        }
        Ok(waited)
    }

    /// From the network, which never waits: credit has bounded what can arrive.
    pub fn push_encoded(&self, channel: usize, frame: bytes::Bytes, bytes: usize) {
        let mut state = self.state.lock();
        let queue = &mut state.channels[channel];
        queue.bytes += bytes;
        queue.queue.push_back((Queued::Encoded(frame), bytes));
        if !queue.blocked {
            self.filled.notify_one();
        }
    }

    pub fn set_blocked(&self, channel: usize, blocked: bool) {
        self.state.lock().channels[channel].blocked = blocked;
    }

    /// A mail if there is one; does not wait.
    pub fn try_mail(&self) -> Result<Option<Mail>, TaskError> {
        if self.is_cancelled() {
            return Err(TaskError::Cancelled);
        }
        let mut state = self.state.lock();
        if let Some(reason) = state.failure.take() {
            return Err(TaskError::Recoverable(reason));
        }
        Ok(state.mails.pop_front())
    }

    /// Mails that a cancelled task did not come to.
    pub fn remaining_mails(&self) -> Vec<Mail> {
        self.state.lock().mails.drain(..).collect()
    }

    /// The next mail or element, waiting until `deadline` at most (for ever without one).
    pub fn next(&self, deadline: Option<Instant>) -> Result<Next, TaskError> {
        let mut state = self.state.lock();
        loop {
            if self.is_cancelled() {
                return Err(TaskError::Cancelled);
            }
            if let Some(reason) = state.failure.take() {
                return Err(TaskError::Recoverable(reason));
            }
            if let Some(mail) = state.mails.pop_front() {
                return Ok(Next::Mail(mail));
            }
            let count = state.channels.len();
            for offset in 0..count {
                let channel = (state.next + offset) % count;
                if state.channels[channel].blocked {
                    continue;
                }
                if let Some((element, bytes)) = state.channels[channel].queue.pop_front() {
                    state.next = (channel + 1) % count;
                    state.channels[channel].bytes -= bytes;
                    if bytes > 0 {
                        if let Some(credit) = &state.channels[channel].credit {
                            let credit = credit.clone();
                            drop(state);
                            credit.consumed(bytes);
                        } else {
                            self.drained.notify_all();
                        }
                    }
                    return Ok(Next::Element { channel, element });
                }
            }
            match deadline {
                Some(deadline) => {
                    if self.filled.wait_until(&mut state, deadline).timed_out() && Instant::now() >= deadline {
                        let idle = state.mails.is_empty()
                            && state.channels.iter().all(|channel| channel.blocked || channel.queue.is_empty());
                        if idle {
                            return Ok(Next::TimedOut);
                        }
                    }
                }
                None => self.filled.wait(&mut state),
            }
        }
    }
}
