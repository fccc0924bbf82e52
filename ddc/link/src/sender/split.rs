//! Mends a guess that was too bold: a batch that does not fit a block is cut at a record.
//!
//! The first part is closed, the rest goes back into the open chunks, behind nothing and before
//! everything that follows: the order within each partition stays. Rare, since the guess learns;
//! so the records are simply read back from the encoded batch.

use ddc_wire::{Chunks, Codec, write_chunk};

use super::pack::{Packer, record_len};

/// Upper bound of a record's bytes in a batch; `len` is its key, value and headers.
pub(super) fn record_bound(len: usize, headers: usize) -> usize {
    // flags, offset delta, timestamp delta, key length, value length, header count; a header has
    // two lengths.
    1 + 10 + 10 + 5 + 5 + 5 + len + headers * 10
}

/// Closes as much of the batch in `packer.raw` as fits a block, at least one record.
pub(super) fn close_first_part(packer: &mut Packer, compressed_len: usize) {
    let original = std::mem::take(&mut packer.raw);
    let capacity = packer.data_capacity();
    let scaled = original.len() as f64 * capacity as f64 / compressed_len as f64;
    // First nine tenths of what fits at this batch's ratio. Then what fits without compression,
    // which always does, unless it is one record that takes several blocks.
    let budgets = [(scaled * 0.9) as usize, capacity];
    for (attempt, budget) in budgets.into_iter().enumerate() {
        let taken = encode_first_part(packer, &original, budget);
        let (codec, bytes) = packer.compressor.compress(&packer.raw);
        let records: u32 = taken.iter().sum();
        if attempt + 1 == budgets.len() || bytes.len() <= capacity || records <= 1 {
            let bytes = bytes.to_vec();
            close_part(packer, &original, &taken, codec, &bytes);
            return;
        }
    }
}

/// Writes the first records, at most `budget` bytes of them but at least one, into `packer.raw`.
/// Returns how many were taken of each chunk.
fn encode_first_part(packer: &mut Packer, original: &[u8], budget: usize) -> Vec<u32> {
    let Packer { config, partitions, open: batch, raw, .. } = packer;
    raw.clear();
    let (mut used, mut stopped) = (0, false);
    let mut taken = Vec::with_capacity(batch.touched.len());
    // The batch was written by the packer itself, so that no chunk or record of it is malformed.
    for (slot, chunk) in batch.touched.iter().zip(Chunks::new(original).flatten()) {
        let Some(partition) = partitions.get_mut(*slot) else { continue };
        let (base, head) = (partition.base(), partition.head_bound(&config.stream));
        let Some(open) = &mut partition.open else { continue };
        open.writer.start(base);
        let mut end = open.end;
        used += head;
        for record in chunk.records.flatten() {
            let len = record_len(record.key, record.value, record.headers.clone());
            used += record_bound(len, record.headers.len());
            stopped |= used > budget && (!raw.is_empty() || !open.writer.is_empty());
            if stopped {
                // What follows begins with this record, so the part ends behind the last one.
                end = open.writer.next_offset();
                break;
            }
            let pushed =
                open.writer.push(record.offset, record.timestamp, record.key, record.value, record.headers);
            debug_assert!(pushed.is_ok(), "{pushed:?}");
        }
        let records = open.writer.records();
        taken.push(records);
        if let Some(partition) = partitions.get(*slot)
            && let Some(open) = &partition.open
            && records > 0
        {
            write_chunk(raw, &partition.chunk_header(&config.stream, records, end), &[], &open.writer);
        }
    }
    taken
}

/// Tells the partitions what was taken, closes it, and puts the rest back into the open batch.
fn close_part(packer: &mut Packer, original: &[u8], taken: &[u32], codec: Codec, bytes: &[u8]) {
    let touched = std::mem::take(&mut packer.open.touched);
    let (records_before, bytes_before) = (packer.open.records, packer.open.record_bytes);
    (packer.open.records, packer.open.record_bytes, packer.open.raw_len) = (0, 0, 0);
    for ((&slot, chunk), &taken) in touched.iter().zip(Chunks::new(original).flatten()).zip(taken) {
        let Some(partition) = packer.partitions.get_mut(slot) else { continue };
        let Some(mut open) = partition.open.take() else { continue };
        let complete = taken == chunk.record_count;
        if taken > 0 {
            let last = open.writer.next_offset() - 1;
            partition.packed(taken, last, if complete { open.end } else { last + 1 });
        }
        if complete {
            packer.keep(open.writer);
        } else {
            open.writer.start(partition.base());
            open.record_bytes = 0;
            for record in chunk.records.flatten().skip(taken as usize) {
                open.record_bytes += record_len(record.key, record.value, record.headers.clone()) as u64;
                let pushed = open.writer.push(
                    record.offset,
                    record.timestamp,
                    record.key,
                    record.value,
                    record.headers,
                );
                debug_assert!(pushed.is_ok(), "{pushed:?}");
            }
            packer.open.raw_len += open.writer.len() + partition.head_bound(&packer.config.stream);
            packer.open.records += open.writer.records();
            packer.open.record_bytes += open.record_bytes;
            packer.open.touched.push(slot);
            partition.open = Some(open);
        }
        if taken > 0 {
            packer.partitions.due(slot);
        }
    }
    if packer.open.records == 0 {
        packer.open.since = None;
    }
    let records = records_before - packer.open.records;
    packer.emit_part(codec, bytes, records, bytes_before - packer.open.record_bytes);
}
