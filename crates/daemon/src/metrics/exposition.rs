//! Prometheus' text format, version 0.0.4: each family with its help and kind, then its samples.

use std::fmt::{Display, Write as _};

/// What a family's numbers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How many were at most so large; see [`Family::histogram`].
    Histogram,
}

/// A text under way.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A family under way: all its samples come together.
#[derive(Debug)]
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// An empty text.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a family. Each name once; counters end in `_total`.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.text, name }
    }

    /// The whole text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// Adds a sample: one combination of labels, each combination once.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line("", labels, value);
        self
    }

    /// Adds the samples of a histogram: one combination of labels (but `le`), each combination once. `buckets` are upper
    /// bounds, rising, each with how many were at most that; `count` and `sum` are those of all.
    pub fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) -> &mut Self {
        for (bound, at_most) in buckets {
            let bound = bound.to_string();
            self.line("_bucket", &[labels, &[("le", bound.as_str())]].concat(), at_most);
        }
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.line("_sum", labels, sum);
        self.line("_count", labels, count);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for letter in text.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_and_labels_are_written_as_scrapers_read_them() {
        let mut exposition = Exposition::new();
        exposition.family("a_total", Kind::Counter, "Things.").sample(&[], 3);
        exposition
            .family("b", Kind::Gauge, "More.")
            .sample(&[("name", "x\"y\\z\n"), ("id", "1")], 0.5)
            .sample(&[("name", "w"), ("id", "2")], 1);
        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n# HELP b More.\n# TYPE b gauge\n\
                        b{name=\"x\\\"y\\\\z\\n\",id=\"1\"} 0.5\nb{name=\"w\",id=\"2\"} 1\n";
        assert_eq!(exposition.finish(), expected);
    }

    #[test]
    fn a_histogram_has_its_buckets_sum_and_count() {
        let mut exposition = Exposition::new();
        let buckets = [(0.005, 1), (1.0, 3)];
        exposition.family("t_seconds", Kind::Histogram, "Times.").histogram(&[("of", "x")], buckets, 4, 12.5);
        let expected = "# HELP t_seconds Times.\n# TYPE t_seconds histogram\nt_seconds_bucket{of=\"x\",le=\"0.005\"} 1\n\
                        t_seconds_bucket{of=\"x\",le=\"1\"} 3\nt_seconds_bucket{of=\"x\",le=\"+Inf\"} 4\n\
                        t_seconds_sum{of=\"x\"} 12.5\nt_seconds_count{of=\"x\"} 4\n";
        assert_eq!(exposition.finish(), expected);
    }
}
