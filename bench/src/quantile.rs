//! Quantiles of measured times.

use std::time::Duration;

/// Sorts the times, and returns their quantile at `fraction` (0.5 is the median) in milliseconds, or NaN if there are
/// no times.
pub fn quantile_ms(times: &mut [Duration], fraction: f64) -> f64 {
    times.sort_unstable();
    let index = ((times.len() as f64 - 1.0) * fraction).ceil().max(0.0) as usize;
    times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
}
