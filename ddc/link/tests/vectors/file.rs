//! The shape of `v1.json`. A field it lacks or adds fails the test: nothing is passed over.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, de};

/// Bytes, in hex.
#[derive(Clone, Debug)]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl Hex {
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0[..].try_into().unwrap()
    }
}

impl Deref for Hex {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Hex {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::borrow::Borrow<[u8]> for Hex {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let pairs = (0..text.len()).step_by(2).map(|at| {
            let pair = text.get(at..at + 2).ok_or("half a byte")?;
            u8::from_str_radix(pair, 16).map_err(|_| "no hex")
        });
        pairs.collect::<Result<_, _>>().map(Self).map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vectors {
    #[expect(dead_code, reason = "a line for people who open the file")]
    about: String,
    pub(crate) keys: Vec<KeyCase>,
    pub(crate) datagrams: Vec<DatagramCase>,
    pub(crate) heartbeats: Vec<HeartbeatFields>,
    pub(crate) goodbyes: Vec<GoodbyeFields>,
    pub(crate) preludes: Vec<PreludeFields>,
    pub(crate) batches: Vec<BatchCase>,
    pub(crate) ledgers: Vec<LedgerCase>,
    pub(crate) blocks: Vec<BlockCase>,
    pub(crate) codes: Vec<CodeCase>,
    pub(crate) session: SessionCase,
    pub(crate) refused: Vec<RefusedCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderFields {
    pub(crate) kind: u8,
    pub(crate) link_id: u16,
    pub(crate) key_id: u8,
    pub(crate) d_max: u8,
    pub(crate) session: Hex,
    pub(crate) packet_number: u64,
    pub(crate) block: u64,
    pub(crate) symbol_size: u16,
    pub(crate) symbol_index: u8,
    pub(crate) source_symbols: u8,
    pub(crate) repair_symbols: u8,
    pub(crate) block_len: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyCase {
    pub(crate) link_key: Hex,
    pub(crate) session: Hex,
    pub(crate) link_id: u16,
    pub(crate) key_id: u8,
    pub(crate) epoch: u64,
    pub(crate) direction: String,
    #[expect(dead_code, reason = "for other implementations; ours does not show its keys")]
    derived: Hex,
    pub(crate) header: HeaderFields,
    pub(crate) payload: Hex,
    pub(crate) datagram: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatagramCase {
    pub(crate) name: String,
    pub(crate) seal: String,
    pub(crate) link_key: Hex,
    pub(crate) header: HeaderFields,
    pub(crate) payload: Hex,
    pub(crate) datagram: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeartbeatFields {
    pub(crate) wall_clock_micros: u64,
    pub(crate) uptime_micros: u64,
    pub(crate) packets: u64,
    pub(crate) blocks: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) lag: Option<u64>,
    pub(crate) rate_bits: u64,
    pub(crate) interleave_span_micros: u32,
    pub(crate) source_state: u8,
    pub(crate) payload: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GoodbyeFields {
    pub(crate) last_packet: u64,
    pub(crate) reason: u8,
    pub(crate) payload: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreludeFields {
    pub(crate) codec: u8,
    pub(crate) content: u8,
    pub(crate) fragment: u32,
    pub(crate) fragments: u32,
    pub(crate) raw_len: u32,
    pub(crate) bytes: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchCase {
    pub(crate) name: String,
    pub(crate) chunks: Vec<ChunkFields>,
    pub(crate) raw: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChunkFields {
    pub(crate) kind: String,
    pub(crate) stream: String,
    pub(crate) topic: String,
    pub(crate) uuid: Option<Hex>,
    pub(crate) configured: u64,
    pub(crate) partition: i32,
    pub(crate) partition_count: u32,
    pub(crate) epoch: u64,
    pub(crate) origin: i64,
    pub(crate) previous: Option<i64>,
    pub(crate) end: i64,
    pub(crate) count: u64,
    pub(crate) filtered: Vec<(i64, i64)>,
    pub(crate) records: Vec<RecordFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordFields {
    pub(crate) offset: i64,
    pub(crate) key: Option<Hex>,
    pub(crate) value: Option<Hex>,
    pub(crate) headers: Vec<(Hex, Option<Hex>)>,
    pub(crate) time_kind: Option<String>,
    pub(crate) time: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LedgerCase {
    pub(crate) name: String,
    pub(crate) entries: Vec<EntryFields>,
    pub(crate) raw: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryFields {
    pub(crate) stream: String,
    pub(crate) topic: String,
    pub(crate) uuid: Option<Hex>,
    pub(crate) configured: u64,
    pub(crate) partition: i32,
    pub(crate) epoch: u64,
    pub(crate) origin: i64,
    pub(crate) last: Option<i64>,
    pub(crate) count: u64,
    pub(crate) blocks_back: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockCase {
    pub(crate) name: String,
    pub(crate) codec: u8,
    pub(crate) raw: Hex,
    pub(crate) block: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeCase {
    pub(crate) source_symbols: usize,
    pub(crate) repair_symbols: usize,
    pub(crate) symbol_size: usize,
    pub(crate) block: Hex,
    pub(crate) lost: Vec<usize>,
    pub(crate) repairs: Vec<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionCase {
    pub(crate) link_key: Hex,
    pub(crate) datagrams: Vec<SessionDatagram>,
    pub(crate) raw: Vec<Hex>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionDatagram {
    pub(crate) header: HeaderFields,
    #[expect(
        dead_code,
        reason = "for other implementations; ours is checked by what it makes of the session"
    )]
    payload: Hex,
    pub(crate) datagram: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefusedCase {
    pub(crate) what: String,
    pub(crate) name: String,
    pub(crate) seal: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) bytes: Hex,
}
