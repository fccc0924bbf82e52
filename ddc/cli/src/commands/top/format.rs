//! Numbers, times and rates as short texts of known width. Unknown is `-`.

/// What is shown for a value that is not known.
pub(super) const UNKNOWN: &str = "-";

/// A number in at most six characters: `0`, `9.5`, `812`, `47.1k`, `812M`, `1.3G`.
pub(super) fn short(value: Option<f64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let (sign, size) = (if value < 0.0 { "-" } else { "" }, value.abs());
    if size == 0.0 {
        return "0".to_owned();
    }
    if size < 0.05 {
        return format!("{sign}<.1");
    }
    let mut scaled = size;
    for unit in ["", "k", "M", "G", "T", "P", "E"] {
        if scaled < 999.5 {
            let whole = (unit.is_empty() && scaled.fract() == 0.0) || scaled >= 99.95;
            return if whole {
                format!("{sign}{scaled:.0}{unit}")
            } else {
                format!("{sign}{scaled:.1}{unit}")
            };
        }
        scaled /= 1000.0;
    }
    format!("{sign}>999E")
}

/// Bytes in powers of 1024.
pub(super) fn bytes(value: Option<f64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let mut scaled = value.max(0.0);
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 999.5 {
            let digits = usize::from(unit != "B" && scaled < 99.95);
            return format!("{scaled:.digits$} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{} TiB", short(Some(scaled)))
}

/// A share as a percentage.
pub(super) fn percent(ratio: Option<f64>) -> String {
    match ratio {
        None => UNKNOWN.to_owned(),
        Some(0.0) => "0%".to_owned(),
        Some(ratio) if ratio.abs() < 0.0001 => "<.01%".to_owned(),
        Some(ratio) if ratio.abs() < 0.0995 => format!("{:.2}%", ratio * 100.0),
        Some(ratio) if ratio.abs() < 100.0 => format!("{:.0}%", ratio * 100.0),
        Some(_) => ">9999%".to_owned(),
    }
}

/// A duration in at most six characters: `80us`, `3.2ms`, `1.2s`, `45m`, `3.1h`, `12d`.
pub(super) fn seconds(value: Option<f64>) -> String {
    let Some(value) = value else { return UNKNOWN.to_owned() };
    let (sign, size) = (if value < 0.0 { "-" } else { "" }, value.abs());
    let text = |scaled: f64, unit| {
        let digits = usize::from(scaled < 9.95 && scaled.fract() != 0.0);
        format!("{sign}{scaled:.digits$}{unit}")
    };
    match size {
        0.0 => "0s".to_owned(),
        _ if size < 0.000_999_5 => text(size * 1e6, "us"),
        _ if size < 0.999_5 => text(size * 1e3, "ms"),
        _ if size < 99.5 => text(size, "s"),
        _ if size < 5_970.0 => text(size / 60.0, "m"),
        _ if size < 172_800.0 => text(size / 3600.0, "h"),
        _ if size < 86_400.0 * 9_999.0 => text(size / 86_400.0, "d"),
        _ => ">9999d".to_owned(),
    }
}

/// The last `width` values as bars, the largest of them full height; what is not known is a blank.
pub(super) fn sparkline(values: &[Option<f64>], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let most = shown.iter().flatten().copied().fold(0.0, f64::max);
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) if *value <= 0.0 || most <= 0.0 => BARS[0],
        // At least the second bar: a little traffic is not none.
        Some(value) => BARS[((value / most * 7.0).round() as usize).clamp(1, 7)],
    };
    let blanks = std::iter::repeat_n(' ', width - shown.len());
    blanks.chain(shown.iter().map(bar)).collect()
}

/// A moment as `YYYY-MM-DD hh:mm:ssZ`, by the clock that gave it.
pub(super) fn utc(millis: Option<u64>) -> String {
    // The year 9999; what is later is no moment that was measured.
    let Some(seconds) = millis.map(|millis| millis / 1000).filter(|seconds| *seconds < 253_402_300_800)
    else {
        return UNKNOWN.to_owned();
    };
    let (mut days, clock) = (seconds / 86_400, seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_whatever_they_are() {
        let texts: Vec<String> = [0.0, 0.01, 0.25, 7.0, 9.96, 812.0, 999.6, 47_144.0, 812e6, 1.25e9, -3.0]
            .map(|value| short(Some(value)))
            .into();
        assert_eq!(texts, ["0", "<.1", "0.2", "7", "10.0", "812", "1.0k", "47.1k", "812M", "1.2G", "-3"]);
        assert_eq!(short(None), "-");
        for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 1e15, 999.949, 99.95, 99_949.9] {
            assert!(short(Some(value)).len() <= 6, "{}", short(Some(value)));
            assert!(seconds(Some(value)).len() <= 6, "{}", seconds(Some(value)));
            assert!(percent(Some(value)).len() <= 6, "{}", percent(Some(value)));
        }
    }

    #[test]
    fn bytes_shares_and_durations() {
        assert_eq!([0.0, 1000.0, 5e6].map(|value| bytes(Some(value))), ["0 B", "1.0 KiB", "4.8 MiB"]);
        let shares = [0.0, 0.000_01, 0.001, 0.111, 1.0].map(|value| percent(Some(value)));
        assert_eq!(shares, ["0%", "<.01%", "0.10%", "11%", "100%"]);
        let times = [0.0, 80e-6, 0.003_2, 0.45, 1.25, 45.0, 2700.0, 11_000.0, 1e6, -0.012];
        let times = times.map(|value| seconds(Some(value)));
        assert_eq!(times, ["0s", "80us", "3.2ms", "450ms", "1.2s", "45s", "45m", "3.1h", "12d", "-12ms"]);
    }

    #[test]
    fn sparklines_show_holes_and_never_hide_a_little() {
        let values = [Some(0.0), None, Some(1.0), Some(50.0), Some(100.0)];
        assert_eq!(sparkline(&values, 7), "  ▁ ▂▅█");
        assert_eq!(sparkline(&values, 2), "▅█");
        assert_eq!(sparkline(&[], 3), "   ");
        assert_eq!(sparkline(&[Some(0.0); 3], 3), "▁▁▁");
    }

    #[test]
    fn moments_are_days_of_the_calendar() {
        assert_eq!(utc(Some(0)), "1970-01-01 00:00:00Z");
        assert_eq!(utc(Some(951_782_399_000)), "2000-02-28 23:59:59Z");
        assert_eq!(utc(Some(951_782_400_000)), "2000-02-29 00:00:00Z");
        assert_eq!(utc(Some(1_795_333_060_000)), "2026-11-22 07:37:40Z");
        assert_eq!((utc(None), utc(Some(u64::MAX))), ("-".to_owned(), "-".to_owned()));
    }
}
