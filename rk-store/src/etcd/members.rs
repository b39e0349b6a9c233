//! The Cluster service.

use tonic::Status;

use super::{
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    },
    service::Shared,
    status::{self, cluster_status},
};

fn member(member: crate::Member) -> Member {
    Member {
        id: member.id,
        name: member.name,
        peer_urls: member.peer_urls,
        client_urls: member.client_urls,
        is_learner: member.is_learner,
    }
}

fn members(members: Vec<crate::Member>) -> Vec<Member> {
    members.into_iter().map(member).collect()
}

/// etcd's rule for URLs (`client/pkg/types/urls.go`): at least one, each `http` or `https` with host and port and no path.
fn valid(urls: Vec<String>) -> Result<Vec<String>, Status> {
    let good = |url: &String| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.and_then(|rest| rest.rsplit_once(':')).is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    };
    if urls.is_empty() || !urls.iter().all(good) {
        return Err(status::MEMBER_BAD_URLS.into());
    }
    Ok(urls)
}

impl Shared {
    pub(crate) async fn member_add(&self, request: MemberAddRequest) -> Result<MemberAddResponse, Status> {
        let added = self.cluster.member_add(valid(request.peer_urls)?, request.is_learner).await;
        let (new, all) = added.map_err(cluster_status)?;
        Ok(MemberAddResponse { header: Some(self.header(0)), member: Some(member(new)), members: members(all) })
    }

    pub(crate) async fn member_remove(&self, request: MemberRemoveRequest) -> Result<MemberRemoveResponse, Status> {
        let left = self.cluster.member_remove(request.id).await.map_err(cluster_status)?;
        Ok(MemberRemoveResponse { header: Some(self.header(0)), members: members(left) })
    }

    pub(crate) async fn member_update(&self, request: MemberUpdateRequest) -> Result<MemberUpdateResponse, Status> {
        let known = self.cluster.members(false).await.map_err(cluster_status)?;
        if !known.iter().any(|member| member.id == request.id) {
            return Err(status::MEMBER_NOT_FOUND.into());
        }
        let updated = self.cluster.member_update(request.id, valid(request.peer_urls)?).await;
        Ok(MemberUpdateResponse { header: Some(self.header(0)), members: members(updated.map_err(cluster_status)?) })
    }

    pub(crate) async fn member_list(&self, request: MemberListRequest) -> Result<MemberListResponse, Status> {
        let all = self.cluster.members(request.linearizable).await.map_err(cluster_status)?;
        Ok(MemberListResponse { header: Some(self.header(0)), members: members(all) })
    }

    pub(crate) async fn member_promote(&self, request: MemberPromoteRequest) -> Result<MemberPromoteResponse, Status> {
        let all = self.cluster.member_promote(request.id).await.map_err(cluster_status)?;
        Ok(MemberPromoteResponse { header: Some(self.header(0)), members: members(all) })
    }
}
