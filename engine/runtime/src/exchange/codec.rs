//! Elements as bytes: Arrow IPC for batches (one schema message a channel), a few fixed bytes for the rest.

use super::Element;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;
use streamjob_dataflow::{Batch, TaskError};
use streamjob_protocol::coordinator::{Barrier, SnapshotKind};

const BATCH: u8 = 0;
const WATERMARK: u8 = 1;
const IDLE: u8 = 2;
const BARRIER: u8 = 3;
const CANCEL: u8 = 4;
const END_OF_DATA: u8 = 5;
const CLOSED: u8 = 6;
/// After a barrier's fixed part: a savepoint, whose directory follows. Smaller numbers: a checkpoint, whole or not.
const SAVEPOINT: u8 = 2;

/// Encoding side of one channel.
#[derive(Default)]
pub struct Encoder {
    writer: Option<StreamWriter<Vec<u8>>>,
}

impl Encoder {
    pub fn encode(&mut self, element: &Element) -> Result<Vec<u8>, TaskError> {
        let mut out = Vec::with_capacity(32);
        match element {
            Element::Batch(batch) => return self.encode_batch(batch),
            Element::Watermark(watermark) => {
                out.put_u8(WATERMARK);
                out.put_i64(*watermark);
            }
            Element::Idle(idle) => {
                out.put_u8(IDLE);
                out.put_u8(u8::from(*idle));
            }
            Element::Barrier(barrier) => {
                out.put_u8(BARRIER);
                out.put_u64(barrier.checkpoint);
                out.put_u64(barrier.triggered_at);
                out.put_u8(u8::from(barrier.last));
                match &barrier.kind {
                    SnapshotKind::Checkpoint { whole } => out.put_u8(u8::from(*whole)),
                    SnapshotKind::Savepoint { directory } => {
                        out.put_u8(SAVEPOINT);
                        out.extend_from_slice(directory.as_bytes());
                    }
                }
            }
            Element::CancelCheckpoint(checkpoint) => {
                out.put_u8(CANCEL);
                out.put_u64(*checkpoint);
            }
            Element::EndOfData => out.put_u8(END_OF_DATA),
            Element::Closed => out.put_u8(CLOSED),
        }
        Ok(out)
    }

    fn encode_batch(&mut self, batch: &Batch) -> Result<Vec<u8>, TaskError> {
        // Kinds first, then the IPC messages, so that the decoder can hand the rest to arrow as one slice. Padding keeps
        // the messages aligned to 8 bytes, or arrow would copy every buffer.
        let kinds = batch.kinds.as_deref().unwrap_or(&[]);
        let mut out = Vec::with_capacity(kinds.len() + 64 + super::batch_bytes(batch));
        out.put_u8(BATCH);
        out.put_bytes(0, 3);
        out.put_u32(kinds.len() as u32);
        out.extend_from_slice(kinds);
        while out.len() % 8 != 0 {
            out.push(0);
        }
        let writer = match &mut self.writer {
            Some(writer) => {
                *writer.get_mut() = out;
                writer
            }
            empty => {
                let header = out;
                let mut writer = StreamWriter::try_new(Vec::new(), &batch.rows.schema())?;
                let mut with_schema = header;
                with_schema.append(writer.get_mut());
                *writer.get_mut() = with_schema;
                empty.insert(writer)
            }
        };
        writer.write(&batch.rows)?;
        Ok(std::mem::take(writer.get_mut()))
    }
}

/// Decoding side of one channel.
#[derive(Default)]
pub struct Decoder {
    stream: StreamDecoder,
}

impl Decoder {
    /// `bytes` is what [`Encoder::encode`] returned on the other side.
    pub fn decode(&mut self, bytes: Bytes) -> Result<Element, TaskError> {
        let garbage = |what: &str| TaskError::Recoverable(format!("an exchange delivered garbage: {what}"));
        let number = |at: usize| -> Result<u64, TaskError> {
            bytes
                .get(at..at + 8)
                .and_then(|slice| slice.try_into().ok())
                .map(u64::from_be_bytes)
                .ok_or_else(|| garbage("an element is cut short"))
        };
        match bytes.first().copied() {
            Some(BATCH) => self.decode_batch(bytes),
            Some(WATERMARK) => Ok(Element::Watermark(number(1)? as i64)),
            Some(IDLE) => Ok(Element::Idle(bytes.get(1) == Some(&1))),
            Some(BARRIER) => {
                let (checkpoint, triggered_at) = (number(1)?, number(9)?);
                let (Some(last), Some(kind)) = (bytes.get(17), bytes.get(18)) else {
                    return Err(garbage("a barrier is cut short"));
                };
                let kind = match *kind {
                    SAVEPOINT => {
                        let directory = std::str::from_utf8(&bytes[19..]);
                        let directory = directory.map_err(|_| garbage("a directory that is not text"))?.to_owned();
                        SnapshotKind::Savepoint { directory }
                    }
                    whole => SnapshotKind::Checkpoint { whole: whole == 1 },
                };
                Ok(Element::Barrier(Barrier { checkpoint, triggered_at, kind, last: *last == 1 }))
            }
            Some(CANCEL) => Ok(Element::CancelCheckpoint(number(1)?)),
            Some(END_OF_DATA) => Ok(Element::EndOfData),
            Some(CLOSED) => Ok(Element::Closed),
            Some(other) => Err(garbage(&format!("element type {other}"))),
            None => Err(garbage("an empty element")),
        }
    }

    fn decode_batch(&mut self, bytes: Bytes) -> Result<Element, TaskError> {
        let garbage = || TaskError::Recoverable("an exchange delivered garbage: a batch is cut short".into());
        let kinds_len =
            bytes.get(4..8).and_then(|slice| slice.try_into().ok()).map(u32::from_be_bytes).ok_or_else(garbage)?
                as usize;
        let kinds: Option<Arc<[u8]>> = match kinds_len {
            0 => None,
            _ => Some(bytes.get(8..8 + kinds_len).ok_or_else(garbage)?.into()),
        };
        let start = (8 + kinds_len).div_ceil(8) * 8;
        if start > bytes.len() {
            return Err(garbage());
        }
        let mut buffer = Buffer::from(bytes.slice(start..));
        let mut decoded: Option<RecordBatch> = None;
        while !buffer.is_empty() {
            if let Some(rows) = self.stream.decode(&mut buffer)? {
                decoded = Some(rows);
            }
        }
        let rows = decoded.ok_or_else(garbage)?;
        Ok(Element::Batch(Batch { rows, kinds }))
    }
}

/// A frame's payload with its address in front, as the network sends it.
pub fn frame(kind: u8, deployment: u64, channel: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(FRAME_HEADER + payload.len());
    out.put_u32(payload.len() as u32);
    out.put_u8(kind);
    out.put_u64(deployment);
    out.put_u32(channel);
    out.extend_from_slice(payload);
    out.freeze()
}

/// Length, kind, deployment, channel.
pub const FRAME_HEADER: usize = 4 + 1 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    fn rows(n: i64) -> RecordBatch {
        RecordBatch::try_from_iter([
            ("n", Arc::new(Int64Array::from_iter_values(0..n)) as ArrayRef),
            ("s", Arc::new(StringArray::from_iter_values((0..n).map(|i| format!("row {i}")))) as ArrayRef),
        ])
        .unwrap()
    }

    #[test]
    fn elements_survive_the_wire() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for n in [1, 1000, 3] {
            let batch = Batch::changes(rows(n), (0..n).map(|i| (i % 4) as u8).collect());
            let bytes = encoder.encode(&Element::Batch(batch.clone())).unwrap();
            let Element::Batch(back) = decoder.decode(bytes.into()).unwrap() else { panic!("not a batch") };
            assert_eq!(back.rows, batch.rows);
            assert_eq!(back.kinds.as_deref(), batch.kinds.as_deref());
        }
        let plain = encoder.encode(&Element::Batch(Batch::inserts(rows(5)))).unwrap();
        let Element::Batch(back) = decoder.decode(plain.into()).unwrap() else { panic!("not a batch") };
        assert!(back.kinds.is_none());
        let directory = "s3://b/s-ü".to_owned();
        let kind = SnapshotKind::Savepoint { directory };
        let barrier = Element::Barrier(Barrier { checkpoint: 7, triggered_at: 99, kind, last: true });
        for element in [Element::Watermark(i64::MIN), barrier, Element::Idle(true), Element::EndOfData, Element::Closed]
        {
            let bytes = encoder.encode(&element).unwrap();
            assert_eq!(format!("{:?}", decoder.decode(bytes.into()).unwrap()), format!("{element:?}"));
        }
    }

    #[test]
    fn garbage_is_an_error() {
        let mut decoder = Decoder::default();
        assert!(decoder.decode(Bytes::new()).is_err());
        assert!(decoder.decode(Bytes::from_static(&[9])).is_err());
        assert!(decoder.decode(Bytes::from_static(&[WATERMARK, 1])).is_err());
        assert!(decoder.decode(Bytes::from_static(&[BATCH, 0, 0, 0, 0, 0, 0, 9, 1])).is_err());
    }
}
