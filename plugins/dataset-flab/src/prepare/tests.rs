use super::*;

/// The columns of `pandas.read_csv` with these headers.
#[test]
fn names_are_made_distinct_as_pandas_does() {
    let names = |names: &[&str]| distinct(names.iter().map(|&name| name.to_owned()).collect());
    assert_eq!(names(&["", "a", "a", "", "a"]), ["Unnamed: 0", "a", "a.1", "Unnamed: 3", "a.2"]);
    assert_eq!(names(&["a", "a", "a.1"]), ["a", "a.2", "a.1"]);
}
