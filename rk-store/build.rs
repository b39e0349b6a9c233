//! Generates the messages and the client of the etcd v3 API from `proto/`, with no protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    #[cfg(feature = "etcd")]
    {
        let files = ["rpc.proto", "cluster.proto", "auth.proto", "lock.proto", "election.proto"];
        let descriptors = protox::compile(files, ["proto"])?;
        tonic_prost_build::configure().build_server(false).bytes(".").compile_fds(descriptors)?;
    }
    Ok(())
}
