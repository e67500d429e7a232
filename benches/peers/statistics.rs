//! Medians and percentiles.

/// The value that this part of the values does not exceed; `part` is from 0 to 1.
pub(crate) fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.saturating_sub(1)]
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}
