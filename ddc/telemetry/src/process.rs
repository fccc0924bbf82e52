//! What a process knows about itself without being told: CPU time, memory, its build and instance.
//!
//! Read from the kernel when the metrics are read, never by the hot path.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::cells::{Describe, Emit, Kind, Metric, Side, Value};

/// CPU time the calling thread has used since its start, in user and kernel mode: what [`crate::cells::CpuTimes`] is told, once a
/// second or so (a system call).
pub fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    // A CPU clock never shows a negative time.
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

/// CPU seconds of all threads since the process started.
#[derive(Debug, Default)]
pub struct CpuSeconds;

impl Describe for CpuSeconds {
    const KIND: Kind = Kind::Counter;
}

impl Metric for CpuSeconds {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        let used = clock_gettime(ClockId::ProcessCPUTime);
        emit(&[], Value::Float(used.tv_sec as f64 + used.tv_nsec as f64 / 1e9).into());
    }

    fn example(&self, n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Float(n as f64 + 0.125).into());
    }
}

/// Bytes of the process that are in memory; absent where /proc is not mounted.
#[derive(Debug, Default)]
pub struct ResidentMemory;

impl Describe for ResidentMemory {
    const KIND: Kind = Kind::Gauge;
}

impl Metric for ResidentMemory {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        let status = fs::read_to_string("/proc/self/status");
        if let Some(bytes) = status.ok().as_deref().and_then(resident_bytes) {
            emit(&[], Value::Unsigned(bytes).into());
        }
    }

    fn example(&self, n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[], Value::Unsigned(n << 20).into());
    }
}

/// Finds `VmRSS:   1234 kB` in /proc/self/status.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Always 1, with the build and the instance as labels; absent until told.
#[derive(Debug, Default)]
pub struct BuildInfo(OnceLock<(String, String)>);

impl BuildInfo {
    /// Says which version this is, and an id that no other start of a process has. Only the first call counts.
    pub fn set(&self, version: &str, instance: &str) {
        self.0.get_or_init(|| (version.to_owned(), instance.to_owned()));
    }
}

impl Describe for BuildInfo {
    const KIND: Kind = Kind::Gauge;
    const FIXED: &'static [&'static str] = &["version", "instance_id"];
}

impl Metric for BuildInfo {
    fn read(&self, _side: Option<Side>, emit: &mut Emit<'_>) {
        if let Some((version, instance)) = self.0.get() {
            emit(&[("version", version), ("instance_id", instance)], Value::Unsigned(1).into());
        }
    }

    fn example(&self, _n: u64, _side: Option<Side>, emit: &mut Emit<'_>) {
        emit(&[("version", "1.2.3"), ("instance_id", "0a1b2c3d")], Value::Unsigned(1).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::Sample;

    fn value(metric: &dyn Metric) -> Option<f64> {
        let mut found = None;
        metric.read(None, &mut |_, sample| match sample {
            Sample::One(value) => found = value.to_string().parse().ok(),
            Sample::Histogram(_) => panic!("not a number"),
        });
        found
    }

    #[test]
    fn cpu_time_grows_with_work() {
        let before = value(&CpuSeconds).unwrap();
        let mut sum = 0u64;
        while value(&CpuSeconds).unwrap() < before + 0.01 {
            sum = (0..100_000u64).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        assert!(before >= 0.0);
    }

    #[test]
    fn a_thread_is_told_its_own_time() {
        let before = thread_cpu();
        let mut sum = 0u64;
        while thread_cpu() < before + Duration::from_millis(20) {
            sum = (0..100_000u64).fold(sum, |sum, n| std::hint::black_box(sum ^ n));
        }
        let other = std::thread::spawn(thread_cpu).join().unwrap();
        assert!(other < Duration::from_millis(15), "{other:?}: not the time of this thread");
    }

    #[test]
    fn memory_is_plausible() {
        let bytes = value(&ResidentMemory).unwrap();
        assert!((500e3..8e9).contains(&bytes), "{bytes}");
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    1720 kB\n"), Some(1_761_280));
        for odd in ["", "VmRSS: x kB", "VmRSS: 12", "VmRSS: 18446744073709551615 kB"] {
            assert_eq!(resident_bytes(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn build_info_is_told_once() {
        let info = BuildInfo::default();
        assert_eq!(value(&info), None);
        info.set("1.2.3", "a");
        info.set("9.9.9", "b");
        let mut labels = String::new();
        info.read(None, &mut |l, _| labels = format!("{l:?}"));
        assert_eq!(labels, r#"[("version", "1.2.3"), ("instance_id", "a")]"#);
    }
}
