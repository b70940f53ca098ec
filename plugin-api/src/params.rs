//! Named tensors, the common currency of models, aggregators and filters.

use indexmap::IndexMap;

use crate::numeric::parallel;
use crate::{Element, Error, Result, Tensor};

/// An ordered set of named tensors: a model's parameters, an optimiser's moments, a filter's residuals.
///
/// ```
/// use plugin_api::{Params, Tensor};
///
/// let mut params = Params::new();
/// params.insert("weight", Tensor::from_slice(&[2, 2], &[1.0_f32, 2.0, 3.0, 4.0])?);
/// let broadcast = params.clone(); // copies no element
/// assert!(broadcast.get("weight").unwrap().buffer().is_same(params.get("weight").unwrap().buffer()));
/// assert_eq!(params.bytes(), 16);
/// # Ok::<(), plugin_api::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Params(IndexMap<String, Tensor>);

impl Params {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor at the end. If the name exists, replaces that tensor in place and returns it.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Option<Tensor> {
        self.0.insert(name.into(), tensor)
    }

    /// The tensor with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// The elements of the tensor with this name and shape.
    ///
    /// # Errors
    /// If there is no such tensor, or it has another shape or type. The error names the tensor.
    pub fn elements<T: Element>(&self, name: &str, shape: &[usize]) -> Result<&[T]> {
        let tensor = self.get(name).ok_or_else(|| Error::tensor(name, "is missing"))?;
        if tensor.shape() != shape {
            return Err(Error::tensor(name, format!("has shape {:?}, not {shape:?}", tensor.shape())));
        }
        tensor.elements().map_err(|e| Error::tensor(name, e.message()))
    }

    /// The same names with other tensors: `change` maps each of them. Errors name the tensor at fault.
    ///
    /// ```
    /// use plugin_api::{Params, Tensor};
    ///
    /// let params: Params = [("w", Tensor::from_slice(&[2], &[1.0_f32, 2.0])?)].into_iter().collect();
    /// let doubled = params.map(|_, tensor| {
    ///     let numbers: Vec<f32> = tensor.elements::<f32>()?.iter().map(|x| 2.0 * x).collect();
    ///     Tensor::from_slice(tensor.shape(), &numbers)
    /// })?;
    /// assert_eq!(doubled.elements::<f32>("w", &[2])?, [2.0, 4.0]);
    /// let error = params.map(|_, tensor| tensor.elements::<i64>().map(|_| tensor.clone())).unwrap_err();
    /// assert_eq!(error.to_string(), "tensor `w`: holds f32, not i64");
    /// # Ok::<(), plugin_api::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of `change`. An error without a location gets the tensor as its location.
    pub fn map(&self, mut change: impl FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<Self> {
        let changed = |(name, tensor): (&str, &Tensor)| match change(name, tensor) {
            Ok(tensor) => Ok((name.to_owned(), tensor)),
            Err(error) if error.place().is_none() => Err(error.at_tensor(name)),
            Err(error) => Err(error),
        };
        self.iter().map(changed).collect()
    }

    /// Removes the tensor with this name. The others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.0.shift_remove(name)
    }

    /// Keeps only the tensors for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Tensor) -> bool) {
        self.0.retain(|name, tensor| keep(name, tensor));
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The names in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no tensors.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the first tensor that holds a NaN or an infinity, if any. Reads large tensors with up to `threads`
    /// threads.
    pub fn not_finite(&self, threads: usize) -> Option<&str> {
        let check = |(name, tensor): (_, &Tensor)| if tensor.is_finite() { Ok(()) } else { Err(name) };
        parallel::check(self.iter(), self.bytes(), threads, check).err()
    }

    /// The total size of all elements in bytes.
    pub fn bytes(&self) -> usize {
        self.0.values().map(|tensor| tensor.buffer().len()).sum()
    }
}

impl<N: Into<String>> FromIterator<(N, Tensor)> for Params {
    fn from_iter<I: IntoIterator<Item = (N, Tensor)>>(tensors: I) -> Self {
        Self(tensors.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect())
    }
}
