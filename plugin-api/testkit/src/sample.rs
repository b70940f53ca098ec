//! Sample data: small, computed from a formula, the same on every machine.

use plugin_api::{Column, Message, Params, Result, Seed, Table, Task, TaskSpec, Tensor};

const LETTERS: &[u8; 20] = b"ACDEFGHIKLMNPQRSTVWY";

/// Tasks like those of this project's datasets: one input column `combined` with the amino-acid texts of two chains,
/// separated by `|`, and a target `fitness` that depends on the letters. Each task has 12 rows to train on and 5 to
/// test on.
///
/// # Panics
/// Never, so long as the names differ.
pub fn tasks(names: &[&str]) -> Vec<Task> {
    let task = |(number, name): (usize, &&str)| {
        let spec = TaskSpec::new(*name, ["combined"], "fitness");
        let seed = Seed::new(1).of(name).at(number as u64);
        Task { spec, train: table(seed.of("train"), 12), test: table(seed.of("test"), 5) }
    };
    names.iter().enumerate().map(task).collect()
}

fn table(seed: Seed, rows: usize) -> Table {
    let text = |row: usize| -> String {
        let seed = seed.at(row as u64);
        let chain = |name: &str| -> String {
            let (seed, length) = (seed.of(name), 6 + seed.of(name).value() % 9);
            (0..length).map(|i| char::from(LETTERS[(seed.at(i).value() % 20) as usize])).collect()
        };
        format!("{}|{}", chain("heavy"), chain("light"))
    };
    let texts: Vec<String> = (0..rows).map(text).collect();
    let target = |text: &String| text.bytes().map(f32::from).sum::<f32>() / text.len() as f32 / 10.0 - 7.0;
    let targets: Vec<f32> = texts.iter().map(target).collect();
    let table = Table::new().with("combined", Column::text(&texts));
    table.and_then(|table| table.with("fitness", Column::f32(&targets))).expect("two columns of one length")
}

/// A message with the parameters of a small model: `trunk.weight` and `trunk.bias`, `head.weight` and `head.bias`, all
/// f32 and between -1 and 1. Other variants have other numbers, which differ by at most 0.1.
///
/// # Panics
/// Never.
pub fn message(variant: u64) -> Message {
    let shapes: [(&str, &[usize]); 4] =
        [("trunk.weight", &[4, 8]), ("trunk.bias", &[8]), ("head.weight", &[1, 8]), ("head.bias", &[1])];
    let tensor = |(name, shape): (&str, &[usize])| -> (String, Tensor) {
        let number = |seed: Seed| seed.value() as f64 / u64::MAX as f64 * 2.0 - 1.0;
        let element = |i: usize| {
            let (here, at) = (Seed::new(7).of(name), i as u64);
            (0.9 * number(here.at(at)) + 0.05 * number(here.of("variant").at(variant).at(at))) as f32
        };
        let fill = |out: &mut [f32]| out.iter_mut().enumerate().for_each(|(i, out)| *out = element(i));
        (name.to_owned(), Tensor::build(shape, fill))
    };
    shapes.into_iter().map(tensor).collect::<Params>().into()
}

/// Another tensor of the same shape and type, halved and shifted if it has a floating-point type.
pub(crate) fn altered(tensor: &Tensor) -> Result<Tensor> {
    if !tensor.is_float() {
        return Ok(tensor.clone());
    }
    let moved: Vec<f32> = tensor.to_f32()?.iter().map(|x| x * 0.5 + 0.25).collect();
    Tensor::from_f32(tensor.dtype(), tensor.shape(), &moved)
}

/// A tensor of the same type with one more element in its last dimension, or for a scalar, a tensor of two elements.
pub(crate) fn reshaped(tensor: &Tensor) -> Result<Tensor> {
    let mut shape = tensor.shape().to_vec();
    match shape.last_mut() {
        Some(last) => *last += 1,
        None => shape.push(2),
    }
    if !tensor.is_float() {
        let bytes = vec![0_u8; shape.iter().product::<usize>() * tensor.dtype().size()];
        return Tensor::new(tensor.dtype(), &shape, plugin_api::Buffer::copy_of(&bytes));
    }
    Tensor::from_f32(tensor.dtype(), &shape, &vec![0.25; shape.iter().product()])
}

/// A tensor of the same shape and another type.
pub(crate) fn retyped(tensor: &Tensor) -> Result<Tensor> {
    if tensor.is_float() {
        Tensor::from_slice(tensor.shape(), &vec![1_i64; tensor.len()])
    } else {
        Tensor::from_slice(tensor.shape(), &vec![1.0_f32; tensor.len()])
    }
}

/// The tensor with this non-finite value as its last element.
pub(crate) fn spoilt(tensor: &Tensor, value: f32) -> Result<Tensor> {
    let mut elements = tensor.to_f32()?.into_owned();
    if let Some(last) = elements.last_mut() {
        *last = value;
    }
    Tensor::from_f32(tensor.dtype(), tensor.shape(), &elements)
}
