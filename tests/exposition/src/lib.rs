//! Reads Prometheus' text format (version 0.0.4) more strictly than scrapers do: whatever is not exactly as it should be
//! fails the test with the line in question.
//!
//! Each family has its help and kind right before its samples, once; counters, and nothing else, end in `_total`; a series
//! comes once; a histogram's buckets rise, and the last one has all.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// A text's families by name.
#[derive(Debug, Default, PartialEq)]
pub struct Families(BTreeMap<String, Family>);

/// One family.
#[derive(Debug, Default, PartialEq)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Values by series, labels included, as the text has them.
    pub samples: BTreeMap<String, f64>,
}

/// Reads a text.
///
/// # Panics
/// It breaks the format.
#[must_use]
pub fn parse(text: &str) -> Families {
    let mut families = Families::default();
    let mut current = String::new();
    let mut helped = BTreeSet::new();
    assert!(text.ends_with('\n'), "the last line has no end");
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = halves(help, line);
            assert!(!text.is_empty() && helped.insert(name.to_owned()), "no help, or twice: {line}");
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = halves(kind, line);
            assert_eq!(name, current, "help and type stand together");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "unknown kind: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "counters, and only they, end in _total: {line}");
            match families.0.entry(name.to_owned()) {
                Entry::Occupied(_) => panic!("twice: {line}"),
                Entry::Vacant(place) => place.insert(Family { kind: kind.to_owned(), samples: BTreeMap::new() }),
            };
        } else {
            let family = families.0.get_mut(&current).unwrap_or_else(|| panic!("no type before it: {line}"));
            sample(family, &current, line);
        }
    }
    for (name, family) in families.0.iter().filter(|(_, family)| family.kind == "histogram") {
        check_histogram(name, family);
    }
    families
}

/// What is shown at `http://ADDRESS/metrics`.
///
/// # Panics
/// It is not answered with 200 and that format's content type.
#[must_use]
pub fn scrape(address: SocketAddr) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer)
    };
    let answer = ask().unwrap_or_else(|error| panic!("no figures at {address}: {error}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer}"));
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

impl Families {
    /// The value of a series, written as the text has it: `name` or `name{label="value"}`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn of(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    /// The same, if there is one.
    #[must_use]
    pub fn find(&self, series: &str) -> Option<f64> {
        let name = series.split('{').next().unwrap_or_default();
        let families = ["", "_bucket", "_sum", "_count"].iter().filter_map(|suffix| name.strip_suffix(suffix));
        families.filter_map(|family| self.0.get(family)).find_map(|family| family.samples.get(series)).copied()
    }

    /// The families' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A family.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Family> {
        self.0.get(name)
    }
}

fn halves<'a>(text: &'a str, line: &str) -> (&'a str, &'a str) {
    text.split_once(' ').unwrap_or_else(|| panic!("half of it is missing: {line}"))
}

fn sample(family: &mut Family, current: &str, line: &str) {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let name = series.split('{').next().unwrap_or_default();
    let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    assert!(name.strip_prefix(current).is_some_and(|suffix| suffixes.contains(&suffix)), "{line} in {current}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "unusual name: {line}");
    let labels = &series[name.len()..];
    assert!(labels.is_empty() || (labels.starts_with('{') && labels.ends_with("\"}")), "labels: {line}");
    let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    assert!(family.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
}

/// By their labels but `le`: rising bounds with rising counts, of which the last one, `+Inf`, is the count of all.
fn check_histogram(name: &str, family: &Family) {
    let mut buckets: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (series, count) in &family.samples {
        let Some(labels) = series.strip_prefix(&format!("{name}_bucket{{")) else { continue };
        let (others, bound) = labels.rsplit_once("le=\"").unwrap_or_else(|| panic!("a bucket without le: {series}"));
        let bound = bound.trim_end_matches("\"}");
        let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap_or(f64::NAN) };
        assert!(!bound.is_nan(), "no bound: {series}");
        buckets.entry(others.trim_end_matches(',').to_owned()).or_default().push((bound, *count));
    }
    for (labels, mut buckets) in buckets {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{name}{{{labels}}}: {buckets:?}");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let all = family.samples.get(&format!("{name}_count{labels}"));
        let last = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| count);
        assert!(all.is_some() && all == last, "{name}{labels}: {all:?} counted, {last:?} in the last bucket");
        assert!(family.samples.contains_key(&format!("{name}_sum{labels}")), "{name}{labels} has no sum");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 3\na_total{x=\"2\"} 0\n\
                        # HELP t_seconds Times.\n# TYPE t_seconds histogram\nt_seconds_bucket{le=\"0.5\"} 1\n\
                        t_seconds_bucket{le=\"+Inf\"} 2\nt_seconds_sum 1.5\nt_seconds_count 2\n";

    #[test]
    fn what_is_good_is_read() {
        let families = parse(GOOD);
        assert_eq!((families.of("a_total{x=\"1\"}"), families.of("t_seconds_bucket{le=\"0.5\"}")), (3.0, 1.0));
        assert_eq!((families.find("a_total"), families.names().count()), (None, 2));
    }

    #[test]
    fn what_is_not_is_refused() {
        let broken = [
            ("a_total{x=\"2\"} 0", "a_total{x=\"1\"} 0"),
            ("a_total counter", "a_total gauge"),
            ("# TYPE a_total counter\n", ""),
            ("} 3", "} three"),
            ("t_seconds_count 2", "t_seconds_count 3"),
            ("t_seconds_sum 1.5\n", ""),
            ("{le=\"0.5\"} 1", "{le=\"0.5\"} 7"),
            ("count 2\n", "count 2"),
        ];
        for (good, bad) in broken {
            assert!(GOOD.contains(good), "{good}");
            let text = GOOD.replacen(good, bad, 1);
            assert!(std::panic::catch_unwind(|| parse(&text)).is_err(), "{text}");
        }
    }
}
