//! TensorBoard's event files: loss, learning rate, photographs per second and Recall@1 over the steps.
//!
//! A file is a sequence of records: length (u64, little-endian), its masked CRC-32C, the message, its masked CRC-32C.
//! Messages are the protocol buffers of tensorflow's `event.proto`, of which only a few fields are needed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Result, io_at};

/// One run's event file; each process begins a new one.
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins a file in the folder of the run, from step `done` on: what an earlier process wrote beyond that step is
    /// not shown any more.
    pub(super) fn begin(run: &Path, done: usize) -> Result<Self> {
        let now = seconds();
        let path = (0..)
            .map(|n| run.join(format!("events.out.tfevents.{}.semblance.{n}", now as u64)))
            .find(|path| !path.exists())
            .unwrap_or_default();
        let file = OpenOptions::new().create_new(true).append(true).open(&path).map_err(io_at(&path))?;
        let mut events = Self { path, file };
        events.write(&event(now, None, &field_bytes(3, b"brain.Event:2")))?;
        if done > 0 {
            // A session's start tells readers to drop what they have from this step on.
            events.write(&event(now, Some(done as u64 + 1), &field_bytes(7, &field_varint(1, 1))))?;
        }
        Ok(events)
    }

    /// Adds one number of a step.
    pub(super) fn scalar(&mut self, step: usize, tag: &str, value: f32) -> Result<()> {
        let mut entry = field_bytes(1, tag.as_bytes());
        entry.push((2 << 3) | 5);
        entry.extend(value.to_le_bytes());
        let summary = field_bytes(5, &field_bytes(1, &entry));
        self.write(&event(seconds(), Some(step as u64), &summary))
    }

    fn write(&mut self, message: &[u8]) -> Result<()> {
        let length = (message.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(message.len() + 16);
        record.extend(length);
        record.extend(masked(crc32c(&length)).to_le_bytes());
        record.extend(message);
        record.extend(masked(crc32c(message)).to_le_bytes());
        self.file.write_all(&record).map_err(io_at(&self.path))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// `Event { wall_time, step, … }`.
fn event(time: f64, step: Option<u64>, rest: &[u8]) -> Vec<u8> {
    let mut message = vec![(1 << 3) | 1];
    message.extend(time.to_le_bytes());
    if let Some(step) = step {
        message.extend(field_varint(2, step));
    }
    message.extend(rest);
    message
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field_varint(number: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    bytes.extend(varint(value));
    bytes
}

fn field_bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![(number << 3) | 2];
    bytes.extend(varint(content.len() as u64));
    bytes.extend(content);
    bytes
}

/// Castagnoli's CRC, bit by bit: records are some dozen bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

/// As the record format stores it.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xA282_EAD8)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 3720, appendix B.4: 32 bytes of zeros; and the check value of the nine digits.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    // import struct
    // from tensorboard.compat.proto.event_pb2 import Event
    // e = Event(wall_time=1.5, step=300); e.summary.value.add(tag='loss', simple_value=0.25)
    // print(e.SerializeToString().hex())
    #[test]
    fn a_message_is_protobufs() {
        let mut entry = field_bytes(1, b"loss");
        entry.push((2 << 3) | 5);
        entry.extend(0.25f32.to_le_bytes());
        let message = event(1.5, Some(300), &field_bytes(5, &field_bytes(1, &entry)));
        let hex: String = message.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "09000000000000f83f10ac022a0d0a0b0a046c6f7373150000803e");
    }

    #[test]
    fn records_frame_their_messages() {
        let dir = tempfile::tempdir().unwrap();
        let mut events = Events::begin(dir.path(), 0).unwrap();
        events.scalar(7, "loss", 0.5).unwrap();
        let bytes = std::fs::read(&events.path).unwrap();
        let (mut at, mut count) = (0, 0);
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let crc = |from: usize| u32::from_le_bytes(bytes[from..from + 4].try_into().unwrap());
            assert_eq!(crc(at + 8), masked(crc32c(&bytes[at..at + 8])));
            assert_eq!(crc(at + 12 + length), masked(crc32c(&bytes[at + 12..at + 12 + length])));
            at += length + 16;
            count += 1;
        }
        assert_eq!((at, count), (bytes.len(), 2));
        // A second process does not write over it.
        Events::begin(dir.path(), 7).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
