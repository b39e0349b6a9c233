//! The Auth service of a server whose authentication is off and can't be turned on: it has no users and no roles.

use tonic::Status;

use super::{
    proto::etcdserverpb::{
        AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
        AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
        AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
        AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest, AuthStatusResponse,
        AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest, AuthUserChangePasswordResponse,
        AuthUserDeleteRequest, AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse,
        AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
        AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
    },
    service::Shared,
    status,
};

/// Adding is what would have to work for everything else to.
fn unsupported<T>() -> Result<T, Status> {
    Err(Status::unimplemented("etcdserver: this server has no users and roles"))
}

impl Shared {
    pub(crate) async fn auth_enable(&self, _request: AuthEnableRequest) -> Result<AuthEnableResponse, Status> {
        Err(status::NO_ROOT_USER.into())
    }

    pub(crate) async fn auth_disable(&self, _request: AuthDisableRequest) -> Result<AuthDisableResponse, Status> {
        Ok(AuthDisableResponse { header: Some(self.header_now().await?) })
    }

    pub(crate) async fn auth_status(&self, _request: AuthStatusRequest) -> Result<AuthStatusResponse, Status> {
        let header = Some(self.header_now().await?);
        Ok(AuthStatusResponse { header, enabled: false, auth_revision: 1 })
    }

    pub(crate) async fn authenticate(&self, _request: AuthenticateRequest) -> Result<AuthenticateResponse, Status> {
        Err(status::AUTH_NOT_ENABLED.into())
    }

    pub(crate) async fn user_add(&self, request: AuthUserAddRequest) -> Result<AuthUserAddResponse, Status> {
        if request.name.is_empty() {
            return Err(status::USER_EMPTY.into());
        }
        unsupported()
    }

    pub(crate) async fn user_get(&self, _request: AuthUserGetRequest) -> Result<AuthUserGetResponse, Status> {
        Err(status::USER_NOT_FOUND.into())
    }

    pub(crate) async fn user_list(&self, _request: AuthUserListRequest) -> Result<AuthUserListResponse, Status> {
        Ok(AuthUserListResponse { header: Some(self.header_now().await?), users: Vec::new() })
    }

    pub(crate) async fn user_delete(&self, _request: AuthUserDeleteRequest) -> Result<AuthUserDeleteResponse, Status> {
        Err(status::USER_NOT_FOUND.into())
    }

    pub(crate) async fn user_change_password(
        &self,
        _request: AuthUserChangePasswordRequest,
    ) -> Result<AuthUserChangePasswordResponse, Status> {
        Err(status::USER_NOT_FOUND.into())
    }

    pub(crate) async fn user_grant_role(
        &self,
        _request: AuthUserGrantRoleRequest,
    ) -> Result<AuthUserGrantRoleResponse, Status> {
        Err(status::USER_NOT_FOUND.into())
    }

    pub(crate) async fn user_revoke_role(
        &self,
        _request: AuthUserRevokeRoleRequest,
    ) -> Result<AuthUserRevokeRoleResponse, Status> {
        Err(status::USER_NOT_FOUND.into())
    }

    pub(crate) async fn role_add(&self, request: AuthRoleAddRequest) -> Result<AuthRoleAddResponse, Status> {
        if request.name.is_empty() {
            return Err(status::ROLE_EMPTY.into());
        }
        unsupported()
    }

    pub(crate) async fn role_get(&self, _request: AuthRoleGetRequest) -> Result<AuthRoleGetResponse, Status> {
        Err(status::ROLE_NOT_FOUND.into())
    }

    pub(crate) async fn role_list(&self, _request: AuthRoleListRequest) -> Result<AuthRoleListResponse, Status> {
        Ok(AuthRoleListResponse { header: Some(self.header_now().await?), roles: Vec::new() })
    }

    pub(crate) async fn role_delete(&self, _request: AuthRoleDeleteRequest) -> Result<AuthRoleDeleteResponse, Status> {
        Err(status::ROLE_NOT_FOUND.into())
    }

    pub(crate) async fn role_grant_permission(
        &self,
        _request: AuthRoleGrantPermissionRequest,
    ) -> Result<AuthRoleGrantPermissionResponse, Status> {
        Err(status::ROLE_NOT_FOUND.into())
    }

    pub(crate) async fn role_revoke_permission(
        &self,
        _request: AuthRoleRevokePermissionRequest,
    ) -> Result<AuthRoleRevokePermissionResponse, Status> {
        Err(status::ROLE_NOT_FOUND.into())
    }
}
