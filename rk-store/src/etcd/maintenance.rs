//! The Maintenance service.

use tonic::Status;

use super::{
    VERSION, convert,
    proto::etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeRequest,
        DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
        MoveLeaderResponse, StatusRequest, StatusResponse, alarm_request::AlarmAction,
        downgrade_request::DowngradeAction,
    },
    service::Shared,
    status::{self, cluster_status, status},
};
use crate::{Alarm, AlarmKind};

pub(crate) fn alarm_member(alarm: &Alarm) -> AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => AlarmType::Nospace,
        AlarmKind::Corrupt => AlarmType::Corrupt,
    };
    AlarmMember { member_id: alarm.member, alarm: kind.into() }
}

impl Shared {
    pub(crate) async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        let active = self.store.alarms().await.map_err(status)?;
        let kind = match request.alarm() {
            AlarmType::None => None,
            AlarmType::Nospace => Some(AlarmKind::NoSpace),
            AlarmType::Corrupt => Some(AlarmKind::Corrupt),
        };
        let asked = kind.map(|kind| Alarm { member: request.member_id, kind });
        let told: Vec<Alarm> = match (request.action(), asked) {
            (AlarmAction::Get, _) => {
                active.into_iter().filter(|alarm| kind.is_none_or(|kind| alarm.kind == kind)).collect()
            }
            (AlarmAction::Activate, Some(alarm)) => {
                self.store.activate_alarm(alarm).await.map_err(status)?;
                vec![alarm]
            }
            (AlarmAction::Deactivate, Some(alarm)) if active.contains(&alarm) => {
                self.store.deactivate_alarm(alarm).await.map_err(status)?;
                vec![alarm]
            }
            _ => Vec::new(),
        };
        let alarms = told.iter().map(alarm_member).collect();
        Ok(AlarmResponse { header: Some(self.header_now().await?), alarms })
    }

    pub(crate) async fn status(&self, _request: StatusRequest) -> Result<StatusResponse, Status> {
        let member = self.cluster.member_status().await.map_err(cluster_status)?;
        let alarms = member.alarms.iter().map(|alarm| {
            // As Go prints such a message.
            format!("memberID:{} alarm:{} ", alarm.member, alarm_member(alarm).alarm().as_str_name())
        });
        Ok(StatusResponse {
            header: Some(self.header_now().await?),
            version: VERSION.into(),
            db_size: convert::signed(member.size),
            leader: member.leader.unwrap_or(0),
            raft_index: member.index,
            raft_term: member.term,
            raft_applied_index: member.applied,
            errors: member.errors.into_iter().chain(alarms).collect(),
            db_size_in_use: convert::signed(member.size_in_use),
            is_learner: member.is_learner,
            storage_version: VERSION.into(),
            db_size_quota: convert::signed(self.options.quota_bytes),
            downgrade_info: None,
        })
    }

    pub(crate) async fn defragment(&self, _request: DefragmentRequest) -> Result<DefragmentResponse, Status> {
        self.store.defragment().await.map_err(status)?;
        Ok(DefragmentResponse { header: Some(self.header_now().await?) })
    }

    pub(crate) async fn hash(&self, _request: HashRequest) -> Result<HashResponse, Status> {
        let hash = self.store.hash_kv(0).await.map_err(status)?;
        Ok(HashResponse { header: Some(self.header(hash.revision)), hash: hash.hash })
    }

    pub(crate) async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let hash = self.store.hash_kv(convert::unsigned(request.revision)).await.map_err(status)?;
        Ok(HashKvResponse {
            header: Some(self.header_now().await?),
            hash: hash.hash,
            compact_revision: convert::signed(hash.compact_revision),
        })
    }

    pub(crate) async fn move_leader(&self, request: MoveLeaderRequest) -> Result<MoveLeaderResponse, Status> {
        if *self.cluster.leader().borrow() != Some(self.cluster.member_id()) {
            return Err(status::NOT_LEADER.into());
        }
        self.cluster.move_leader(request.target_id).await.map_err(cluster_status)?;
        Ok(MoveLeaderResponse { header: Some(self.header_now().await?) })
    }

    /// There is no older version whose files these would be, so no downgrade begins and none is under way.
    pub(crate) async fn downgrade(&self, request: DowngradeRequest) -> Result<DowngradeResponse, Status> {
        if request.action() == DowngradeAction::Cancel {
            return Err(status::NO_DOWNGRADE.into());
        }
        let numbers = request.version.split('.').map(str::parse::<u64>);
        let well_formed = (2..=3).contains(&numbers.clone().count()) && numbers.clone().all(|number| number.is_ok());
        let known = if well_formed { status::DOWNGRADE_TARGET } else { status::DOWNGRADE_FORMAT };
        Err(known.into())
    }
}
