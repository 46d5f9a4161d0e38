//! How long nobody could connect: the longest time between two CONNACKs. Pure: times are given.

use std::time::Duration;

/// Whoever connects every few milliseconds and has not for this long cannot.
const RECENT: Duration = Duration::from_millis(500);

/// The longest time between two successive ones of `probes` (in order) of which at least the second is after `fault`.
/// `None` without one before it, or where the outage has not ended well before `end`.
pub(super) fn longest_gap(probes: &[Duration], fault: Duration, end: Duration) -> Option<Duration> {
    let first_after = probes.partition_point(|probe| *probe <= fault);
    let last = probes.partition_point(|probe| *probe <= end);
    // The last one before the fault is where the first gap starts.
    let relevant = probes.get(first_after.checked_sub(1)?..last)?;
    if relevant.last()?.saturating_add(RECENT) < end {
        return None;
    }
    relevant.windows(2).filter_map(|pair| pair.last()?.checked_sub(*pair.first()?)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(probes: &[u64], fault: u64, end: u64) -> Option<u64> {
        let probes: Vec<_> = probes.iter().copied().map(Duration::from_millis).collect();
        let gap = longest_gap(&probes, Duration::from_millis(fault), Duration::from_millis(end))?;
        u64::try_from(gap.as_millis()).ok()
    }

    #[test]
    fn the_gap_around_the_fault_counts() {
        assert_eq!(gap(&[0, 10, 20, 120, 130], 25, 200), Some(100));
    }

    #[test]
    fn a_gap_before_the_fault_or_after_the_end_does_not_count() {
        assert_eq!(gap(&[0, 500, 510, 530, 540, 900], 515, 600), Some(20));
    }

    #[test]
    fn a_later_gap_counts_where_it_is_longer() {
        assert_eq!(gap(&[0, 10, 40, 50, 150], 15, 200), Some(100));
    }

    #[test]
    fn without_a_probe_on_either_side_there_is_no_gap() {
        assert_eq!(gap(&[], 10, 100), None);
        assert_eq!(gap(&[20, 30], 10, 100), None);
        assert_eq!(gap(&[0, 5], 10, 100), None);
        assert_eq!(gap(&[0, 5, 20], 10, 1000), None);
    }
}
