//! Percentiles of latencies.

use std::time::Duration;

use serde_json::{Value, json};

/// Latencies, to be asked for percentiles.
#[derive(Debug, Default)]
pub struct Latencies {
    micros: Vec<f64>,
}

impl Latencies {
    /// Adds one.
    pub fn push(&mut self, latency: Duration) {
        self.micros.push(latency.as_secs_f64() * 1e6);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// What is told of a run: what was answered and what was not, in how long, and percentiles.
    pub fn line(self, requests: usize, errors: usize, time: Duration) -> Value {
        let [p50, p99, p999] = self.percentiles([50.0, 99.0, 99.9]);
        json!({"requests": requests, "errors": errors, "seconds": time.as_secs_f64(),
              "p50_us": p50, "p99_us": p99, "p999_us": p999})
    }

    /// Microseconds below which `percent` of them lie, for each of `percents`; 0 when there are none.
    pub fn percentiles<const N: usize>(mut self, percents: [f64; N]) -> [f64; N] {
        self.micros.sort_by(f64::total_cmp);
        let last = self.micros.len().saturating_sub(1) as f64;
        percents.map(|percent| {
            self.micros
                .get((last * percent / 100.0).round() as usize)
                .copied()
                .unwrap_or(0.0)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted() {
        let mut latencies = Latencies::default();
        (0..=100)
            .rev()
            .for_each(|micros| latencies.push(Duration::from_micros(micros)));
        assert_eq!(
            latencies
                .percentiles([0.0, 50.0, 99.0, 100.0])
                .map(f64::round),
            [0.0, 50.0, 99.0, 100.0]
        );
        assert_eq!(Latencies::default().percentiles([50.0]), [0.0]);
    }
}
