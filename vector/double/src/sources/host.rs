//! `host_metrics` from /proc, with Vector's names: cpu, disk, filesystem, host, load, memory and network, only the series our dashboards use.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::time::Duration;

use chrono::Utc;
use serde_yaml_ng::Value as Yaml;

use super::{Output, Patterns};
use crate::config::texts;
use crate::event::{Event, Kind, Metric, MetricValue};

/// What is collected.
#[derive(Debug)]
pub(super) struct Settings {
    namespace: String,
    collectors: Option<Vec<String>>,
    disks: Patterns,
    networks: Patterns,
    filesystems: Patterns,
    devices: Patterns,
    mountpoints: Patterns,
}

impl Settings {
    pub(super) fn read(options: &Yaml) -> Self {
        let filesystem = &options["filesystem"];
        Self {
            namespace: options["namespace"].as_str().unwrap_or("host").to_owned(),
            collectors: options["collectors"].is_sequence().then(|| texts(&options["collectors"])),
            disks: Patterns::read(&options["disk"]["devices"]),
            networks: Patterns::read(&options["network"]["devices"]),
            filesystems: Patterns::read(&filesystem["filesystems"]),
            devices: Patterns::read(&filesystem["devices"]),
            mountpoints: Patterns::read(&filesystem["mountpoints"]),
        }
    }
}

pub(super) fn start(settings: Settings, interval: Duration, output: Output) {
    std::thread::spawn(move || {
        while !output.stopped() {
            output.send(collect(&settings));
            std::thread::sleep(interval);
        }
    });
}

type Collector = fn(&mut Samples<'_>, &Settings) -> Option<()>;
type Labels<'a> = &'a [(&'a str, &'a str)];

/// Collects the samples of one collector.
struct Samples<'a> {
    namespace: &'a str,
    collector: &'static str,
    host: Option<String>,
    out: Vec<Event>,
}

impl Samples<'_> {
    fn gauge(&mut self, name: &str, value: f64, labels: Labels<'_>) {
        self.push(name, MetricValue::Gauge(value), labels);
    }

    fn counter(&mut self, name: &str, value: f64, labels: Labels<'_>) {
        self.push(name, MetricValue::Counter(value), labels);
    }

    fn push(&mut self, name: &str, value: MetricValue, labels: Labels<'_>) {
        let mut metric = Metric::new(name, Kind::Absolute, value).with_namespace(self.namespace);
        metric = metric.with_tag("collector", self.collector);
        if let Some(host) = &self.host {
            metric = metric.with_tag("host", host);
        }
        for (key, value) in labels {
            metric = metric.with_tag(key, *value);
        }
        metric.timestamp = Some(Utc::now());
        self.out.push(Event::Metric(metric));
    }
}

fn collect(settings: &Settings) -> Vec<Event> {
    let host = read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let mut samples = Samples { namespace: &settings.namespace, collector: "", host, out: Vec::new() };
    let collectors: [(&'static str, Collector); 7] = [
        ("cpu", cpu),
        ("disk", disk),
        ("filesystem", filesystem),
        ("host", uptime),
        ("load", load),
        ("memory", memory),
        ("network", network),
    ];
    for (name, collector) in collectors {
        if settings.collectors.as_ref().is_none_or(|wanted| wanted.iter().any(|w| w == name)) {
            samples.collector = name;
            // A file of /proc that is missing leaves its series out, as in Vector.
            let _ = collector(&mut samples, settings);
        }
    }
    samples.out
}

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn cpu(samples: &mut Samples<'_>, _: &Settings) -> Option<()> {
    const MODES: [&str; 7] = ["user", "nice", "system", "idle", "io_wait", "irq", "soft_irq"];
    let mut count = 0;
    for line in read_to_string("/proc/stat").ok()?.lines() {
        let Some((cpu, rest)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else {
            continue;
        };
        if cpu.is_empty() {
            continue;
        }
        count += 1;
        // Clock ticks are hundredths of a second on every Linux.
        for (mode, ticks) in MODES.iter().zip(numbers(rest)) {
            samples.counter("cpu_seconds_total", ticks / 100.0, &[("cpu", cpu), ("mode", mode)]);
        }
    }
    samples.gauge("logical_cpus", f64::from(count), &[]);
    Some(())
}

fn disk(samples: &mut Samples<'_>, settings: &Settings) -> Option<()> {
    for line in read_to_string("/proc/diskstats").ok()?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(device), figures) = (words.get(2), numbers(line.split_once(words.get(2)?)?.1)) else {
            continue;
        };
        if figures.len() < 7 || !settings.disks.take(device) {
            continue;
        }
        let labels: Labels<'_> = &[("device", device)];
        samples.counter("disk_reads_completed_total", figures[0], labels);
        samples.counter("disk_read_bytes_total", figures[2] * 512.0, labels);
        samples.counter("disk_writes_completed_total", figures[4], labels);
        samples.counter("disk_written_bytes_total", figures[6] * 512.0, labels);
    }
    Some(())
}

fn filesystem(samples: &mut Samples<'_>, settings: &Settings) -> Option<()> {
    for line in read_to_string("/proc/self/mounts").ok()?.lines() {
        let mut words = line.split_whitespace();
        let (Some(device), Some(mountpoint), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let wanted = settings.filesystems.take(kind)
            && settings.devices.take(device)
            && settings.mountpoints.take(mountpoint);
        let Some(stats) = wanted.then(|| rustix::fs::statvfs(mountpoint).ok()).flatten() else { continue };
        let block = stats.f_frsize as f64;
        let (total, free) = (stats.f_blocks as f64 * block, stats.f_bavail as f64 * block);
        if total == 0.0 {
            continue;
        }
        let used = total - stats.f_bfree as f64 * block;
        let labels: Labels<'_> = &[("device", device), ("filesystem", kind), ("mountpoint", mountpoint)];
        samples.gauge("filesystem_total_bytes", total, labels);
        samples.gauge("filesystem_free_bytes", free, labels);
        samples.gauge("filesystem_used_bytes", used, labels);
        samples.gauge("filesystem_used_ratio", used / total, labels);
    }
    Some(())
}

fn uptime(samples: &mut Samples<'_>, _: &Settings) -> Option<()> {
    let uptime = *numbers(&read_to_string("/proc/uptime").ok()?).first()?;
    samples.gauge("uptime", uptime, &[]);
    samples.gauge("boot_time", (Utc::now().timestamp() as f64 - uptime).floor(), &[]);
    Some(())
}

fn load(samples: &mut Samples<'_>, _: &Settings) -> Option<()> {
    let figures = numbers(&read_to_string("/proc/loadavg").ok()?);
    for (name, value) in ["load1", "load5", "load15"].iter().zip(figures) {
        samples.gauge(name, value, &[]);
    }
    Some(())
}

fn memory(samples: &mut Samples<'_>, _: &Settings) -> Option<()> {
    let text = read_to_string("/proc/meminfo").ok()?;
    let bytes: BTreeMap<&str, f64> = text
        .lines()
        .filter_map(|line| {
            let (key, rest) = line.split_once(':')?;
            Some((key, numbers(rest).first()? * 1024.0))
        })
        .collect();
    let get = |key: &str| bytes.get(key).copied().unwrap_or(0.0);
    for (name, key) in [
        ("memory_total_bytes", "MemTotal"),
        ("memory_free_bytes", "MemFree"),
        ("memory_available_bytes", "MemAvailable"),
        ("memory_active_bytes", "Active"),
        ("memory_inactive_bytes", "Inactive"),
        ("memory_buffers_bytes", "Buffers"),
        ("memory_cached_bytes", "Cached"),
        ("memory_shared_bytes", "Shmem"),
        ("memory_swap_total_bytes", "SwapTotal"),
        ("memory_swap_free_bytes", "SwapFree"),
    ] {
        samples.gauge(name, get(key), &[]);
    }
    samples.gauge(
        "memory_used_bytes",
        get("MemTotal") - get("MemFree") - get("Buffers") - get("Cached"),
        &[],
    );
    samples.gauge("memory_swap_used_bytes", get("SwapTotal") - get("SwapFree"), &[]);
    Some(())
}

fn network(samples: &mut Samples<'_>, settings: &Settings) -> Option<()> {
    for line in read_to_string("/proc/net/dev").ok()?.lines() {
        let Some((device, rest)) = line.split_once(':') else { continue };
        let (device, figures) = (device.trim(), numbers(rest));
        if figures.len() < 12 || !settings.networks.take(device) {
            continue;
        }
        let labels: Labels<'_> = &[("device", device)];
        for (at, name) in [
            (0, "network_receive_bytes_total"),
            (1, "network_receive_packets_total"),
            (2, "network_receive_errs_total"),
            (8, "network_transmit_bytes_total"),
            (9, "network_transmit_packets_total"),
            (10, "network_transmit_errs_total"),
            (11, "network_transmit_packets_drop_total"),
        ] {
            samples.counter(name, figures[at], labels);
        }
    }
    Some(())
}
