//! What becomes of a parameter that an aggregate lacks. If its holders were not drawn, failed or did not train, it keeps
//! its value; if a client whose update arrived kept it to itself, it is private and has no global value any more.

use std::collections::BTreeSet;

use plugin_api::Params;

/// The names of parameters.
pub fn names(params: &Params) -> Vec<String> {
    params.names().map(str::to_owned).collect()
}

/// Those of these names that are missing after filters.
pub fn missing(names: impl IntoIterator<Item = String>, after: &Params) -> Vec<String> {
    names.into_iter().filter(|name| after.get(name).is_none()).collect()
}

/// Gives the next global model what it lacks and the one before has, but for what clients of the round withheld.
pub fn complete(next: &mut Params, before: &Params, withheld: &BTreeSet<String>) {
    let absent = before.iter().filter(|(name, _)| next.get(name).is_none() && !withheld.contains(*name));
    let absent: Vec<_> = absent.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    absent.into_iter().for_each(|(name, tensor)| drop(next.insert(name, tensor)));
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;

    use super::*;

    #[test]
    fn what_nobody_withheld_keeps_its_value() {
        let params = |all: &[(&str, f32)]| -> Params {
            all.iter().map(|(name, value)| (*name, Tensor::from_slice(&[1], &[*value]).unwrap())).collect()
        };
        let before = params(&[("trunk", 0.0), ("head.a", 1.0), ("head.b", 2.0)]);
        let mut next = params(&[("trunk", 9.0)]);
        let withheld = missing(names(&before), &params(&[("trunk", 9.0), ("head.b", 2.0)]));
        assert_eq!(withheld, ["head.a"]);
        complete(&mut next, &before, &withheld.into_iter().collect());
        assert_eq!(names(&next), ["trunk", "head.b"]);
        let value = |name: &str| next.elements::<f32>(name, &[1]).unwrap()[0];
        assert_eq!((value("trunk"), value("head.b")), (9.0, 2.0));
    }
}
