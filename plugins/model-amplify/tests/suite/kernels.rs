//! Fused kernels: their source and NVIDIA's compiler, and their use on the device of the tests.

use crate::common::{self, Recorder, config, on_gpu, predicted, setup, table, train};
use model_amplify::Amplify;
use model_amplify::fused::{SOURCE, compile, kernel_names};
use plugin_api::{Context, Seed};
use serde_json::json;

/// It needs no GPU, and no driver.
#[test]
#[ignore = "needs NVRTC: FEDPLUG_NVRTC=/path/to/libnvrtc.so.13"]
fn the_kernels_compile_for_a100_and_h100() {
    for architecture in ["sm_80", "sm_90"] {
        let image = compile(SOURCE, architecture).unwrap();
        for name in kernel_names() {
            let name = name.to_bytes_with_nul();
            assert!(image.windows(name.len()).any(|part| part == name), "{architecture} lacks {name:?}");
        }
    }
    let error = compile("__global__ void f() { g(); }", "sm_90").unwrap_err();
    let expected = "NVRTC for sm_90: NVRTC_ERROR_COMPILATION: kernels.cu(1): error: identifier \"g\" is undefined";
    assert!(error.starts_with(expected), "{error}");
    let error = compile(SOURCE, "sm_1").unwrap_err();
    assert!(error.contains("sm_1"), "{error}");
}

/// A GPU computes with them. The CPU has none, and computes what it does without the key.
#[test]
fn no_device_warns_of_missing_kernels() {
    let host = Recorder { stop_after: u64::MAX, ..Recorder::default() };
    let ctx = Context::new(&host).with_seed(Seed::new(42)).with_client("site-1").with_device(common::device());
    let trained = |fused: bool| {
        let mut model = Amplify::new(config(json!({ "fused-kernels": fused })), &setup(), &ctx).unwrap();
        train(&mut model, 0..1);
        predicted(&mut model, "tm", &table(9, 3), &ctx)
    };
    let (plain, fused) = (trained(false), trained(true));
    assert!(plain.iter().zip(&fused).all(|(a, b)| (a - b).abs() < 1e-3), "{fused:?}, not {plain:?}");
    assert!(on_gpu() || plain == fused);
    assert_eq!(*host.warnings.lock().unwrap(), [""; 0]);
}
