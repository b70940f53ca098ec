//! Standard scores of targets.

use plugin_api::{Column, Context, Result, Scale, Table};

/// Mean and standard deviation (population, without Bessel's correction) of the training targets of all clients together.
/// The deviation is 1 where the targets are equal or there are none.
pub fn scale_of(parts: &[&[f32]]) -> Scale {
    let count: usize = parts.iter().map(|values| values.len()).sum();
    if count == 0 {
        return Scale { mean: 0.0, deviation: 1.0 };
    }
    let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
        parts.iter().map(|values| values.iter().map(|&y| of(y.into())).sum::<f64>()).fold(0.0, |all, part| all + part)
    };
    let mean = sum(&|y| y) / count as f64;
    let deviation = (sum(&|y| (y - mean).powi(2)) / count as f64).sqrt();
    Scale { mean, deviation: if deviation > 0.0 { deviation } else { 1.0 } }
}

/// The table with its target column as standard scores, `(value - mean) / deviation`. Other columns are shared, not copied.
///
/// # Errors
/// If the target is not a column of numbers.
pub fn standardised(table: &Table, target: &str, Scale { mean, deviation }: Scale) -> Result<Table> {
    let score = |&y: &f32| ((f64::from(y) - mean) / deviation) as f32;
    let values: Vec<f32> = table.f32(target)?.iter().map(score).collect();
    table.columns().try_fold(Table::new(), |next, (name, column)| {
        next.with(name, if name == target { Column::f32(&values) } else { column.clone() })
    })
}

/// Notes in the run's summary how to convert a standard score back.
pub fn note_scale(task: &str, Scale { mean, deviation }: Scale, ctx: &Context<'_>) {
    ctx.note(&format!("standardised {task}"), format_args!("value = {mean:.6} + {deviation:.6} × score"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[f32]) -> Table {
        let texts = vec!["EVQ"; values.len()];
        Table::new().with("x", Column::text(texts)).unwrap().with("y", Column::f32(values)).unwrap()
    }

    #[test]
    fn all_clients_share_one_scale() {
        let parts: [&[f32]; 3] = [&[1.0, 2.0], &[], &[3.0, 6.0]];
        let scale = scale_of(&parts);
        // Mean 3; squared distances 4, 1, 0, 9.
        assert_eq!(scale, Scale { mean: 3.0, deviation: 3.5_f64.sqrt() });
        let scores = standardised(&table(&[3.0, 6.0]), "y", scale).unwrap();
        assert_eq!(scores.f32("y").unwrap()[0], 0.0);
        assert!((scores.f32("y").unwrap()[1] - 3.0 / 3.5_f32.sqrt()).abs() < 1e-6);
        assert_eq!(scores.text("x").unwrap().iter().count(), 2);
        assert!(standardised(&table(&[3.0]), "z", scale).is_err());
    }

    #[test]
    fn equal_targets_become_zero() {
        let scale = scale_of(&[&[7.0, 7.0]]);
        let scores = |values: &[f32]| standardised(&table(values), "y", scale).unwrap().f32("y").unwrap().to_vec();
        assert_eq!((scores(&[7.0, 7.0]), scores(&[8.0])), (vec![0.0, 0.0], vec![1.0]));
        assert_eq!(scale_of(&[&[]]), Scale { mean: 0.0, deviation: 1.0 });
    }
}
