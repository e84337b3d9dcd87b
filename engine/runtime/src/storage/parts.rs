//! Large objects in an object store: uploaded in parts while they are being made, and read in parts.
//!
//! An object that fits into one part is one request; a larger one is a multipart upload, so that no request grows with the
//! state, and no more than a few parts are in memory.

use super::{StoreError, Written, describe, within};
use crate::faults;
use bytes::Bytes;
use futures::StreamExt;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use std::io::{self, Write};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use xxhash_rust::xxh3::Xxh3Default;

/// Object stores take parts of 5 MiB and more (but for the last), and 10,000 of them: 78 GiB.
pub(super) const PART: usize = 8 << 20;
/// Requests of one upload at a time.
const PARTS_AT_ONCE: usize = 4;

/// Writes an object with what `fill` gives. There is no object after an error.
pub(super) async fn write_new(
    store: &dyn ObjectStore,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<(), String> + Send + 'static,
) -> Result<Written, String> {
    let (sender, mut parts) = mpsc::channel(1);
    let filling = tokio::task::spawn_blocking(move || {
        let mut cutter = Cutter { sender, memory: Vec::new(), hasher: Xxh3Default::new(), length: 0 };
        fill(&mut cutter)?;
        cutter.finish().map_err(|error| error.to_string())
    });
    let first = parts.recv().await.unwrap_or_default();
    let Some(second) = parts.recv().await else {
        let written = end(filling).await?;
        let put = store.put(path, PutPayload::from_bytes(first));
        within("storing", path.as_ref(), put).await.map_err(describe)?.map_err(|error| error.to_string())?;
        return Ok(written);
    };
    let begun = within("beginning", path.as_ref(), store.put_multipart(path)).await.map_err(describe)?;
    let mut upload = begun.map_err(|error| error.to_string())?;
    let written = match upload_parts(upload.as_mut(), [first, second], &mut parts).await {
        Ok(()) => end(filling).await,
        Err(reason) => Err(reason),
    };
    let completed = match written.and_then(|written| faults::point("complete.before").map(|()| written)) {
        Ok(written) => request("completing", upload.complete()).await.map(|_| written),
        Err(reason) => Err(reason),
    };
    if completed.is_err()
        && let Err(reason) = request("giving up", upload.abort()).await
    {
        tracing::warn!(%path, reason, "an unfinished upload stays until the store's own rule removes it");
    }
    completed
}

async fn upload_parts(
    upload: &mut dyn MultipartUpload,
    begun: [Bytes; 2],
    more: &mut mpsc::Receiver<Bytes>,
) -> Result<(), String> {
    let mut running = JoinSet::new();
    for part in begun {
        running.spawn(request("uploading a part", upload.put_part(part.into())));
    }
    while let Some(part) = more.recv().await {
        if running.len() == PARTS_AT_ONCE {
            ended(running.join_next().await)?;
        }
        running.spawn(request("uploading a part", upload.put_part(part.into())));
    }
    while let Some(result) = running.join_next().await {
        ended(Some(result))?;
    }
    Ok(())
}

async fn request<T>(what: &str, future: impl Future<Output = object_store::Result<T>>) -> Result<T, String> {
    within(what, "of a large object", future).await.map_err(describe)?.map_err(|error| error.to_string())
}

fn ended(result: Option<Result<Result<(), String>, tokio::task::JoinError>>) -> Result<(), String> {
    result.unwrap_or(Ok(Ok(()))).unwrap_or_else(|error| Err(error.to_string()))
}

async fn end(filling: JoinHandle<Result<Written, String>>) -> Result<Written, String> {
    filling.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// Collects pieces into parts and hands each on as soon as it is full.
struct Cutter {
    sender: mpsc::Sender<Bytes>,
    memory: Vec<u8>,
    hasher: Xxh3Default,
    length: u64,
}

impl Cutter {
    fn hand_on(&mut self) -> io::Result<()> {
        let part = std::mem::take(&mut self.memory);
        self.hasher.update(&part);
        self.length += part.len() as u64;
        let given_up = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload was given up");
        self.sender.blocking_send(part.into()).map_err(given_up)
    }

    fn finish(mut self) -> io::Result<Written> {
        if !self.memory.is_empty() {
            self.hand_on()?;
        }
        Ok(Written { bytes: self.length, checksum: self.hasher.digest() })
    }
}

impl Write for Cutter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART - self.memory.len());
        self.memory.extend_from_slice(&bytes[..taken]);
        if self.memory.len() == PART {
            self.hand_on()?;
        }
        Ok(taken)
    }

    /// Parts but for the last one have one length.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an object of this length, which it is known to have, in requests of one part each.
pub(super) async fn read(store: &dyn ObjectStore, path: &Path, length: u64) -> Result<Bytes, StoreError> {
    let starts = (0..length).step_by(PART);
    let ranges = starts.map(|start| {
        let range = start..length.min(start + PART as u64);
        let part = store.get_range(path, range);
        async move { within("reading", path.as_ref(), part).await }
    });
    let mut parts = futures::stream::iter(ranges).buffered(PARTS_AT_ONCE);
    let mut whole = Vec::with_capacity(length as usize);
    while let Some(part) = parts.next().await {
        let part = part?.map_err(|error| StoreError::Unavailable(format!("reading {path}: {error}")))?;
        whole.extend_from_slice(&part);
    }
    Ok(whole.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    use std::time::Duration;
    use xxhash_rust::xxh3::xxh3_64;

    #[tokio::test]
    async fn objects_hold_their_bytes_whatever_their_length_and_their_pieces() {
        // The last part, which is short, would overtake the others.
        let config = ThrottleConfig { wait_get_per_byte: Duration::from_nanos(5), ..ThrottleConfig::default() };
        let store = ThrottledStore::new(InMemory::new(), config);
        let bytes: Vec<u8> = (0..3 * PART + 1).map(|at| (at % 251) as u8).collect();
        for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 1] {
            for piece in [999_983, 2 * PART] {
                let path = Path::from(format!("{length}/{piece}"));
                let content = bytes[..length].to_vec();
                let fill = move |out: &mut dyn Write| {
                    content.chunks(piece).try_for_each(|piece| out.write_all(piece)).map_err(|error| error.to_string())
                };
                let written = write_new(&store, &path, fill).await.unwrap();
                assert_eq!(written, Written { bytes: length as u64, checksum: xxh3_64(&bytes[..length]) });
                assert!(read(&store, &path, length as u64).await.unwrap() == bytes[..length], "{path}");
            }
        }
    }

    #[tokio::test]
    async fn there_is_no_object_after_an_error() {
        let store = InMemory::new();
        for length in [0, 1, PART, 3 * PART] {
            let fill = move |out: &mut dyn Write| {
                out.write_all(&vec![1; length]).map_err(|error| error.to_string())?;
                Err("enough".to_owned())
            };
            assert_eq!(write_new(&store, &Path::from("object"), fill).await, Err("enough".into()));
        }
        let found: Vec<_> = store.list(None).try_collect().await.unwrap();
        assert!(found.is_empty(), "{found:?}");
    }

    #[tokio::test]
    async fn a_store_that_fails_ends_the_filling() {
        let directory = tempfile::tempdir().unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(directory.path()).unwrap();
        std::fs::write(directory.path().join("file"), b"").unwrap();
        // Below a file nothing can be written.
        let (ended, mut end) = mpsc::channel(1);
        let fill = move |out: &mut dyn Write| {
            let result = (0..100).try_for_each(|_| out.write_all(&vec![1; PART])).map_err(|error| error.to_string());
            ended.blocking_send(result.clone()).map_err(|error| error.to_string())?;
            result
        };
        assert!(write_new(&store, &Path::from("file/object"), fill).await.is_err());
        assert_eq!(end.recv().await, Some(Err("the upload was given up".into())));
    }
}
