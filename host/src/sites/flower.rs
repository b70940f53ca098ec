//! What both directions of taking part with Flower's own apps have in common: parameters as Flower's arrays.

use fedplug_superlink::{Array, Dialect};
use indexmap::IndexMap;
use plugin_api::{DType, Error, Params, Result, Tensor};

use crate::experiment::config::FlowerApp;
use crate::sites::superlink::{arrays, tensor};

/// The key of an order's configuration with the number of the round, from one.
pub(super) const ROUND: &str = "server-round";

/// The names and data types of a model's parameters, in order. Flower's apps know no more of a model.
#[derive(Clone, Debug)]
pub(crate) struct FlowerModel(IndexMap<String, DType>);

impl FlowerModel {
    /// That of a complete model.
    pub(crate) fn of(params: &Params) -> Self {
        Self(params.iter().map(|(name, tensor)| (name.to_owned(), tensor.dtype())).collect())
    }

    /// The names in order, for a log line: a `NumPyClient` and a strategy for such clients know nothing else of them.
    pub(crate) fn order(&self) -> String {
        let names = self.0.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>();
        format!("the order of arrays without names: {}", names.join(", "))
    }

    /// Parameters as arrays, in the model's order. A `NumPyClient` needs all of them, since its arrays have no names.
    ///
    /// # Errors
    /// If NumPy does not have a parameter's type, or a `NumPyClient` would get only some of the model's parameters.
    pub(super) fn arrays(&self, dialect: Dialect, params: &Params) -> Result<IndexMap<String, Array>> {
        let mut ordered = Params::new();
        for (name, dtype) in &self.0 {
            match params.get(name) {
                Some(_) if *dtype == DType::BF16 => {
                    return Err(Error::tensor(name, "is bf16, which NumPy does not have")
                        .help("Flower's apps exchange NumPy arrays: choose another type for the model's parameters"));
                }
                Some(tensor) => drop(ordered.insert(name.clone(), tensor.clone())),
                None if dialect == Dialect::NumPyClient => {
                    let error = Error::tensor(name, "is missing, and a `NumPyClient` tells arrays by their order only");
                    return Err(error.help("an app with `@app.train()` receives arrays with names"));
                }
                None => {}
            }
        }
        arrays(&ordered).map_err(Error::data)
    }

    /// Reads arrays as parameters. Those of type float64 are rounded to the model's type: NumPy computes in float64
    /// unless told otherwise.
    ///
    /// # Errors
    /// If there is an array that is no tensor, or those of a `NumPyClient` are not as many as the model's parameters.
    pub(super) fn params(&self, dialect: Dialect, arrays: IndexMap<String, Array>) -> Result<Params> {
        if dialect == Dialect::NumPyClient && arrays.len() != self.0.len() {
            let what = format!("{} arrays came, and the model has {} parameters", arrays.len(), self.0.len());
            return Err(Error::data(what));
        }
        let names: Vec<String> = match dialect {
            Dialect::Message => arrays.keys().cloned().collect(),
            Dialect::NumPyClient => self.0.keys().cloned().collect(),
        };
        let read = |(name, array): (String, Array)| {
            let (name, tensor) = tensor(name, array).map_err(Error::data)?;
            match self.0.get(&name) {
                Some(&dtype) if tensor.dtype() == DType::F64 && dtype != DType::F64 => {
                    let rounded = tensor.to_f32().and_then(|values| Tensor::from_f32(dtype, tensor.shape(), &values));
                    Ok((name.clone(), rounded.map_err(|error| error.at_tensor(name))?))
                }
                _ => Ok((name, tensor)),
            }
        };
        names.into_iter().zip(arrays.into_values()).map(read).collect()
    }
}

impl From<FlowerApp> for Dialect {
    fn from(app: FlowerApp) -> Self {
        match app {
            FlowerApp::Message => Self::Message,
            FlowerApp::Numpy => Self::NumPyClient,
        }
    }
}

#[cfg(test)]
mod tests {
    use fedplug_superlink::DType as Wire;

    use super::*;

    fn params(all: &[(&str, &[f32])]) -> Params {
        let tensor = |values: &[f32]| Tensor::from_slice(&[values.len()], values).unwrap();
        all.iter().map(|(name, values)| (*name, tensor(values))).collect()
    }

    #[test]
    fn arrays_come_in_the_models_order_and_back_by_name_or_by_order() {
        let model = FlowerModel::of(&params(&[("w", &[0.0, 0.0]), ("b", &[0.0])]));
        assert_eq!(model.order(), "the order of arrays without names: `w`, `b`");
        let sent = params(&[("b", &[3.0]), ("w", &[1.0, 2.0])]);
        let arrays = model.arrays(Dialect::NumPyClient, &sent).unwrap();
        assert_eq!(arrays.keys().collect::<Vec<_>>(), ["w", "b"]);
        let numbered: IndexMap<String, Array> =
            arrays.values().cloned().enumerate().map(|(k, v)| (k.to_string(), v)).collect();
        let back = model.params(Dialect::NumPyClient, numbered.clone()).unwrap();
        assert_eq!(back.elements::<f32>("w", &[2]).unwrap(), [1.0, 2.0]);
        assert_eq!(back.elements::<f32>("b", &[1]).unwrap(), [3.0]);
        let named = model.params(Dialect::Message, numbered.clone()).unwrap();
        assert_eq!(named.names().collect::<Vec<_>>(), ["0", "1"]);
        let one = numbered.into_iter().take(1).collect();
        let told = model.params(Dialect::NumPyClient, one).unwrap_err().to_string();
        assert!(told.contains("1 arrays came, and the model has 2 parameters"), "{told}");
    }

    #[test]
    fn float64_becomes_the_models_type_and_what_numpy_cannot_hold_is_refused() {
        let model = FlowerModel::of(&params(&[("w", &[0.0])]));
        let array = Array::new(Wire::F64, vec![1], 0.1f64.to_le_bytes().to_vec().into()).unwrap();
        let read = model.params(Dialect::Message, [("w".to_owned(), array.clone())].into()).unwrap();
        assert_eq!(read.elements::<f32>("w", &[1]).unwrap(), [0.1f32]);
        // Unknown names and integers stay as they are; the layout's check names them.
        let read = model.params(Dialect::Message, [("v".to_owned(), array)].into()).unwrap();
        assert_eq!(read.get("v").unwrap().dtype(), DType::F64);
        let half: Params = [("w", Tensor::from_f32(DType::BF16, &[1], &[1.0]).unwrap())].into_iter().collect();
        let told = FlowerModel::of(&half).arrays(Dialect::Message, &half).unwrap_err().to_string();
        assert!(told.contains("bf16, which NumPy does not have"), "{told}");
        let told = model.arrays(Dialect::NumPyClient, &Params::new()).unwrap_err().to_string();
        assert!(told.contains("is missing, and a `NumPyClient` tells arrays by their order only"), "{told}");
        assert!(model.arrays(Dialect::Message, &Params::new()).unwrap().is_empty());
    }
}
