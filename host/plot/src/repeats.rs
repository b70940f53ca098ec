//! One curve for several runs of one experiment: their mean, and the standard deviation around it.

use std::collections::BTreeMap;

use super::events::Point;
use super::find::{Curve, Run};
use super::natural::Natural;

/// The file that lists the runs of an experiment in one directory.
pub(super) const FILE: &str = "repeats.json";

/// The mean of these runs, which have values at the same places: the k-th value of each belongs together. It ends where the
/// shortest of them does. Times count from each run's start.
pub(super) fn combined(runs: Vec<Run>) -> Run {
    let count = runs.len();
    let mut path = Vec::new();
    let mut of_clients: BTreeMap<Natural, Vec<Curve>> = BTreeMap::new();
    for run in runs {
        let begun = run.curves.values().flat_map(|curve| &curve.points).map(|point| point.time).reduce(f64::min);
        path = run.path;
        for (client, mut curve) in run.curves {
            curve.points.iter_mut().for_each(|point| point.time -= begun.unwrap_or_default());
            of_clients.entry(client).or_default().push(curve);
        }
    }
    let curves = of_clients.into_iter().map(|(client, curves)| (client, mean_curve(&curves))).collect();
    Run { name: String::new(), path, curves, repeats: Some(count) }
}

fn mean_curve(curves: &[Curve]) -> Curve {
    let length = curves.iter().map(|curve| curve.points.len()).min().unwrap_or(0);
    let of =
        |k: usize, number: fn(&Point) -> f64| curves.iter().map(|curve| number(&curve.points[k])).collect::<Vec<_>>();
    let (mut points, mut deviations) = (Vec::new(), Vec::new());
    for k in 0..length {
        let (value, deviation) = mean_and_deviation(&of(k, |point| point.value));
        let (step, _) = mean_and_deviation(&of(k, |point| point.step as f64));
        let (time, _) = mean_and_deviation(&of(k, |point| point.time));
        points.push(Point { step: step.round() as i64, time, value });
        deviations.push(deviation);
    }
    Curve { points, unit: curves.first().map_or("step", |curve| curve.unit), deviations: Some(deviations) }
}

/// The mean of the finite values and their standard deviation, with Bessel's correction; 0 for a single value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let count = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / count;
    let squares = finite.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if finite.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: &[(i64, f64, f64)]) -> Run {
        let points = steps.iter().map(|&(step, time, value)| Point { step, time, value }).collect();
        let curve = Curve { points, unit: "round", deviations: None };
        let curves = [(Natural("a".to_owned()), curve)].into_iter().collect();
        Run { name: String::new(), path: vec!["x".to_owned()], curves, repeats: None }
    }

    #[test]
    fn the_kth_values_of_all_runs_make_a_mean_until_the_shortest_ends() {
        let runs = vec![
            run(&[(0, 100.0, 1.0), (10, 110.0, 2.0), (20, 120.0, 9.0)]),
            run(&[(0, 500.0, 3.0), (12, 530.0, f64::NAN)]),
        ];
        let combined = combined(runs);
        assert_eq!((combined.repeats, combined.path), (Some(2), vec!["x".to_owned()]));
        let curve = &combined.curves[&Natural("a".to_owned())];
        let points: Vec<_> = curve.points.iter().map(|point| (point.step, point.time, point.value)).collect();
        assert_eq!(points, [(0, 0.0, 2.0), (11, 20.0, 2.0)]);
        assert_eq!(curve.deviations, Some(vec![2.0_f64.sqrt(), 0.0]));
    }
}
