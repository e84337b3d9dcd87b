//! Exchanges between worker processes: one TCP connection from each worker to each of its consumers' workers, many
//! channels on it, byte credit per channel.
//!
//! A producer may send only after the consumer's task opened the channel by granting credit, so nothing arrives for a
//! task that is not there yet, and a channel blocked for alignment stops only its own producer.

use super::CHANNEL_CREDIT;
use super::codec::{FRAME_HEADER, frame};
use super::gate::{CreditReturn, Gate};
use crate::faults;
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use streamjob_dataflow::TaskError;

const HELLO: u8 = 0;
const ELEMENT: u8 = 1;
const CREDIT: u8 = 2;
const MAX_FRAME: usize = 1 << 30;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that does not read for this long is treated as gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Credit goes back in portions of this size, or at once when the producer might be waiting.
const CREDIT_PORTION: usize = CHANNEL_CREDIT / 4;

/// A channel of a deployment.
type ChannelKey = (u64, u32);

/// The sending half of a socket: frames queue here and one thread writes them.
struct Connection {
    peer: u64,
    queue: Mutex<Vec<Bytes>>,
    filled: Condvar,
    closed: AtomicBool,
    socket: TcpStream,
}

impl Connection {
    fn start(peer: u64, socket: TcpStream) -> std::io::Result<Arc<Connection>> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let writer = socket.try_clone()?;
        let connection = Arc::new(Connection {
            peer,
            queue: Mutex::new(Vec::new()),
            filled: Condvar::new(),
            closed: AtomicBool::new(false),
            socket,
        });
        let shared = connection.clone();
        std::thread::Builder::new().name(format!("net-out-{peer}")).spawn(move || shared.write_loop(writer))?;
        Ok(connection)
    }

    /// Never waits: data is bounded by credit, the rest is small.
    fn push(&self, frame: Bytes) {
        self.queue.lock().push(frame);
        self.filled.notify_one();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _queue = self.queue.lock();
        self.filled.notify_all();
    }

    fn write_loop(&self, mut socket: TcpStream) {
        loop {
            let frames = {
                let mut queue = self.queue.lock();
                while queue.is_empty() {
                    if self.closed.load(Ordering::SeqCst) {
                        return;
                    }
                    self.filled.wait(&mut queue);
                }
                std::mem::take(&mut *queue)
            };
            for frame in frames {
                if socket.write_all(&frame).is_err() {
                    self.close();
                    return;
                }
            }
        }
    }
}

/// Credit of one outgoing channel.
#[derive(Default)]
struct Credit {
    /// `None` until the consumer opened the channel; negative after a batch bigger than what was left.
    available: Mutex<Option<i64>>,
    granted: Condvar,
}

/// A channel to a task of another worker.
pub struct RemoteChannel {
    key: ChannelKey,
    connection: Arc<Connection>,
    credit: Arc<Credit>,
}

impl RemoteChannel {
    /// Sends an encoded element; data waits for credit. Returns the time waited.
    pub fn send(&self, payload: &[u8], is_data: bool, producer: &Gate) -> Result<Duration, TaskError> {
        let mut waited = Duration::ZERO;
        let mut available = self.credit.available.lock();
        loop {
            if self.connection.closed.load(Ordering::SeqCst) {
                return Err(TaskError::Recoverable(format!("the connection to worker-{} broke", self.connection.peer)));
            }
            match *available {
                Some(credit) if credit > 0 || !is_data => break,
                _ => {}
            }
            if producer.is_cancelled() {
                return Err(TaskError::Cancelled);
            }
            let start = Instant::now();
            self.credit.granted.wait_for(&mut available, Duration::from_millis(20));
            waited += start.elapsed();
        }
        if is_data && let Some(credit) = available.as_mut() {
            *credit -= payload.len() as i64;
        }
        self.connection.push(frame(ELEMENT, self.key.0, self.key.1, payload));
        Ok(waited)
    }
}

struct CreditToProducer {
    key: ChannelKey,
    connection: Arc<Connection>,
    pending: Mutex<usize>,
}

impl CreditReturn for CreditToProducer {
    fn consumed(&self, bytes: usize) {
        let mut pending = self.pending.lock();
        *pending += bytes;
        if *pending >= CREDIT_PORTION {
            let grant = (*pending as u32).to_be_bytes();
            *pending = 0;
            self.connection.push(frame(CREDIT, self.key.0, self.key.1, &grant));
        }
    }
}

#[derive(Clone)]
struct Incoming {
    gate: Arc<Gate>,
    channel: usize,
    producer: u64,
}

#[derive(Default)]
struct Tables {
    /// Connections that we opened, by consumer worker.
    outgoing: HashMap<u64, Arc<Connection>>,
    /// Connections that producers opened to us, by producer worker.
    incoming_connections: HashMap<u64, Arc<Connection>>,
    incoming: HashMap<ChannelKey, Incoming>,
    credits: HashMap<ChannelKey, Arc<Credit>>,
    /// Gates of tasks that send to a worker, to be told when its connection breaks.
    producers: HashMap<ChannelKey, (u64, Arc<Gate>)>,
}

/// The data plane of one worker process.
pub struct Network {
    me: u64,
    /// Connections say which coordinator's workers they belong to; others are refused.
    incarnation: u64,
    tables: Mutex<Tables>,
    stopped: AtomicBool,
    local_addr: SocketAddr,
}

impl Network {
    /// `listener` is already bound: its address was sent with the registration.
    pub fn start(listener: TcpListener, me: u64, incarnation: u64) -> std::io::Result<Arc<Network>> {
        let network = Arc::new(Network {
            me,
            incarnation,
            tables: Mutex::default(),
            stopped: AtomicBool::new(false),
            local_addr: listener.local_addr()?,
        });
        let accepting = network.clone();
        std::thread::Builder::new().name("net-accept".into()).spawn(move || accepting.accept_loop(listener))?;
        Ok(network)
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept loop.
        let _ = TcpStream::connect_timeout(&self.local_addr, Duration::from_millis(200));
        let mut tables = self.tables.lock();
        let outgoing = std::mem::take(&mut tables.outgoing);
        let incoming = std::mem::take(&mut tables.incoming_connections);
        let connections: Vec<Arc<Connection>> = outgoing.into_values().chain(incoming.into_values()).collect();
        drop(tables);
        connections.iter().for_each(|connection| connection.close());
    }

    fn accept_loop(self: Arc<Self>, listener: TcpListener) {
        for socket in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(socket) = socket else { continue };
            let network = self.clone();
            let spawned =
                std::thread::Builder::new().name("net-in".into()).spawn(move || network.serve_producer(socket));
            if let Err(error) = spawned {
                tracing::warn!(%error, "no thread for a data connection");
            }
        }
    }

    /// Reads what a producer's worker sends.
    fn serve_producer(self: Arc<Self>, socket: TcpStream) {
        let Ok(reader) = socket.try_clone() else { return };
        let mut reader = BufReader::with_capacity(256 << 10, reader);
        let _ = socket.set_read_timeout(Some(CONNECT_TIMEOUT));
        let peer = match read_frame(&mut reader) {
            Ok((HELLO, incarnation, _, payload)) if incarnation == self.incarnation && payload.len() == 8 => {
                let mut id = [0u8; 8];
                id.copy_from_slice(&payload);
                u64::from_be_bytes(id)
            }
            // Another job's worker, or no worker at all: not ours to answer.
            _ => return,
        };
        let _ = socket.set_read_timeout(None);
        let Ok(connection) = Connection::start(peer, socket) else { return };
        {
            let mut tables = self.tables.lock();
            tables.incoming_connections.insert(peer, connection.clone());
            let waiting: Vec<(ChannelKey, Incoming)> = tables
                .incoming
                .iter()
                .filter(|(_, incoming)| incoming.producer == peer)
                .map(|(key, incoming)| (*key, incoming.clone()))
                .collect();
            for (key, incoming) in waiting {
                open(&connection, key, &incoming);
            }
        }
        while let Ok((kind, deployment, channel, payload)) = read_frame(&mut reader) {
            if kind != ELEMENT {
                break;
            }
            let target = self.tables.lock().incoming.get(&(deployment, channel)).cloned();
            // Elements for a task that was cancelled meanwhile are of no use to anybody.
            if let Some(incoming) = target {
                let is_data = payload.first() == Some(&0);
                let bytes = if is_data { payload.len() } else { 0 };
                incoming.gate.push_encoded(incoming.channel, payload, bytes);
            }
        }
        connection.close();
        let affected: Vec<Incoming> = {
            let mut tables = self.tables.lock();
            if tables.incoming_connections.get(&peer).is_some_and(|current| Arc::ptr_eq(current, &connection)) {
                tables.incoming_connections.remove(&peer);
            }
            tables.incoming.values().filter(|incoming| incoming.producer == peer).cloned().collect()
        };
        if !self.stopped.load(Ordering::SeqCst) {
            for incoming in affected {
                incoming.gate.fail(&format!("the connection from worker-{peer} broke"));
            }
        }
    }

    /// Registers an input channel of a local task whose producer runs on worker `producer`, and opens it.
    pub fn receive(&self, key: ChannelKey, gate: Arc<Gate>, channel: usize, producer: u64) {
        let incoming = Incoming { gate, channel, producer };
        let mut tables = self.tables.lock();
        tables.incoming.insert(key, incoming.clone());
        if let Some(connection) = tables.incoming_connections.get(&producer).cloned() {
            open(&connection, key, &incoming);
        }
    }

    /// An outgoing channel of a local task to a task on worker `consumer`.
    pub fn channel(
        self: &Arc<Self>,
        key: ChannelKey,
        consumer: u64,
        address: SocketAddr,
        producer: Arc<Gate>,
    ) -> Result<Arc<RemoteChannel>, TaskError> {
        let existing = self.tables.lock().outgoing.get(&consumer).cloned();
        let connection = match existing.filter(|connection| !connection.closed.load(Ordering::SeqCst)) {
            Some(connection) => connection,
            None => self.connect(consumer, address).map_err(|error| {
                TaskError::Recoverable(format!("connecting to worker-{consumer} at {address}: {error}"))
            })?,
        };
        let mut tables = self.tables.lock();
        let credit = tables.credits.entry(key).or_default().clone();
        tables.producers.insert(key, (consumer, producer));
        Ok(Arc::new(RemoteChannel { key, connection, credit }))
    }

    fn connect(self: &Arc<Self>, consumer: u64, address: SocketAddr) -> std::io::Result<Arc<Connection>> {
        faults::point("connect.before").map_err(std::io::Error::other)?;
        let socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        let reader = socket.try_clone()?;
        let connection = Connection::start(consumer, socket)?;
        connection.push(frame(HELLO, self.incarnation, 0, &self.me.to_be_bytes()));
        self.tables.lock().outgoing.insert(consumer, connection.clone());
        let network = self.clone();
        let reading = connection.clone();
        std::thread::Builder::new()
            .name(format!("net-credit-{consumer}"))
            .spawn(move || network.read_credits(reading, reader))?;
        Ok(connection)
    }

    fn read_credits(&self, connection: Arc<Connection>, socket: TcpStream) {
        let mut reader = BufReader::new(socket);
        while let Ok((CREDIT, deployment, channel, payload)) = read_frame(&mut reader) {
            let Ok(bytes) = <[u8; 4]>::try_from(payload.as_ref()) else { break };
            let credit = self.tables.lock().credits.entry((deployment, channel)).or_default().clone();
            let mut available = credit.available.lock();
            *available = Some(available.unwrap_or(0) + i64::from(u32::from_be_bytes(bytes)));
            credit.granted.notify_all();
        }
        connection.close();
        if !self.stopped.load(Ordering::SeqCst) {
            let tables = self.tables.lock();
            for (consumer, gate) in tables.producers.values().filter(|(consumer, _)| *consumer == connection.peer) {
                gate.fail(&format!("the connection to worker-{consumer} broke"));
            }
        }
    }

    /// Forgets the channels of a task that ended.
    pub fn release(&self, inputs: &[ChannelKey], outputs: &[ChannelKey]) {
        let mut tables = self.tables.lock();
        for key in inputs {
            tables.incoming.remove(key);
        }
        for key in outputs {
            tables.credits.remove(key);
            tables.producers.remove(key);
        }
    }
}

fn open(connection: &Arc<Connection>, key: ChannelKey, incoming: &Incoming) {
    let credit = CreditToProducer { key, connection: connection.clone(), pending: Mutex::new(0) };
    incoming.gate.set_credit(incoming.channel, Arc::new(credit));
    connection.push(frame(CREDIT, key.0, key.1, &(CHANNEL_CREDIT as u32).to_be_bytes()));
}

/// Kind, deployment, channel, payload.
fn read_frame(reader: &mut impl Read) -> std::io::Result<(u8, u64, u32, Bytes)> {
    let mut header = [0u8; FRAME_HEADER];
    reader.read_exact(&mut header)?;
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if length > MAX_FRAME {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a frame of ours"));
    }
    let mut deployment = [0u8; 8];
    deployment.copy_from_slice(&header[5..13]);
    let mut channel = [0u8; 4];
    channel.copy_from_slice(&header[13..17]);
    let mut payload = vec![0u8; length];
    reader.read_exact(&mut payload)?;
    Ok((header[4], u64::from_be_bytes(deployment), u32::from_be_bytes(channel), payload.into()))
}
