//! Generates the CRI's client from `proto/cri.proto`, with no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/cri.proto");
    #[cfg(feature = "cri")]
    {
        let descriptors = protox::compile(["proto/cri.proto"], ["proto"])?;
        tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    }
    Ok(())
}
