//! Properties of encoding and restoring for arbitrary tensors.

use crate::common::{self, apply, at_client, floats, model, start, tensor, there};
use filter_compress::{Config, Method, Quantity};
use plugin_api::Message;
use proptest::collection::vec;
use proptest::prelude::*;
use test_support::cases;
use test_support::fuzz::{Memory, fuzz};

/// Numbers of all magnitudes that are normal in fp16, and zeros.
fn number() -> impl Strategy<Value = f32> {
    let magnitude = (-14.0_f32..14.0).prop_map(f32::exp2);
    prop_oneof![1 => Just(0.0), 9 => (magnitude, any::<bool>()).prop_map(|(x, minus)| if minus { -x } else { x })]
}

/// A tensor and its base, of a length that is not a multiple of the block size.
fn pair() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    (16_usize..300).prop_flat_map(|count| (vec(number(), count), vec(number(), count)))
}

/// The largest error of an element `u` in a block of this largest magnitude, as the crate's documentation states it.
fn bound(method: Method, u: f32, largest: f32) -> f32 {
    match method {
        Method::Fp16 => (u.abs() * 2.0_f32.powi(-11)).max(2.0_f32.powi(-25)),
        Method::Bf16 => u.abs() * 2.0_f32.powi(-8),
        Method::Int8 => largest / 127.0 / 2.0 * (1.0 + 1e-5),
        Method::Nf4 => largest * 0.152,
        Method::TopK => 0.0,
    }
}

/// A message is a line with its header and the bytes of the tensor `w`, which has 8 elements in the global model.
#[test]
fn any_message_is_restored_or_refused() {
    let base = model(vec![("w", tensor(&[0.5_f32; 8]))]);
    fuzz("compress", 500, Memory { base: 64 << 10, per_byte: 100 }, |input| {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return false };
        let Ok(header) = serde_json::from_slice(&input[..end]) else { return false };
        let mut message = model(vec![("w", tensor(&input[end + 1..]))]);
        message.values.insert("compress".to_owned(), header);
        common::ALL.iter().any(|method| match apply(&mut common::at_server(&Config::new(*method)), &message, &base) {
            Ok(restored) => floats(&restored, "w").iter().all(|x| x.is_finite()),
            Err(_) => false,
        })
    });
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn restored_elements_are_within_the_documented_error(
        (x, base) in pair(),
        method in prop::sample::select(vec![Method::Fp16, Method::Bf16, Method::Int8, Method::Nf4]),
        of in prop::sample::select(vec![Quantity::Update, Quantity::Values]),
        half_block in 8_usize..60,
    ) {
        let block = 2 * half_block;
        let block_size = matches!(method, Method::Int8 | Method::Nf4).then_some(block);
        let config = Config { of: Some(of), block_size, ..Config::new(method) };
        let (message, global) = (model(vec![("w", tensor(&x))]), model(vec![("w", tensor(&base))]));
        let restored = there(&config, &message, &global);
        let encoded: Vec<f32> = match of {
            Quantity::Update => x.iter().zip(&base).map(|(x, base)| x - base).collect(),
            Quantity::Values => x.clone(),
        };
        for (i, (got, x)) in floats(&restored, "w").iter().zip(&x).enumerate() {
            let largest = encoded[i / block * block..].iter().take(block).fold(0.0_f32, |largest, u| largest.max(u.abs()));
            // The difference from the base and the sum with it are rounded once each.
            let rounding = if of == Quantity::Update { (x.abs() + base[i].abs()) * 2.0_f32.powi(-23) } else { 0.0 };
            let limit = bound(method, encoded[i], largest) + rounding;
            prop_assert!((got - x).abs() <= limit, "{:?} {:?} {}: {} is not {}", method, of, i, got, x);
        }
    }

    #[test]
    fn what_top_k_sends_and_its_residual_add_up_to_the_update((x, base) in pair(), keep in 0.01..1.0_f64) {
        let config = Config { keep: Some(keep), ..Config::new(Method::TopK) };
        let (message, global) = (model(vec![("w", tensor(&x))]), model(vec![("w", tensor(&base))]));
        let mut client = at_client(&config);
        let sent = apply(&mut client, &message, &global).unwrap();
        let payload = sent.params.get("w").unwrap().elements::<u8>().unwrap();
        let (indices, values) = payload.split_at(payload.len() / 2);
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_le_bytes).unwrap();
        let mut sum = plugin_api::Filter::state(&mut client, &plugin_api::Context::new(&plugin_api::context::Silent))
            .unwrap()
            .tensors
            .elements::<f32>("w", &[x.len()])
            .unwrap()
            .to_vec();
        let residual = sum.iter().fold(0.0_f32, |largest, u| largest.max(u.abs()));
        for (index, value) in indices.chunks(4).zip(values.chunks(4)) {
            let value = f32::from_bits(word(value));
            prop_assert!(value.abs() >= residual, "{} was sent, and {} was not", value, residual);
            sum[word(index) as usize] += value;
        }
        let update: Vec<f32> = x.iter().zip(&base).map(|(x, base)| x - base).collect();
        prop_assert_eq!(sum, update);
        prop_assert!(payload.len() / 8 <= ((keep * x.len() as f64).round() as usize).max(1));
    }

    #[test]
    fn damaged_bytes_are_errors_or_finite_tensors(
        method in prop::sample::select(common::ALL.to_vec()),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
    ) {
        let config = Config::new(method);
        let trained = common::trained(&start(), 0).remove(0);
        let sent = apply(&mut at_client(&config), &trained, &start()).unwrap();
        let mut bytes = sent.params.get("w").unwrap().elements::<u8>().unwrap().to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut damaged: Message = sent;
        damaged.params.insert("w", tensor(&bytes));
        if let Ok(restored) = apply(&mut common::at_server(&config), &damaged, &start()) {
            prop_assert!(floats(&restored, "w").iter().all(|x| x.is_finite()));
        }
    }
}
