//! Tells the linker where libtorch lies, so that the plugin and its tests find it without an environment variable, and
//! compiles what tch has no call for.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys, whose `links` key is `tch`; absent where its documentation is built without libtorch.
    let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") else { return };
    println!("cargo:rerun-if-changed=src/native.cpp");
    let include = Path::new(&folder).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // libtorch's headers are not ours to mend.
        .warnings(false)
        .extra_warnings(false)
        .include(&include)
        .file("src/native.cpp")
        .compile("amplify_native");
    if matches!(env::var("CARGO_CFG_TARGET_OS").as_deref(), Ok("linux" | "macos")) {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
