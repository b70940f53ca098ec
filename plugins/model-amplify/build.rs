//! Tells the linker where libtorch lies, so that the plugin and its tests find it without an environment variable.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys, whose `links` key is `tch`; absent where its documentation is built without libtorch.
    let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    if matches!(env::var("CARGO_CFG_TARGET_OS").as_deref(), Ok("linux" | "macos")) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
