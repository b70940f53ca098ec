//! Targets in units of their own spread.

use plugin_api::{Column, Error, Result, Scale, Table};

/// The scale of training targets, those of all clients together.
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

/// Turns the targets of all tables of a task into standard scores, by the mean and the deviation of those to train on at
/// all clients together, so that clients agree on what a value means.
///
/// # Errors
/// If a table lacks the column of numbers.
pub fn standardise(parts: &mut [Table], test: &mut Table, target: &str) -> Result<Scale> {
    let scale = scale_of(&parts.iter().map(|part| part.f32(target)).collect::<Result<Vec<_>>>()?);
    for table in parts.iter_mut().chain([test]) {
        *table = scaled(table, target, scale)?;
    }
    Ok(scale)
}

fn scaled(table: &Table, target: &str, Scale { mean, deviation }: Scale) -> Result<Table> {
    let score = |&y: &f32| ((f64::from(y) - mean) / deviation) as f32;
    let values: Vec<f32> = table.f32(target)?.iter().map(score).collect();
    let mut next = Table::new();
    for (name, column) in table.columns() {
        next = next.with(name, if name == target { Column::f32(&values) } else { column.clone() })?;
    }
    if next.rows() == table.rows() { Ok(next) } else { Err(Error::data("a table changed its length")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: &[f32]) -> Table {
        let texts = vec!["EVQ"; values.len()];
        Table::new().with("x", Column::text(texts)).unwrap().with("y", Column::f32(values)).unwrap()
    }

    #[test]
    fn all_clients_share_one_scale_and_the_test_rows_have_no_part_in_it() {
        let (mut parts, mut test) = ([table(&[1.0, 2.0]), table(&[]), table(&[3.0, 6.0])], table(&[3.0, 100.0]));
        let scale = standardise(&mut parts, &mut test, "y").unwrap();
        // Mean 3; squared distances 4, 1, 0, 9.
        assert_eq!(scale, Scale { mean: 3.0, deviation: 3.5_f64.sqrt() });
        let all: Vec<f32> = parts.iter().flat_map(|part| part.f32("y").unwrap().to_vec()).collect();
        let (sum, squares) = all.iter().fold((0.0, 0.0), |(s, q), y| (s + y, q + y * y));
        assert!(sum.abs() < 1e-6 && (squares - 4.0).abs() < 1e-5, "{all:?}");
        assert_eq!(test.f32("y").unwrap()[0], 0.0);
        assert_eq!(parts[0].text("x").unwrap().iter().count(), 2);
    }

    #[test]
    fn equal_targets_become_zero() {
        let (mut parts, mut test) = ([table(&[7.0, 7.0])], table(&[8.0]));
        standardise(&mut parts, &mut test, "y").unwrap();
        assert_eq!((parts[0].f32("y").unwrap(), test.f32("y").unwrap()), (&[0.0, 0.0][..], &[1.0][..]));
        let (mut none, mut test) = ([table(&[])], table(&[8.0]));
        assert_eq!(standardise(&mut none, &mut test, "y").unwrap(), Scale { mean: 0.0, deviation: 1.0 });
        assert!(standardise(&mut none, &mut test, "z").is_err());
    }
}
