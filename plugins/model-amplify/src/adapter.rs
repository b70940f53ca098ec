//! LoRA's adapters outside of training: added to the trunk's weights, and named as PEFT names them.

use plugin_api::{Error, Params, Result, Tensor};

use crate::config::{LORA_A, LORA_B, Lora, is_of_adapter};
use crate::parameters::TRUNK;

/// Adds each adapter to its weight, `W + s B A`, and takes it out of the trunk. Returns the adapters with the names of PEFT.
///
/// # Errors
/// If a tensor is missing.
pub(crate) fn merge(trunk: &mut Params, lora: &Lora) -> Result<Params> {
    let layers: Vec<String> = trunk.names().filter_map(|name| name.strip_suffix(LORA_A)).map(str::to_owned).collect();
    let mut adapters = Params::new();
    for layer in layers {
        let take = |trunk: &mut Params, name: &str| {
            let name = format!("{layer}{name}");
            trunk.remove(&name).ok_or_else(|| Error::tensor(name, "is missing"))
        };
        let (a, b, weight) = (take(trunk, LORA_A)?, take(trunk, LORA_B)?, format!("{layer}weight"));
        let old = trunk.get(&weight).ok_or_else(|| Error::tensor(&weight, "is missing"))?;
        let merged = Tensor::from_slice(old.shape(), &sum(old, &a, &b, lora.scale())?)?;
        trunk.insert(weight, merged);
        for (name, tensor) in [(LORA_A, a), (LORA_B, b)] {
            let module = layer.strip_prefix(TRUNK).unwrap_or(&layer);
            adapters.insert(format!("base_model.model.{module}{name}"), tensor);
        }
    }
    debug_assert!(!trunk.names().any(is_of_adapter));
    Ok(adapters)
}

/// `W + s B A`, each element's sum in f64.
fn sum(weight: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Result<Vec<f32>> {
    let (&[rank, inputs], &[_, _]) = (a.shape(), b.shape()) else {
        return Err(Error::other("the factors of an adapter are not matrices"));
    };
    let (weight, a, b) = (weight.elements::<f32>()?, a.elements::<f32>()?, b.elements::<f32>()?);
    let mut row_sum = vec![0.0; inputs];
    let mut merged = Vec::with_capacity(weight.len());
    for (weight, b) in weight.chunks_exact(inputs).zip(b.chunks_exact(rank)) {
        row_sum.fill(0.0);
        for (a, &b) in a.chunks_exact(inputs).zip(b) {
            row_sum.iter_mut().zip(a).for_each(|(sum, &a)| *sum += f64::from(b) * f64::from(a));
        }
        merged.extend(weight.iter().zip(&row_sum).map(|(&w, sum)| (f64::from(w) + scale * sum) as f32));
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_is_added_to_its_weight() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor::from_slice(shape, values).unwrap();
        let mut trunk = Params::from_iter([
            ("trunk.transformer_encoder.0.q.weight", tensor(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
            ("trunk.transformer_encoder.0.q.lora_A.weight", tensor(&[1, 3], &[1.0, 0.0, -1.0])),
            ("trunk.transformer_encoder.0.q.lora_B.weight", tensor(&[2, 1], &[2.0, 0.5])),
            ("trunk.decoder.weight", tensor(&[1], &[7.0])),
        ]);
        let lora = Lora { rank: 1, alpha: 2.0, ..Lora::default() };
        let adapters = merge(&mut trunk, &lora).unwrap();
        let names: Vec<&str> = adapters.names().collect();
        let name = "base_model.model.transformer_encoder.0.q.lora_";
        assert_eq!(names, [format!("{name}A.weight"), format!("{name}B.weight")]);
        assert_eq!(trunk.names().collect::<Vec<_>>(), ["trunk.transformer_encoder.0.q.weight", "trunk.decoder.weight"]);
        let merged = trunk.elements::<f32>("trunk.transformer_encoder.0.q.weight", &[2, 3]).unwrap();
        assert_eq!(merged, [5.0, 2.0, -1.0, 5.0, 5.0, 5.0]);
    }
}
