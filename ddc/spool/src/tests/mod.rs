//! The spool as a whole, on a disk in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails should panic")]
#![allow(clippy::from_iter_instead_of_collect, reason = "lists that are compared read better so")]

mod behaviour;
mod crash;
mod damage;
mod full;
mod memory;
mod model;
mod refusals;

use std::time::Duration;

use crate::options::{Fsync, Options, WhenFull};
use crate::{Frame, Head, Next, Opened, Reader, Spool};
use memory::MemoryDisk;

const NOW: Duration = Duration::ZERO;

/// Small segments, nothing in memory, no thread: what happens is what the test does.
fn options() -> Options {
    Options {
        segment_bytes: 8192 + 1000,
        max_bytes: 1 << 20,
        max_frame_bytes: 4000,
        tail_bytes: 0,
        fsync: Fsync::Interval(Duration::from_hours(1)),
        when_full: WhenFull::DropNewest,
        retry_after: Duration::ZERO,
        ..Options::new("/spool", *b"site/link")
    }
}

fn open(disk: &MemoryDisk) -> Opened {
    open_with(disk, options())
}

fn open_with(disk: &MemoryDisk, options: Options) -> Opened {
    Spool::open_on(std::sync::Arc::new(disk.clone()), options, None).unwrap()
}

/// A frame that can be recognised: its number is in head and payload.
fn head(number: u64) -> Head {
    Head {
        session: [number as u8 % 3; 12],
        block: number,
        received_micros: number * 7,
        kind: number as u8,
        tag: [number as u8; 16],
    }
}

/// From 8 to 300 bytes, and now and then magic bytes in the middle.
fn payload(number: u64) -> Vec<u8> {
    let len = 8 + (number * 37 % 293) as usize;
    let mut bytes: Vec<u8> = (0..len).map(|at| (number as usize * 31 + at * 7) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    if len > 20 {
        bytes[10..14].copy_from_slice(b"DDCf");
    }
    bytes
}

/// The frame's number; panics when anything of it is wrong.
fn number_of(frame: &Frame) -> u64 {
    let number = u64::from_be_bytes(*frame.payload.first_chunk().unwrap());
    assert_eq!(frame.payload, payload(number), "payload of {number}");
    assert_eq!(frame.head, head(number), "head of {number}");
    number
}

fn append(opened: &mut Opened, numbers: impl IntoIterator<Item = u64>) -> Vec<crate::Span> {
    numbers
        .into_iter()
        .map(|number| opened.appender.append(&head(number), &[&payload(number)]).unwrap())
        .collect()
}

/// Everything that can be read now.
fn read_all(reader: &mut Reader) -> Vec<Next> {
    let mut all = Vec::new();
    loop {
        match reader.next(NOW).unwrap() {
            Next::Nothing | Next::Closed => return all,
            next => all.push(next),
        }
    }
}

fn numbers(all: &[Next]) -> Vec<u64> {
    all.iter()
        .filter_map(|next| if let Next::Frame(frame) = next { Some(number_of(frame)) } else { None })
        .collect()
}
