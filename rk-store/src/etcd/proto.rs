//! The messages of the etcd v3 API and its client, generated from `proto/`.

/// Events and pairs.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// The main services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// The Lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// The Election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
