//! Times and their spread.

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall time in milliseconds: comparable between the processes of one machine.
pub(crate) fn wall() -> f64 {
    #[expect(clippy::disallowed_methods, reason = "compared with other processes' times")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// Median, least and most of milliseconds; infinite is what had not happened when the run ended, after `window`.
pub(crate) fn spread(mut values: Vec<f64>, window: f64) -> String {
    values.sort_by(f64::total_cmp);
    let [first, .., last] = values[..] else {
        return values.first().map_or_else(|| "-".to_owned(), |only| number(*only, window));
    };
    let median = number(values[values.len() / 2], window);
    let (least, most) = (number(first, window), number(last, window));
    if least == most { median } else { format!("{median} ({least} to {most})") }
}

fn number(value: f64, window: f64) -> String {
    match value {
        value if value.is_infinite() => format!("> {window:.0}"),
        // What never happened, or a tenth of a millisecond that matters.
        value if value < 100.0 => format!("{:.1}", value.max(0.0)),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_with_its_least_and_most() {
        assert_eq!(spread(vec![30.0, 10.0, 220.25], 5_000.0), "30.0 (10.0 to 220)");
        assert_eq!(spread(vec![0.0, 0.0], 5_000.0), "0.0");
        assert_eq!(spread(vec![7.0], 5_000.0), "7.0");
        assert_eq!(spread(vec![f64::INFINITY, 1.0, f64::INFINITY], 5_000.0), "> 5000 (1.0 to > 5000)");
        assert_eq!(spread(vec![], 5_000.0), "-");
    }
}
