//! Percentiles of latencies.

use std::time::Duration;

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
