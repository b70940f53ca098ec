//! What is kept is used, and nothing is computed that is kept.

use plugin_api::context::Silent;
use plugin_api::{ModelSetup, Seed, TaskSpec};
use tch::Tensor;

use super::*;
use crate::parameters::is_of_trunk;

fn network(frozen: bool, memory: &str, context: DeviceContext, seed: u64) -> Network {
    let trunk = json!({ "hidden-size": 16, "layers": 1, "heads": 2, "intermediate-size": 16 });
    let config = json!({ "pretrained": trunk, "frozen-trunk": frozen, "embedding-memory": memory });
    let config: Config = serde_json::from_value(config).unwrap();
    let architecture = match &config.pretrained {
        crate::config::Pretrained::Random(trunk) => trunk.architecture(),
        crate::config::Pretrained::Named(_) => unreachable!("a random trunk"),
    };
    let setup = ModelSetup::new(vec![TaskSpec::new("t", ["text"], "y")], 1, 1);
    let mut network = Network::new(&architecture, &config, &setup, context).unwrap();
    network.parameters.initialise("", Seed::new(seed)).unwrap();
    network.share_frozen_trunk().unwrap();
    network
}

fn batch() -> Batch {
    let rows: Vec<Vec<u32>> = vec![vec![3, 6, 7, 8, 4], vec![3, 9, 10, 4], vec![3, 6, 7, 8, 4], vec![3, 11, 4]];
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    Batch::new(&rows, 0, 64, tch::Device::Cpu).unwrap()
}

fn pooled(network: &Network) -> Vec<f32> {
    let (mut batch, mut resources) = (batch(), Resources::new(2).unwrap());
    network.pool_frozen(&mut batch, "batch-size", &mut resources, &Context::new(&Silent)).unwrap();
    bridge::to_vec(&network.pooled(&batch, Pooling::Tokens, &mut resources).unwrap()).unwrap()
}

/// Both where a trunk computes in host memory and where it computes on a device.
#[test]
fn kept_vectors_take_the_place_of_the_trunk() {
    for (seed, context) in [(100, DeviceContext::cpu()), (101, DeviceContext::simulated_gpu())] {
        let together = pooled(&network(false, "1 GiB", context, seed));
        let none_kept = pooled(&network(true, "0 B", context, seed));
        let off = together.iter().zip(&none_kept).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{off}");
        let network = network(true, "1 GiB", context, seed);
        // The first of two: the others are computed.
        let trunk = &network.frozen.as_ref().unwrap().trunk.as_ref().unwrap().1;
        trunk.keep(&[3, 9, 10, 4], &[7.0; 16], u64::MAX);
        let wanted: Vec<f32> = none_kept
            .chunks(16)
            .enumerate()
            .flat_map(|(row, x)| if row == 1 { vec![7.0; 16] } else { x.to_vec() })
            .collect();
        assert_eq!(pooled(&network), wanted);
        let mut out = vec![0.0; 64];
        assert!(trunk.read(batch().sequences(), &mut out).is_empty());
        assert_eq!(out, wanted);
    }
}

/// The addresses of the trunk's tensors.
fn memory(network: &Network) -> Vec<*mut std::ffi::c_void> {
    let tensors = network.parameters.iter().filter(|parameter| is_of_trunk(&parameter.name));
    tensors.map(|parameter| Tensor::data_ptr(&parameter.tensor)).collect()
}

#[test]
fn a_changed_trunk_has_vectors_of_its_own() {
    for (seed, context) in [(102, DeviceContext::cpu()), (104, DeviceContext::simulated_gpu())] {
        let mut changed = network(true, "1 GiB", context, seed);
        let before = pooled(&changed);
        let other = network(true, "1 GiB", context, seed + 1);
        let mut message = network(false, "1 GiB", DeviceContext::cpu(), seed + 1).parameters.snapshot().unwrap();
        changed.parameters.receive(&message).unwrap();
        changed.share_frozen_trunk().unwrap();
        assert_ne!(before, pooled(&changed));
        assert_eq!(pooled(&changed), pooled(&other));
        // Both hold the same memory. A message of heads alone changes nothing.
        message.retain(|name, _| !is_of_trunk(name));
        changed.parameters.receive(&message).unwrap();
        let trunk = |network: &Network| network.frozen.as_ref().unwrap().trunk.as_ref().unwrap().1.clone();
        assert!(Arc::ptr_eq(&trunk(&changed), &trunk(&other)));
        assert_eq!(memory(&changed), memory(&other));
        if !context.on_host {
            continue;
        }
        // It keeps no other memory for them.
        for (index, parameter) in changed.parameters.iter().enumerate().filter(|(_, p)| is_of_trunk(&p.name)) {
            let spare = changed.parameters.relocation_bytes(std::iter::once(index)).sum::<usize>();
            assert!(spare > 0, "{} has memory to relocate to", parameter.name);
        }
    }
}

#[test]
fn a_message_for_one_model_does_not_reach_those_that_share_its_trunk() {
    for (seed, context) in [(106, DeviceContext::cpu()), (107, DeviceContext::simulated_gpu())] {
        let (mut one, mut other) = (network(true, "1 GiB", context, seed), network(true, "1 GiB", context, seed));
        assert_eq!(memory(&one), memory(&other));
        let before = other.parameters.snapshot().unwrap();
        let message = network(false, "1 GiB", DeviceContext::cpu(), seed + 50).parameters.snapshot().unwrap();
        one.parameters.receive(&message).unwrap();
        let values = |params: &plugin_api::Params| {
            params.iter().map(|(_, tensor)| tensor.elements::<f32>().unwrap().to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(values(&other.parameters.snapshot().unwrap()), values(&before));
        assert_eq!(values(&one.parameters.snapshot().unwrap()), values(&message));
        assert_ne!(memory(&one), memory(&other));
    }
}
