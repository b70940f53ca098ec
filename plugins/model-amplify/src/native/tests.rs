//! What can be tested without a GPU.

use super::*;
use crate::device::gpu_count;
use tch::{Device, Kind};

#[test]
fn allow_tf32_works_with_and_without_a_gpu() {
    // Opens the CUDA library: libtorch caches its first answer about CUDA.
    gpu_count();
    allow_tf32().unwrap();
}

#[test]
fn an_error_of_libtorch_keeps_its_first_line() {
    let [a, b] = [[2], [3]].map(|size| Tensor::zeros(size, (Kind::Float, Device::Cpu)));
    let error = begin_copy(&a, &b).unwrap_err();
    assert!(matches!(error.causes(), [cause] if cause.contains("must match") && !cause.contains('\n')), "{error:?}");
}

#[test]
fn without_a_gpu_streams_and_caches_are_errors() {
    if gpu_count() == 0 {
        assert!(Stream::of_gpu(0).is_err());
        assert!(empty_cache().is_err() && free_bytes(0).is_err() && wait(0).is_err());
        assert!(host_memory(1, true).is_err());
    }
}

#[test]
fn the_norm_of_several_tensors_is_that_of_all_elements() {
    let tensors = [Tensor::from_slice(&[3.0_f32, 0.0]), Tensor::from_slice(&[4.0_f32, 12.0, 0.0])];
    let tensors: Vec<&Tensor> = tensors.iter().collect();
    let norm = squared_norm(&tensors).unwrap();
    assert!(norm.kind() == Kind::Double && (norm.double_value(&[]) - 169.0).abs() < 1e-9, "{norm:?}");
    scale(&tensors, &norm.sqrt().reciprocal()).unwrap();
    assert!((squared_norm(&tensors).unwrap().double_value(&[]) - 1.0).abs() < 1e-6);
}

#[test]
fn deterministic_algorithms_come_with_the_workspace_of_cublas() {
    set_deterministic(true).unwrap();
    // SAFETY: it takes nothing.
    assert!(unsafe { amplify_is_deterministic() });
    // libtorch sets the C library's environment, which Rust reads too.
    assert!(std::env::var("CUBLAS_WORKSPACE_CONFIG").is_ok_and(|value| value.starts_with(':')));
    set_deterministic(false).unwrap();
    // SAFETY: it takes nothing.
    assert!(!unsafe { amplify_is_deterministic() });
}
