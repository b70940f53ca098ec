//! The kernels on the CPU, against the plain path.

use tch::{Device, Kind, Tensor};

use super::check::{cases, compare};
use super::*;

fn ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, (Kind::Float, Device::Cpu))
}

#[test]
fn kernels_and_their_derivatives_agree_with_the_plain_path() {
    compare(Kernels::on_host(), Device::Cpu, 1.0).unwrap();
}

/// Rows of one column, and so many that the sums of the norm's derivative have no room in shared memory.
#[test]
fn rows_may_be_short_and_long() {
    for size in [1, 2, 8196] {
        for kind in [Kind::Float, Kind::BFloat16] {
            for case in cases(Kernels::on_host(), Device::Cpu, kind, size).unwrap() {
                case.check(1.0).unwrap();
            }
        }
    }
}

/// More rows than the norm's derivative has blocks, and more than one launch has.
#[test]
fn blocks_take_several_rows() {
    let (kernels, rows) = (Kernels::on_host(), (1 << 16) + 3);
    let x = Tensor::arange(rows * 2, (Kind::Float, Device::Cpu)).sin().reshape([rows, 2]).set_requires_grad(true);
    let w = ones(&[2]).set_requires_grad(true);
    let gradients = |y: Tensor| {
        let weights = Tensor::arange(y.numel() as i64, (Kind::Float, Device::Cpu)).cos().reshape(y.size());
        Tensor::run_backward(&[(&y * weights).sum(Kind::Float)], &[&x, &w], false, false)
    };
    let y = kernels.add_norm(&x, None, &w, 1e-5, Kind::Float).unwrap()[1].shallow_clone();
    let plain = x.rms_norm(2, Some(&w), 1e-5);
    assert!(y.allclose(&plain, 1e-6, 1e-6, false));
    for (a, b) in gradients(y).iter().zip(gradients(plain)) {
        // A sum of 65,539 rows.
        assert!(a.allclose(&b, 1e-5, 1e-3, false), "{a} {b}");
    }
    let plain = x.narrow(1, 0, 1).silu() * x.narrow(1, 1, 1);
    assert!(kernels.swiglu(&x).unwrap().allclose(&plain, 1e-6, 1e-6, false));
}

#[test]
fn batches_may_be_empty() {
    let kernels = Kernels::on_host();
    let w = ones(&[6]).set_requires_grad(true);
    let x = ones(&[0, 5, 18]).set_requires_grad(true);
    let angles = Tensor::polar(&ones(&[5, 1, 1]), &ones(&[5, 1, 1]));
    let swiglu = kernels.swiglu(&x).unwrap();
    assert_eq!(swiglu.size(), [0, 5, 9]);
    let [q, k, v] = kernels.rotate_packed(&x, 3, &angles).unwrap();
    assert_eq!([q.size(), k.size(), v.size()], [(); 3].map(|()| vec![0, 5, 3, 2]));
    let [sum, y] = kernels.add_norm(&x.narrow(2, 0, 6), Some(&x.narrow(2, 6, 6)), &w, 1e-5, Kind::BFloat16).unwrap();
    assert_eq!((sum.kind(), y.kind(), y.size()), (Kind::Float, Kind::BFloat16, vec![0, 5, 6]));
    let all = [swiglu, q, k, v, sum, y].map(|x| x.sum(Kind::Float)).iter().sum::<Tensor>();
    let gradients = Tensor::run_backward(&[all], &[&x, &w], false, false);
    assert_eq!((gradients[0].size(), gradients[1].size()), (vec![0, 5, 18], vec![6]));
    assert_eq!(gradients[1], ones(&[6]) * 0.0);
}

/// Every second row or column of a tensor, and one row for all.
#[test]
fn inputs_need_not_be_contiguous() {
    let kernels = Kernels::on_host();
    let base = Tensor::arange(2 * 4 * 16, (Kind::Float, Device::Cpu)).sin();
    let (w, angle) = (ones(&[8]), Tensor::arange(4, (Kind::Float, Device::Cpu)).reshape([4, 1, 1]));
    let angles = Tensor::polar(&angle.ones_like(), &angle).expand([4, 1, 2], false);
    for x in [
        base.reshape([2, 16, 4]).transpose(1, 2),
        base.reshape([2, 4, 16]).narrow(0, 0, 1).expand([2, 4, 16], false),
        base.reshape([2, 4, 16]).slice(1, 0, 4, 2).repeat([1, 2, 1]).narrow(2, 0, 16),
    ] {
        let of = |x: &Tensor| -> Vec<Tensor> {
            let x = x.detach().set_requires_grad(true);
            let (half, other) = (x.narrow(-1, 0, 8), x.narrow(-1, 8, 8));
            let heads = |x: &Tensor| x.reshape([2, 4, 2, 4]);
            let [sum, y] = kernels.add_norm(&half, Some(&other), &w, 1e-5, Kind::Float).unwrap();
            let [plain, z] = kernels.add_norm(&half, None, &w, 1e-5, Kind::Float).unwrap();
            let [q, k] = kernels.rotate(&heads(&half), &heads(&other), &angles).unwrap();
            let all = vec![kernels.swiglu(&x).unwrap(), sum, y, plain, z, q, k];
            // The derivatives of a mean are one number for all elements; those of a transposed tensor are transposed.
            let loss = all.iter().map(|y| y.transpose(0, 1).square().mean(Kind::Float) + y.mean(Kind::Float));
            let gradients = Tensor::run_backward(&[loss.sum::<Tensor>()], &[&x], false, false);
            all.into_iter().chain(gradients).collect()
        };
        for (a, b) in of(&x).iter().zip(of(&x.contiguous())) {
            assert_eq!(a, &b);
        }
    }
}

/// A weight that is not trained, as in LoRA, has none, and the rest has the same.
#[test]
fn a_frozen_weight_needs_no_derivative() {
    let kernels = Kernels::on_host();
    let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).sin().reshape([3, 8]).set_requires_grad(true);
    let of = |w: &Tensor| {
        let y = kernels.add_norm(&x, Some(&x), w, 1e-5, Kind::Float).unwrap()[1].square().sum(Kind::Float);
        Tensor::run_backward(&[y], &[&x], false, false).remove(0)
    };
    assert_eq!(of(&ones(&[8])), of(&ones(&[8]).set_requires_grad(true)));
}

#[test]
fn without_a_graph_the_results_are_the_same() {
    let kernels = Kernels::on_host();
    let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).sin().reshape([3, 8]).set_requires_grad(true);
    let of = || {
        let [sum, y] = kernels.add_norm(&x, None, &ones(&[8]), 1e-5, Kind::Float).unwrap();
        [kernels.swiglu(&x).unwrap(), sum, y]
    };
    let (with, without) = (of(), tch::no_grad(of));
    for (a, b) in with.iter().zip(&without) {
        assert!(a == b && a.requires_grad() && !b.requires_grad() || b.data_ptr() == x.data_ptr());
    }
}

#[test]
fn what_kernels_do_not_compute_is_an_error() {
    let kernels = Kernels::on_host();
    let x = ones(&[3, 8]).set_requires_grad(true);
    let error = kernels.swiglu(&x.to_kind(Kind::Double)).unwrap_err().to_string();
    assert!(error.contains("fused kernels compute in fp32 and bf16, not in Double"), "{error}");
    let q = ones(&[5, 3, 4]);
    let angles = |length| Tensor::polar(&ones(&[length, 1, 2]), &ones(&[length, 1, 2]));
    for error in [
        kernels.swiglu(&ones(&[3, 7])).unwrap_err(),
        kernels.rotate(&q, &q, &angles(4)).unwrap_err(),
        kernels.rotate(&q, &ones(&[5, 2, 4]), &angles(5)).unwrap_err(),
        kernels.add_norm(&x, None, &ones(&[7]), 1e-5, Kind::Float).unwrap_err(),
        kernels.add_norm(&x, Some(&ones(&[2, 8])), &ones(&[8]), 1e-5, Kind::Float).unwrap_err(),
        kernels.add_norm(&x.to_kind(Kind::BFloat16), Some(&x), &ones(&[8]), 1e-5, Kind::Float).unwrap_err(),
    ] {
        assert!(!error.to_string().contains("kernel `"), "{error}");
    }
    let y = kernels.swiglu(&x).unwrap().sum(Kind::Float);
    let error = Tensor::f_run_backward(&[y], &[&x], true, true).unwrap_err().to_string();
    assert!(error.contains("no second derivative"), "{error}");
}

/// An error of a GPU reaches the caller, forward and backward.
#[test]
fn a_kernel_that_fails_is_named() {
    unsafe extern "C" fn launch(
        _: *const Launcher,
        kernel: u32,
        _: u32,
        _: u32,
        _: u32,
        _: *mut c_void,
        _: *mut *mut c_void,
    ) -> *const c_char {
        // SAFETY: a number of a kernel.
        let name = unsafe { std::ffi::CStr::from_ptr(amplify_kernel_name(kernel as usize)) };
        if name == c"swiglu_f32_wide" { std::ptr::null() } else { c"out of memory".as_ptr() }
    }
    static FAILING: Launcher = Launcher { launch, most_threads: 256, gpu: -1 };
    let x = ones(&[3, 8]).set_requires_grad(true);
    let y = Kernels(&FAILING).swiglu(&x).unwrap().sum(Kind::Float);
    let error = Tensor::f_run_backward(&[y], &[&x], false, false).unwrap_err().to_string();
    assert!(error.contains("the fused kernel `swiglu_backward_f32_wide` failed: out of memory"), "{error}");
    let error = Kernels(&FAILING).swiglu(&x.narrow(1, 0, 2)).unwrap_err().to_string();
    assert!(error.contains("the fused kernel `swiglu_f32` failed"), "{error}");
}

#[test]
fn every_kernel_has_a_name_of_its_own_in_the_source() {
    let names = kernel_names();
    assert_eq!(names.len(), 36);
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
}
