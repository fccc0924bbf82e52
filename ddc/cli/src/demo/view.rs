//! What the demo shows while it runs: a live picture in a terminal, otherwise one line each second.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

/// Pictures per second.
const LIVE_RATE: u8 = 5;
/// Between two lines when there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What is shown, taken at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// What the demo is doing.
    pub(super) phase: &'static str,
    pub(super) total: u64,
    /// Acknowledged by the source cluster.
    pub(super) produced: u64,
    /// Handed to the kernel by the ingress.
    pub(super) sent: u64,
    /// Read at the destination and compared.
    pub(super) arrived: u64,
    /// Lost for certain or different.
    pub(super) wrong: u64,
    pub(super) bytes: u64,
    pub(super) datagrams: u64,
    /// Datagrams that did not come, by packet numbers.
    pub(super) datagrams_lost: u64,
    pub(super) symbols_repaired: u64,
    /// Since the first record was produced.
    pub(super) running: Duration,
}

/// See the module's text.
pub(super) struct View {
    out: Out,
    multi: MultiProgress,
    live: Option<Live>,
    speed: Speed,
    next_line: Instant,
    last_phase: &'static str,
}

/// Where people read: standard output, or standard error when the former is for a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Stdout,
    Stderr,
}

struct Live {
    bar: ProgressBar,
    lines: [ProgressBar; 3],
}

impl View {
    /// `for_program`: standard output is kept for the result.
    pub(super) fn new(for_program: bool, total: u64) -> Self {
        let out = if for_program { Out::Stderr } else { Out::Stdout };
        let multi = MultiProgress::with_draw_target(match out {
            Out::Stdout => ProgressDrawTarget::stdout_with_hz(LIVE_RATE),
            Out::Stderr => ProgressDrawTarget::stderr_with_hz(LIVE_RATE),
        });
        let terminal = match out {
            Out::Stdout => io::stdout().is_terminal(),
            Out::Stderr => io::stderr().is_terminal(),
        };
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = (terminal && !dumb).then(|| Live::new(&multi, total));
        if live.is_none() {
            multi.set_draw_target(ProgressDrawTarget::hidden());
        }
        Self { out, multi, live, speed: Speed::default(), next_line: Instant::now(), last_phase: "" }
    }

    /// Where the log must go so that it does not spoil the picture.
    pub(super) fn log_writer(&self) -> LogWriter {
        LogWriter(self.multi.clone())
    }

    /// Shows the moment. Called some times a second.
    pub(super) fn show(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.speed.update(now, snapshot);
        if let Some(live) = &self.live {
            live.show(snapshot, &self.speed);
        } else if snapshot.phase != self.last_phase || now >= self.next_line {
            self.next_line = now + LINE_EVERY;
            self.print(&plain_line(snapshot, &self.speed));
        }
        self.last_phase = snapshot.phase;
    }

    /// Takes the picture away, and prints the end of the story.
    pub(super) fn finish(&mut self, summary: &str) {
        self.clear();
        self.print(summary);
    }

    /// Takes the picture away.
    pub(super) fn clear(&mut self) {
        self.live = None;
        let _ = self.multi.clear();
        self.multi.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn print(&self, text: &str) {
        // A reader that has gone away is no reason to stop: the exit code still tells the result.
        let _ = match self.out {
            Out::Stdout => writeln!(io::stdout().lock(), "{text}"),
            Out::Stderr => writeln!(io::stderr().lock(), "{text}"),
        };
    }
}

impl Live {
    fn new(multi: &MultiProgress, total: u64) -> Self {
        let colour = if no_color() { "" } else { ".green" };
        let bar = multi.add(ProgressBar::new(total));
        bar.set_style(style(&format!("{{bar:30{colour}}} {{percent:>3}} %  {{wide_msg}}")));
        let line = || {
            let line = multi.add(ProgressBar::new_spinner());
            line.set_style(style("  {wide_msg}"));
            line
        };
        Self { bar, lines: [line(), line(), line()] }
    }

    fn show(&self, snapshot: &Snapshot, speed: &Speed) {
        self.bar.set_position(snapshot.arrived);
        self.bar.set_message(format!("{}  {:.0} s", snapshot.phase, snapshot.running.as_secs_f64()));
        for (line, text) in self.lines.iter().zip(lines(snapshot, speed)) {
            line.set_message(text);
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants that the tests build.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▌░")
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Records and bytes per second over the last second or so.
#[derive(Debug, Default)]
struct Speed {
    since: Option<(Instant, u64, u64)>,
    records: f64,
    bytes: f64,
}

impl Speed {
    fn update(&mut self, now: Instant, snapshot: &Snapshot) {
        let Some((at, records, bytes)) = self.since else {
            self.since = Some((now, snapshot.arrived, snapshot.bytes));
            return;
        };
        let seconds = now.duration_since(at).as_secs_f64();
        if seconds >= 0.9 {
            self.records = snapshot.arrived.saturating_sub(records) as f64 / seconds;
            self.bytes = snapshot.bytes.saturating_sub(bytes) as f64 / seconds;
            self.since = Some((now, snapshot.arrived, snapshot.bytes));
        }
    }
}

impl Snapshot {
    /// Share of the ingress's datagrams that did not reach the egress, in percent.
    fn loss_percent(&self) -> f64 {
        if self.datagrams == 0 {
            return 0.0;
        }
        self.datagrams_lost as f64 * 100.0 / self.datagrams as f64
    }

    /// Records that are somewhere on their way.
    fn lag(&self) -> u64 {
        self.produced.saturating_sub(self.arrived)
    }
}

fn lines(snapshot: &Snapshot, speed: &Speed) -> [String; 3] {
    let wrong = match snapshot.wrong {
        0 => String::new(),
        wrong => format!("   WRONG {}", grouped(wrong)),
    };
    [
        format!(
            "records   produced {}   sent {}   arrived {} of {}   lag {}{wrong}",
            grouped(snapshot.produced),
            grouped(snapshot.sent),
            grouped(snapshot.arrived),
            grouped(snapshot.total),
            grouped(snapshot.lag()),
        ),
        format!("speed     {:.1} MB/s   {} records/s", speed.bytes / 1e6, grouped(speed.records as u64)),
        format!(
            "link      {} datagrams   loss {:.2} %   repaired {} symbols",
            grouped(snapshot.datagrams),
            snapshot.loss_percent(),
            grouped(snapshot.symbols_repaired),
        ),
    ]
}

fn plain_line(snapshot: &Snapshot, speed: &Speed) -> String {
    if snapshot.produced == 0 {
        return format!("ddc demo: {}", snapshot.phase);
    }
    format!(
        "{:>3.0} s  {}: produced {} sent {} arrived {} lag {}  {:.1} MB/s  loss {:.2} %  repaired {}{}",
        snapshot.running.as_secs_f64(),
        snapshot.phase,
        snapshot.produced,
        snapshot.sent,
        snapshot.arrived,
        snapshot.lag(),
        speed.bytes / 1e6,
        snapshot.loss_percent(),
        snapshot.symbols_repaired,
        if snapshot.wrong > 0 { format!("  WRONG {}", snapshot.wrong) } else { String::new() },
    )
}

/// A number with a comma between every three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes log lines to standard error, above the picture.
#[derive(Clone)]
pub(super) struct LogWriter(MultiProgress);

/// One event of the log; written when it is complete.
pub(super) struct LogLine {
    multi: MultiProgress,
    text: Vec<u8>,
}

impl MakeWriter<'_> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine { multi: self.0.clone(), text: Vec::new() }
    }
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        // Nobody is left to be told when standard error is gone.
        self.multi.suspend(|| drop(io::stderr().lock().write_all(&text)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn the_templates_are_right() {
        for template in [
            "{bar:30} {percent:>3} %  {wide_msg}",
            "{bar:30.green} {percent:>3} %  {wide_msg}",
            "  {wide_msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn a_plain_line_has_the_asked_figures() {
        let snapshot = Snapshot {
            phase: "records cross",
            total: 100,
            produced: 90,
            sent: 80,
            arrived: 70,
            datagrams: 1000,
            datagrams_lost: 10,
            symbols_repaired: 9,
            running: Duration::from_secs(3),
            ..Snapshot::default()
        };
        let speed = Speed { since: None, records: 1e5, bytes: 2.5e6 };
        assert_eq!(
            plain_line(&snapshot, &speed),
            "  3 s  records cross: produced 90 sent 80 arrived 70 lag 20  2.5 MB/s  loss 1.00 %  repaired 9"
        );
        let before = Snapshot { phase: "waiting for the consumer group", ..Snapshot::default() };
        assert_eq!(plain_line(&before, &speed), "ddc demo: waiting for the consumer group");
        let wrong = plain_line(&Snapshot { wrong: 3, ..snapshot }, &speed);
        assert!(wrong.ends_with("WRONG 3"), "{wrong}");
    }
}
