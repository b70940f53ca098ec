//! Parameters that an aggregate does not contain.
//!
//! If the clients that hold a parameter were not drawn, failed or did not train, the parameter keeps its value. If a
//! client whose update arrived withheld it, the parameter is private and no longer has a global value.

use std::collections::BTreeSet;

use plugin_api::Params;

/// Returns the names of the parameters.
pub(crate) fn names(params: &Params) -> Vec<String> {
    params.names().map(str::to_owned).collect()
}

/// Returns those `names` that are missing from the parameters `after` filtering.
pub(crate) fn missing(names: impl IntoIterator<Item = String>, after: &Params) -> Vec<String> {
    names.into_iter().filter(|name| after.get(name).is_none()).collect()
}

/// Copies into the `next` global model each parameter that only the model `before` has. Parameters that a client
/// withheld in this round are skipped.
pub(crate) fn complete(next: &mut Params, before: &Params, withheld: &BTreeSet<String>) {
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
