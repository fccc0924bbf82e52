//! One side's values as they are shown: which metric is which field.

use std::time::Instant;

use super::history::{CPU, Counter, HISTOGRAMS, THREADS};
use super::model::SideState;
use super::page::Side;
use super::status::Status;
use super::view::{
    Common, Count, Egress, Heartbeat, Ingress, Latency, Loss, Reason, Sparks, ThreadCpu, TopicLag,
};

/// Topics that are listed, the most lagging first; as many as an ingress tells apart, and `other`.
const MAX_TOPICS: usize = 65;

const LOSS: Counter = ("ddc_egress_packet_loss_total", None);
const LATE: Counter = ("ddc_egress_packets_late_total", None);
const DROPPED: &str = "ddc_dropped_packets_total";

impl SideState {
    pub(super) fn ingress(&self) -> Ingress {
        let series = &self.series;
        let symbols = |kind| self.history.rise((kind, None));
        let source = symbols("ddc_ingress_source_symbols_total");
        let repair = symbols("ddc_ingress_repair_symbols_total");
        let mut topics: Vec<TopicLag> = series
            .by("ddc_ingress_consumer_lag")
            .filter(|(topic, _)| !topic.is_empty() && self.is_fresh())
            .map(|(topic, records)| TopicLag { topic: topic.to_owned(), records })
            .collect();
        topics.sort_by(|left, right| right.records.total_cmp(&left.records));
        topics.truncate(MAX_TOPICS);
        Ingress {
            common: self.common(Side::Ingress),
            source_state: self.told(|status| status.source_state.clone()),
            kafka_paused: self.gauge("ddc_ingress_kafka_paused").map(|paused| paused > 0.0),
            rate_limit_bits_per_second: self.gauge("ddc_ingress_rate_limit_bits_per_second"),
            lag_records: self.gauge("ddc_ingress_consumer_lag"),
            lag_by_topic: topics,
            repair_symbol_ratio: repair
                .zip(source)
                .and_then(|(repair, source)| share(repair, repair + source)),
            send_errors: self.count(("ddc_ingress_send_errors_total", None)),
            send_drops: self.count((DROPPED, Some("send_error"))),
            records_skipped: self.count(("ddc_ingress_records_skipped_total", None)),
        }
    }

    pub(super) fn egress(&self, now: Instant) -> Egress {
        Egress {
            common: self.common(Side::Egress),
            sessions_open: self.gauge("ddc_egress_sessions_open"),
            loss: self.loss(),
            latency: self.latency(),
            heartbeat: self.heartbeat(now),
            gaps: self.status.as_ref().map(|status| status.gaps.clone()).unwrap_or_default(),
        }
    }

    fn common(&self, side: Side) -> Common {
        let series = &self.series;
        let [records, bits, datagrams] =
            Self::rates(side).map(|(counter, factor)| self.history.rate(counter).map(|rate| rate * factor));
        let threads = THREADS.iter().enumerate();
        let of_side = |name: &str| self.gauge(&format!("ddc_{}_{name}", side.as_str()));
        let [spark_records, spark_bits, spark_datagrams] =
            [0, 1, 2].map(|index| self.sparks[index].iter().copied().collect());
        Common {
            address: self.address.clone(),
            site: series.site.clone(),
            state: self.state,
            reasons: self.reasons.clone(),
            maintenance: self.gauge("ddc_link_maintenance").map(|maintenance| maintenance > 0.0),
            version: self.process.version.clone(),
            instance_id: self.process.instance.clone(),
            uptime_seconds: self.told(|status| status.uptime_seconds),
            process_cpu_ratio: self.history.rate((CPU, None)),
            process_memory_bytes: self.process.memory_bytes.filter(|_| self.is_fresh()),
            thread_cpu_ratio: threads
                .filter_map(|(index, thread)| {
                    Some(ThreadCpu { thread, ratio: self.history.thread_cpu(index)? })
                })
                .collect(),
            records_per_second: records,
            bits_per_second: bits,
            datagrams_per_second: datagrams,
            queue_bytes: of_side("queue_bytes"),
            key_id: of_side("key_id"),
            sessions: self.told(|status| Some(status.sessions.clone())).unwrap_or_default(),
            certificate_expiry_timestamp_seconds: series
                .by("ddc_certificate_expiry_timestamp_seconds")
                .map(|(_, expiry)| expiry)
                .min_by(f64::total_cmp),
            sparks: Sparks { records: spark_records, bits: spark_bits, datagrams: spark_datagrams },
        }
    }

    fn loss(&self) -> Loss {
        let series = &self.series;
        // What comes late was counted as lost before: an interval may hold more late ones than lost ones.
        let net = |lost: Option<f64>, late: Option<f64>| Some((lost? - late.unwrap_or(0.0)).max(0.0));
        let lost = net(self.history.rise(LOSS), self.history.rise(LATE));
        let received = self.history.rise(("ddc_egress_packets_received_total", None));
        let blocks = |kind| self.history.rise((kind, None));
        let all = self.count((DROPPED, None));
        // A reason that has not occurred may be absent; with the metric there, absent is zero.
        let seal = self.count((DROPPED, Some("seal")));
        let less = |all: Option<f64>, part: Option<f64>| Some((all? - part.unwrap_or(0.0)).max(0.0));
        Loss {
            path: Count {
                total: net(series.get(LOSS.0), series.get(LATE.0)),
                per_second: net(self.history.rate(LOSS), self.history.rate(LATE)),
            },
            path_ratio: lost.zip(received).and_then(|(lost, received)| share(lost, lost + received)),
            socket_drops: self.count(("ddc_egress_socket_drops_total", None)),
            other_rejects: Count {
                total: less(all.total, seal.total),
                per_second: less(all.per_second, seal.per_second),
            },
            seal_rejects: Count { total: seal.total.or(all.total.map(|_| 0.0)), per_second: seal.per_second },
            rejects_by_reason: self.reasons_of(DROPPED),
            repaired_symbols: self.count(("ddc_egress_symbols_repaired_total", None)),
            repaired_block_ratio: blocks("ddc_egress_blocks_repaired_total")
                .zip(blocks("ddc_egress_blocks_received_total"))
                .and_then(|(repaired, received)| share(repaired, received)),
            unrepairable_blocks: self.count(("ddc_egress_blocks_unrepairable_total", None)),
            lost_blocks: self.count(("ddc_egress_blocks_lost_total", None)),
            missing_records: self.count(("ddc_egress_records_missing_total", None)),
            missing_by_reason: self.reasons_of("ddc_egress_records_missing_total"),
        }
    }

    fn latency(&self) -> Latency {
        let quantile = |histogram: usize, quantile| self.history.quantile(HISTOGRAMS[histogram], quantile);
        Latency {
            sink_p50_seconds: quantile(0, 0.5),
            sink_p99_seconds: quantile(0, 0.99),
            end_to_end_p50_seconds: quantile(1, 0.5),
            end_to_end_p99_seconds: quantile(1, 0.99),
            transit_p50_seconds: quantile(2, 0.5),
            transit_p99_seconds: quantile(2, 0.99),
        }
    }

    fn heartbeat(&self, now: Instant) -> Heartbeat {
        let series = &self.series;
        let told = series.by("ddc_egress_source_state").find(|(_, on)| *on > 0.0 && self.is_fresh());
        Heartbeat {
            age_seconds: self.heartbeats.age(now).filter(|_| self.is_fresh()).map(|age| age.as_secs_f64()),
            seen: self.heartbeats.seen,
            source_state: told
                .map(|(state, _)| state.to_owned())
                .or_else(|| self.told(|status| status.source_state.clone())),
            source_lag_records: self.gauge("ddc_egress_source_lag"),
            source_rate_limit_bits_per_second: self.gauge("ddc_egress_source_rate_bits_per_second"),
            clock_difference_seconds: self.gauge("ddc_egress_clock_difference_seconds"),
        }
    }

    /// Something of `/status` that holds for a moment.
    fn told<T>(&self, what: impl Fn(&Status) -> Option<T>) -> Option<T> {
        self.status.as_ref().filter(|_| self.is_fresh()).and_then(what)
    }

    /// A value that holds for a moment: unknown once the listener is silent, while totals stay what they were.
    fn gauge(&self, name: &str) -> Option<f64> {
        self.series.get(name).filter(|_| self.is_fresh())
    }

    fn count(&self, counter: Counter) -> Count {
        let total = match counter.1 {
            Some(by) => self.series.of(counter.0, by),
            None => self.series.get(counter.0),
        };
        Count { total, per_second: self.history.rate(counter) }
    }

    /// The reasons that have occurred, the most frequent first.
    fn reasons_of(&self, name: &str) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self
            .series
            .by(name)
            .filter(|(reason, total)| !reason.is_empty() && *total > 0.0)
            .map(|(reason, total)| Reason { reason: reason.to_owned(), total })
            .collect();
        reasons.sort_by(|left, right| right.total.total_cmp(&left.total));
        reasons
    }
}

/// A part of a whole; unknown when there is no whole.
fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
