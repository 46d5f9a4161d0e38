//! Messages in a second, of a broker's counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::report::Rates;

/// Over so long a rate is taken.
const SPAN: Duration = Duration::from_secs(5);

/// Counters of the last [`SPAN`].
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, [u64; 2])>,
}

impl Meter {
    /// Takes in a broker's state; gives its rates, once there are two that belong together.
    pub fn handle_state(&mut self, state: &Value, now: Instant) -> Option<Rates> {
        let messages = &state["messages"];
        let counters = [messages["from_clients"].as_u64()?, messages["to_clients"].as_u64()?];
        let fell = self.samples.back().is_some_and(|(_, last)| counters[0] < last[0] || counters[1] < last[1]);
        if fell {
            // Another process counts from nothing.
            self.samples.clear();
        }
        self.samples.push_back((now, counters));
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= SPAN) {
            self.samples.pop_front();
        }
        let (begin, before) = self.samples.front()?;
        let seconds = now.saturating_duration_since(*begin).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with three digits")]
        let rate = |index: usize| (counters[index] - before[index]) as f64 / seconds;
        (seconds > 0.0).then(|| Rates { received: rate(0), sent: rate(1) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_of_one_process() {
        #[expect(clippy::disallowed_methods, reason = "a beginning to count from")]
        let begin = Instant::now();
        let mut meter = Meter::default();
        let mut look = |second: u64, received: u64, sent: u64| {
            let state = json!({ "messages": { "from_clients": received, "to_clients": sent } });
            meter.handle_state(&state, begin + Duration::from_secs(second)).map(|rates| (rates.received, rates.sent))
        };
        assert_eq!(look(0, 1000, 0), None);
        assert_eq!(look(1, 1100, 50), Some((100.0, 50.0)));
        assert_eq!(look(5, 1100, 50), Some((20.0, 10.0)));
        assert_eq!(look(10, 1100, 50), Some((0.0, 0.0)));
        assert_eq!(look(11, 5, 0), None, "restarted");
        assert_eq!(look(12, 7, 0), Some((2.0, 0.0)));
        assert_eq!(meter.handle_state(&Value::Null, begin), None);
    }
}
