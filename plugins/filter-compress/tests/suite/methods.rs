//! The guarantees of each method: bytes, error bounds, exact values.

use crate::common::{ALL, QUANTIZERS, apply, at_client, config, floats, model, numbers, of, tensor, there};
use filter_compress::{Config, Method, Quantity};
use plugin_api::half::{bf16, f16};
use plugin_api::{Message, Tensor};

#[test]
fn the_error_is_within_the_documented_bound_and_the_bytes_are_as_documented() {
    let count = 10_001;
    let base = model(vec![("w", tensor(&numbers(count, 1)))]);
    let x = model(vec![("w", tensor(&numbers(count, 2)))]);
    for method in QUANTIZERS {
        let config = of(method, Quantity::Update);
        let sent = apply(&mut at_client(&config), &x, &base).unwrap();
        let bytes = match method {
            Method::Int8 => count + 4 * 3,
            Method::Nf4 => count.div_ceil(2) + 4 * 157,
            _ => 2 * count,
        };
        assert_eq!(sent.bytes(), bytes + 4, "{method:?}");
        let restored = there(&config, &x, &base);
        let block = match method {
            Method::Int8 => 4096,
            Method::Nf4 => 64,
            _ => 1,
        };
        let (x, base, restored) = (floats(&x, "w"), floats(&base, "w"), floats(&restored, "w"));
        for start in (0..count).step_by(block) {
            let part = start..count.min(start + block);
            let u = |i: usize| x[i] - base[i];
            let largest = part.clone().map(|i| u(i).abs()).fold(0.0, f32::max);
            let bound = match method {
                Method::Fp16 => (largest * 2_f32.powi(-11)).max(2_f32.powi(-25)),
                Method::Bf16 => largest * 2_f32.powi(-8),
                Method::Int8 => largest / 254.0,
                _ => largest * 0.152,
            };
            for i in part {
                // Differences and sums of numbers below 4 are each off by 2⁻²³ at most.
                let error = (restored[i] - base[i] - u(i)).abs();
                assert!(error <= bound + 3.0 * 2_f32.powi(-23), "{method:?} {i}: {error:e} > {bound:e}");
            }
        }
    }
}

#[test]
fn representable_values_are_restored_bit_for_bit() {
    let back = |config: &Config, values: &[f32]| {
        floats(&there(config, &model(vec![("w", tensor(values))]), &Message::default()), "w").to_vec()
    };
    let halves: Vec<f32> = (0..=u16::MAX).map(f16::from_bits).filter(|x| x.is_finite()).map(f32::from).collect();
    assert_eq!(back(&config(Method::Fp16), &halves), halves);
    let brains: Vec<f32> = (0..=u16::MAX).map(bf16::from_bits).filter(|x| x.is_finite()).map(f32::from).collect();
    assert_eq!(back(&config(Method::Bf16), &brains), brains);
    let steps: Vec<f32> = (-127_i16..=127).map(|code| f32::from(code) * 0.25).collect();
    assert_eq!(back(&of(Method::Int8, Quantity::Values), &steps), steps);
    // As an update, too.
    let base = model(vec![("w", tensor(&vec![8.0_f32; steps.len()]))]);
    let steps: Vec<f32> = steps.iter().map(|x| x + 8.0).collect();
    assert_eq!(floats(&there(&config(Method::Int8), &model(vec![("w", tensor(&steps))]), &base), "w"), steps);
    // All of top-k is everything.
    let config = Config { keep: Some(1.0), ..config(Method::TopK) };
    assert_eq!(floats(&there(&config, &model(vec![("w", tensor(&steps))]), &base), "w"), steps);
}

#[test]
fn ties_are_rounded_to_even() {
    let mut values = vec![1.0 + 2_f32.powi(-11), 1.0 + 3.0 * 2_f32.powi(-11), 2_f32.powi(-25), 65_519.0];
    values.resize(16, 0.0);
    let restored = there(&config(Method::Fp16), &model(vec![("w", tensor(&values))]), &Message::default());
    assert_eq!(floats(&restored, "w")[..4], [1.0, 1.0 + 2_f32.powi(-9), 0.0, 65_504.0]);
    let mut values = vec![1.0 + 2_f32.powi(-8), 1.0 + 3.0 * 2_f32.powi(-8), -1.0 - 2_f32.powi(-8)];
    values.resize(16, 0.0);
    let restored = there(&config(Method::Bf16), &model(vec![("w", tensor(&values))]), &Message::default());
    assert_eq!(floats(&restored, "w")[..3], [1.0, 1.0 + 2_f32.powi(-6), -1.0]);
    let mut values = vec![127.0_f32, 0.5, 1.5, 2.5, -0.5, -1.5];
    values.resize(16, 0.0);
    let restored =
        there(&of(Method::Int8, Quantity::Values), &model(vec![("w", tensor(&values))]), &Message::default());
    assert_eq!(floats(&restored, "w")[..6], [127.0, 0.0, 2.0, 2.0, 0.0, -2.0]);
}

#[test]
fn zeros_and_the_smallest_and_largest_numbers_are_restored() {
    let mut values = vec![0.0_f32; 300];
    values[280] = f32::from_bits(1);
    values[281] = -1e-40;
    for method in ALL {
        let zeros = model(vec![("w", tensor(&vec![0.0_f32; 300]))]);
        let x = model(vec![("w", tensor(&values))]);
        let restored = there(&config(method), &x, &zeros);
        for (got, x) in floats(&restored, "w").iter().zip(&values) {
            assert!((got - x).abs() <= 1.5e-36, "{method:?}");
        }
        assert_eq!(floats(&there(&config(method), &zeros, &zeros), "w"), floats(&zeros, "w"));
    }
    // The largest ones come back finite.
    let x = model(vec![("w", tensor(&[f32::MAX; 16]))]);
    for method in [Method::Int8, Method::Nf4] {
        assert!(floats(&there(&of(method, Quantity::Values), &x, &Message::default()), "w")[0] > 3.4e38);
    }
}

#[test]
fn of_equal_magnitudes_the_first_are_sent_and_zeros_never() {
    let mut values = vec![0.0_f32; 20];
    (values[3], values[9], values[12], values[19]) = (-2.0, 1.0, 2.0, -2.0);
    let base = model(vec![("w", tensor(&[0.0_f32; 20]))]);
    let x = model(vec![("w", tensor(&values))]);
    let sent = |keep: f64| {
        let config = Config { keep: Some(keep), ..config(Method::TopK) };
        let restored = there(&config, &x, &base);
        let all = floats(&restored, "w").iter().enumerate();
        all.filter(|(_, x)| **x != 0.0).map(|(i, x)| (i, *x)).collect::<Vec<_>>()
    };
    assert_eq!(sent(1e-9), [(3, -2.0)]);
    assert_eq!(sent(0.1), [(3, -2.0), (12, 2.0)]);
    assert_eq!(sent(0.2), [(3, -2.0), (9, 1.0), (12, 2.0), (19, -2.0)]);
    assert_eq!(sent(0.9), sent(0.2));
    let config = Config { keep: Some(0.9), ..config(Method::TopK) };
    assert_eq!(apply(&mut at_client(&config), &x, &base).unwrap().bytes(), 4 * 8 + 4);
    assert_eq!(apply(&mut at_client(&config), &base, &base).unwrap().bytes(), 4);
}

#[test]
fn every_floating_point_type_keeps_type_shape_and_order() {
    let values = numbers(24, 3);
    let shaped = |dtype| Tensor::from_f32(dtype, &[2, 3, 4], &values).unwrap();
    use plugin_api::DType;
    let dtypes = [DType::F64, DType::F32, DType::F16, DType::BF16];
    let names = ["f64", "f32", "f16", "bf16"];
    let x = model(names.into_iter().zip(dtypes).map(|(name, dtype)| (name, shaped(dtype))).collect());
    let zeros = |dtype| Tensor::from_f32(dtype, &[2, 3, 4], &[0.0; 24]).unwrap();
    let base = model(names.into_iter().zip(dtypes).map(|(name, dtype)| (name, zeros(dtype))).collect());
    for method in ALL {
        for of in [Quantity::Update, Quantity::Values] {
            if (method, of) == (Method::TopK, Quantity::Values) {
                continue;
            }
            let restored = there(&Config { of: Some(of), keep: None, ..config(method) }, &x, &base);
            assert_eq!(restored.params.names().collect::<Vec<_>>(), names);
            for ((_, got), (name, sent)) in restored.params.iter().zip(x.params.iter()) {
                assert_eq!((got.dtype(), got.shape()), (sent.dtype(), sent.shape()), "{name}");
                let (got, sent) = (got.to_f32().unwrap(), sent.to_f32().unwrap());
                let near = |(got, sent): (&f32, &f32)| (got - sent).abs() < 0.16 || *got == 0.0;
                assert!(got.iter().zip(sent.iter()).all(near), "{method:?} {name}");
            }
        }
    }
}

#[test]
fn tensors_with_nothing_to_save_are_sent_unchanged() {
    let half: Vec<f16> = numbers(64, 4).into_iter().map(f16::from_f32).collect();
    let mut x = model(vec![
        ("ids", tensor(&(0..64_i64).collect::<Vec<_>>())),
        ("bytes", tensor(&[7_u8; 64])),
        ("bias", tensor(&numbers(15, 5))),
        ("none", tensor::<f32>(&[])),
        ("half", tensor(&half)),
    ]);
    x.extra.insert("mask", tensor(&[1_i32; 64]));
    x.values.insert("why".to_owned(), "because".into());
    for method in ALL {
        let base = if method == Method::TopK { Message::default() } else { x.clone() };
        let sent = apply(&mut at_client(&config(method)), &x, &base).unwrap();
        let restored = there(&config(method), &x, &base);
        assert_eq!(restored.values, x.values);
        for (name, tensor) in x.params.iter().chain(x.extra.iter()) {
            if name == "half" && matches!(method, Method::Int8 | Method::Nf4) {
                continue;
            }
            let of = |message: &Message| message.params.get(name).or(message.extra.get(name)).unwrap().clone();
            assert!(of(&sent).buffer().is_same(tensor.buffer()), "{method:?} {name}");
            assert!(of(&restored).buffer().is_same(tensor.buffer()), "{method:?} {name}");
        }
    }
}

#[test]
fn extra_tensors_are_encoded_by_value() {
    let mut x = model(vec![("w", tensor(&numbers(64, 6)))]);
    x.extra.insert("w", tensor(&numbers(640, 7)));
    for method in ALL {
        let sent = apply(&mut at_client(&config(method)), &x, &x).unwrap();
        let restored = there(&config(method), &x, &x);
        let (before, after) = (x.extra.get("w").unwrap(), restored.extra.get("w").unwrap());
        let bound = match method {
            Method::Nf4 => 0.152,
            Method::TopK => 0.0,
            _ => 0.004,
        };
        let error = |(a, b): (&f32, &f32)| (a - b).abs() <= bound;
        assert!(before.elements::<f32>().unwrap().iter().zip(after.elements().unwrap()).all(error), "{method:?}");
        assert_eq!(sent.extra.bytes() < x.extra.bytes(), method != Method::TopK, "{method:?}");
    }
}
