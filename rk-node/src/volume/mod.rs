//! The volumes of a pod, in its folder: `PODS/UID/volumes/NAME`.

pub(crate) mod atomic;
pub(crate) mod payload;
pub(crate) mod token;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, ProjectedVolumeSource, Volume,
};
use rk_api::{Api, Client};

use crate::pod::{env::Sources, fields::Place};
use atomic::{FileContent, Payload};
use token::Tokens;

/// What volumes are made from.
pub(crate) struct Setup<'a> {
    pub(crate) client: &'a Arc<dyn Client>,
    pub(crate) pod: &'a Pod,
    pub(crate) place: &'a Place,
    pub(crate) sources: &'a Sources,
    pub(crate) tokens: &'a mut Tokens,
    /// Folder of the pod's volumes.
    pub(crate) folder: PathBuf,
}

/// Where each volume is on the host.
pub(crate) type Places = BTreeMap<String, PathBuf>;

impl Setup<'_> {
    /// Makes all volumes, or brings their content up to date.
    ///
    /// # Errors
    /// The kubelet's message of the event `FailedMount`.
    pub(crate) async fn run(&mut self) -> Result<Places, String> {
        let mut places = Places::new();
        let volumes = self.pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        for volume in volumes.into_iter().flatten() {
            let place = self
                .one(volume)
                .await
                .map_err(|error| format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name))?;
            places.insert(volume.name.clone(), place);
        }
        Ok(places)
    }

    async fn one(&mut self, volume: &Volume) -> Result<PathBuf, String> {
        let folder = self.folder.join(&volume.name);
        let payload = if volume.empty_dir.is_some() {
            empty_dir(&folder, self.fs_group()).map_err(|error| format!("{}: {error}", folder.display()))?;
            return Ok(folder);
        } else if let Some(of) = &volume.host_path {
            return host_path(of);
        } else if let Some(of) = &volume.persistent_volume_claim {
            return self.claim(&of.claim_name).await;
        } else if let Some(of) = &volume.config_map {
            self.config_map(&of.name, of.items.as_ref(), mode(of.default_mode), of.optional == Some(true))?
        } else if let Some(of) = &volume.secret {
            let name = of.secret_name.as_deref().unwrap_or_default();
            self.secret(name, of.items.as_ref(), mode(of.default_mode), of.optional == Some(true))?
        } else if let Some(of) = &volume.downward_api {
            payload::downward(self.pod, self.place, of.items.as_ref(), mode(of.default_mode))?
        } else if let Some(of) = &volume.projected {
            self.projected(of).await?
        } else {
            return Err("this kind of volume has no driver on this node".to_owned());
        };
        let owner = (None, self.fs_group());
        atomic::write(&folder, &payload, owner).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }

    fn fs_group(&self) -> Option<u32> {
        let context = self.pod.spec.as_ref()?.security_context.as_ref()?;
        context.fs_group.and_then(|group| u32::try_from(group).ok())
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&Vec<k8s_openapi::api::core::v1::KeyToPath>>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, String> {
        match self.sources.config_maps.get(name) {
            Some(map) => payload::select("config", &payload::config_map_keys(map), items, mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("configmap \"{name}\" not found")),
        }
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&Vec<k8s_openapi::api::core::v1::KeyToPath>>,
        mode: u32,
        optional: bool,
    ) -> Result<Payload, String> {
        match self.sources.secrets.get(name) {
            Some(secret) => payload::select("secret", &payload::secret_keys(secret), items, mode, optional),
            None if optional => Ok(Payload::new()),
            None => Err(format!("secret \"{name}\" not found")),
        }
    }

    async fn projected(&mut self, of: &ProjectedVolumeSource) -> Result<Payload, String> {
        let mode = mode(of.default_mode);
        let mut all = Payload::new();
        for source in of.sources.iter().flatten() {
            if let Some(of) = &source.config_map {
                all.extend(self.config_map(&of.name, of.items.as_ref(), mode, of.optional == Some(true))?);
            } else if let Some(of) = &source.secret {
                all.extend(self.secret(&of.name, of.items.as_ref(), mode, of.optional == Some(true))?);
            } else if let Some(of) = &source.downward_api {
                all.extend(payload::downward(self.pod, self.place, of.items.as_ref(), mode)?);
            } else if let Some(of) = &source.service_account_token {
                payload::checked(&of.path)?;
                let token = self.tokens.get(self.client, self.pod, of).await?;
                all.insert(of.path.clone(), FileContent { bytes: token.into_bytes(), mode });
            } else {
                return Err("a projected source has no driver on this node".to_owned());
            }
        }
        Ok(all)
    }

    /// The host's folder of a bound claim.
    async fn claim(&self, name: &str) -> Result<PathBuf, String> {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let claims = Api::<PersistentVolumeClaim>::namespaced(Arc::clone(self.client), namespace);
        let claim = claims.get(name).await.map_err(|error| error.to_string())?;
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|_| bound);
        let volume = volume.ok_or_else(|| format!("persistentvolumeclaim \"{name}\" is not bound"))?;
        let volumes = Api::<PersistentVolume>::all(Arc::clone(self.client));
        let volume = volumes.get(volume).await.map_err(|error| error.to_string())?;
        let spec = volume.spec.as_ref();
        if let Some(of) = spec.and_then(|spec| spec.host_path.as_ref()) {
            return host_path(of);
        }
        match spec.and_then(|spec| spec.local.as_ref()) {
            Some(of) => Ok(PathBuf::from(&of.path)),
            None => Err("this kind of persistent volume has no driver on this node".to_owned()),
        }
    }
}

fn mode(mode: Option<i32>) -> u32 {
    mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

fn empty_dir(folder: &Path, group: Option<u32>) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    if group.is_some() {
        std::os::unix::fs::chown(folder, None, group)?;
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))
}

/// The path, after the check or creation that its type asks for.
fn host_path(of: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&of.path);
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let kind = of.type_.as_deref().unwrap_or_default();
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(&path).map_err(failed)?,
        "FileOrCreate" if !path.exists() => fs::File::create(&path).map(drop).map_err(failed)?,
        _ => {}
    }
    let meta = fs::metadata(&path);
    let is = |check: fn(&fs::FileType) -> bool| meta.as_ref().is_ok_and(|meta| check(&meta.file_type()));
    let (fits, wanted) = match kind {
        "" => (meta.is_ok(), "path"),
        "Directory" | "DirectoryOrCreate" => (is(fs::FileType::is_dir), "directory"),
        "File" | "FileOrCreate" => (is(fs::FileType::is_file), "file"),
        "Socket" => (is(FileTypeExt::is_socket), "socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "block device"),
        other => return Err(format!("hostPath type check failed: unknown type {other:?}")),
    };
    if fits { Ok(path) } else { Err(format!("hostPath type check failed: {} is not a {wanted}", of.path)) }
}
