//! How fast one thread packs, protects and seals records of 100 bytes. Run it with
//! `cargo run --release -p ddc-link --example sender_throughput [SECONDS]`.
//!
//! Nothing is sent: this is the sender's own cost. Each line is one choice of codec and seal. Rates
//! are per second of CPU time where the system tells it (Linux), so that a busy machine does not
//! spoil them; the last column says how much of a core the run got.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ddc_fec::Code;
use ddc_link::keys::{LinkKey, SealMode};
use ddc_link::sender::{
    Compression, Datagrams, PackConfig, Packer, PartitionStart, Sender, SenderConfig, Slot, Step,
};
use ddc_wire::{Epoch, KeyId, LinkId, Session, Timestamp, TopicId};

type Failure = Box<dyn std::error::Error>;

const SYMBOL_SIZE: usize = 1412;
const RECORD_BYTES: usize = 100;

fn main() -> Result<(), Failure> {
    let seconds = std::env::args().nth(1).map_or(Ok(1.0), |text| text.parse())?;
    let duration = Duration::from_secs_f64(seconds);
    println!("codec  code   seal         GB/s of records   M records/s   datagrams/s   bytes in/out   core");
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd(1)] {
        for (code, seal) in [
            (Code::new(64, 0)?, SealMode::None),
            (Code::new(64, 0)?, SealMode::Aes256Gcm),
            (Code::DEFAULT, SealMode::None),
            (Code::DEFAULT, SealMode::Aes256Gcm),
        ] {
            measure(compression, code, seal, duration)?;
        }
    }
    Ok(())
}

fn measure(compression: Compression, code: Code, seal: SealMode, duration: Duration) -> Result<(), Failure> {
    let start = Instant::now();
    let cpu_before = cpu_time();
    let (mut packer, slots) = packer(compression, code, start)?;
    let mut sender = Sender::new(
        SenderConfig {
            link_id: LinkId(1),
            key_id: KeyId(1),
            key: LinkKey::new([1; 32]),
            seal,
            session: Session::new(1, 1),
            code,
            symbol_size: SYMBOL_SIZE,
            interleave: 1,
            interleave_span: Duration::ZERO,
            rate: None,
            burst: Duration::ZERO,
            ip_overhead: 20,
        },
        start,
    )?;
    let values = values();
    let mut out = Datagrams::new();
    let (mut now, mut offset) = (start, 0i64);
    while now - start < duration {
        for _ in 0..1_000 {
            let value = &values[offset as usize % values.len()];
            let slot = slots[offset as usize / 50 % slots.len()];
            packer.push(
                now,
                slot,
                offset,
                Some(Timestamp::Create(offset)),
                None,
                Some(value),
                std::iter::empty(),
            )?;
            offset += 1;
        }
        while let Some(block) = packer.poll(now, false) {
            sender.push(now, block.bytes, block.full, block.records)?;
            while sender.poll(now, &mut out) == Step::Send {
                black_box(out.as_bytes());
            }
        }
        now = Instant::now();
    }
    let wall = (now - start).as_secs_f64();
    let cpu = cpu_time().zip(cpu_before).map(|(after, before)| after.saturating_sub(before).as_secs_f64());
    let seconds = cpu.unwrap_or(wall);
    let totals = sender.totals();
    let bytes = totals.records as f64 * RECORD_BYTES as f64;
    println!(
        "{:<6} {:<6} {:<12} {:>15.3} {:>13.2} {:>13.0} {:>14.2} {:>6.2}",
        format!("{compression:?}").to_lowercase().split('(').next().unwrap_or(""),
        code.to_string(),
        if seal == SealMode::None { "none" } else { "aes-256-gcm" },
        bytes / seconds / 1e9,
        totals.records as f64 / seconds / 1e6,
        totals.packets as f64 / seconds,
        bytes / totals.bytes as f64,
        seconds / wall,
    );
    Ok(())
}

/// Time that this process (one thread) has spent on a CPU.
fn cpu_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

fn packer(compression: Compression, code: Code, now: Instant) -> Result<(Packer, Vec<Slot>), Failure> {
    let mut packer = Packer::new(
        PackConfig {
            stream: String::new(),
            symbol_size: SYMBOL_SIZE,
            source_symbols: code.k(),
            linger: Duration::from_millis(5),
            compression,
            max_record_bytes: 16 << 20,
            ledger_interval: Duration::from_secs(30),
            ledger_changed: Duration::from_secs(1),
            max_partitions: 16,
        },
        now,
    )?;
    let slots = (0..4)
        .map(|partition| {
            packer.assign(PartitionStart {
                topic: Arc::from("measurements"),
                topic_id: TopicId::Configured(0),
                partition,
                partition_count: 4,
                epoch: Epoch(1),
                origin: 0,
                previous: None,
                count: 0,
                next: 0,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok((packer, slots))
}

/// Values as a plant sends them: fixed words, some digits that change.
fn values() -> Vec<Vec<u8>> {
    let mut state = 1u64;
    (0..10_000)
        .map(|index| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut value =
                format!("{{\"sensor\":\"line-{:02}\",\"n\":{index},\"value\":{state}", state >> 59)
                    .into_bytes();
            value.resize(RECORD_BYTES, b' ');
            value
        })
        .collect()
}
