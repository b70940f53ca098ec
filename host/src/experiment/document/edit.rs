//! Changes by the program: of an experiment that another machine offers, a site makes its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Document;

/// An item of a list that is [rearranged](Document::rearrange).
pub(crate) enum Item {
    /// The item that had this index.
    Kept(usize),
    /// A new table, and where it comes from.
    New(Map<String, Value>, String),
}

impl Document {
    /// Sets a key of a table that exists. Errors of its value name `origin` instead of a line.
    pub(crate) fn replace(&mut self, table: &[&str], key: &str, value: Value, origin: &str) {
        let found = table.iter().try_fold(&mut self.value, |value, step| match value {
            Value::Object(table) => table.get_mut(*step),
            Value::Array(list) => step.parse::<usize>().ok().and_then(|index| list.get_mut(index)),
            _ => None,
        });
        if let Some(Value::Object(found)) = found {
            found.insert(key.to_owned(), value);
            let path = table.iter().chain([&key]).map(|&step| step.to_owned()).collect();
            self.overrides.push((path, origin.to_owned()));
        }
    }

    /// Removes a key of the table at the top named `table`, or of the top itself.
    pub(crate) fn remove(&mut self, table: Option<&str>, key: &str) {
        let found = match table {
            Some(table) => self.value.get_mut(table),
            None => Some(&mut self.value),
        };
        if let Some(Value::Object(found)) = found {
            found.shift_remove(key);
        }
    }

    /// Gives the list of tables at the top named `list` these items. Kept items keep their lines.
    pub(crate) fn rearrange(&mut self, list: &str, items: Vec<Item>) {
        let old = self.value.get(list).and_then(Value::as_array).cloned().unwrap_or_default();
        let below = |path: &[String]| path.len() > 1 && path[0] == list;
        let spots: BTreeMap<_, _>;
        (spots, self.spots) = std::mem::take(&mut self.spots).into_iter().partition(|(path, _)| below(path));
        let overrides: Vec<_> = self.overrides.extract_if(.., |(path, _)| below(path)).collect();
        let mut new = Vec::new();
        for item in items {
            let index = new.len().to_string();
            let moved = |path: &[String]| [&[list.to_owned(), index.clone()], &path[2..]].concat();
            match item {
                Item::Kept(place) => {
                    let was = place.to_string();
                    let of = spots.iter().filter(|(path, _)| path[1] == was);
                    self.spots.extend(of.map(|(path, spot)| (moved(path), spot.clone())));
                    let of = overrides.iter().filter(|(path, _)| path[1] == was);
                    self.overrides.extend(of.map(|(path, origin)| (moved(path), origin.clone())));
                    new.push(old.get(place).cloned().unwrap_or_default());
                }
                Item::New(table, origin) => {
                    self.overrides.push((vec![list.to_owned(), index.clone()], format!("{origin}`")));
                    let keys = table.keys().map(|key| (vec![list.to_owned(), index.clone(), key.clone()], key));
                    self.overrides.extend(keys.map(|(path, key)| (path, format!("{origin}.{key}`"))));
                    new.push(Value::Object(table));
                }
            }
        }
        if let Value::Object(top) = &mut self.value {
            if new.is_empty() {
                top.shift_remove(list);
            } else {
                top.insert(list.to_owned(), Value::Array(new));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rearranged_tables_keep_their_lines_and_new_ones_their_origin() {
        let text = "[[f]]\na = 1\n[[f]]\nb = 2\n[[f]]\nc = 3\n";
        let mut document = Document::parse("x.toml".into(), text).unwrap();
        document.set("f.2.c=4").unwrap();
        let own = [("d".to_owned(), Value::from(5))].into_iter().collect();
        let origin = "site: `filter.0".to_owned();
        document.rearrange("f", vec![Item::Kept(2), Item::New(own, origin), Item::Kept(1)]);
        assert_eq!(document.value().to_string(), r#"{"f":[{"c":4},{"d":5},{"b":2}]}"#);
        let message = |path: &str| {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            document.report(&path, "is bad").message().to_owned()
        };
        assert_eq!(message("f.0.c"), "--set f.2.c=4: is bad");
        assert_eq!(message("f.1.d"), "site: `filter.0.d`: is bad");
        assert_eq!(message("f.1.e"), "site: `filter.0`: is bad");
        assert_eq!(message("f.2.b"), "x.toml:4: `f.2.b`: is bad");
        document.rearrange("f", Vec::new());
        assert_eq!(document.value().to_string(), "{}");
    }
}
