//! Values of answers as cells of a table.

use serde_json::Value;

/// What is missing: another version may show less.
#[must_use]
pub fn dash() -> String {
    "-".to_owned()
}

/// A string.
#[must_use]
pub fn word(value: &Value) -> String {
    value.as_str().map_or_else(dash, str::to_owned)
}

/// `850ms`, `12s`, `3m05s`, `2h15m`, `9d04h`.
#[must_use]
pub fn time(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{millis}ms"),
        (0, 0, 0, _) => format!("{seconds}s"),
        (0, 0, _, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _, _) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// `512`, `1.5k`, `20M`: thousands, three digits at the most.
#[must_use]
pub fn bytes(count: u64) -> String {
    let mut unit = 1_u64;
    let mut letter = "";
    for next in ["k", "M", "G", "T", "P"] {
        if count / unit < 1000 {
            break;
        }
        (unit, letter) = (unit * 1000, next);
    }
    let whole = count / unit;
    if letter.is_empty() || whole >= 10 {
        format!("{whole}{letter}")
    } else {
        format!("{whole}.{}{letter}", count % unit * 10 / unit)
    }
}

/// A number.
#[must_use]
pub fn number(value: &Value) -> String {
    value.as_u64().map_or_else(dash, |number| number.to_string())
}

/// A time in milliseconds.
#[must_use]
pub fn millis(value: &Value) -> String {
    value.as_u64().map_or_else(dash, time)
}

/// A number of bytes.
#[must_use]
pub fn size(value: &Value) -> String {
    value.as_u64().map_or_else(dash, bytes)
}

/// Yes or no.
#[must_use]
pub fn yes(value: &Value) -> String {
    value.as_bool().map_or_else(dash, |yes| if yes { "yes" } else { "no" }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_bytes_are_short() {
        let times = [
            (0, "0ms"),
            (999, "999ms"),
            (59_999, "59s"),
            (185_000, "3m05s"),
            (8_100_000, "2h15m"),
            (792_000_000, "9d04h"),
        ];
        assert_eq!(times.map(|(millis, _)| time(millis)), times.map(|(_, text)| text.to_owned()));
        let sizes = [
            (0, "0"),
            (999, "999"),
            (1000, "1.0k"),
            (12_345, "12k"),
            (999_999, "999k"),
            (1_000_000, "1.0M"),
            (u64::MAX, "18446P"),
        ];
        assert_eq!(sizes.map(|(count, _)| bytes(count)), sizes.map(|(_, text)| text.to_owned()));
    }
}
