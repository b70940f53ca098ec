//! Comparison of the encoder with libtorch, and of its bits between numbers of threads.

use std::collections::BTreeMap;

use plugin_api::Seed;
use tch::{Device, Kind, Tensor};

use crate::architecture::Architecture;
use crate::batch::Batch;
use crate::config::{LORA_B, Lora, LoraTarget, Pooling, Precision, is_of_adapter};
use crate::device::DeviceContext;
use crate::parameters::Parameters;
use crate::random::DropoutRng;
use crate::regressor::pool;
use crate::trunk::Trunk;
use fedplug_amplify_cpu::{PassResources, Reading, ThreadPool, Workspace};

/// A trunk whose weights are large enough for attention to differ from a mean.
fn trunk(hidden: i64, heads: i64) -> (Parameters, Trunk) {
    adapted_trunk(hidden, heads, None)
}

/// The same with adapters, whose second factors are not 0 either.
fn adapted_trunk(hidden: i64, heads: i64, lora: Option<&Lora>) -> (Parameters, Trunk) {
    let architecture = Architecture {
        hidden_size: hidden,
        num_hidden_layers: 3,
        num_attention_heads: heads,
        intermediate_size: 2 * hidden,
        embedding_init_range: 1.0,
        decoder_init_range: 0.4,
        ..Architecture::published()
    };
    let mut parameters = Parameters::new(DeviceContext::cpu());
    let trunk = Trunk::new(parameters.root().at("trunk"), &architecture, Precision::Fp32, lora).unwrap();
    parameters.initialise("trunk.", Seed::new(5)).unwrap();
    let _guard = tch::no_grad_guard();
    for parameter in parameters
        .iter()
        .filter(|parameter| parameter.name.ends_with("norm.weight") || parameter.name.ends_with(LORA_B))
    {
        let mut noise = vec![0.0; parameter.tensor.numel()];
        crate::random::uniform(&mut noise, 0.5, Seed::new(6).of(&parameter.name));
        let _ = parameter.tensor.shallow_clone().g_add_(&Tensor::from_slice(&noise).view_as(&parameter.tensor));
    }
    (parameters, trunk)
}

fn rows(lengths: &[usize]) -> Vec<Vec<u32>> {
    let token = |row: usize, i: usize| 3 + ((row * 31 + i * i * 7) % 24) as u32;
    lengths.iter().enumerate().map(|(row, &n)| (0..n).map(|i| token(row, i)).collect()).collect()
}

fn batch(lengths: &[usize]) -> Batch {
    let rows = rows(lengths);
    Batch::new(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), 0, 2048, Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.flatten(0, -1).contiguous()).unwrap()
}

/// The pooled vectors, and the gradients of a weighted sum of them, by parameter.
fn with_cpu(
    (parameters, trunk): &mut (Parameters, Trunk),
    batch: &Batch,
    pooling: Pooling,
    threads: usize,
) -> (Vec<f32>, BTreeMap<usize, Vec<f32>>) {
    let (encoder, packed) = (trunk.cpu_encoder(0, false).unwrap(), batch.pack(pooling).unwrap());
    let pool = &ThreadPool::new(threads).unwrap();
    let (mut workspace, mut fresh) = (Workspace::default(), Workspace::default());
    let mut resources = PassResources { pool, workspace: &mut workspace };
    // What another batch left in the workspace must not matter.
    let other = self::batch(&[9, 30, 2]);
    encoder.forward(parameters, &other.pack(pooling).unwrap(), &Reading::Pooled, &mut resources, true).unwrap();
    let pooled = encoder.forward(parameters, &packed, &Reading::Pooled, &mut resources, true).unwrap();
    let mut fresh = PassResources { pool, workspace: &mut fresh };
    assert_eq!(pooled, encoder.forward(parameters, &packed, &Reading::Pooled, &mut fresh, false).unwrap());
    let d_pooled: Vec<f32> = (0..pooled.len()).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut gradients = BTreeMap::new();
    let on_gradient = |_: &mut Parameters, index: usize, gradient: &mut [f32]| {
        assert!(gradients.insert(index, gradient.to_vec()).is_none(), "two gradients of one parameter");
        gradient.fill(f32::NAN);
        Ok(())
    };
    encoder.backward(parameters, &packed, &Reading::Pooled, &mut resources, &d_pooled, on_gradient).unwrap();
    (pooled, gradients)
}

/// A parameter's name, index and gradient.
type Named = (String, usize, Vec<f32>);

fn with_libtorch((parameters, trunk): &(Parameters, Trunk), batch: &Batch, pooling: Pooling) -> (Vec<f32>, Vec<Named>) {
    let trainable: Vec<Tensor> = parameters.iter().map(|parameter| parameter.tensor.set_requires_grad(true)).collect();
    let hidden = trunk.forward(batch, &mut DropoutRng::disabled()).unwrap();
    let pooled = pool(&hidden, batch, pooling).unwrap();
    let d_pooled: Vec<f32> = (0..pooled.numel()).map(|i| (i % 7) as f32 - 3.0).collect();
    let product = (&pooled * Tensor::from_slice(&d_pooled).view_as(&pooled)).sum(Kind::Float);
    let gradients = Tensor::run_backward(&[product], &trainable, false, false);
    let named = parameters.iter().zip(gradients).enumerate().filter(|(_, (_, gradient))| gradient.defined());
    let named = named.map(|(index, (p, gradient))| (p.name.clone(), index, values(&gradient)));
    (values(&pooled.detach()), named.collect())
}

/// The largest difference, relative to the largest expected value.
fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().fold(1e-6_f32, |scale, x| scale.max(x.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / scale).fold(0.0, f32::max)
}

#[test]
fn pooled_vectors_and_gradients_agree_with_libtorch() {
    for (hidden, heads, lengths) in
        [(16, 2, &[11, 3, 8, 1, 24][..]), (24, 3, &[40, 40]), (12, 1, &[5]), (64, 4, &[530, 301])]
    {
        let mut model = trunk(hidden, heads);
        for pooling in [Pooling::Tokens, Pooling::AllPositions] {
            let batch = batch(lengths);
            let (pooled, gradients) = with_cpu(&mut model, &batch, pooling, 2);
            let (expected, named) = with_libtorch(&model, &batch, pooling);
            let difference = max_difference(&pooled, &expected);
            assert!(difference < 2e-5, "{hidden}, {lengths:?}, {pooling:?}: vectors differ by {difference:e}");
            for (name, index, expected) in &named {
                let difference = max_difference(&gradients[index], expected);
                assert!(difference < 1e-4, "{hidden}, {lengths:?}, {pooling:?}: `{name}` differs by {difference:e}");
            }
            assert_eq!(named.len(), gradients.len());
        }
    }
}

/// Adapters get the gradients of libtorch, and nothing else of the linear layers gets any.
#[test]
fn adapters_agree_with_libtorch() {
    let all = vec![LoraTarget::Q, LoraTarget::K, LoraTarget::V, LoraTarget::Wo, LoraTarget::W12, LoraTarget::W3];
    for (targets, rank, alpha) in [(all, 4, 6.0), (vec![LoraTarget::V, LoraTarget::W12], 9, 3.0)] {
        let lora = Lora { rank, alpha, targets, ..Lora::default() };
        let mut model = adapted_trunk(24, 3, Some(&lora));
        let batch = batch(&[11, 3, 8, 1, 24]);
        let (pooled, gradients) = with_cpu(&mut model, &batch, Pooling::Tokens, 2);
        let (expected, named) = with_libtorch(&model, &batch, Pooling::Tokens);
        assert!(max_difference(&pooled, &expected) < 2e-5);
        let plain = trunk(24, 3);
        assert!(max_difference(&with_libtorch(&plain, &batch, Pooling::Tokens).0, &expected) > 1e-2);
        let mut compared = 0;
        for (name, index, expected) in &named {
            let is_linear = name.ends_with(".weight") && !name.contains("norm") && !name.contains("encoder.weight");
            if !is_of_adapter(name) && is_linear {
                assert!(!gradients.contains_key(index), "{name}");
                continue;
            }
            let difference = max_difference(&gradients[index], expected);
            assert!(difference < 1e-4, "`{name}` differs by {difference:e}");
            compared += usize::from(is_of_adapter(name));
        }
        assert_eq!(compared, 3 * 2 * lora.targets.len());
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let mut model = trunk(32, 4);
    let batch = batch(&[300, 137, 180, 2, 61]);
    let alone = with_cpu(&mut model, &batch, Pooling::Tokens, 1);
    for threads in [2, 3, 8] {
        assert!(alone == with_cpu(&mut model, &batch, Pooling::Tokens, threads), "{threads} threads");
    }
}

#[test]
fn cpu_encoder_supports_the_published_arrangement_in_fp32_alone() {
    let supported = |precision, change: fn(&mut Architecture)| {
        let mut architecture = Architecture { hidden_size: 8, num_hidden_layers: 1, ..Architecture::published() };
        (architecture.num_attention_heads, architecture.intermediate_size) = (2, 16);
        change(&mut architecture);
        let mut parameters = Parameters::new(DeviceContext::cpu());
        Trunk::new(parameters.root(), &architecture, precision, None).unwrap().cpu_encoder(0, false).is_some()
    };
    assert!(supported(Precision::Fp32, |_| {}));
    assert!(!supported(Precision::Bf16, |_| {}));
    assert!(!supported(Precision::Fp32, |a| a.rms_norm = false));
    assert!(!supported(Precision::Fp32, |a| a.ffn_bias = true));
    assert!(!supported(Precision::Fp32, |a| a.att_bias = true));
    assert!(!supported(Precision::Fp32, |a| a.dropout_prob = 0.1));
    assert!(!supported(Precision::Fp32, |a| a.layer_norm_after_embedding = true));
    assert!(!supported(Precision::Fp32, |a| a.hidden_act = crate::architecture::HiddenAct::Gelu));
}
