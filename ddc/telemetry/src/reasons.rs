//! The values of the labels beside `link` and `side`, each an enum: what is not listed here cannot become a label value.
//!
//! The doc comment of a value is its text in docs/metrics.md. Other crates have refusals of their own (`ddc-link`'s `Reject`, for
//! one); telemetry does not depend on them: the proxy maps theirs to these, by `match` or by [`Label::from_name`].

use std::io;

use rustix::io::Errno;

use crate::cells::{Label, LabelSet, Side};

/// Makes an enum of label values and its [`Label`]. `occurs_on` may follow: a function that says on which side a value can occur.
macro_rules! labels {
    (
        $(#[doc = $about:literal])+
        pub enum $Name:ident as $key:literal {
            $( $(#[doc = $help:literal])+ $Value:ident = $text:literal, )+
        }
        $(occurs_on $occurs_on:expr;)?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $Name {
            $( $(#[doc = $help])+ $Value, )+
        }

        impl Label for $Name {
            const KEY: &'static str = $key;
            const ALL: &'static [Self] = &[$(Self::$Value),+];
            const SET: LabelSet = LabelSet {
                name: stringify!($Name),
                key: $key,
                values: &[$(($text, concat!($($help),+).trim_ascii())),+],
            };

            #[inline]
            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self { $(Self::$Value => $text),+ }
            }

            $(fn occurs_on(self, side: Side) -> bool {
                let occurs_on: fn(Self, Side) -> bool = $occurs_on;
                occurs_on(self, side)
            })?
        }
    };
}

labels! {
    /// Why a datagram was not used (on the egress) or not sent (on the ingress).
    pub enum DropReason as "reason" {
        /// Shorter than a header and its trailer; empty ones too.
        Short = "short",
        /// Longer than any datagram of this version can be.
        Long = "long",
        /// Does not begin with our magic: not our traffic.
        Magic = "magic",
        /// Another version of the wire format.
        Version = "version",
        /// A kind this version does not know.
        Kind = "kind",
        /// A kind that is reserved and not served yet.
        Reserved = "reserved",
        /// Another link's id.
        Link = "link",
        /// A key id that is not in the keyring.
        Key = "key",
        /// A session that is not newer than the newest one retired: an old recording, or a source clock set back.
        SessionRetired = "session_retired",
        /// A session too far ahead of this host's clock.
        SessionFuture = "session_future",
        /// More unknown sessions than keys are derived for per second.
        SessionRate = "session_rate",
        /// A packet number so far from the session's highest that no key is held for it.
        PacketNumber = "packet_number",
        /// The seal is wrong: damaged on the way, or not made with our key.
        Seal = "seal",
        /// A packet number that was seen already, or lies before the replay window.
        Replay = "replay",
        /// Sealed rightly, but its header is impossible, or disagrees with its block's or its length.
        Header = "header",
        /// Sealed rightly, but what it carries cannot be read (a heartbeat, a goodbye).
        Payload = "payload",
        /// A symbol of a block that was given up already; spare symbols of a complete block are `ddc_egress_symbols_spare_total` instead.
        BlockOld = "block_old",
        /// A symbol the block holds already.
        Duplicate = "duplicate",
        /// The reorder window is full.
        WindowFull = "window_full",
        /// The kernel did not take the datagram; `ddc_ingress_send_errors_total` tells why.
        SendError = "send_error",
        /// A reason that this version of the catalogue has no name for.
        Other = "other",
    }
    occurs_on |reason, side| (side == Side::Ingress) == matches!(reason, DropReason::SendError);
}

labels! {
    /// Why the kernel did not take a datagram.
    pub enum SendErrorReason as "reason" {
        /// No route, no neighbour (a static neighbour entry is missing?), or the port is refused.
        Unreachable = "unreachable",
        /// The interface or network is down.
        Down = "down",
        /// Larger than the interface's MTU: `mtu` is too high.
        TooBig = "too_big",
        /// The kernel had no memory for it.
        NoBuffer = "no_buffer",
        /// A firewall rule or missing right forbids it.
        Forbidden = "forbidden",
        /// Any other error; the log has it.
        Other = "other",
    }
}

impl SendErrorReason {
    /// The reason for an error of `send` and its kin.
    pub fn of(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNREFUSED) => Self::Unreachable,
            Some(Errno::NETDOWN | Errno::NODEV | Errno::NXIO) => Self::Down,
            Some(Errno::MSGSIZE) => Self::TooBig,
            Some(Errno::NOBUFS | Errno::NOMEM) => Self::NoBuffer,
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            _ => Self::Other,
        }
    }
}

labels! {
    /// Why a record was read and not sent.
    pub enum SkipReason as "reason" {
        /// Larger than `[link.pack] max_record_bytes`.
        TooLarge = "too_large",
        /// It has something the wire format cannot hold: too many headers, or a name that is too long.
        NotEncodable = "not_encodable",
        /// Any other reason; the log has it.
        Other = "other",
    }
}

labels! {
    /// Why a source or destination refused or failed.
    pub enum KafkaErrorReason as "reason" {
        /// No broker can be reached.
        Connection = "connection",
        /// Wrong user, password, certificate or mechanism.
        Authentication = "authentication",
        /// The user lacks a right.
        Authorization = "authorization",
        /// The topic or partition does not exist.
        UnknownTopic = "unknown_topic",
        /// The wanted offset is no longer, or not yet, in the log.
        OffsetOutOfRange = "offset_out_of_range",
        /// The record is larger than the destination allows.
        TooLarge = "too_large",
        /// No answer in time.
        Timeout = "timeout",
        /// The broker refuses this record for ever.
        Refused = "refused",
        /// Any other error; the log has it.
        Other = "other",
    }
}

labels! {
    /// Why records are missing at the destination.
    pub enum MissingReason as "reason" {
        /// Lost on the link and not repaired.
        Lost = "lost",
        /// Between the stored position and the first chunk after a restart of the egress; some may have been delivered.
        Restart = "restart",
        /// Sent before this egress knew any position of the partition.
        NoPosition = "no_position",
        /// Arrived, but the queue to the sink was full.
        BufferFull = "buffer_full",
        /// Arrived, but the destination refuses them for ever.
        Refused = "refused",
        /// Arrived, but the spool had reached its size: refused, or dropped as the oldest, as `[spool] when_full` says.
        SpoolFull = "spool_full",
        /// Arrived, but the disk of the spool was full.
        DiskFull = "disk_full",
        /// Arrived, but the spool could not be written or read.
        SpoolError = "spool_error",
        /// Were in the spool, and what is there is damaged.
        SpoolDamaged = "spool_damaged",
        /// Were in the spool for longer than `[spool] max_age`.
        SpoolExpired = "spool_expired",
    }
}

labels! {
    /// Why the spool refused a batch.
    pub enum SpoolRefusal as "reason" {
        /// `[spool] max_size` is reached.
        Full = "full",
        /// The file system is full.
        DiskFull = "disk_full",
        /// Another error of the disk.
        Error = "error",
        /// Larger than a frame can be.
        TooLarge = "too_large",
    }
}

labels! {
    /// Why a batch that was in the spool went unsettled.
    pub enum SpoolDrop as "reason" {
        /// There was no room, and `[spool] when_full` is `"drop_oldest"`.
        Room = "room",
        /// It was older than `[spool] max_age`.
        Age = "age",
    }
}

labels! {
    /// What was asked of the spool's disk.
    pub enum SpoolOperation as "operation" {
        /// Writing a batch.
        Write = "write",
        /// Reading one back.
        Read = "read",
        /// Forcing data onto the disk.
        Fsync = "fsync",
        /// Replacing the checkpoint; until that succeeds nothing is trimmed.
        Checkpoint = "checkpoint",
        /// Removing a file that is settled.
        Remove = "remove",
    }
}

labels! {
    /// Why a record became a dead letter.
    pub enum DeadLetterReason as "reason" {
        /// Larger than `[link.pack] max_record_bytes` (ingress), or than the destination allows (egress).
        TooLarge = "too_large",
        /// The wire format cannot hold it: too many headers, or a name that is too long.
        NotEncodable = "not_encodable",
        /// The destination refuses its timestamp.
        InvalidTimestamp = "invalid_timestamp",
        /// The destination refuses the record; a compacted topic refuses one without a key.
        InvalidRecord = "invalid_record",
        /// A policy of the destination's cluster refuses it.
        Policy = "policy",
        /// The topic map makes a name of its topic that no topic can have.
        TopicName = "topic_name",
        /// The destination topic has too few partitions, and may not be given more.
        Partitions = "partitions",
        /// Any other reason; the letter has it.
        Other = "other",
    }
    occurs_on |reason, side| match reason {
        DeadLetterReason::TooLarge | DeadLetterReason::Other => true,
        DeadLetterReason::NotEncodable => side == Side::Ingress,
        _ => side == Side::Egress,
    };
}

labels! {
    /// Why a dead letter could not be kept.
    pub enum DeadLetterFailure as "reason" {
        /// The directory has reached `[dead_letters] max_size`.
        Full = "full",
        /// The directory's file system refuses: full, read-only, an error of the disk.
        Disk = "disk",
        /// The topic does not exist.
        UnknownTopic = "unknown_topic",
        /// The user may not write the topic.
        Authorization = "authorization",
        /// The topic refuses the letter for ever, even without its payload.
        Refused = "refused",
        /// Any other error; the log has it.
        Other = "other",
    }
}

labels! {
    /// A thread of the data path of one link.
    pub enum Thread as "thread" {
        /// Ingress: reads the source and packs.
        Source = "source",
        /// Ingress: FEC, seal, pace, send.
        Link = "link",
        /// Egress: receives, opens, repairs, orders.
        Receive = "receive",
        /// Egress: hands records to the sink.
        Sink = "sink",
    }
    occurs_on |thread, side| (side == Side::Ingress) == matches!(thread, Thread::Source | Thread::Link);
}

labels! {
    /// Which certificate file of the configuration.
    pub enum Certificate as "certificate" {
        /// The authorities we trust.
        Ca = "ca",
        /// Our own, that we show to the other side.
        Client = "client",
        /// The authorities that an egress trusts for `[missing_records]`.
        MissingRecordsCa = "missing_records_ca",
        /// Our own, that an egress shows to the cluster of `[missing_records]`.
        MissingRecordsClient = "missing_records_client",
    }
    occurs_on |certificate, side| side == Side::Egress || matches!(certificate, Certificate::Ca | Certificate::Client);
}

labels! {
    /// Why a change of a gap never comes to the topic of `[missing_records]`.
    pub enum GapRecordDrop as "reason" {
        /// The topic refuses the record for ever; the gap journal has it.
        Refused = "refused",
        /// There were more gaps than an egress remembers, and this one was the oldest.
        Forgotten = "forgotten",
    }
}

labels! {
    /// What the ingress says its source does, in its heartbeats.
    pub enum SourceState as "state" {
        /// Not connected, or nothing assigned yet.
        Starting = "starting",
        /// Reading.
        Running = "running",
        /// Paused: what waits for the link has reached `[link] buffer`.
        Full = "full",
        /// Paused by an operator or the health checker.
        Paused = "paused",
        /// The source cannot be reached.
        Unreachable = "unreachable",
        /// Stopping: what is packed is being sent.
        Stopping = "stopping",
    }
}

labels! {
    /// Why a UDP source could not take a datagram.
    pub enum SourceDropReason as "reason" {
        /// Longer than `[source.udp] max_datagram`.
        TooLarge = "too_large",
        /// `[link] buffer` was full: nobody can be told to wait.
        BufferFull = "buffer_full",
        /// The socket's receive buffer was full, the kernel dropped it.
        Kernel = "kernel",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn well_formed<L: Label + std::fmt::Debug + PartialEq>() {
        let mut names = BTreeSet::new();
        for (index, value) in L::ALL.iter().enumerate() {
            assert_eq!(value.index(), index);
            let name = value.as_str();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(names.insert(name), "{name} twice");
            assert_eq!(L::from_name(name), Some(*value));
            let (documented, help) = L::SET.values[index];
            assert_eq!(documented, name);
            assert!(help.ends_with('.') && !help.starts_with(' '), "{name}: {help:?}");
        }
        assert_eq!(L::SET.values.len(), L::ALL.len());
        assert_eq!(L::from_name("no such reason"), None);
    }

    #[test]
    fn every_label_set_is_well_formed() {
        well_formed::<DropReason>();
        well_formed::<SendErrorReason>();
        well_formed::<SkipReason>();
        well_formed::<KafkaErrorReason>();
        well_formed::<MissingReason>();
        well_formed::<SpoolRefusal>();
        well_formed::<SpoolDrop>();
        well_formed::<SpoolOperation>();
        well_formed::<DeadLetterReason>();
        well_formed::<DeadLetterFailure>();
        well_formed::<Thread>();
        well_formed::<Certificate>();
        well_formed::<SourceState>();
        well_formed::<SourceDropReason>();
    }

    #[test]
    fn send_errors_find_their_reason() {
        let cases = [
            (Errno::NETUNREACH, SendErrorReason::Unreachable),
            (Errno::CONNREFUSED, SendErrorReason::Unreachable),
            (Errno::NETDOWN, SendErrorReason::Down),
            (Errno::MSGSIZE, SendErrorReason::TooBig),
            (Errno::NOBUFS, SendErrorReason::NoBuffer),
            (Errno::PERM, SendErrorReason::Forbidden),
            (Errno::PIPE, SendErrorReason::Other),
        ];
        for (errno, reason) in cases {
            assert_eq!(SendErrorReason::of(&errno.into()), reason, "{errno:?}");
        }
        assert_eq!(SendErrorReason::of(&io::Error::other("no number")), SendErrorReason::Other);
    }
}
