//! Compiles the C++ files, and sets where the plugin looks for libtorch: beside itself, so that a copy with its libraries
//! runs on another machine, and where it was built.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    // Set by torch-sys, whose `links` key is `tch`. Absent where the documentation is built without libtorch.
    let Ok(folder) = env::var("DEP_TCH_LIBTORCH_LIB") else { return Ok(()) };
    let sources = ["src/native.cpp", "src/trunk/native.cpp", "src/fused/functions.cpp"];
    let host = "src/fused/host.cpp";
    let included = ["src/native.h", "src/fused/launcher.h", "src/fused/kernel_list.h", "src/fused/kernels.cu"];
    for file in sources.iter().chain(&[host]).chain(&included) {
        println!("cargo:rerun-if-changed={file}");
    }
    // All in one unit: libtorch's headers take longer to compile than the rest.
    let (here, unit) = (env::var("CARGO_MANIFEST_DIR")?, Path::new(&env::var("OUT_DIR")?).join("all.cpp"));
    fs::write(&unit, sources.map(|file| format!("#include \"{here}/{file}\"\n")).concat())?;
    let include = Path::new(&folder).with_file_name("include");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        // For libtorch's headers.
        .warnings(false)
        .extra_warnings(false)
        .include(&include)
        .debug(false)
        .file(unit)
        .compile("amplify_native");
    // Only tests call it, so the plugin's library does not have it.
    cc::Build::new().cpp(true).std("c++17").opt_level(1).file(host).compile("amplify_host_kernels");
    let own_folder = match env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => "$ORIGIN",
        Ok("macos") => "@loader_path",
        _ => return Ok(()),
    };
    for path in [own_folder, &*folder] {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{path}");
    }
    Ok(())
}
