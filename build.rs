//! Compiles the C++ of `src/torch/` against the libtorch that torch-sys found, and tells the linker to leave the
//! path of that libtorch in the binaries, so that they start from anywhere. Without the feature `libtorch`, and
//! for the docs alone, there is nothing to do.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(all(feature = "libtorch", not(feature = "doc-only")))]
    shim::build();
}

#[cfg(all(feature = "libtorch", not(feature = "doc-only")))]
mod shim {
    use std::env;
    use std::path::PathBuf;

    pub(super) fn build() {
        for file in ["shim.cpp", "call.cpp", "autocast.cpp", "watch.cpp", "message.h"] {
            println!("cargo::rerun-if-changed=src/torch/{file}");
        }
        println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
        println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
        let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
            println!(
                "cargo::error=torch-sys found no libtorch: run scripts/setup, or set LIBTORCH"
            );
            return;
        };
        let include = match env::var_os("LIBTORCH_INCLUDE") {
            Some(root) => PathBuf::from(root).join("include"),
            None => lib.with_file_name("include"),
        };
        let cxx11_abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .define("_GLIBCXX_USE_CXX11_ABI", &*cxx11_abi)
            // libtorch's headers are not ours to lint.
            .flag("-isystem")
            .flag(include)
            .files(
                ["shim", "call", "autocast", "watch"].map(|name| format!("src/torch/{name}.cpp")),
            )
            .compile("tch_parity_libtorch");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
        if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
            // Symbols are looked up when they are first called, so that the program is there to say that it was
            // built with another libtorch, where the dynamic linker would say that it misses a symbol.
            println!("cargo::rustc-link-arg-bins=-Wl,-z,lazy");
        }
    }
}
