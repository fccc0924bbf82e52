//! Giving again what came back.
//!
//! librdkafka retries by itself whatever passes by itself; what comes back as failed has another cause:
//!
//! | what came back                         | what is done                                                    |
//! |----------------------------------------|-----------------------------------------------------------------|
//! | too large, refused (time, policy, key) | a broker judges a whole produce batch: again in smaller groups; what is refused *alone* is stepped over |
//! | the topic or partition is gone         | it is prepared anew (created where allowed, else waited for), then again |
//! | the producer is beyond repair (fatal)  | it is built anew, and everything without an answer goes again: duplicates are possible |
//! | anything else                          | again after a pause that grows to [`LONGEST_PAUSE`]              |
//!
//! Nothing new is handed over meanwhile, and first everything on its way is waited for, so that what goes again
//! does not overtake itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ddc_kafka::errors::{Kind, classify_code};
use ddc_wire::{ChunkHeader, Chunks, Record};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::control::GivenUp;
use super::delivery::Delivery as _;
use super::outlet::{ChunkRoute, Outlet};
use super::shared::lock;
use crate::sink::in_flight::InFlightRecord;

/// The longest pause between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Records that go again in one group.
const LARGEST_GROUP: usize = 4_096;

/// A record that came back.
type Returned = (usize, InFlightRecord, Code);

impl Outlet {
    /// Ends when nothing that came back is left: everything was taken or is refused for ever.
    pub(super) fn give_again(&mut self) -> Result<(), GivenUp> {
        let (mut group, mut pause, mut alone) = (LARGEST_GROUP, Duration::ZERO, None);
        loop {
            self.wait_for_answers()?;
            let returned: Vec<Returned> = self.ring.failed_records().take(group).collect();
            let Some(&(first, record, code)) = returned.first() else {
                *lock(&self.books.shared.sink_problem) = None;
                return Ok(());
            };
            let judged = returned.iter().any(|(.., code)| is_judged(*code));
            if returned.len() == 1 && alone == Some(first) && is_judged(code) {
                self.step_over(first, record, code);
                (alone, group, pause) = (None, 2, Duration::ZERO);
                continue;
            }
            if judged && returned.len() > 1 {
                group = returned.len().div_ceil(2);
            } else if !judged {
                self.show(record, code);
                self.pause(pause)?;
                pause = (pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            }
            let chosen = &returned[..group.min(returned.len())];
            alone = (chosen.len() == 1).then_some(first);
            self.books.metrics.sink_retries.inc();
            self.send_again(chosen)?;
            self.wait_for_answers()?;
            let came_back = self
                .ring
                .failed_records()
                .next()
                .is_some_and(|(number, ..)| number <= chosen[chosen.len() - 1].0);
            if !came_back {
                (group, pause) = ((group * 2).min(LARGEST_GROUP), Duration::ZERO);
            }
        }
    }

    /// Waits until nothing is on its way. A producer that can do no more is replaced, and everything without an
    /// answer counts as come back.
    fn wait_for_answers(&mut self) -> Result<(), GivenUp> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            self.pump();
            if let Some((code, text)) = self.producer.fatal() {
                tracing::warn!(
                    link = self.books.metrics.link(),
                    error = text,
                    in_flight = self.ring.waiting(),
                    "the producer is built anew; records without an answer are sent again and may arrive twice"
                );
                match self.producer.rebuild() {
                    Ok(()) => {
                        self.books.shared.rebuilds.fetch_add(1, Relaxed);
                        self.ring.all_failed(code);
                    }
                    Err(error) => {
                        tracing::warn!(link = self.books.metrics.link(), %error, "the producer cannot be built; trying again");
                        self.pause(pause)?;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                continue;
            }
            if self.ring.waiting() == 0 {
                return Ok(());
            }
            self.pause(self.wait)?;
        }
    }

    /// For `/readyz` and `/status`.
    fn show(&self, record: InFlightRecord, code: Code) {
        let topic = self
            .books
            .name(record.slot)
            .map_or_else(String::new, |partition| format!(" of source topic {}", partition.topic));
        let problem = format!("records{topic} come back: {code}; {}", classify_code(code).advice);
        *lock(&self.books.shared.sink_problem) = Some(problem);
    }

    fn step_over(&mut self, number: usize, record: InFlightRecord, code: Code) {
        let verdict = classify_code(code);
        self.ring.done(number);
        self.books.refuse(record.slot, record.offset, || format!("{code}; {}", verdict.advice));
    }

    /// Finds the records in their batches and hands them over. What finds no room stays as come back.
    fn send_again(&mut self, chosen: &[Returned]) -> Result<(), GivenUp> {
        let overtaken = self.overtaken();
        // Taken out while it is read from, since handing over needs all of `self`. It is always there: it is put back below.
        let Some(mut unpacker) = self.unpacker.take() else { return Ok(()) };
        let mut rest = chosen;
        let mut outcome = Ok(());
        while let Some(&(_, record, _)) = rest.first() {
            let of_batch = rest.iter().take_while(|(_, other, _)| other.batch == record.batch).count();
            let (mine, others) = rest.split_at(of_batch);
            rest = others;
            let held = self.batches.iter().find(|batch| batch.number == record.batch);
            let Some(item) = held.map(|batch| Arc::clone(&batch.item)) else { continue };
            if let Ok(raw) = unpacker.unpack(&item.batch) {
                outcome = self.send_from(raw, mine, &overtaken);
            }
            if outcome.is_err() {
                break;
            }
        }
        self.unpacker = Some(unpacker);
        outcome
    }

    /// Walks a batch and hands over the records that were chosen; both are in the same order.
    fn send_from(
        &mut self,
        raw: &[u8],
        chosen: &[Returned],
        overtaken: &HashMap<u32, usize>,
    ) -> Result<(), GivenUp> {
        let mut chosen = chosen.iter().peekable();
        let mut ordinal = 0;
        for chunk in Chunks::new(raw).map_while(Result::ok) {
            let mut route = None;
            for record in chunk.records.map_while(Result::ok) {
                let this = ordinal;
                ordinal += 1;
                let Some((number, place, code)) = chosen.next_if(|(_, place, _)| place.ordinal == this)
                else {
                    continue;
                };
                let route = match &mut route {
                    Some(route) => route,
                    none => none.insert(self.route_again(&chunk.header, *code)?),
                };
                let late = place.late || overtaken.get(&place.slot).is_some_and(|last| last > number);
                self.give(*number, *place, late, &chunk.header, route, &record);
            }
            if chosen.peek().is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn give(
        &mut self,
        number: usize,
        place: InFlightRecord,
        late: bool,
        header: &ChunkHeader<'_>,
        route: &Result<ChunkRoute, String>,
        record: &Record<'_>,
    ) {
        match route {
            Ok(route) => {
                self.ring.again(number);
                if !self.hand_over(number, late, header, route, record) {
                    self.ring.failed(number, Code::QueueFull);
                }
            }
            Err(why) => {
                self.ring.done(number);
                self.books.refuse(place.slot, place.offset, || why.clone());
            }
        }
    }

    /// The way of a chunk whose records came back; a topic that has changed is asked for again.
    fn route_again(
        &mut self,
        header: &ChunkHeader<'_>,
        code: Code,
    ) -> Result<Result<ChunkRoute, String>, GivenUp> {
        if classify_code(code).kind == Kind::UnknownTopic {
            self.forget_topic(header.topic);
        }
        self.find_route(header, false)
    }

    /// The last record of each partition that got through while earlier ones came back.
    fn overtaken(&self) -> HashMap<u32, usize> {
        // Later entries replace earlier ones: what stays is the last of each partition.
        self.ring.done_records().map(|(number, record)| (record.slot, number)).collect()
    }
}

/// Whether the destination judged the record (or its whole produce batch), so that trying it as it was is in vain.
fn is_judged(code: Code) -> bool {
    matches!(classify_code(code).kind, Kind::RecordTooLarge | Kind::RecordRefused)
}
