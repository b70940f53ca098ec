//! Mapping values to positions on an axis, with ticks at round numbers.

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    /// Its position, as a value.
    pub(super) value: f64,
    /// Its label.
    pub(super) label: String,
}

/// The minimum number of ticks on a readable axis.
const FEWEST: usize = 3;

/// An axis: its range and its ticks.
#[derive(Clone, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    pub(super) ticks: Vec<Tick>,
}

impl Scale {
    /// From `low` to `high`, with about `wanted` ticks. If `whole`, all ticks are integers.
    pub(super) fn new(low: f64, high: f64, wanted: usize, whole: bool) -> Self {
        // Steps are rounded up, which can leave too few ticks; then the next finer step is used.
        let ticks = |wanted: usize| {
            let step = round_step((high - low) / wanted as f64, whole);
            (step, multiples(low, high, step))
        };
        let (step, values) = (wanted.max(1)..wanted + 4)
            .map(ticks)
            .find(|(_, values)| values.len() >= FEWEST)
            .unwrap_or_else(|| ticks(wanted.max(1)));
        let labels = Labels::of(&values, step);
        let ticks = values.iter().map(|&value| Tick { value, label: labels.text(value) }).collect();
        Self { low, high, ticks }
    }

    /// A scale for values between `low` and `high`, with a margin of `part` of the range at both ends. If all values
    /// are equal, they are centred.
    pub(super) fn around(low: f64, high: f64, part: f64, wanted: usize, whole: bool) -> Self {
        let least = if whole { 1.0 } else { 1e-6 * low.abs().max(high.abs()) };
        let margin = if high - low > least {
            (high - low) * part
        } else if whole || low == 0.0 {
            1.0
        } else {
            low.abs() * 0.1
        };
        Self::new(low - margin, high + margin, wanted, whole)
    }

    /// The position of a value: 0 at the low end, 1 at the high end.
    pub(super) fn position(&self, value: f64) -> f64 {
        (value - self.low) / (self.high - self.low)
    }
}

/// The multiples of a step from `low` to `high`.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    // Computed by multiplication and not by addition, so that zero is exact.
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let values = (0..=(last - first).max(0.0) as u32).map(|k| (first + f64::from(k)) * step);
    values.filter(|value| last >= first && value.is_finite()).collect()
}

/// The smallest of 1, 2, 2.5 and 5 times a power of ten that is at least `least`.
fn round_step(least: f64, whole: bool) -> f64 {
    let least = if whole { least.max(1.0) } else { least };
    let power = 10_f64.powf(least.log10().floor());
    let factors = if whole && power < 10.0 { &[1.0, 2.0, 5.0, 10.0][..] } else { &[1.0, 2.0, 2.5, 5.0, 10.0] };
    factors.iter().map(|factor| factor * power).find(|step| *step >= least * (1.0 - 1e-9)).unwrap_or(power * 10.0)
}

/// The number format of an axis: all with the same decimals, very large and very small ones with a power of ten.
struct Labels {
    decimals: usize,
    power: i32,
}

impl Labels {
    fn of(values: &[f64], step: f64) -> Self {
        let largest = values.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let power = largest.log10().floor();
        let power = if largest > 0.0 && !(-3.0..7.0).contains(&power) { power as i32 } else { 0 };
        let step = step / 10_f64.powi(power);
        let decimals = (0..12).find(|&decimals| {
            let scaled = step * 10_f64.powi(decimals);
            (scaled - scaled.round()).abs() < 1e-6 * scaled
        });
        Self { decimals: decimals.unwrap_or(12) as usize, power }
    }

    fn text(&self, value: f64) -> String {
        let Self { decimals, power } = *self;
        let number = format!("{:.decimals$}", value / 10_f64.powi(power)).replace('-', "\u{2212}");
        match power {
            _ if value == 0.0 => "0".to_owned(),
            0 => grouped(&number),
            _ => format!("{number}e{}", power.to_string().replace('-', "\u{2212}")),
        }
    }
}

/// Separates thousands with commas, from 10,000 on.
pub(super) fn grouped(number: &str) -> String {
    let (whole, rest) = number.split_at(number.find('.').unwrap_or(number.len()));
    let digits = whole.chars().filter(char::is_ascii_digit).count();
    if digits < 5 {
        return number.to_owned();
    }
    let mut text = String::new();
    let mut left = digits;
    for c in whole.chars() {
        if c.is_ascii_digit() {
            if left < digits && left % 3 == 0 {
                text.push(',');
            }
            left -= 1;
        }
        text.push(c);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|tick| tick.label.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_and_labels_as_long_as_they_must_be() {
        assert_eq!(labels(&Scale::new(-0.3, 1.07, 5, false)), ["0", "0.5", "1.0"]);
        assert_eq!(labels(&Scale::new(0.0, 100.0, 5, false)), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Scale::new(-2.0, 2.0, 4, false)), ["−2", "−1", "0", "1", "2"]);
        assert_eq!(labels(&Scale::new(0.0, 1.0, 4, false)), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(&Scale::new(0.0, 40_000.0, 2, false)), ["0", "20,000", "40,000"]);
        assert_eq!(labels(&Scale::new(0.0, 2e-5, 3, false)), ["0", "1e−5", "2e−5"]);
    }

    #[test]
    fn whole_numbers_have_no_tick_between_them() {
        assert_eq!(labels(&Scale::new(0.0, 3.0, 6, true)), ["0", "1", "2", "3"]);
        assert_eq!(labels(&Scale::new(0.0, 12.0, 5, true)), ["0", "5", "10"]);
        assert_eq!(labels(&Scale::new(1.0, 2.0, 5, true)), ["1", "2"]);
    }

    #[test]
    fn a_single_value_stands_in_the_middle() {
        for (value, whole) in [(0.0, false), (2.0, false), (-1e-9, false), (1e12, false), (7.0, true)] {
            let scale = Scale::around(value, value, 0.05, 5, whole);
            assert!((scale.position(value) - 0.5).abs() < 1e-6, "{value}");
            assert!(!scale.ticks.is_empty(), "{value}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let written = ["9999", "10000", "−1234567.50", "0.25"].map(grouped);
        assert_eq!(written, ["9999", "10,000", "−1,234,567.50", "0.25"]);
    }
}
