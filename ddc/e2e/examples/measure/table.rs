//! Medians, and one table in Markdown: ratios first.

use std::fmt::Write as _;

/// Rows as they are found; ratios are shown before figures.
#[derive(Default)]
pub(crate) struct Table {
    ratios: Vec<(String, String)>,
    figures: Vec<(String, String)>,
}

impl Table {
    /// A figure divided by another of the same run.
    pub(crate) fn ratio(&mut self, what: impl Into<String>, value: f64) {
        self.ratios.push((what.into(), format!("{value:.2}")));
    }

    /// A figure, with its unit.
    pub(crate) fn figure(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.figures.push((what.into(), value.into()));
    }

    /// The machine in one line, then the table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n| what | median |\n|---|---:|\n", machine());
        for (what, value) in self.ratios.iter().chain(&self.figures) {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "| {what} | {value} |");
        }
        text
    }
}

/// The middle value; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

/// The value below which this share of them lies; sorts them.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = share * (values.len() - 1) as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// `1234567` → `1,234,567`.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<f64>().ok())
        .map_or(0.0, |kib| kib / 1024.0 / 1024.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    format!(
        "{cores} cores ({model}), {memory:.0} GiB, Linux {}; the brokers, the load and what is measured share them; \
         load average at the end: {}.",
        kernel.trim(),
        load.split(' ').next().unwrap_or("?")
    )
}
